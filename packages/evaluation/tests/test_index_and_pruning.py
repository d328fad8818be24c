"""With the index and its pruning, and without: the same verdicts, by a loop over pymatgen's matcher and every pair."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from druse_crystal.convert import to_pymatgen
from druse_crystal.crystal import Crystal
from druse_evaluation.matching import Matcher, OrderDisorderMatcher, OrderedMatcher, formula_key
from druse_evaluation.novelty import KnownStructures, first_occurrences
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.analysis.structure_matcher import OrderDisorderElementComparator, StructureMatcher
from pymatgen.core import Structure

TOLERANCES: dict[str, Any] = {"ltol": 0.2, "stol": 0.3, "angle_tol": 5.0}
FCC = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
BCC = np.array([[0, 0, 0], [0.5, 0.5, 0.5]])
DOUBLE = np.concatenate([FCC, FCC + np.array([0, 0, 1])]) / [1, 1, 2]
PARENTS: dict[str, tuple[np.ndarray, np.ndarray, str]] = {
    "L1_0": (np.diag([3.9, 3.9, 3.7]), FCC, "abba"),  # layers of a face-centred cell along z
    "L1_2": (3.8 * np.eye(3), FCC, "abbb"),
    "D0_22": (np.diag([3.8, 3.8, 7.6]), DOUBLE, "abbbbbba"),  # L1_2 with every other layer shifted
    "B2": (2.9 * np.eye(3), BCC, "ab"),
    "layers of two": (np.diag([3.8, 3.8, 7.6]), DOUBLE, "aaaabbbb"),
    "one element": (3.8 * np.eye(3), FCC, "aaaa"),
}
"""Cell (Å), places, and which of two elements is where: orderings of a few alloys, the same formulas several times."""
PAIRS = ((29, 79), (26, 27), (13, 28), (3, 9))
"""Elements: three pairs of similar ones, which may share their sites, and one of elements that may not."""


def alloys() -> st.SearchStrategy[Crystal]:
    """One of the orderings, of one of the pairs, strained and rattled a little, as another cell, turned and shifted."""
    return st.builds(
        _alloy,
        st.sampled_from(sorted(PARENTS)),
        st.sampled_from(PAIRS),
        st.booleans(),
        st.sampled_from([0.0, 0.005, 0.02]),
        st.integers(0, 10_000),
    )


def _alloy(name: str, elements: tuple[int, int], exchanged: bool, noise: float, seed: int) -> Crystal:
    lattice, places, letters = PARENTS[name]
    rng = np.random.default_rng(seed)
    a, b = elements[::-1] if exchanged else elements
    cell = [np.eye(3), np.array([[1, 1, 0], [0, 1, 0], [0, 1, 1]])][seed % 2]
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    strained = lattice @ (np.eye(3) + noise * rng.normal(size=(3, 3))) * rng.uniform(0.9, 1.2)
    moved = places + noise * rng.normal(size=places.shape) + rng.random(3)
    order = rng.permutation(len(places))
    return Crystal(
        lattice=cell @ strained @ rotation,
        frac_coords=((moved @ np.linalg.inv(cell)) % 1.0)[order],
        atomic_numbers=np.array([a if letter == "a" else b for letter in letters])[order],
    )


def ordered_fit(a: Structure, b: Structure) -> bool:
    """Pymatgen's matcher alone, on the structures as they are."""
    return bool(StructureMatcher(**TOLERANCES).fit(a, b))


def order_disorder_fit(a: Structure, b: Structure) -> bool:
    """The published rule for two ordered structures, on the structures as they are: no index, no reduction before."""
    if a.composition.reduced_formula != b.composition.reduced_formula:
        return False
    if ordered_fit(a, b):
        return True
    numbers = np.array(a.atomic_numbers)
    key = formula_key(Crystal(lattice=np.eye(3), frac_coords=np.zeros((len(numbers), 3)), atomic_numbers=numbers))
    mixtures: dict[Any, Any] = {**OrderDisorderMatcher().mixtures(key)}
    if not mixtures:
        return False
    disordered = a.copy()
    disordered.replace_species(mixtures, in_place=True)
    bare = StructureMatcher(
        **TOLERANCES, attempt_supercell=True, allow_subset=True, comparator=OrderDisorderElementComparator()
    )
    return bool(bare.fit(disordered, b))


def check(matcher: Matcher, bare: Callable[[Structure, Structure], bool], crystals: Sequence[Crystal]) -> set[bool]:
    """Hold every verdict about the first third of the crystals against that of a loop over all pairs; the verdicts."""
    asked, known = crystals[: len(crystals) // 3], crystals[len(crystals) // 3 :]
    index = KnownStructures(known, matcher=matcher)
    verdicts = set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        structures = [to_pymatgen(crystal) for crystal in known]
        for crystal in asked:
            expected = [i for i, other in enumerate(structures) if bare(to_pymatgen(crystal), other)]
            assert index.matches(crystal) == expected
            assert index.first_match(crystal) == (expected[0] if expected else None)
            assert first_occurrences([known[0], crystal], matcher=matcher)[1] == (
                0 if bare(structures[0], to_pymatgen(crystal)) else 1
            )
            verdicts.add(bool(expected))
    return verdicts


CASES = [
    pytest.param(OrderedMatcher(), ordered_fit, id="ordered"),
    pytest.param(OrderDisorderMatcher(), order_disorder_fit, id="order-disorder"),
]


@pytest.mark.parametrize(("matcher", "bare"), CASES)
def test_index_on_is_index_off(matcher, bare):
    seen: set[bool] = set()

    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(st.lists(alloys(), min_size=9, max_size=9))
    def verdicts_are_the_same(crystals):
        seen.update(check(matcher, bare, crystals))

    verdicts_are_the_same()
    assert seen == {True, False}  # else the crystals would test nothing


def test_the_orderings_tell_the_matchers_apart():
    """Two orderings of Cu2Au2 are one to the order-disorder matcher only, also to the loop; those of LiF are two."""
    verdicts = [(OrderedMatcher(), ordered_fit, False), (OrderDisorderMatcher(), order_disorder_fit, True)]
    for elements, similar in (((29, 79), True), ((3, 9), False)):
        a, b = (_alloy(name, elements, False, 0.0, 1) for name in ("L1_0", "layers of two"))
        for matcher, bare, mixes in verdicts:
            assert bare(to_pymatgen(a), to_pymatgen(b)) == (mixes and similar)
            assert KnownStructures([b], matcher=matcher).matches(a) == ([0] if mixes and similar else [])
