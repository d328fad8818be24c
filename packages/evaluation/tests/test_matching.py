import time

import numpy as np
import pytest
from druse_crystal.convert import from_pymatgen, to_pymatgen
from druse_crystal.crystal import Crystal
from druse_evaluation.matching import (
    Displacement,
    OrderDisorderMatcher,
    OrderedMatcher,
    displacement,
    formula_key,
)
from druse_evaluation.novelty import KnownStructures, first_occurrences
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Composition, Lattice, Structure

ROCK_SALT = Crystal(
    lattice=4.0 * np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]),
    frac_coords=np.array([[0, 0, 0], [0.5, 0.5, 0.5]]),
    atomic_numbers=np.array([3, 9]),
)
CAESIUM_CHLORIDE = Crystal(
    lattice=2.6 * np.eye(3), frac_coords=np.array([[0, 0, 0], [0.5, 0.5, 0.5]]), atomic_numbers=np.array([3, 9])
)


def crystals(max_atoms: int = 4):
    """Random low-symmetry crystals of few elements, so that formulas collide."""
    return st.builds(
        lambda seed, n: _random(np.random.default_rng(seed), n), st.integers(0, 10_000), st.integers(1, max_atoms)
    )


def _random(rng, n):
    lattice = Lattice.from_parameters(*rng.uniform(3.5, 6, 3), *rng.uniform(70, 110, 3)).matrix
    return Crystal(lattice=lattice, frac_coords=rng.random((n, 3)), atomic_numbers=rng.choice([11, 17], n))


def same_crystal(crystal: Crystal, rng: np.random.Generator) -> Crystal:
    """Another description: rotated, shifted, permuted, other cell, other volume."""
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    cell = np.array([[1, 1, 0], [0, 1, 0], [0, 1, 1]])
    order = rng.permutation(crystal.num_atoms)
    return Crystal(
        lattice=1.1 * cell @ crystal.lattice @ rotation,
        frac_coords=((crystal.frac_coords + rng.random(3)) @ np.linalg.inv(cell))[order],
        atomic_numbers=crystal.atomic_numbers[order],
    )


def test_polymorphs_of_one_formula_differ():
    matcher = OrderedMatcher()
    assert not matcher.fit(matcher.prepare(ROCK_SALT), matcher.prepare(CAESIUM_CHLORIDE))


def layered(direction, numbers) -> Crystal:
    """A face-centred lattice, 2 x 2 x 2, whose layers along a direction take turns with two elements."""
    sites = 0.5 * np.array(
        [[x, y, z] for x in range(4) for y in range(4) for z in range(4) if (x + y + z) % 2 == 0], dtype=float
    )
    layer = np.rint(2 * sites @ np.array(direction)).astype(int) // (1 if sum(direction) == 1 else 2)
    return Crystal(lattice=8.0 * np.eye(3), frac_coords=sites / 2, atomic_numbers=np.array(numbers)[layer % 2])


@pytest.mark.parametrize(("numbers", "same"), [((29, 79), True), ((3, 9), False)])  # copper, gold; lithium, fluorine
def test_two_orderings_of_one_alloy_are_one(numbers, same):
    """L1_0 (layers along z) and L1_1 (along the diagonal): alike once similar elements share their sites."""
    a, b = layered((0, 0, 1), numbers), layered((1, 1, 1), numbers)
    ordered, matcher = OrderedMatcher(), OrderDisorderMatcher()
    assert not ordered.fit(ordered.prepare(a), ordered.prepare(b))
    assert matcher.fit(matcher.prepare(a), matcher.prepare(b)) == same
    assert matcher.fit(matcher.prepare(a), matcher.prepare(a))


def test_only_similar_elements_mix():
    """Groups are chains of similar pairs; noble gases, whose radius is not known, mix with nothing."""
    mixtures = OrderDisorderMatcher().mixtures
    assert mixtures(((26, 1), (27, 3))) == {s: {"Fe": 0.25, "Co": 0.75} for s in ("Fe", "Co")}
    assert mixtures(((3, 1), (9, 1))) == {}
    assert mixtures(((10, 1), (26, 1))) == {}
    assert set(mixtures(((8, 4), (26, 1), (27, 1)))) == {"Fe", "Co"}


@settings(max_examples=30, deadline=None)
@given(crystals(), st.integers(0, 1000))
def test_another_description_is_the_same(crystal, seed):
    matcher = OrderedMatcher()
    other = same_crystal(crystal, np.random.default_rng(seed))
    assert matcher.fit(matcher.prepare(crystal), matcher.prepare(other))


@settings(max_examples=30, deadline=None)
@given(crystals(), crystals())
def test_verdicts_are_those_of_pymatgen(a, b):
    """Preparing crystals once, and comparing only equal formulas, changes no verdict."""
    matcher = OrderedMatcher()
    expected = StructureMatcher(ltol=0.2, stol=0.3, angle_tol=5).fit(to_pymatgen(a), to_pymatgen(b))
    assert matcher.fit(matcher.prepare(a), matcher.prepare(b)) == expected


