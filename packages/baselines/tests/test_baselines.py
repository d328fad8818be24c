import sys
import time
from collections import Counter

import numpy as np
import pytest
from ase.data import covalent_radii
from druse_baselines import AtomicVolumes, RandomSearch, Substitution, Target
from druse_baselines.placement import place_atoms
from druse_baselines.proposer import element_counts
from druse_baselines.substitution import similarity
from druse_baselines.worker import PlacementWorker
from druse_crystal import Crystal
from druse_crystal.composition import chemical_system, reduced_formula
from druse_crystal.convert import from_pymatgen
from druse_crystal.symmetry import space_group
from pymatgen.core import Element, Lattice, Structure
from pymatgen.core.structure_prediction.substitution_probability import SubstitutionProbability

# Cubic lattice parameters in Å at room temperature (CRC Handbook of Chemistry and Physics).
ROCK_SALTS = {
    ("Li", "F"): 4.027,
    ("Li", "Cl"): 5.140,
    ("Na", "F"): 4.634,
    ("Na", "Cl"): 5.640,
    ("Na", "Br"): 5.974,
    ("K", "F"): 5.344,
    ("K", "Cl"): 6.293,
    ("K", "Br"): 6.601,
    ("Mg", "O"): 4.213,
    ("Ca", "O"): 4.811,
    ("Sr", "O"): 5.161,
}


def rock_salt(cation: str, anion: str) -> Crystal:
    cell = Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(ROCK_SALTS[cation, anion]), [cation, anion], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )
    return from_pymatgen(cell.get_primitive_structure())


@pytest.fixture(scope="module")
def rock_salts() -> list[Crystal]:
    return [rock_salt(*pair) for pair in ROCK_SALTS]


@pytest.fixture(scope="module")
def parents(rock_salts) -> list[Crystal]:
    perovskite = Structure.from_spacegroup(
        "Pm-3m", Lattice.cubic(3.905), ["Sr", "Ti", "O"], [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0]]
    )
    rutile = Structure.from_spacegroup(
        "P4_2/mnm", Lattice.tetragonal(4.594, 2.959), ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]]
    )
    return [*rock_salts, from_pymatgen(perovskite), from_pymatgen(rutile)]


def same(one: Crystal, other: Crystal) -> bool:
    fields = ("lattice", "frac_coords", "atomic_numbers")
    return all(np.array_equal(getattr(one, field), getattr(other, field)) for field in fields)


@pytest.mark.parametrize(
    ("text", "system", "formula"),
    [
        ("Li-O", {3, 8}, None),
        ("O-Li", {3, 8}, None),
        ("Li4O2", {3, 8}, ((3, 2), (8, 1))),
        ("SrTiO3", {8, 22, 38}, ((8, 3), (22, 1), (38, 1))),
        ("Fe", {26}, ((26, 1),)),
    ],
)
def test_target_is_read(text, system, formula):
    target = Target.parse(text)
    assert target.elements == system
    assert target.formula == formula


@pytest.mark.parametrize("text", ["Lo-O", "water", "Li0.5O", "Li--O", "3"])
def test_target_names_what_it_cannot_read(text):
    with pytest.raises(ValueError, match=text):
        Target.parse(text)


def test_target_matches_multiples_and_only_its_elements():
    assert Target.parse("Li2O").matches({3: 4, 8: 2})
    assert not Target.parse("Li2O").matches({3: 2, 8: 2})
    assert Target.parse("Li-O").matches({3: 2, 8: 2})
    assert not Target.parse("Li-O").matches({3: 2})


def test_volumes_are_recovered_from_crystals_made_of_them():
    truth = {3: 12.0, 8: 8.0, 26: 11.0}
    rng = np.random.default_rng(0)
    crystals = []
    for _ in range(50):
        numbers = rng.choice(list(truth), size=rng.integers(1, 8))
        edge = sum(truth[z] for z in numbers.tolist()) ** (1 / 3)
        crystals.append(
            Crystal(lattice=np.eye(3) * edge, frac_coords=rng.random((len(numbers), 3)), atomic_numbers=numbers)
        )
    volumes = AtomicVolumes(crystals)
    assert {z: volumes[z] for z in truth} == pytest.approx(truth, rel=1e-3)
    assert volumes.total({3: 2, 8: 1}) == pytest.approx(32.0, rel=1e-3)
    with pytest.raises(ValueError, match="Au"):
        volumes[79]


