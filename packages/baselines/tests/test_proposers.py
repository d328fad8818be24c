"""The contract for all proposers, and what each of the newer ones promises beyond it."""

from collections import Counter, defaultdict
from itertools import combinations, product

import numpy as np
import pytest
import spglib
from druse_baselines import (
    Airss,
    AtomicVolumes,
    ChargeBalanced,
    IonExchange,
    IteratedSubstitution,
    RandomSearch,
    Resampling,
    Substitution,
)
from druse_baselines.airss import SPACE_GROUPS, operations, random_lattice
from druse_baselines.distances import ShortestDistances
from druse_baselines.ion_exchange import ion_probabilities
from druse_baselines.iterated_substitution import reachable
from druse_baselines.order import random_order, take_turns
from druse_baselines.oxidation import can_be_neutral, charges_of, oxidation_states
from druse_baselines.placement import place_atoms
from druse_baselines.proposer import element_counts
from druse_baselines.substitution import similarity
from druse_baselines.testing import check_proposer, same_crystal
from druse_baselines.worker import PlacementWorker
from druse_crystal import Crystal
from druse_crystal.composition import reduced_formula
from druse_crystal.convert import from_pymatgen, to_pymatgen
from pymatgen.analysis.structure_prediction.substitutor import Substitutor
from pymatgen.core import Composition, Lattice, Species, Structure
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

# Cubic lattice parameters in Å at room temperature (CRC Handbook of Chemistry and Physics).
ROCK_SALTS = {
    ("Li", "F"): 4.027,
    ("Na", "Cl"): 5.640,
    ("K", "Br"): 6.601,
    ("Mg", "O"): 4.213,
    ("Ca", "O"): 4.811,
    ("Ba", "O"): 5.539,
}
NACL, KBR, MGO, RUTILE, IRON = 1, 2, 3, 7, 8  # positions among the parents


@pytest.fixture(scope="module")
def parents() -> list[Crystal]:
    salts = [
        Structure.from_spacegroup("Fm-3m", Lattice.cubic(a), pair, [[0, 0, 0], [0.5, 0.5, 0.5]])
        for pair, a in ROCK_SALTS.items()
    ]
    perovskite = Structure.from_spacegroup(
        "Pm-3m", Lattice.cubic(3.905), ["Sr", "Ti", "O"], [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0]]
    )
    rutile = Structure.from_spacegroup(
        "P4_2/mnm", Lattice.tetragonal(4.594, 2.959), ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]]
    )
    iron = Structure(Lattice.cubic(2.866), ["Fe", "Fe"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    return [from_pymatgen(one.get_primitive_structure()) for one in (*salts, perovskite, rutile, iron)]


@pytest.mark.parametrize(
    ("method", "targets", "endless"),
    [
        (Substitution, ["K-Cl", "NaF"], False),
        (IteratedSubstitution, ["K-Cl", "Na-Br", "BaTiO3"], False),
        (IonExchange, ["K-Cl", "CaTiO3"], False),
        (RandomSearch, ["Mg-Na-O", "CaF2"], True),
        (Airss, ["Mg-Na-O", "CaF2"], True),
        (Resampling, ["Mg-O", "TiO2"], True),
        (ChargeBalanced, ["Ca-F", "MgTiO3", "Fe"], True),
    ],
)
def test_proposers_keep_the_contract(method, targets, endless, parents, monkeypatch):
    def place(_, counts, *, volume, tolerance, seed):  # in this process: the other one takes seconds to start
        return place_atoms(counts, volume=volume, tolerance=tolerance, rng=np.random.default_rng(seed))

    monkeypatch.setattr(PlacementWorker, "place", place)
    n = 2 if method is RandomSearch else 4  # PyXtal is slow
    check_proposer(method(parents), targets=targets, parents=parents, n=n, endless=endless)


class Broken:
    """Proposes sodium chloride, in a way that some function spoils."""

    name = "broken"

    def __init__(self, parent: Crystal, fault: str):
        self.parent = parent
        self.fault = fault
        self.calls = 0

    def __call__(self, n, *, target=None, seed=0):
        if target == "Li--O" and self.fault != "accepts nonsense":
            raise ValueError(target)
        self.calls += 1
        for index in range(n - (self.fault == "one short" and n > 1)):
            rng = np.random.default_rng((0 if self.fault == "no seed" else seed, index))
            if self.fault == "clock":
                rng = np.random.default_rng(self.calls)
            if self.fault == "depends on n":
                rng = np.random.default_rng((n, index, seed))
            crystal = self.parent.replace(lattice=self.parent.lattice * rng.uniform(1, 1.1))
            if self.fault == "collapsed":
                crystal = crystal.replace(lattice=crystal.lattice * 0.15)
            if self.fault == "other elements" and target:
                crystal = crystal.replace(atomic_numbers=np.array([19, 17]))
            yield to_pymatgen(crystal) if self.fault == "pymatgen" else crystal


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("accepts nonsense", "nonsense"),
        ("one short", "it gives 3"),
        ("no seed", "another seed gives the same"),
        ("clock", "first crystals change"),
        ("depends on n", "first crystals change"),
        ("collapsed", "apart"),
        ("pymatgen", "not a Crystal"),
        ("other elements", "target Na-Cl: it gives"),
    ],
)
def test_the_contract_finds_what_is_broken(fault, words, parents):
    salt = parents[NACL]
    check_proposer(Broken(salt, "none"), targets=["Na-Cl"], parents=parents)
    with pytest.raises(AssertionError, match=words):
        check_proposer(Broken(salt, fault), targets=["Na-Cl"], parents=parents)


