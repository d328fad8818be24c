import json
import os

import numpy as np
import pytest
from druse_crystal.files import replacing, writable_folder, write_text
from druse_crystal.manifest import Manifest, file_hash, versions


def test_a_file_is_complete_or_absent(tmp_path):
    path = tmp_path / "new" / "a.txt"
    write_text(path, "one\n")
    with pytest.raises(UnicodeEncodeError), replacing(path) as temporary:
        temporary.write_text("half \ud800", encoding="utf-8")
    assert path.read_text() == "one\n"
    write_text(path, "zwei å\n")
    assert path.read_text(encoding="utf-8") == "zwei å\n"
    assert os.listdir(path.parent) == ["a.txt"]


def test_unwritable_places_are_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot write .*choose"):
        write_text(tmp_path / "file" / "a.txt", "")
    with pytest.raises(ValueError, match=r"cannot write to the folder .*file.*choose another"):
        writable_folder(tmp_path / "file" / "deep")
    with pytest.raises(ValueError, match="choose another name"):
        write_text(tmp_path, "")
    assert writable_folder(tmp_path / "a" / "b").is_dir()


def test_hash_of_files_and_folders(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert file_hash(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    before = file_hash(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    assert file_hash(tmp_path) != before


def test_manifest(tmp_path):
    manifest = Manifest(command=["druse", "evaluate"], seed=4, settings={"fmax": np.float64(0.05), "path": tmp_path})
    (tmp_path / "in.cif").write_text("data_")
    manifest.add_input(tmp_path / "in.cif")
    with pytest.raises(KeyError), manifest.stage("relaxation"):
        raise KeyError
    manifest.write(tmp_path / "manifest.json")
    stored = json.loads((tmp_path / "manifest.json").read_text())
    assert stored["command"] == ["druse", "evaluate"]
    assert stored["seed"] == 4
    assert stored["settings"] == {"fmax": 0.05, "path": str(tmp_path)}
    assert list(stored["inputs"].values()) == [file_hash(tmp_path / "in.cif")]
    assert stored["timings"]["relaxation"] >= 0
    assert stored["started"] <= stored["finished"]


def test_versions_name_what_decides_results():
    found = versions()
    assert {"python", "druse-crystal", "torch", "pymatgen", "spglib"} <= found.keys()
    assert "druse-workspace" not in found