@given(st.lists(st.tuples(st.integers(1, 90), st.integers(1, 6)), min_size=2, max_size=4, unique_by=lambda x: x[0]))
def test_formula_key_is_the_reduced_formula(counts):
    numbers = np.array([z for z, n in counts for _ in range(n)])
    twice = np.concatenate([numbers, numbers])

    def make(numbers):
        return Crystal(lattice=20 * np.eye(3), frac_coords=np.random.rand(len(numbers), 3), atomic_numbers=numbers)  # noqa: NPY002

    assert formula_key(make(numbers)) == formula_key(make(twice))
    reduced, _ = Composition({_symbol(z): n for z, n in counts}).get_reduced_composition_and_factor()
    assert dict(formula_key(make(numbers))) == {element.Z: int(n) for element, n in reduced.items()}


def _symbol(z):
    from pymatgen.core import Element

    return Element.from_Z(z).symbol


def test_first_of_a_class_is_unique_whatever_comes_later():
    rng = np.random.default_rng(0)
    given = [ROCK_SALT, None, CAESIUM_CHLORIDE, same_crystal(ROCK_SALT, rng), same_crystal(CAESIUM_CHLORIDE, rng)]
    assert first_occurrences(given, matcher=OrderedMatcher()) == [0, None, 2, 0, 2]


def test_known_structures():
    rng = np.random.default_rng(0)
    known = KnownStructures([ROCK_SALT], ["salt"], matcher=OrderedMatcher())
    assert known.matches(same_crystal(ROCK_SALT, rng)) == ["salt"]
    assert known.first_match(CAESIUM_CHLORIDE) is None
    assert known.has_formula(CAESIUM_CHLORIDE)
    chloride = ROCK_SALT.replace(atomic_numbers=np.array([3, 17]))
    assert known.matches(chloride) == []
    assert not known.has_formula(chloride)
    doubled = from_pymatgen(to_pymatgen(ROCK_SALT) * (2, 1, 1))
    assert known.has_chemical_system(doubled)
    assert known.first_match(doubled) == "salt"
    with pytest.raises(ValueError, match="2 ids for 1 known"):
        KnownStructures([ROCK_SALT], ["a", "b"], matcher=OrderedMatcher())


@pytest.mark.parametrize("size", [(1, 1, 1), (2, 1, 1), (2, 2, 2)])
def test_rmsd_in_angstrom_does_not_depend_on_the_cell(size):
    """One of two atoms moved by 0.2 Å: after the best superposition each is 0.1 Å away."""
    cell = Lattice.cubic(5.0)
    start = Structure(cell, ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.4]])
    end = Structure(cell, ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.44]])
    found = displacement(from_pymatgen(end * size), from_pymatgen(start * size))
    assert found.matched
    assert found.rmsd == pytest.approx(0.1, abs=1e-6)


def test_rmsd_with_nothing_in_common_is_the_upper_bound():
    argon = ROCK_SALT.replace(atomic_numbers=np.array([18, 18]))
    found = displacement(argon, ROCK_SALT)
    assert not found.matched
    assert found.rmsd == pytest.approx(0.5 * (16 / 2) ** (1 / 3))


def pathological():
    rng = np.random.default_rng(0)
    shapes = {
        "needle": np.diag([300.0, 0.5, 0.5]),
        "flat": np.diag([40.0, 40.0, 0.05]),
        "skewed": np.array([[3.0, 0, 0], [300, 3, 0], [1000, 500, 3]]),
        "tiny": np.diag([0.5, 0.5, 0.5]),
    }
    for name, lattice in shapes.items():
        a, b = (
            Crystal(lattice=lattice, frac_coords=rng.random((4, 3)), atomic_numbers=np.array([11, 17, 11, 17]))
            for _ in range(2)
        )
        yield pytest.param(a, b, id=name)
    same = Crystal(lattice=4 * np.eye(3), frac_coords=np.full((8, 3), 0.1), atomic_numbers=np.full(8, 11))
    yield pytest.param(same, same, id="all in one place")


@pytest.mark.parametrize(("a", "b"), list(pathological()))
def test_a_crystal_matches_itself_whatever_its_cell(a, b):
    for matcher in (OrderedMatcher(), OrderDisorderMatcher()):
        assert matcher.fit(matcher.prepare(a), matcher.prepare(a.replace()))
        assert first_occurrences([a, a.replace()], matcher=matcher) == [0, 0]
        assert KnownStructures([b, a], ["b", "a"], matcher=matcher).matches(a)[-1] == "a"
    ordered = OrderedMatcher()
    assert ordered.rms_distance(ordered.prepare(a), ordered.prepare(a.replace())) == 0
    assert displacement(a, a.replace()) == Displacement(rmsd=0.0, matched=True)


def test_needles_with_other_atoms_are_still_too_much_work():
    """What the search would take minutes for is different, unless it is equal to the last bit."""
    a, b = next(iter(pathological())).values
    matcher = OrderedMatcher()
    nearly = a.replace(frac_coords=(a.frac_coords + 1e-6) % 1.0)
    assert not matcher.fit(matcher.prepare(a), matcher.prepare(nearly))
    assert not matcher.fit(matcher.prepare(a), matcher.prepare(b))
    assert not matcher.fit(matcher.prepare(a), matcher.prepare(a.replace(atomic_numbers=a.atomic_numbers[::-1])))


@pytest.mark.parametrize(("a", "b"), list(pathological()))
def test_pathological_cells_take_seconds_at_most(a, b):
    matcher = OrderedMatcher()
    start = time.perf_counter()
    assert matcher.fit(matcher.prepare(a), matcher.prepare(b)) in (True, False)
    assert np.isfinite(displacement(a, b).rmsd)
    assert time.perf_counter() - start < 30