def test_the_contract_finds_replaced_parents(parents):
    class Replacing(Broken):
        def __call__(self, n, *, target=None, seed=0):
            known[0] = known[0].replace(lattice=known[0].lattice * 2)
            return super().__call__(n, target=target, seed=seed)

    known = list(parents)
    with pytest.raises(AssertionError, match="replaced"):
        check_proposer(Replacing(parents[NACL], "none"), parents=known)


def test_random_order_begins_in_proportion_to_the_weights():
    rng = np.random.default_rng(0)
    orders = [random_order([1.0, 2.0, 5.0], rng).tolist() for _ in range(4000)]
    assert all(sorted(order) == [0, 1, 2] for order in orders)
    share = np.array([1, 2, 5]) / 8
    firsts = np.bincount([order[0] for order in orders]) / 4000
    assert np.all(np.abs(firsts - share) < 4 * np.sqrt(share * (1 - share) / 4000))


def test_streams_take_turns():
    assert list(take_turns(map(iter, ("abc", "", "d", "ef")))) == list("adebfc")


def test_ion_exchange_finds_what_the_substitutor_of_pymatgen_finds(parents):
    """The same exchanges and probabilities as the published method, found one by one there."""
    threshold = 0.02
    found = IonExchange(parents, threshold=threshold).exchanges(parents[MGO])
    known = {z for parent in parents for z in parent.atomic_numbers.tolist()}
    expected: dict[tuple[int, ...], float] = defaultdict(float)
    for one in Substitutor(threshold=threshold).pred_from_comp(Composition({"O2-": 1, "Mg2+": 1})):
        new = tuple(one["substitutions"][Species.from_str(ion)].Z for ion in ("O2-", "Mg2+"))
        if new != (8, 12) and new[0] != new[1] and known.issuperset(new):
            expected[new] += one["probability"]
    assert len(expected) >= 1
    assert found == pytest.approx(dict(expected))


def test_conditional_probabilities_sum_to_one():
    ions, table = ion_probabilities()
    assert len(ions) == len(table)
    assert table.sum(axis=0) == pytest.approx(np.ones(len(ions)))


