import numpy as np
import pytest
from druse_benchmarks.dataset_search import DatasetSearch
from druse_benchmarks.obtained import OBTAINABLE, exact, met, obtain
from druse_benchmarks.properties import CASES
from druse_crystal.console import Display
from druse_crystal.dataset import CrystalDataset
from druse_evaluation.assessment import assess
from druse_evaluation.testing import lost, relaxed, salt, simple_cubic_salt, small_reference

QUIET = Display(quiet=True)


@pytest.mark.parametrize(
    ("target", "values", "hits"),
    [
        ("ml_bulk_modulus=250", [225, 275, 224.9, 275.1, None], [True, True, False, False, False]),
        ("dft_mag_density>=0.1", [0.1, 0.0999, 0.4], [True, False, True]),  # no tolerance of a bound
        ("hhi_score<=1500", [1500.0, 1501.0], [True, False]),
        ("dft_band_gap=1..2", [0.9, 1.0, 2.0, 2.1], [False, True, True, False]),
        ("space_group=225", [225.0, 221.0, None], [True, False, False]),
        ("chemical_system=Ti-Ba-O", ["Ba-O-Ti", "Ba-O", "Ba-O-Sr-Ti", None], [True, False, False, False]),
    ],
)
def test_hits(target, values, hits):
    assert met(target, values).tolist() == hits


def test_every_property_is_asked_for_alone_twice():
    alone = [targets[0].split("=")[0] for targets in CASES.values() if len(targets) == 1]
    assert alone == [name for name in OBTAINABLE for _ in range(2)]
    for targets in CASES.values():
        for target in targets:
            met(target, [])  # can be read


def test_what_follows_from_crystals():
    crystals = [salt(5.6), None, simple_cubic_salt(3.5)]
    assert exact("space_group", crystals) == [225, None, 221]
    assert exact("chemical_system", crystals) == ["Cl-Na", None, "Cl-Na"]


def test_predictions_are_of_relaxed_crystals_and_kept(tmp_path):
    relaxations = [relaxed(salt(5.64), -2.0), lost("exploded", "grew"), relaxed(simple_cubic_salt(3.5), -1.95)]
    assessment = assess(
        [salt(5.5), salt(9.0), simple_cubic_salt(3.2)],
        reference=small_reference(),
        relaxations=relaxations,
        judge="answers",
    )
    given = []

    def edges(crystals):
        given.extend(crystals)
        return np.array([c.lattice[0, 0] or np.nan for c in crystals])  # that of the primitive cell is zero

    names = ("energy_above_hull", "ml_bulk_modulus", "chemical_system")
    for _ in range(2):
        found = obtain(names, assessment, predict={"ml_bulk_modulus": edges}, work=tmp_path, display=QUIET)
        assert found["energy_above_hull"] == [pytest.approx(0), None, pytest.approx(0.05)]
        assert found["ml_bulk_modulus"] == [None, None, 3.5]
        assert found["chemical_system"] == ["Cl-Na", None, "Cl-Na"]
    assert len(given) == 2


def test_a_dataset_is_searched_by_labels_and_by_what_follows():
    dataset = CrystalDataset(
        ids=list("abcd"),
        crystals=[salt(5.6), salt(6.6, cation=19, anion=35), simple_cubic_salt(3.5), salt(5.7)],
        labels={"dft_bulk_modulus": [24.0, np.nan, 60.0, 200.0], "energy_above_hull": [0.0, 0.0, 0.04, 0.2]},
    )
    search = DatasetSearch(dataset)
    assert search(["ml_bulk_modulus=50"]) == {"hits": 1, "predictor_calls": 3}
    assert search(["space_group=225"]) == {"hits": 3, "predictor_calls": 4}
    assert search(["chemical_system=Na-Cl", "energy_above_hull=0"]) == {"hits": 2, "predictor_calls": 4}
    assert search(["ml_bulk_modulus<=100", "space_group=225"]) == {"hits": 1, "predictor_calls": 3}
    assert search(["dft_band_gap=1"]) is None
