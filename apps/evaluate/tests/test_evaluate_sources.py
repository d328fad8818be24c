"""Every structure has a name of its own."""

import warnings
import zipfile
from pathlib import Path

import pytest
from druse_crystal.cif import cif_text
from druse_crystal.console import Display
from druse_crystal.io import write_cif
from druse_evaluate.judging import read_inputs
from druse_evaluation.assessment import assess
from druse_evaluation.testing import AnsweringRelaxer, relaxed, salt, small_reference


def sources(*paths):
    results = read_inputs(paths, display=Display(quiet=True))
    found = [result.source for result in results]
    assert len(set(found)) == len(found)
    assert all(str(result.error).startswith(f"{result.source}: ") for result in results if result.error)
    return found


@pytest.fixture
def folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("da", "db"):
        write_cif(tmp_path / name / "x.cif", salt(5.6))
    write_cif(tmp_path / "db" / "y.cif", salt(5.7))
    return [Path(name) for name in ("da", "db")]


def test_equal_names_of_several_folders_get_the_folder_in_front(folders):
    da, db = folders
    assert sources(da, db) == ["da/x.cif", "db/x.cif", "y.cif"]
    assert sources(da / "x.cif", db) == ["da/x.cif", "db/x.cif", "y.cif"]
    assert sources(da / "x.cif", db / "y.cif") == ["x.cif", "y.cif"]
    (da / "x.cif").write_text("")
    assert sources(da, db) == ["da/x.cif", "db/x.cif", "y.cif"]


def test_a_path_given_twice_is_numbered(folders):
    da, _ = folders
    assert sources(da, da) == ["x.cif", "x.cif#2"]
    assert sources(da, da / "x.cif") == ["da/x.cif", "da/x.cif#2"]


def test_a_duplicate_names_one_row(folders):
    """Both files hold the same crystal, so that the second one names the first."""
    results = read_inputs(folders, display=Display(quiet=True))
    answers = AnsweringRelaxer([relaxed(salt(a), -2.0) for a in (5.6, 5.6, 5.7)])
    table = assess(results, reference=small_reference(), relaxer=answers)
    assert table.strings("duplicate_of") == [None, "da/x.cif", "da/x.cif"]


def test_doubled_members_are_numbered(tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, a in (("x.cif", 5.6), ("x.cif", 5.7), ("x.cif", 5.8), ("x.cif#2.cif", 5.9)):
            archive.writestr(name, cif_text(salt(a)))
    assert sources(tmp_path / "set.zip") == [
        "set.zip/x.cif",
        "set.zip/x.cif#2",
        "set.zip/x.cif#3",
        "set.zip/x.cif#2.cif",
    ]


def write_table(path, rows):
    text = cif_text(salt(5.6)).replace('"', "'")
    path.write_text("material_id,cif\n" + "".join(f'{name},"{cif or text}"\n' for name, cif in rows))
    return path


def test_rows_of_a_table_are_named_by_their_ids(tmp_path):
    path = write_table(tmp_path / "t.csv", [("mp-1", ""), ("mp-2", "broken"), ("3", "")])
    assert sources(path) == ["t.csv#mp-1", "t.csv#mp-2", "t.csv#3"]


@pytest.mark.parametrize("second", ["mp-1", ""])
def test_ids_that_name_no_single_row_are_left_aside(tmp_path, second):
    path = write_table(tmp_path / "t.csv", [("mp-1", ""), (second, ""), ("mp-3", "")])
    assert sources(path) == ["t.csv#1", "t.csv#2", "t.csv#3"]