def test_similarity_is_the_share_of_the_joint_probability():
    table = similarity()
    model = SubstitutionProbability()
    alkali = ("Li1+", "Na1+", "Rb1+", "Cs1+")
    joint = [model.prob("K1+", ion) for ion in alkali]
    ours = [table[19][Element(ion[:2]).Z] for ion in alkali]
    assert np.array(ours) / sum(ours) == pytest.approx(np.array(joint) / sum(joint))  # K has no other charge
    assert all(sum(row.values()) == pytest.approx(1) for row in table.values())
    assert all(z not in row for z, row in table.items())


def test_similarity_knows_the_groups_of_the_periodic_table():
    table = similarity(0.05)
    assert {3, 37, 55} <= set(table[11]) <= {3, 19, 37, 55, 81}
    assert set(table[8]) <= {16, 34, 52}
    assert all(share >= 0.05 for row in table.values() for share in row.values())


def test_substitution_changes_one_element_and_nothing_else(parents):
    table = similarity(0.05)
    children = list(Substitution(parents)(1000))
    assert len(children) > 30
    for child in children:
        origins = []
        for parent in parents:
            if parent.num_atoms != child.num_atoms or not np.array_equal(parent.frac_coords, child.frac_coords):
                continue
            swaps = set(zip(parent.atomic_numbers.tolist(), child.atomic_numbers.tolist(), strict=True))
            changed = [(old, new) for old, new in swaps if old != new]
            if len(changed) == 1 and len(element_counts(parent)) == len(element_counts(child)):
                origins.append((parent, *changed[0]))
        assert any(new in table[old] for _, old, new in origins)
        shape = child.lattice / child.volume ** (1 / 3)
        assert any(np.allclose(shape, parent.lattice / parent.volume ** (1 / 3)) for parent, _, _ in origins)


def test_substitution_never_repeats_itself(rock_salts):
    children = list(Substitution(rock_salts)(10_000))
    cells = {(reduced_formula(child), tuple(child.lattice.ravel())) for child in children}
    assert len(cells) == len(children) > 20


def test_substituted_cells_are_closer_to_the_real_compound_than_their_parents(rock_salts):
    """Leave each halide out, grow it from the others, compare its volume with the measured one."""
    rescaled, unchanged = [], []
    for left_out, pair in zip(rock_salts, ROCK_SALTS, strict=True):
        if pair[1] == "O":
            continue
        others = [parent for parent in rock_salts if parent is not left_out]
        for child in Substitution(others, min_similarity=0)(1000, target="".join(pair)):
            rescaled.append(np.log(child.volume / left_out.volume))
        for one in others:
            if len(element_counts(one) & element_counts(left_out)) == 1:
                unchanged.append(np.log(one.volume / left_out.volume))
    assert len(rescaled) == len(unchanged)
    assert np.median(np.abs(rescaled)) < 0.3 * np.median(np.abs(unchanged))
    assert np.median(np.abs(rescaled)) < 0.1


def test_substitution_is_seeded_and_a_longer_run_only_adds(parents):
    propose = Substitution(parents)
    first, again, other = (list(propose(n, seed=seed)) for n, seed in ((5, 3), (12, 3), (12, 4)))
    assert all(map(same, first, again[:5]))
    assert not all(map(same, again, other))


def test_substitution_draws_in_proportion_to_similarity():
    alkali = [3, 11, 37, 55]
    fluoride = Crystal(lattice=np.eye(3) * 3.2, frac_coords=np.eye(3)[:2] / 2, atomic_numbers=np.array([19, 9]))
    # A second parent, so that the sizes of the other alkali metals are known.
    metals = Crystal(
        lattice=np.eye(3) * 6, frac_coords=np.arange(12).reshape(4, 3) / 12, atomic_numbers=np.array(alkali)
    )
    propose = Substitution([fluoride, metals], min_similarity=0)
    firsts = [next(propose(1, seed=seed)).atomic_numbers.tolist() for seed in range(600)]
    drawn = Counter(numbers[0] for numbers in firsts if 9 in numbers)
    share = np.array([similarity()[19][z] for z in alkali])
    share /= share.sum()
    expected = share * drawn.total()
    assert drawn.total() > 150
    assert np.all(np.abs(np.array([drawn[z] for z in alkali]) - expected) < 4 * np.sqrt(expected * (1 - share)))


