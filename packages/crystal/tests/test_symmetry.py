import time

import numpy as np
import pytest
from druse_crystal import Crystal
from druse_crystal.convert import from_pymatgen, to_pymatgen
from druse_crystal.dataset import load_embedded
from druse_crystal.lattice import parameters
from druse_crystal.symmetry import crystal_system, niggli, primitive, space_group, standardize, symmetrized
from druse_crystal.testing import crystals, lattices
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure
from pymatgen.symmetry.groups import SpaceGroup as PymatgenSpaceGroup

PROTOTYPES = {  # textbook structures with their space groups
    "Fm-3m": (225, Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]], 8),
    "Pm-3m": (221, Lattice.cubic(3.9), ["Sr", "Ti", "O"], [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0]], 5),
    "Fd-3m": (227, Lattice.cubic(3.567), ["C"], [[0, 0, 0]], 8),
    "P6_3/mmc": (194, Lattice.hexagonal(3.21, 5.21), ["Mg"], [[1 / 3, 2 / 3, 0.25]], 2),
    "P6_3mc": (186, Lattice.hexagonal(3.25, 5.2), ["Zn", "O"], [[1 / 3, 2 / 3, 0], [1 / 3, 2 / 3, 0.382]], 4),
    "P4_2/mnm": (136, Lattice.tetragonal(4.594, 2.959), ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]], 6),
    "R-3m": (166, Lattice.hexagonal(4.385, 30.49), ["Bi", "Te", "Te"], [[0, 0, 0.4], [0, 0, 0], [0, 0, 0.21]], 15),
    "P3_221": (154, Lattice.hexagonal(4.91, 5.4), ["Si", "O"], [[0.47, 0, 2 / 3], [0.413, 0.267, 0.786]], 9),
}


def prototype(symbol):
    _, lattice, species, coords, _ = PROTOTYPES[symbol]
    return from_pymatgen(Structure.from_spacegroup(symbol, lattice, species, coords))


@pytest.mark.parametrize("symbol", PROTOTYPES)
def test_space_groups_of_textbook_structures(symbol):
    number, *_, num_atoms = PROTOTYPES[symbol]
    crystal = prototype(symbol)
    assert crystal.num_atoms == num_atoms
    found = space_group(crystal)
    assert (found.number, found.symbol) == (number, symbol)
    assert found.crystal_system == PymatgenSpaceGroup.from_int_number(number).crystal_system
    assert space_group(standardize(crystal)) == found
    assert space_group(symmetrized(standardize(crystal)), symprec=1e-4) == found


def test_every_crystal_system_agrees_with_pymatgen():
    for number in (1, 2, 3, 15, 16, 74, 75, 142, 143, 167, 168, 194, 195, 230):
        assert crystal_system(number) == PymatgenSpaceGroup.from_int_number(number).crystal_system
    with pytest.raises(ValueError, match="231"):
        crystal_system(231)


def test_symmetrized_moves_displaced_atoms_back():
    generator = np.random.default_rng(0)
    crystal = prototype("Fm-3m")
    shaken = crystal.replace(frac_coords=crystal.frac_coords + generator.normal(size=(8, 3)) * 0.003)
    assert space_group(shaken, symprec=1e-3).number == 1
    assert space_group(shaken).number == 225
    refined = symmetrized(shaken)
    assert refined.num_atoms == 8
    assert space_group(refined, symprec=1e-5).number == 225


@settings(max_examples=50, deadline=None)
@given(lattice=lattices())
def test_niggli_cell_is_pymatgens(lattice):
    crystal = Crystal(lattice=lattice, frac_coords=np.zeros((1, 3)), atomic_numbers=np.array([3]))
    reduced = niggli(crystal)
    expected = Lattice(lattice).get_niggli_reduced_lattice()
    assert np.linalg.det(reduced.lattice) > 0
    np.testing.assert_allclose(parameters(reduced.lattice)[:3], expected.lengths, rtol=1e-4)


