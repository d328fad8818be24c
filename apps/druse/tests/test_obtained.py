"""What relaxed crystals have of what was asked for: read exactly or predicted, and a hit or not."""

import numpy as np
import pytest
from druse.obtained import exact, met, obtain
from druse_crystal.console import Display
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
