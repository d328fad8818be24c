"""The hull as a reward: known crystals above strained ones, and nothing for what cannot be judged."""

import numpy as np
import pytest
from druse.rewards import hull_reward
from druse_crystal import Crystal
from druse_energetics.potential import load_potential
from druse_energetics.reference import load_reference

SALT = Crystal(
    lattice=2.82 * np.array([[0.0, 1, 1], [1, 0, 1], [1, 1, 0]]),
    frac_coords=np.array([[0, 0, 0], [0.5, 0.5, 0.5]]),
    atomic_numbers=np.array([11, 17]),
)


@pytest.fixture(scope="module")
def reward():
    return hull_reward(load_potential(), load_reference("embedded", potential="sevennet-0"))


def test_rock_salt_is_better_than_strained_rock_salt(reward):
    strained = SALT.replace(lattice=1.15 * SALT.lattice)
    good, bad = reward([SALT, strained])
    assert good == pytest.approx(0, abs=0.05)
    assert bad < good - 0.05


def test_what_cannot_be_judged_has_no_reward(reward):
    on_top = SALT.replace(frac_coords=np.array([[0, 0, 0], [0.01, 0, 0]]))
    gas = SALT.replace(lattice=20 * SALT.lattice)
    unknown = SALT.replace(atomic_numbers=np.array([2, 10]))
    found = reward([on_top, SALT, gas, unknown])
    assert np.isnan(found).tolist() == [True, False, True, True]
    assert reward([]).shape == (0,)
