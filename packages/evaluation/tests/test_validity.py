import itertools
import time

import numpy as np
import pytest
from druse_crystal.crystal import Crystal
from druse_evaluation.validity import composition_valid, structure_valid
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Element
from smact import Element as SmactElement
from smact import metals
from smact.screening import pauling_test


def two_atoms(distance: float) -> Crystal:
    return Crystal(
        lattice=4 * np.eye(3),
        frac_coords=np.array([[0.0, 0.5, 0.5], [1 - distance / 4, 0.5, 0.5]]),
        atomic_numbers=np.array([13, 17]),
    )


def test_distance_through_the_boundary():
    assert not structure_valid(two_atoms(0.49))
    assert structure_valid(two_atoms(0.51))


def test_own_images_count():
    def column(height):
        return Crystal(lattice=np.diag([4.0, 4.0, height]), frac_coords=np.zeros((1, 3)), atomic_numbers=np.array([13]))

    assert not structure_valid(column(0.45))
    assert structure_valid(column(0.55))


def formula(**counts: int) -> Crystal:
    numbers = np.array([Element(symbol).Z for symbol, n in counts.items() for _ in range(n)])
    coords = np.random.default_rng(0).random((len(numbers), 3))
    return Crystal(lattice=20 * np.eye(3), frac_coords=coords, atomic_numbers=numbers)


@pytest.mark.parametrize(
    ("crystal", "valid"),
    [
        (formula(Na=1, Cl=1), True),
        (formula(Na=2, Cl=1), False),
        (formula(Sr=1, Ti=1, O=3), True),
        (formula(Fe=3, Al=1), True),  # all metal
        (formula(Ar=1), True),  # a single element
        (formula(Ar=1, F=2), False),  # argon has no oxidation state
        (formula(Pm=2, O=3), False),  # neither has promethium, in SMACT
        (formula(Og=1, F=2), False),  # SMACT has never heard of it
    ],
)
def test_known_compositions(crystal, valid):
    assert composition_valid(crystal) == valid


def test_a_missing_electronegativity_decides_nothing():
    """SMACT's test of Pauling's rule refuses it, and no element has oxidation states and no electronegativity."""
    assert not pauling_test([1, -1], [None, 2.0])
    elements = [SmactElement(Element.from_Z(z).symbol) for z in range(1, 104)]
    without_states = [e.symbol for e in elements if not e.oxidation_states]
    assert without_states == ["He", "Ne", "Ar", "Pm", "At", "Rn", "Fr", "Ra", "Es", "Fm", "Md", "No", "Lr"]
    assert all(e.pauling_eneg is not None for e in elements if e.oxidation_states)


def by_enumeration(crystal: Crystal) -> bool:
    """Every combination of oxidation states, with SMACT's own test of Pauling's rule."""
    numbers, counts = np.unique(crystal.atomic_numbers, return_counts=True)
    symbols = [Element.from_Z(int(z)).symbol for z in numbers]
    if len(symbols) == 1 or all(s in metals for s in symbols):
        return True
    elements = [SmactElement(s) for s in symbols]
    states = [e.oxidation_states or [] for e in elements]
    enegs = [e.pauling_eneg for e in elements]
    return any(
        np.dot(combination, counts) == 0 and pauling_test(combination, enegs)
        for combination in itertools.product(*states)
    )


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([e.symbol for e in Element if e.Z <= 94 and e.symbol not in ("D", "T")]),
        st.integers(1, 6),
        min_size=1,
        max_size=4,
    )
)
def test_composition_validity_equals_enumeration(counts):
    crystal = formula(**counts)
    assert composition_valid(crystal) == by_enumeration(crystal)


def test_ten_elements_of_many_states_are_quick():
    crystal = formula(Mn=19, Re=17, Os=13, Ru=11, V=7, S=5, N=3, Cl=2, I=2, C=1)
    start = time.perf_counter()
    composition_valid(crystal)
    assert time.perf_counter() - start < 5