def test_substitution_says_when_nothing_leads_to_the_target(parents):
    with pytest.raises(ValueError, match="leads to Xe-F"):
        next(Substitution(parents)(1, target="Xe-F"))
    with pytest.raises(ValueError, match="at least one known crystal"):
        Substitution([])


def smallest_distance_in_radii(one: Crystal) -> float:
    """Shortest distance between two atoms, over the sum of their covalent radii."""
    structure = Structure(one.lattice, one.atomic_numbers.tolist(), one.frac_coords)
    first, second, _, distance = structure.get_neighbor_list(6.0)
    radius = covalent_radii[one.atomic_numbers]
    return float(np.min(distance / (radius[first] + radius[second])))


@pytest.fixture(scope="module")
def random_crystals(parents) -> list[Crystal]:
    return list(RandomSearch(parents, volume_factor=1.2, tolerance=1.3)(10, seed=1))


def test_random_crystals_have_known_compositions_sensible_volumes_and_symmetry(random_crystals, parents):
    found = random_crystals
    known = {reduced_formula(parent) for parent in parents}
    volumes = AtomicVolumes(parents)
    assert len(found) == 10
    assert {reduced_formula(one) for one in found} <= known
    for one in found:
        assert one.num_atoms <= max(parent.num_atoms for parent in parents)
        assert one.volume == pytest.approx(1.2 * volumes.total(element_counts(one)), rel=1e-6)
        assert smallest_distance_in_radii(one) > 0.5 * 1.3 * 0.9  # two tables of radii differ by up to a tenth
    assert sum(space_group(one).number > 1 for one in found) >= 8


@pytest.fixture
def here(monkeypatch):
    """Place atoms in this process: the other one takes seconds to start."""

    def place(_, counts, *, volume, tolerance, seed):
        return place_atoms(counts, volume=volume, tolerance=tolerance, rng=np.random.default_rng(seed))

    monkeypatch.setattr(PlacementWorker, "place", place)


def test_random_search_is_seeded_and_a_longer_run_only_adds(random_crystals, parents, here):
    assert all(map(same, random_crystals, RandomSearch(parents)(5, seed=1)))  # and no other process changes that
    assert not any(map(same, random_crystals, RandomSearch(parents)(5, seed=2)))


def test_random_search_reaches_a_formula_and_a_chemical_system(parents, here):
    search = RandomSearch(parents, max_atoms=6)
    fluorides = list(search(6, target="CaF2"))  # no parent has this formula
    assert {reduced_formula(one) for one in fluorides} == {"CaF2"}
    assert {one.num_atoms for one in fluorides} == {3, 6}
    assert {chemical_system(one) for one in RandomSearch(parents)(4, target="Mg-Na-O")} == {"Mg-Na-O"}
    # By electronegativity, as in rock salt and rutile: never Li2O.
    assert {reduced_formula(one) for one in search(8, target="O-Li")} <= {"Li2O2", "LiO2"}


@pytest.mark.parametrize(
    ("target", "message"),
    [("Au-O", "no known crystal holds Au"), ("Sr21Ti", "raise max_atoms"), ("Li-Na-K-O", "as many elements")],
)
def test_random_search_says_what_it_cannot_reach(parents, target, message):
    with pytest.raises(ValueError, match=message):
        next(RandomSearch(parents)(1, target=target))


def test_random_search_gives_up_on_tolerances_that_cannot_be_met(parents, monkeypatch):
    monkeypatch.setattr(PlacementWorker, "place", lambda *_, **__: None)
    with pytest.raises(RuntimeError, match="lower tolerance"):
        next(RandomSearch(parents)(1))


def test_a_draw_that_never_ends_is_ended(monkeypatch):
    monkeypatch.setattr("druse_baselines.worker.START_LIMIT", 0.0)
    endless = (sys.executable, "-c", "import time; time.sleep(600)")
    with PlacementWorker(time_limit=0.5, program=endless) as worker:
        start = time.monotonic()
        assert worker.place({3: 1}, volume=12.0, tolerance=1.0, seed=(0,)) is None
        assert worker.place({3: 1}, volume=12.0, tolerance=1.0, seed=(1,)) is None
        assert time.monotonic() - start < 10


def test_a_worker_that_cannot_start_is_an_error():
    with (
        PlacementWorker(time_limit=5.0, program=(sys.executable, "-c", "raise SystemExit(3)")) as worker,
        pytest.raises(RuntimeError, match="exit code 3"),
    ):
        worker.place({3: 1}, volume=12.0, tolerance=1.0, seed=(0,))
