"""The pair network has the symmetries of a crystal, also where neighbours tie, and its geometry is exact."""

import ase
import ase.neighborlist
import numpy as np
import pytest
import torch
from druse_crystal import Crystal, CrystalBatch
from druse_crystal.lattice import symmetric_form
from druse_diffusion import CrystalProcess, RandomStreams, training_loss
from druse_scores import PairNetwork, PairNetworkConfig, has_bfloat16
from druse_scores.equivariant.geometry import pair_geometry, smooth_cutoff
from druse_scores.testing import check_score_model

SMALL = PairNetworkConfig(width=32, pair_width=16, vector_width=8, num_layers=2, num_radial=8, num_harmonics=3)


def awake(config: PairNetworkConfig = SMALL) -> PairNetwork:
    """A network in float64 whose zero-initialised layers have been given weights."""
    torch.manual_seed(0)
    network = PairNetwork(config).double()
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.2)
    return network.eval()


def rock_salt(a: float = 5.64) -> Crystal:
    half = a / 2
    return Crystal(
        lattice=half * (1 - np.eye(3)),
        frac_coords=np.array([[0, 0, 0], [0.5, 0.5, 0.5]]),
        atomic_numbers=np.array([11, 17]),
    )


def perfect_crystals() -> CrystalBatch:
    """Crystals in which many neighbours have the same distance: fcc, bcc, rock salt, perovskite, hcp."""
    fcc = Crystal(lattice=1.8 * (1 - np.eye(3)), frac_coords=np.zeros((1, 3)), atomic_numbers=np.array([29]))
    bcc = Crystal(lattice=1.43 * (1 - 2 * np.eye(3)), frac_coords=np.zeros((1, 3)), atomic_numbers=np.array([26]))
    perovskite = Crystal(
        lattice=3.9 * np.eye(3),
        frac_coords=np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]),
        atomic_numbers=np.array([38, 22, 8, 8, 8]),
    )
    hcp = Crystal(
        lattice=np.array([[3.2, 0, 0], [-1.6, 1.6 * 3**0.5, 0], [0, 0, 5.2]]),
        frac_coords=np.array([[1 / 3, 2 / 3, 0.25], [2 / 3, 1 / 3, 0.75]]),
        atomic_numbers=np.array([12, 12]),
    )
    batch = CrystalBatch.from_crystals([fcc, bcc, rock_salt(), perovskite, hcp], dtype=torch.float64)
    return batch.replace(lattice=symmetric_form(batch.lattice))


@pytest.mark.parametrize("t", [0.02, 0.3, 0.9])
def test_symmetries_of_noisy_crystals(t):
    clean = perfect_crystals()
    time = torch.full((len(clean),), t, dtype=torch.float64)
    noisy = CrystalProcess().corrupt(clean, time, generator=RandomStreams(0, range(len(clean))))
    check_score_model(awake(), noisy, time, tolerance=1e-6)


def test_symmetries_where_neighbours_tie():
    clean = perfect_crystals()
    few = PairNetworkConfig(
        width=32, pair_width=16, vector_width=8, num_layers=2, num_radial=8, num_harmonics=3, num_neighbors=15
    )
    check_score_model(awake(few), clean, torch.full((len(clean),), 0.1, dtype=torch.float64), tolerance=1e-6)


def test_symmetries_of_flat_and_skewed_cells():
    generator = torch.Generator().manual_seed(1)
    lattice = torch.randn(6, 3, 3, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 3.0, 9.0]).view(3, 1)
    lattice = symmetric_form(lattice + 0.5 * torch.eye(3))
    n = torch.tensor([1, 2, 3, 5, 9, 20])
    batch = CrystalBatch(
        lattice=lattice,
        frac_coords=torch.rand(40, 3, generator=generator, dtype=torch.float64),
        atomic_numbers=torch.randint(1, 84, (40,), generator=generator),
        num_atoms=n,
    )
    check_score_model(awake(), batch, torch.rand(6, generator=generator, dtype=torch.float64), tolerance=1e-6)


def test_site_symmetry_leaves_no_force():
    """Every site of rock salt is a centre of inversion: the geometric part of the force is zero there."""
    batch = CrystalBatch.from_crystals([rock_salt()], dtype=torch.float64)
    geometry = pair_geometry(
        batch.lattice, batch.frac_coords[None], torch.ones(1, 2, dtype=torch.bool),
        cutoff=6.0, num_neighbors=32, num_radial=8, num_distances=8, num_harmonics=2,
    )  # fmt: skip
    assert geometry.vector.abs().max() < 1e-6
    assert geometry.radial.abs().max() > 1


CELLS = {
    "ordinary": (6, 5 * np.eye(3)),
    "one atom": (1, 3.5 * np.eye(3)),
    "one atom, primitive fcc": (1, 2.5 * (1 - np.eye(3))),
    "flat": (3, np.diag([6.0, 5.0, 0.9])),
    "needle": (2, np.diag([1.1, 1.3, 9.0])),
    "skewed": (4, np.array([[4.0, 0, 0], [5.5, 4.0, 0], [-4.5, 3.0, 4.0]])),
    "skewed and flat": (2, np.array([[5.0, 0, 0], [4.0, 1.5, 0], [2.0, -6.0, 7.0]])),
    "skewed, one atom": (1, np.array([[2.6, 0, 0], [2.4, 3.0, 0], [-2.2, 1.5, 3.0]])),
}