def test_ion_exchange_takes_several_ions_at_once_and_ends(parents):
    method = IonExchange(parents, threshold=1e-4)
    children = list(method(100_000))
    cells = {(tuple(one.atomic_numbers), tuple(np.round(one.lattice.ravel(), 9))) for one in children}
    assert len(cells) == len(children) == sum(len(method.exchanges(parent)) for parent in parents)
    assert any(not set(new) & {11, 17} for new in method.exchanges(parents[NACL]))  # neither is left
    volumes = AtomicVolumes(parents)

    def fullness(crystal):
        return crystal.volume / volumes.total(element_counts(crystal))

    for child in children:
        origins = [
            parent
            for parent in parents
            if np.array_equal(parent.frac_coords, child.frac_coords)
            and np.isclose(fullness(parent), fullness(child), rtol=1e-9)
        ]
        assert origins
        counts = element_counts(child)
        assert any(
            sum(q * n for q, n in zip(charges, counts.values(), strict=True)) == 0
            for charges in product(*([q for k, q in ion_probabilities()[0] if k == z] for z in counts))
        )


def test_ion_exchange_needs_charges(parents):
    with pytest.raises(ValueError, match="no exchange of ions in 1 known crystals is possible"):
        next(IonExchange([parents[IRON]])(1))
    with pytest.raises(ValueError, match="leads to Xe-F"):
        next(IonExchange(parents)(1, target="Xe-F"))
    with pytest.raises(ValueError, match="at least one known crystal"):
        IonExchange([])


def test_oxidation_states():
    known = {(26, 2), (26, 3), (8, -2), (22, 4), (38, 2)}
    assert oxidation_states({26: 4, 8: 6}, known=known) == {26: 3, 8: -2}
    assert oxidation_states({38: 1, 22: 1, 8: 3}, known=known) == {38: 2, 22: 4, 8: -2}
    assert oxidation_states({26: 3, 8: 4}, known=known) is None  # mixed valence
    assert oxidation_states({13: 3, 28: 1}, known=known) is None  # a metal


def test_neutrality_agrees_with_trying_all_charges():
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(300):
        k = int(rng.integers(2, 5))
        elements = rng.choice(np.arange(1, 60), size=k, replace=False).tolist()
        counts = rng.integers(1, 5, size=k).tolist()
        slow = any(
            sum(n * q for n, q in zip(counts, charges, strict=True)) == 0
            for charges in product(*(charges_of(z) for z in elements))
        )
        assert can_be_neutral(elements, counts) == slow
        seen.add(slow)
    assert seen == {True, False}
    assert can_be_neutral([26], [2])


def test_first_come_the_single_exchanges(parents):
    single = list(Substitution(parents)(10_000))
    stream = list(IteratedSubstitution(parents)(len(single) + 50))

    def key(crystal):
        return (tuple(crystal.atomic_numbers), tuple(np.round(crystal.lattice.ravel(), 9)))

    assert {key(one) for one in stream[: len(single)]} == {key(one) for one in single}
    assert len({key(one) for one in stream}) == len(stream) > len(single)
    # What comes second are children of children, made one after the other here.
    table = similarity(0.05)

    def exchanged(numbers: tuple[int, ...]) -> set[tuple[int, ...]]:
        return {
            tuple(new if z == old else z for z in numbers)
            for old in set(numbers)
            for new in table.get(old, {})
            if new not in numbers
        }

    once = set().union(*(exchanged(tuple(parent.atomic_numbers.tolist())) for parent in parents))
    twice = set().union(*map(exchanged, once))
    assert {tuple(one.atomic_numbers.tolist()) for one in stream[len(single) : len(single) + 20]} <= twice


def test_reachable_elements_are_as_far_as_the_shortest_chain():
    table = similarity(0.05)
    rings = reachable(3, 0.05)
    assert rings[0] == {3: 1.0}
    assert rings[1] == pytest.approx({z: share for z, share in table[3].items() if z != 3})
    seen = {3} | rings[1].keys()
    second: dict[int, float] = defaultdict(float)
    for via, weight in table[3].items():
        for z, share in table[via].items():
            if z not in seen:
                second[z] += weight * share
    assert rings[2] == pytest.approx(dict(second))
    everything = [z for ring in rings.values() for z in ring]
    assert len(everything) == len(set(everything))


