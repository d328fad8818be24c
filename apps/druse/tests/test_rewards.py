"""Rewards: known crystals above strained ones, targets above what misses them, nothing for what cannot be judged."""

import numpy as np
import pytest
from druse.rewards import HULL, HullReward, rewards_of
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
    return HullReward(potential=load_potential(), reference=load_reference("embedded", potential="sevennet-0"))


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


def test_the_gradient_is_that_of_the_reward(reward):
    """Against finite differences, of an atom out of place in a strained cell."""
    crystal = SALT.replace(lattice=1.03 * SALT.lattice, frac_coords=np.array([[0, 0, 0], [0.52, 0.49, 0.5]]))
    (pull, nothing) = reward.gradient([crystal, SALT.replace(atomic_numbers=np.array([2, 10]))])
    assert nothing is None
    step, signs = 0.01, (1, -1)  # Å, and of the strain
    for axis in range(3):
        move = np.zeros((2, 3))
        move[1, axis] = step
        move = move @ np.linalg.inv(crystal.lattice)
        above, below = reward([crystal.replace(frac_coords=crystal.frac_coords + sign * move) for sign in signs])
        assert float(pull.on_atoms[1, axis]) == pytest.approx((above - below) / (2 * step), abs=0.01)
    for i, j in ((0, 0), (0, 1)):
        strain = np.zeros((3, 3))
        strain[i, j] += step / 2
        strain[j, i] += step / 2
        strained = [crystal.replace(lattice=crystal.lattice @ (np.eye(3) + sign * strain)) for sign in signs]
        above, below = reward(strained)
        assert float(pull.on_strain[i, j]) == pytest.approx((above - below) / (2 * step), abs=0.05)


def test_a_target_is_a_reward(reward):
    """Rock salt has a gap and a soft lattice, iron none and a stiff one."""
    body_centred = np.array([[0, 0, 0], [0.5, 0.5, 0.5]])
    iron = Crystal(lattice=2.87 * np.eye(3), frac_coords=body_centred, atomic_numbers=np.full(2, 26))
    gas = SALT.replace(lattice=20 * SALT.lattice)
    parts = {"potential": reward.potential, "reference": reward.reference}
    for text, better, worse in (("dft_band_gap>=2", SALT, iron), ("ml_bulk_modulus=60..400", iron, SALT)):
        known = rewards_of(text, **parts)
        assert known.keys() == {HULL, text}
        good, bad, nothing = known[text]([better, worse, gas])
        assert good == 0
        assert bad < -0.05
        assert np.isnan(nothing)
    assert rewards_of(None, **parts).keys() == rewards_of("file.py:dense", **parts).keys() == {HULL}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("density>=2.163", [0.0, -0.5 * 2.163 / 10]),  # 2.163 g/cm³ at 2.82 Å, from the literature
        ("density=2..3", [0.0, -(2 - 2.163 / 2) / 10]),
        ("num_elements=3", [-0.2, -0.2]),
        ("num_elements<=2", [0.0, 0.0]),
    ],
)
def test_what_follows_from_the_crystal_is_an_exact_reward(reward, text, expected):
    """Of rock salt, and of the same in twice the volume."""
    large = SALT.replace(lattice=2 ** (1 / 3) * SALT.lattice)
    gas = SALT.replace(lattice=20 * SALT.lattice)
    known = rewards_of(text, potential=reward.potential, reference=reward.reference)
    *found, nothing = known[text]([SALT, large, gas])
    assert found == pytest.approx(expected, abs=2e-3)
    assert np.isnan(nothing)


def test_the_index_of_a_composition_is_a_reward(reward):
    """Gaultois et al., Chem. Mater. 25, 2911 (2013): the index of production of Na is 1,102, that of Nb 8,500."""
    body_centred = np.ones((3, 3)) - 2 * np.eye(3)
    metals = [
        Crystal(lattice=a / 2 * body_centred, frac_coords=np.zeros((1, 3)), atomic_numbers=np.array([z]))
        for a, z in ((4.2, 11), (3.3, 41))
    ]
    known = rewards_of("hhi_score<=1500", potential=reward.potential, reference=reward.reference)
    assert known["hhi_score<=1500"](metals) == pytest.approx([0.0, -(8500 - 1500) / 5000])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("space_group=225", "is nothing to steer by: steer by energy_above_hull"),
        ("beauty>=3", "by a target of ml_bulk_modulus, .*, hhi_score, density, num_elements, or by a function"),
        ("density>=heavy", "is a number in g/cm³"),
        ("density>=1000", "no crystal has that, values lie between 0.05 and 25 g/cm³"),
        ("ml_bulk_modulus=-5", "between 1 and 1000 GPa"),
        ("num_elements<=0", "between 1 and 118: ask"),
        ("dft_band_gap=wide", "is a number in eV"),
    ],
)
def test_what_is_no_reward_is_one_sentence(reward, text, words):
    with pytest.raises(ValueError, match=words):
        rewards_of(text, potential=reward.potential, reference=reward.reference)