@pytest.mark.parametrize("num_neighbors", [400, 12])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("seed", range(2))
def test_geometry_equals_a_sum_over_an_independent_neighbour_list(cell, num_neighbors, seed):
    """Sums over images against ase.neighborlist, with the reach of ``pair_geometry`` written out."""
    rng = np.random.default_rng(seed)
    n, lattice = CELLS[cell]
    lattice = lattice + rng.normal(size=(3, 3)) * 0.1
    cutoff, num_radial, num_distances = 4.0, 5, 9
    frac = rng.random((n, 3))
    geometry = pair_geometry(
        torch.tensor(lattice)[None], torch.tensor(frac)[None], torch.ones(1, n, dtype=torch.bool),
        cutoff=cutoff, num_neighbors=num_neighbors, num_radial=num_radial, num_distances=num_distances, num_harmonics=2,
    )  # fmt: skip
    faces = [np.linalg.norm(np.cross(lattice[i - 2], lattice[i - 1])) for i in range(3)]
    height = abs(np.linalg.det(lattice)) / max(faces)
    atoms = ase.Atoms(f"H{n}", scaled_positions=frac, cell=lattice, pbc=True)
    i, j, d, vector = ase.neighborlist.neighbor_list("ijdD", atoms, cutoff)
    reach = np.full(n, min(cutoff, 2.5 * height))
    for atom in range(n):
        nearest = np.sort(d[i == atom])
        if len(nearest) > num_neighbors:
            reach[atom] = min(reach[atom], nearest[num_neighbors] * (1 - 1e-5))
    envelope = smooth_cutoff(torch.tensor(d / reach[i])).numpy()
    assert (envelope > 0).any()

    def basis(number: int) -> np.ndarray:
        centres, width = np.linspace(0, cutoff, number), cutoff / (number - 1)
        return np.exp(-0.5 * ((d[:, None] - centres) / width) ** 2) * envelope[:, None]

    radial, directed = np.zeros((n, n, num_distances)), np.zeros((n, n, 3, num_radial))
    np.add.at(radial, (i, j), basis(num_distances))
    unit = 3**0.5 * vector / np.sqrt(d**2 + 1e-4)[:, None]
    np.add.at(directed, (i, j), unit[:, :, None] * basis(num_radial)[:, None])
    np.testing.assert_allclose(geometry.radial[0].numpy(), radial, atol=1e-6)
    np.testing.assert_allclose(geometry.vector[0].numpy(), directed, atol=1e-6)


def test_a_deeper_network_starts_as_the_same_function_and_can_learn():
    network = awake()
    deeper = network.deepened(4)
    crystals = perfect_crystals()
    noisy = CrystalProcess().corrupt(
        crystals, torch.full((len(crystals),), 0.3).double(), generator=RandomStreams(0, range(len(crystals)))
    )
    t = torch.full((len(crystals),), 0.3).double()
    a, b = network(noisy, t), deeper(noisy, t)
    for name in ("lattice", "frac_coords", "species_logits"):
        assert torch.allclose(getattr(a, name), getattr(b, name), atol=1e-12)
    (b.lattice.square().sum() + b.frac_coords.square().sum() + b.species_logits.square().sum()).backward()
    for new in (1, 2):
        for part in ("aggregate", "vector_in", "update.2"):
            gradient = deeper.get_parameter(f"layers.{new}.{part}.weight").grad
            assert gradient is not None
            assert gradient.any()
    with pytest.raises(ValueError, match="deepened"):
        network.deepened(2)


def test_a_few_steps_of_training_lower_the_loss():
    torch.manual_seed(0)
    network = PairNetwork(SMALL)
    clean = perfect_crystals().to(dtype=torch.float32)
    clean = clean.select(torch.arange(5).repeat(8))
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    losses = []
    for step in range(60):
        loss = training_loss(
            CrystalProcess(), network, clean, generator=RandomStreams(step, range(len(clean)))
        ).total.mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss))
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])


def test_mixed_precision_stays_close():
    torch.manual_seed(0)
    plain = awake().float()
    mixed = PairNetwork(SMALL, mixed_precision=True)
    mixed.load_state_dict(plain.state_dict())
    batch, t = perfect_crystals().to(dtype=torch.float32), torch.full((5,), 0.5)
    noisy = CrystalProcess().corrupt(batch, t, generator=RandomStreams(0, range(5)))
    with torch.no_grad():
        a, b = plain(noisy, t), mixed(noisy, t)
    assert a.frac_coords.dtype == b.frac_coords.dtype == torch.float32
    assert (a.lattice - b.lattice).abs().max() < 0.05 * a.lattice.abs().max()


def test_bfloat16_is_for_hardware_that_has_it(monkeypatch):
    for capabilities, expected in (
        ({"avx2": True, "avx512_bf16": False, "amx_bf16": False}, False),
        ({"avx512_bf16": True, "amx_bf16": False}, True),
        ({"neon": True, "bf16": True}, True),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda capabilities=capabilities: capabilities)
        assert has_bfloat16(torch.device("cpu")) is expected
    assert not has_bfloat16(torch.device("mps"))
