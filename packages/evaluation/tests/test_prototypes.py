"""Structure types: against pymatgen's own anonymous matching, and the index against doing without it."""

import math
import time
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from druse_crystal.convert import to_pymatgen
from druse_crystal.crystal import Crystal
from druse_crystal.dataset import load_embedded
from druse_evaluation import renaming
from druse_evaluation.matching import OrderedMatcher, as_is
from druse_evaluation.novelty_levels import NoveltyLevels
from druse_evaluation.prototypes import KnownPrototypes, anonymous_key
from druse_evaluation.renaming import Undecided, rename, renamed_match, renamings
from druse_evaluation.testing import salt, simple_cubic_salt, small_reference
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


def test_how_close_a_crystal_is_to_its_prototype():
    """Caesium chloride with the anion moved by 0.02 a along [100]: half of it each, after the best superposition."""
    known = KnownPrototypes([salt(5.64), simple_cubic_salt(4.1)], ["rock salt", "caesium chloride"])
    exact = known.nearest(salt(6.6, cation=19, anion=35))
    assert exact is not None
    assert exact.id == "rock salt"
    assert exact.rms == pytest.approx(0, abs=1e-6)
    moved = simple_cubic_salt(5.0).replace(
        frac_coords=np.array([[0, 0, 0], [0.52, 0.5, 0.5]]), atomic_numbers=np.array([35, 19])
    )
    near = known.nearest(moved)
    assert near is not None
    assert near.id == "caesium chloride"
    assert near.rms == pytest.approx(0.01 * 2 ** (1 / 3), rel=1e-6)
    as_named = moved.replace(atomic_numbers=np.array([11, 17]))
    assert known.distance(as_named, "caesium chloride") == pytest.approx(near.rms)
    assert known.distance(as_named, "rock salt") is None
    assert known.distance(as_named, "somebody else's") is None
    layers = moved.replace(lattice=np.diag([3.0, 3.0, 9.0]))
    assert known.nearest(layers) is None


def test_needles_end_within_seconds():
    """A vector as long as the longest of such a cell would be one of millions."""
    rng = np.random.default_rng(0)
    salts = np.repeat([11, 17], 2)
    needles = [
        Crystal(lattice=np.diag([length, 0.5, 0.5]), frac_coords=rng.random((4, 3)), atomic_numbers=salts)
        for length in (300.0, 310.0)
    ]
    began = time.perf_counter()
    for prune in (True, False):
        known = KnownPrototypes(needles, ["a", "b"], standard_form=True, prune=prune)  # whose reduction takes seconds
        assert known.matches(as_is(needles[0])) == ["a"]
    assert time.perf_counter() - began < 5


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


def equiatomic(n: int, *, first: int = 21, order: np.ndarray | None = None) -> Crystal:
    """Layers of a body-centred cubic crystal, each of an element of its own, in the given order."""
    layers = np.arange(n)
    return Crystal(
        lattice=np.diag([3.0, 3.0, 1.5 * n]),
        frac_coords=np.stack([0.5 * (layers % 2), 0.5 * (layers % 2), layers / n], axis=1),
        atomic_numbers=first + (layers if order is None else order),
    )


def test_many_equal_counts_are_decided_like_by_trying_all_renamings():
    """Five elements in random places, strained up to where the tolerances refuse, and other places."""
    matcher, rng = OrderedMatcher(), np.random.default_rng(11)
    verdicts = []
    for _ in range(12):
        known = Crystal(
            lattice=4.2 * np.eye(3) + rng.normal(scale=0.2, size=(3, 3)),
            frac_coords=rng.random((5, 3)),
            atomic_numbers=np.arange(21, 26),
        )
        moved = known.frac_coords + rng.normal(scale=rng.choice([0.03, 0.07, 0.11]), size=(5, 3))
        query = known.replace(frac_coords=moved % 1.0, atomic_numbers=rng.permutation(np.arange(41, 46)))
        a, b = matcher.prepare(query), matcher.prepare(known)
        names = list(permutations(range(41, 46)))
        slow = {n for n in names if matcher.fit(a, rename(b, n, a.key))}
        tried = set(renamings(a, b, matcher))
        assert slow <= tried < set(names)
        match = renamed_match(a, b, matcher)
        assert (match is not None) == bool(slow)
        assert match is None or matcher.fit(a, match)
        verdicts.append(bool(slow))
    assert {True, False} == set(verdicts)


def test_eight_elements_end_within_seconds():
    """40,320 renamings, of which the places of the atoms leave few: those of the order of the layers and none else."""
    rng = np.random.default_rng(3)
    known = KnownPrototypes([equiatomic(8)], ["layers"])
    began = time.perf_counter()
    assert known.first_match(equiatomic(8, first=41, order=rng.permutation(8))) == "layers"
    scattered = equiatomic(8).replace(frac_coords=rng.random((8, 3)))
    assert known.first_match(scattered) is None
    assert time.perf_counter() - began < 10


def test_too_many_renamings_leave_the_structure_type_open(monkeypatch):
    """The layers are a decoration of the known ones, but no renaming may be tried to see it."""
    monkeypatch.setattr(renaming, "MAX_RENAMINGS", 0)
    query = equiatomic(6, first=41)
    with pytest.raises(Undecided, match=r"whether layers .* more than 0 ways"):
        KnownPrototypes([equiatomic(6)], ["layers"]).first_match(query)
    levels = NoveltyLevels(replace(small_reference(), crystals=[equiatomic(6)], ids=["layers"]))
    facts = levels.facts(query, novel=True, match_id=None)
    assert facts["new_prototype"] is None
    assert facts["prototype_id"] is None
    assert facts["message"].startswith("its structure type is undecided: whether layers")
    monkeypatch.undo()
    assert levels.facts(query, novel=True, match_id=None)["prototype_id"] == "layers"