def test_iterated_substitution_reaches_further_than_one_exchange(parents):
    known = [parents[NACL], parents[KBR]]
    with pytest.raises(ValueError, match="leads to KBr"):
        next(Substitution(known, min_similarity=0.01)(1, target="KBr"))
    found = next(IteratedSubstitution(known, min_similarity=0.01)(1, target="KBr"))
    volumes = AtomicVolumes(known)
    growth = volumes.total({19: 1, 35: 1}) / volumes.total({11: 1, 17: 1})
    assert found.volume == pytest.approx(parents[NACL].volume * growth)
    with pytest.raises(ValueError, match="no chain of exchanges in 2 known crystals leads to Na-O"):
        next(IteratedSubstitution(known)(1, target="Na-O"))
    with pytest.raises(ValueError, match="at least one known crystal"):
        IteratedSubstitution([])


def test_resampling_draws_all_parents_alike(parents):
    drawn = Counter(parents.index(one) for one in Resampling(parents)(2000, seed=1))
    expected = 2000 / len(parents)
    assert all(abs(drawn[k] - expected) < 4 * np.sqrt(expected) for k in range(len(parents)))
    noisy = list(Resampling(parents[RUTILE : RUTILE + 1], noise=0.05)(500, seed=2))
    rutile = parents[RUTILE]
    moved = np.array([one.frac_coords - rutile.frac_coords for one in noisy])
    moved = (moved - np.round(moved)) @ rutile.lattice
    assert moved.std() == pytest.approx(0.05, rel=0.05)
    assert abs(moved.mean()) < 0.003
    assert all(np.array_equal(one.lattice, rutile.lattice) for one in noisy)
    with pytest.raises(ValueError, match="none of 9 known crystals is Li2O"):
        next(Resampling(parents)(1, target="Li2O"))
    with pytest.raises(ValueError, match="noise is -1"):
        Resampling(parents, noise=-1)
    with pytest.raises(ValueError, match="at least one known crystal"):
        Resampling([])


def test_charge_balanced_crystals_are_neutral_known_structures(parents):
    volumes = AtomicVolumes(parents)
    children = list(ChargeBalanced(parents)(200, seed=5))
    for child in children:
        counts = element_counts(child)
        assert can_be_neutral(list(counts), list(counts.values()))
        origins = [
            parent
            for parent in parents
            if np.array_equal(parent.frac_coords, child.frac_coords)
            and np.isclose(
                child.volume / volumes.total(counts), parent.volume / volumes.total(element_counts(parent)), rtol=1e-9
            )
        ]
        assert origins
    drawn = Counter(z for child in children for z in element_counts(child))
    assert set(drawn) == {z for parent in parents for z in parent.atomic_numbers.tolist()}
    with pytest.raises(ValueError, match="charges that add up to zero"):
        next(ChargeBalanced(parents)(1, target="Na-Mg"))
    with pytest.raises(ValueError, match="no known crystal holds Au"):
        next(ChargeBalanced(parents)(1, target="Au-O"))
    alloy = parents[NACL].replace(atomic_numbers=np.array([11, 12]))
    with pytest.raises(RuntimeError, match="no elements balanced"):
        next(ChargeBalanced([alloy])(1))
    with pytest.raises(ValueError, match="at least one known crystal"):
        ChargeBalanced([])


