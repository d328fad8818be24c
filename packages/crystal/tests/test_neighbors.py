import numpy as np
import pytest
import torch
from ase.neighborlist import neighbor_list
from druse_crystal import Crystal, CrystalBatch
from druse_crystal.convert import to_ase
from druse_crystal.neighbors import min_distance, neighbors
from druse_crystal.testing import batches, crystals, random_crystal
from hypothesis import given, settings
from hypothesis import strategies as st


def edges_of(found, first_atom=0, num_atoms=None):
    rows = torch.cat([found.target[:, None], found.source[:, None], found.shifts], 1)
    if num_atoms is not None:
        rows = rows[(found.target >= first_atom) & (found.target < first_atom + num_atoms)]
    return sorted(tuple(row) for row in (rows - torch.tensor([first_atom, first_atom, 0, 0, 0])).tolist())


def edges_by_ase(crystal, cutoff):
    i, j, shifts = neighbor_list("ijS", to_ase(crystal), cutoff)
    return sorted(tuple(map(int, row)) for row in np.column_stack([i, j, shifts]))


@settings(max_examples=60, deadline=None)
@given(batch=batches(), cutoff=st.floats(0.5, 7.0))
def test_same_edges_as_ase(batch, cutoff):
    found = neighbors(batch, cutoff=cutoff)
    # pairs exactly at the cutoff may fall on either side of it in two floating-point evaluations
    if bool(((found.distances - cutoff).abs() < 1e-9).any()):
        return
    first = 0
    for crystal in batch.to_crystals():
        assert edges_of(found, first, crystal.num_atoms) == edges_by_ase(crystal, cutoff)
        first += crystal.num_atoms


@settings(max_examples=40, deadline=None)
@given(batch=batches())
def test_vectors_are_what_source_target_and_shifts_say(batch):
    found = neighbors(batch, cutoff=5.0)
    lattice = batch.lattice[batch.crystal_index[found.target]]
    position = torch.einsum("ni,nij->nj", batch.frac_coords, batch.lattice[batch.crystal_index])
    expected = position[found.source] + torch.einsum("ei,eij->ej", found.shifts.double(), lattice)
    assert torch.allclose(found.vectors, expected - position[found.target], atol=1e-9)
    assert bool((batch.crystal_index[found.source] == batch.crystal_index[found.target]).all())
    assert bool((found.target.diff() >= 0).all())
    assert bool((found.distances <= 5.0 + 1e-9).all())


@pytest.mark.parametrize(
    ("lattice", "shells"),
    [
        (np.eye(3), [(1.0, 6), (2**0.5, 12), (3**0.5, 8)]),  # simple cubic
        (np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]), [(2**-0.5, 12), (1.0, 6)]),  # fcc
        (np.array([[-0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.5, 0.5, -0.5]]), [(0.75**0.5, 8), (1.0, 6)]),  # bcc
        (np.array([[1, 0, 0], [7, 1, 0], [-5, 9, 1]]), [(1.0, 6), (2**0.5, 12), (3**0.5, 8)]),  # cubic, very skewed
    ],
)
def test_shells_of_one_atom_cells(lattice, shells):
    crystal = Crystal(lattice=lattice * 4.0, frac_coords=np.array([[0.3, 0.9, 0.1]]), atomic_numbers=np.array([26]))
    batch = CrystalBatch.from_crystals([crystal], dtype=torch.float64)
    found = neighbors(batch, cutoff=4.0 * shells[-1][0] + 0.01).distances.sort().values
    expected = torch.tensor([4.0 * distance for distance, count in shells for _ in range(count)], dtype=torch.float64)
    assert torch.allclose(found, expected)


def test_flat_cell_finds_all_its_images():
    crystal = Crystal(lattice=np.diag([9.0, 9.0, 0.05]), frac_coords=np.zeros((1, 3)), atomic_numbers=np.array([6]))
    found = neighbors(CrystalBatch.from_crystals([crystal], dtype=torch.float64), cutoff=4.01)
    assert len(found) == 160  # 80 translations of 0.05 Å up and down


