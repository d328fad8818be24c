"""Structure types: against pymatgen's own anonymous matching, and the index against doing without it."""

import math

import numpy as np
import pytest
from druse_crystal.convert import to_pymatgen
from druse_crystal.crystal import Crystal
from druse_crystal.dataset import load_embedded
from druse_evaluation.matching import OrderedMatcher, as_is
from druse_evaluation.prototypes import KnownPrototypes, anonymous_key
from druse_evaluation.testing import salt, simple_cubic_salt
from pymatgen.analysis.structure_matcher import StructureMatcher


@pytest.fixture(scope="module")
def embedded():
    return load_embedded()


@pytest.fixture(scope="module")
def few(embedded):
    """Known crystals of two anonymous formulas with many structure types."""
    by_counts = {}
    for i, crystal in enumerate(embedded.crystals):
        counts = tuple(sorted(np.unique(crystal.atomic_numbers, return_counts=True)[1]))
        by_counts.setdefault(counts, []).append(i)
    rng = np.random.default_rng(4)
    chosen = [i for counts in ((2, 2), (1, 1, 2)) for i in rng.choice(by_counts[counts], 12, replace=False)]
    return [embedded.crystals[int(i)] for i in chosen]


def strained(crystal: Crystal, rng: np.random.Generator) -> Crystal:
    """Sheared, stretched and rattled, up to where the tolerances begin to refuse."""
    strain = np.eye(3) + rng.normal(scale=0.07, size=(3, 3))
    moved = crystal.frac_coords + rng.normal(scale=0.04, size=crystal.frac_coords.shape)
    return crystal.replace(lattice=crystal.lattice @ strain, frac_coords=moved % 1.0)


def test_salts_of_other_elements_are_the_same_structure_type():
    known = KnownPrototypes([salt(5.64), simple_cubic_salt(4.1)], ["rock salt", "caesium chloride"])
    assert known.matches(salt(6.6, cation=19, anion=35)) == ["rock salt"]
    exchanged = simple_cubic_salt(4.1).replace(atomic_numbers=np.array([35, 19]))
    assert known.first_match(exchanged) == "caesium chloride"
    assert len(known) == 2


def test_another_anonymous_formula_is_another_structure_type():
    fluorite = Crystal(
        lattice=5.46 * np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]),
        frac_coords=np.array([[0, 0, 0], [0.25, 0.25, 0.25], [0.75, 0.75, 0.75]]),
        atomic_numbers=np.array([20, 9, 9]),
    )
    assert KnownPrototypes([salt(5.64)]).first_match(fluorite) is None
    antifluorite = fluorite.replace(atomic_numbers=np.array([8, 3, 3]))
    assert KnownPrototypes([fluorite], ["fluorite"]).first_match(antifluorite) == "fluorite"


def test_anonymous_key():
    assert anonymous_key(((8, 3), (20, 1), (22, 1))) == anonymous_key(((19, 1), (41, 1), (53, 3))) == (1, 1, 3)


def test_ids_have_to_fit():
    with pytest.raises(ValueError, match="1 ids for 2 known crystals"):
        KnownPrototypes([salt(5.6), salt(5.7)], ["a"])


@pytest.mark.parametrize("scale", [True, False])
def test_index_changes_no_verdict(few, scale):
    matcher = OrderedMatcher(scale=scale)
    rng = np.random.default_rng(7)
    indexed = KnownPrototypes(few, matcher=matcher)
    plain = KnownPrototypes(few, matcher=matcher, prune=False)
    queries = [strained(few[int(i)], rng) for i in rng.choice(len(few), 8, replace=False)]
    found = [set(indexed.matches(query)) for query in queries]
    assert found == [set(plain.matches(query)) for query in queries]
    assert [indexed.first_match(query) is None for query in queries] == [not ids for ids in found]
    assert any(found)


def test_verdicts_are_those_of_pymatgen(few):
    pymatgen = StructureMatcher(ltol=0.2, stol=0.3, angle_tol=5.0)
    rng = np.random.default_rng(8)
    known = KnownPrototypes(few)
    structures = [to_pymatgen(crystal) for crystal in few]
    for i in rng.choice(len(few), 4, replace=False):
        query = strained(few[int(i)], rng)
        structure = to_pymatgen(query)
        expected = [
            j
            for j, other in enumerate(structures)
            if other.composition.anonymized_formula == structure.composition.anonymized_formula
            and pymatgen.fit_anonymous(structure, other)
        ]
        assert set(known.matches(query)) == set(expected)


def test_datasets_need_no_reduction(embedded):
    rng = np.random.default_rng(9)
    matcher = OrderedMatcher()
    for i in rng.choice(len(embedded.crystals), 40, replace=False):
        crystal = embedded.crystals[int(i)]
        reduced, same = matcher.prepare(crystal), as_is(crystal)
        assert len(reduced.structure) == len(same.structure)
        assert math.isclose(reduced.structure.volume, same.structure.volume, rel_tol=1e-6)
        assert matcher.fit(reduced, same)