def test_shortest_distances_are_those_of_known_crystals(parents):
    distances = ShortestDistances(parents)
    assert distances.between(12, 8) == distances.between(8, 12) == pytest.approx(4.213 / 2)
    assert distances.between(12, 12) == pytest.approx(4.213 / np.sqrt(2))
    assert distances.between(26, 26) == pytest.approx(2.866 * np.sqrt(3) / 2)
    # O-O within 4 Å: MgO, CaO, BaO, SrTiO3 and TiO2 (the shared edge of the octahedra).
    oxygen = [a / np.sqrt(2) for a in (4.213, 4.811, 5.539, 3.905)] + [4.594 * np.sqrt(2) * (1 - 2 * 0.305)]
    assert distances.between(8, 8) == pytest.approx(np.median(oxygen), abs=1e-5)
    assert distances.between(79, 8) == pytest.approx(1.36 + 0.66)  # Cordero et al.; no parent holds gold
    table = distances.table([8, 12, 8])
    assert table.tolist() == [[distances.between(a, b) for b in (8, 12, 8)] for a in (8, 12, 8)]


def test_space_groups_have_as_many_operations_as_they_are_listed_for():
    found: dict[int, set[int]] = {}
    for hall in range(1, 531):
        kind, symmetry = spglib.get_spacegroup_type(hall), spglib.get_symmetry_from_database(hall)
        assert kind is not None
        assert symmetry is not None
        found.setdefault(len(np.unique(symmetry["rotations"], axis=0)), set()).add(kind.number)
    assert {order: set(numbers) for order, numbers in SPACE_GROUPS.items()} == {k: found[k] for k in range(1, 5)}


@pytest.mark.parametrize("number", [1, 5, 14, 19, 43, 82, 145, 146])
def test_random_lattices_have_the_symmetry_of_their_space_group(number):
    rotations, translations = operations(number)
    assert len(rotations) == len(translations)
    lattice = random_lattice(rotations, volume=100.0, rng=np.random.default_rng(number))
    assert np.linalg.det(lattice) == pytest.approx(100.0)
    for rotation in rotations:
        cartesian = lattice.T @ rotation @ np.linalg.inv(lattice.T)
        assert cartesian @ cartesian.T == pytest.approx(np.eye(3), abs=1e-9)


def test_random_sensible_structures_keep_volume_distance_and_symmetry(parents):
    method = Airss(parents, max_atoms=12)
    found = list(method(40, seed=1))
    volumes, distances = AtomicVolumes(parents), ShortestDistances(parents)
    orders = Counter()
    for one in found:
        assert one.num_atoms <= 12
        assert one.volume == pytest.approx(1.2 * volumes.total(element_counts(one)), rel=1e-6)
        structure = to_pymatgen(one)
        first, second, _, length = structure.get_neighbor_list(5.0)
        limit = [distances.between(*one.atomic_numbers[[i, j]].tolist()) for i, j in zip(first, second, strict=True)]
        assert np.all(length >= 0.7 * np.array(limit) - 1e-5)
        orders[len(SpacegroupAnalyzer(structure, symprec=1e-4).get_symmetry_operations())] += 1
    assert {1, 2, 4} <= set(orders)
    assert {reduced_formula(one) for one in found} <= {reduced_formula(parent) for parent in parents}
    assert not any(same_crystal(one, other) for one, other in combinations(found[:5], 2))


def test_random_sensible_structures_give_up_on_distances_that_cannot_be_met(parents, monkeypatch):
    monkeypatch.setattr("druse_baselines.airss.MAX_DRAWS", 3)
    with pytest.raises(RuntimeError, match="lower distance_factor"):
        next(Airss(parents, distance_factor=3.0)(1))


@pytest.mark.parametrize(
    ("target", "message"),
    [("Au-O", "no known crystal holds Au"), ("Sr21Ti", "raise max_atoms"), ("Li-Na-K-O", "as many elements")],
)
def test_random_sensible_structures_say_what_they_cannot_reach(parents, target, message):
    with pytest.raises(ValueError, match=message):
        next(Airss(parents)(1, target=target))
    with pytest.raises(ValueError, match="max_atoms=1 "):
        Airss(parents[:IRON], max_atoms=1)
