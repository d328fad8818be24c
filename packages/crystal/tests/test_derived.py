"""Derived labels against textbook values."""

import numpy as np
import pytest
from druse_crystal import Crystal
from druse_crystal.derived import DERIVED, derived_labels

SALT = Crystal(
    lattice=5.640 / 2 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0.0]]),
    frac_coords=np.array([[0, 0, 0], [0.5, 0.5, 0.5]]),
    atomic_numbers=np.array([11, 17]),
)


def test_rock_salt():
    found = {name: derived_labels(name, [SALT])[0] for name in DERIVED}
    assert found["space_group"] == 225
    assert found["density"] == pytest.approx(2.165, abs=0.01)
    assert found["num_elements"] == 2
    # production of sodium 1100 and of chlorine 1500 (Gaultois et al. 2013, table), averaged by weight
    assert found["hhi_score"] == pytest.approx((22.99 * 1102 + 35.45 * 1558) / 58.44, rel=0.05)


def test_what_nobody_knows_is_unknown():
    assert np.isnan(derived_labels("hhi_score", [SALT.replace(atomic_numbers=np.array([2, 10]))])[0])
    with pytest.raises(ValueError, match="there is no derived label 'beauty', there are space_group"):
        derived_labels("beauty", [SALT])