def test_coordinates_outside_the_cell_and_other_cutoffs_per_crystal():
    generator = np.random.default_rng(0)
    some = [random_crystal(generator, num_atoms=n) for n in (3, 1, 7)]
    batch = CrystalBatch.from_crystals(some, dtype=torch.float64)
    whole = torch.tensor(generator.integers(-3, 4, (11, 3)))
    moved = batch.replace(frac_coords=batch.frac_coords + whole)
    cutoffs = torch.tensor([3.0, 6.0, 4.0], dtype=torch.float64)
    found, other = neighbors(batch, cutoff=cutoffs), neighbors(moved, cutoff=cutoffs)
    assert torch.allclose(found.distances.sort().values, other.distances.sort().values)
    alone = [neighbors(batch.select([i]), cutoff=float(cutoffs[i])) for i in range(3)]
    assert [len(part) for part in alone] == torch.bincount(batch.crystal_index[found.target]).tolist()


@settings(max_examples=40, deadline=None)
@given(crystal=crystals(max_atoms=6), k=st.integers(1, 20))
def test_k_nearest(crystal, k):
    batch = CrystalBatch.from_crystals([crystal], dtype=torch.float64)
    every = neighbors(batch, cutoff=6.0)
    strict = neighbors(batch, cutoff=6.0, k=k)
    ties = neighbors(batch, cutoff=6.0, k=k, keep_ties=True)
    for atom in range(crystal.num_atoms):
        distances = every.distances[every.target == atom].sort().values
        assert torch.allclose(strict.distances[strict.target == atom].sort().values, distances[:k])
        if len(distances):
            expected = distances[distances <= distances[:k].max() + 1e-3]
            assert torch.allclose(ties.distances[ties.target == atom].sort().values, expected)


def test_gradients_reach_lattice_and_coordinates():
    crystal = random_crystal(np.random.default_rng(3), num_atoms=3)
    batch = CrystalBatch.from_crystals([crystal], dtype=torch.float64)

    def energy(lattice, frac_coords):
        pairs = neighbors(batch.replace(lattice=lattice, frac_coords=frac_coords), cutoff=4.0)
        return torch.exp(-pairs.distances).sum()

    inputs = (batch.lattice.clone().requires_grad_(), batch.frac_coords.clone().requires_grad_())
    assert torch.autograd.gradcheck(energy, inputs, eps=1e-7, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(crystal=crystals(max_atoms=5))
def test_min_distance_agrees_with_ase(crystal):
    distances = neighbor_list("d", to_ase(crystal), np.linalg.norm(crystal.lattice, axis=1).min() + 0.1)
    assert min_distance(crystal) == pytest.approx(distances.min(), abs=1e-9)


@pytest.mark.parametrize(
    ("lattice", "frac_coords", "distance"),
    [
        (4 * np.eye(3), [[0, 0, 0]], 4.0),  # its own image
        (4 * np.eye(3), [[0.95, 0, 0], [0.05, 0, 0]], 0.4),  # through the boundary
        (4 * np.eye(3), [[0.2, 0.3, 0.4], [0.2, 0.3, 0.4]], 0.0),
        (np.diag([4.0, 4.0, 0.45]), [[0, 0, 0]], 0.45),
        ([[4.0, 0, 0], [12.1, 3.0, 0], [0, 0, 5.0]], [[0, 0, 0]], np.hypot(0.1, 3.0)),  # skewed
        ([[4.0, 0, 0], [-2.0, 12**0.5, 0], [-2.0, -(12**0.5), 0.1]], [[0, 0, 0]], 0.1),  # short along the diagonal
    ],
)
def test_min_distance_by_hand(lattice, frac_coords, distance):
    numbers = np.full(len(frac_coords), 29)
    crystal = Crystal(lattice=np.array(lattice), frac_coords=np.array(frac_coords, float), atomic_numbers=numbers)
    assert min_distance(crystal) == pytest.approx(distance, abs=1e-9)


@pytest.mark.parametrize(("arguments", "words"), [({"cutoff": 0.0}, "cutoff"), ({"cutoff": 3.0, "k": 0}, "at least 1")])
def test_bad_arguments(arguments, words):
    batch = CrystalBatch.from_crystals([random_crystal(np.random.default_rng(0), num_atoms=2)])
    with pytest.raises(ValueError, match=words):
        neighbors(batch, **arguments)


def test_collapsed_cell_is_refused_by_its_number():
    batch = CrystalBatch.from_crystals([random_crystal(np.random.default_rng(0), num_atoms=2)] * 2)
    flat = batch.lattice.clone()
    flat[1, 2] *= 1e-9
    with pytest.raises(ValueError, match="crystal 1"):
        neighbors(batch.replace(lattice=flat), cutoff=5.0)
