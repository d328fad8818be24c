"""Hypothesis strategies for crystals and batches, for the tests of whoever computes with them."""

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from druse_crystal.batch import CrystalBatch
from druse_crystal.crystal import Crystal

MAX_STEPS = 3  # of a lattice vector along another when a cell is skewed


@st.composite
def lattices(draw: Callable[..., Any], *, min_length: float = 2.0, max_length: float = 12.0) -> np.ndarray:
    """(3, 3) lattices in Å: compact, skewed by whole lattice vectors, or flat; turned at random, either handedness.

    Lengths are those of a compact cell before it is skewed; volumes are at least ``min_length**3 / 4``.
    """
    lengths = draw(st.lists(st.floats(min_length, max_length), min_size=3, max_size=3))
    seed = draw(st.integers(0, 2**32 - 1))
    generator = np.random.default_rng(seed)
    shape = np.diag(lengths) + np.triu(generator.uniform(-0.4, 0.4, (3, 3)) * min(lengths), 1)
    if draw(st.booleans()):
        shear = np.eye(3)
        row, column = draw(st.permutations([0, 1, 2]))[:2]
        shear[row, column] = draw(st.integers(-MAX_STEPS, MAX_STEPS))
        shape = shear @ shape
    turn, upper = np.linalg.qr(generator.normal(size=(3, 3)))
    return shape @ (turn * np.sign(np.diag(upper)))


@st.composite
def crystals(
    draw: Callable[..., Any], *, min_atoms: int = 1, max_atoms: int = 8, max_atomic_number: int = 94
) -> Crystal:
    """Valid crystals of any cell; atoms may overlap, sit on faces, or repeat each other."""
    num_atoms = draw(st.integers(min_atoms, max_atoms))
    coordinate = st.one_of(st.floats(0, 1, exclude_max=True), st.sampled_from([0.0, 0.25, 1 / 3, 0.5, 2 / 3, 0.75]))
    coords = draw(st.lists(st.tuples(coordinate, coordinate, coordinate), min_size=num_atoms, max_size=num_atoms))
    numbers = draw(st.lists(st.integers(1, max_atomic_number), min_size=num_atoms, max_size=num_atoms))
    return Crystal(
        lattice=draw(lattices()), frac_coords=np.array(coords, dtype=np.float64), atomic_numbers=np.array(numbers)
    )


@st.composite
def batches(draw: Callable[..., Any], *, max_crystals: int = 4, max_atoms: int = 6, dtype=None) -> CrystalBatch:
    """Batches of one or more such crystals, in double precision unless ``dtype`` says otherwise."""
    import torch

    some = draw(st.lists(crystals(max_atoms=max_atoms), min_size=1, max_size=max_crystals))
    return CrystalBatch.from_crystals(some, dtype=torch.float64 if dtype is None else dtype)


def random_crystal(
    generator: np.random.Generator, *, num_atoms: int, volume_per_atom: float = 15.0, max_atomic_number: int = 94
) -> Crystal:
    """One crystal at random: a mildly skewed cell of the given density in Å³ per atom, atoms anywhere in it."""
    lattice = np.eye(3) + generator.uniform(-0.3, 0.3, (3, 3))
    lattice *= (num_atoms * volume_per_atom / abs(np.linalg.det(lattice))) ** (1 / 3)
    return Crystal(
        lattice=lattice,
        frac_coords=generator.uniform(size=(num_atoms, 3)),
        atomic_numbers=generator.integers(1, max_atomic_number + 1, num_atoms),
    )