@settings(max_examples=40, deadline=None)
@given(crystal=crystals(max_atoms=5))
def test_niggli_leaves_the_atoms_in_space(crystal):
    reduced = niggli(crystal)
    assert reduced.volume == pytest.approx(crystal.volume)
    for one, other in ((crystal, reduced), (reduced, crystal)):
        fractions = one.cart_coords @ np.linalg.inv(other.lattice) - other.frac_coords
        assert np.abs(fractions - np.rint(fractions)).max() < 1e-6


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**31), symbol=st.sampled_from(sorted(PROTOTYPES)))
def test_standard_form_does_not_depend_on_the_cell(seed, symbol):
    generator = np.random.default_rng(seed)
    structure = to_pymatgen(prototype(symbol))
    scale = np.eye(3, dtype=int)
    scale[generator.integers(3)] += generator.integers(-2, 3, 3) * (1 - np.eye(3, dtype=int)[generator.integers(3)])
    if np.linalg.det(scale) < 0.5:
        scale = np.diag([2, 1, 1])
    structure.make_supercell(scale)
    turn = np.linalg.qr(generator.normal(size=(3, 3)))[0]
    turned = Structure(
        structure.lattice.matrix @ turn, structure.species, structure.frac_coords + generator.normal(size=3)
    )
    one, other = standardize(prototype(symbol)), standardize(from_pymatgen(turned))
    assert one.num_atoms == other.num_atoms
    np.testing.assert_allclose(np.sort(parameters(one.lattice)[:3]), np.sort(parameters(other.lattice)[:3]), rtol=1e-5)
    np.testing.assert_allclose(other.lattice, other.lattice.T, atol=1e-9)
    assert np.linalg.eigvalsh(other.lattice).min() > 0
    assert StructureMatcher(primitive_cell=False).fit(to_pymatgen(one), to_pymatgen(other))


def test_standard_form_keeps_chirality():
    right = prototype("P3_221")
    left = right.replace(lattice=right.lattice @ np.diag([1.0, 1.0, -1.0]))  # a mirror, so the other quartz
    assert space_group(right).number == 154
    assert space_group(left).number == 152
    assert space_group(standardize(right)).number == 154
    assert space_group(standardize(left)).number == 152


def test_standard_form_is_a_fixed_point():
    dataset = load_embedded()
    for i in range(0, len(dataset), 400):
        crystal = dataset.crystals[i]
        again = standardize(crystal)
        assert again.num_atoms == crystal.num_atoms
        np.testing.assert_allclose(
            np.sort(parameters(again.lattice)[:3]), np.sort(parameters(crystal.lattice)[:3]), rtol=1e-4
        )


def test_primitive_of_a_supercell():
    structure = to_pymatgen(prototype("Pm-3m")) * (2, 2, 1)
    assert primitive(from_pymatgen(structure)).num_atoms == 5
    assert primitive(prototype("Fm-3m")).num_atoms == 2


@pytest.mark.parametrize(
    ("lattice", "coords"),
    [
        (np.diag([1000.0, 1000.0, 0.001]), [[0, 0, 0], [0.5, 0.5, 0.5]]),  # a sheet
        (np.diag([1e5, 0.01, 0.01]), [[0, 0, 0], [0.5, 0.5, 0.5]]),  # a needle
        (np.diag([4.0, 4.0, 4.0]), [[0, 0, 0], [0, 0, 0], [0, 0, 0]]),  # atoms on one place
        (np.array([[4, 0, 0], [4e6, 4, 0], [-4e7, 4e6, 4]]), [[0, 0, 0], [0.3, 0.2, 0.1]]),  # absurdly skewed
        (np.array([[10, 0, 0], [9.99999, 0.01, 0], [0, 0, 10]]), [[0, 0, 0], [0.3, 0.2, 0.1]]),
        (np.diag([0.5, 0.5, 0.5]), np.random.default_rng(0).uniform(size=(200, 3))),  # far too dense
    ],
)
def test_pathological_cells_neither_hang_nor_crash(lattice, coords):
    coords = np.array(coords, dtype=float)
    crystal = Crystal(lattice=lattice, frac_coords=coords, atomic_numbers=np.full(len(coords), 6))
    start = time.perf_counter()
    assert 1 <= space_group(crystal).number <= 230
    for change in (niggli, primitive, standardize, symmetrized):
        assert change(crystal).num_atoms >= 1
    assert time.perf_counter() - start < 20


@settings(max_examples=40, deadline=None)
@given(crystal=crystals(max_atoms=6))
def test_any_crystal_has_a_standard_form_of_its_density(crystal):
    found = standardize(crystal)
    assert found.num_atoms <= crystal.num_atoms
    assert found.volume / found.num_atoms == pytest.approx(crystal.volume / crystal.num_atoms, rel=1e-6)
