"""Which weights and which reference, by their hashes."""

import hashlib
from importlib.resources import files

import pytest
from druse_crystal.dataset import load_embedded
from druse_crystal.io import write_extxyz
from druse_energetics import weights
from druse_energetics.potential import POTENTIAL_NAMES, load_potential
from druse_energetics.reference import load_reference
from druse_energetics.weights import WEIGHTS, weights_digests, weights_path


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_every_potential_has_weights():
    assert set(WEIGHTS) == set(POTENTIAL_NAMES)
    digests = weights_digests([*POTENTIAL_NAMES, "mine", None])
    assert list(digests) == list(POTENTIAL_NAMES)
    assert len(set(digests.values())) == len(POTENTIAL_NAMES)
    assert digests["chgnet"] == sha256(weights_path("chgnet"))


def test_they_are_those_that_the_potential_uses():
    assert getattr(load_potential("sevennet-0"), "digest") == weights_digests(["sevennet-0"])["sevennet-0"]  # noqa: B009


def test_missing_weights_are_named(monkeypatch):
    monkeypatch.setitem(weights.WEIGHTS, "sevennet-0", ("sevenn", "nowhere.pth"))
    with pytest.raises(ValueError, match=r"the installed sevenn .* has no weights of sevennet-0"):
        weights_path("sevennet-0")
    monkeypatch.setitem(weights.WEIGHTS, "sevennet-0", ("sevenn_of_nobody", "nowhere.pth"))
    with pytest.raises(ValueError, match="sevenn_of_nobody, which is not installed"):
        weights_path("sevennet-0")
    assert weights_digests(["sevennet-0", "chgnet"]).keys() == {"chgnet"}


@pytest.mark.parametrize("name", ["embedded", "embedded-sevennet-0"])
def test_embedded_references_name_the_data_that_they_are_read_from(name):
    reference = load_reference(name)
    of_crystals, of_energetics = (files(package) / "data" for package in ("druse_crystal", "druse_energetics"))
    expected = {"embedded.parquet", "corrections-sevennet-0.json", "known_formulas.parquet"}
    expected |= (
        {"hull.parquet", "calibration-sevennet-0-generated.json", "calibration-sevennet-0-wbm.json"}
        if name == "embedded"
        else {"energies-sevennet-0.parquet"}
    )
    assert set(reference.files) == expected
    for file, digest in reference.files.items():
        folder = of_crystals if file == "embedded.parquet" else of_energetics
        assert digest == hashlib.sha256((folder / file).read_bytes()).hexdigest()


def test_a_reference_of_a_file_names_it(tmp_path):
    crystal = load_embedded().crystals[0]
    path = tmp_path / "mine.extxyz"
    write_extxyz(path, [crystal], info=[{"formation_energy_per_atom": -1.0}])
    found = load_reference(path).files
    assert found["mine.extxyz"] == sha256(path)
    assert found.keys() == {"mine.extxyz", "corrections-sevennet-0.json"}
