"""The symmetric process: crystals have the group whatever the network says, and an oracle still leads home."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from druse_crystal import CrystalBatch
from druse_crystal.dataset import load_embedded
from druse_crystal.site_symmetry import find_site_symmetry
from druse_crystal.symmetry import space_group
from druse_diffusion import (
    MASK,
    NUM_CLASSES,
    AbsorbingD3PM,
    CrystalProcess,
    Prediction,
    RandomStreams,
    fast_times,
)
from druse_diffusion import sample as draw
from druse_diffusion.coordinates import wrapped_normal_score
from druse_guidance import CountedSpecies, ElementCounts, SymmetricProcess, first_atoms
from druse_scores import PairNetwork, PairNetworkConfig

TINY = PairNetworkConfig(width=16, pair_width=8, vector_width=4, num_layers=1, num_radial=4, num_harmonics=2)
ROWS = range(0, 3800, 300)


@pytest.fixture(scope="module")
def crystals():
    known = load_embedded().subset("train").crystals
    return [known[row] for row in ROWS]


@pytest.fixture(scope="module")
def sites(crystals):
    return [find_site_symmetry(crystal) for crystal in crystals]


def template(sites):
    n = torch.tensor([s.num_atoms for s in sites])
    total = int(n.sum())
    return CrystalBatch(
        lattice=torch.eye(3).expand(len(n), 3, 3),
        frac_coords=torch.zeros(total, 3),
        atomic_numbers=torch.full((total,), MASK),
        num_atoms=n,
    )


def broken(batch, sites):
    """Largest deviations from the symmetry: of coordinates, of the lattice over its size, and atoms of a wrong kind."""
    coords, lattices, kinds, start = 0.0, 0.0, 0, 0
    for i, s in enumerate(sites):
        atoms = slice(start, start := start + s.num_atoms)
        from_origin = batch.frac_coords[atoms].double().numpy() - s.origin
        # a lattice vector may lie between the first atom and its origin; it is taken to the others with it
        expected = np.einsum("nij,nj->ni", s.operations, from_origin[s.orbit])
        apart = from_origin - expected
        coords = max(coords, np.abs(apart - np.rint(apart)).max())
        metric = (batch.lattice[i] @ batch.lattice[i].T).double().numpy()
        turned = np.einsum("gji,jk,gkl->gil", s.rotations, metric, s.rotations)
        lattices = max(lattices, np.abs(turned - metric).max() / np.trace(metric))
        species = batch.atomic_numbers[atoms].numpy()
        kinds += int((species != species[s.orbit]).sum())
    return coords, lattices, kinds


@pytest.mark.parametrize("remask", [0.0, 0.3])
def test_symmetric_at_every_time_with_a_network_that_knows_nothing(sites, remask):
    torch.manual_seed(0)
    network = PairNetwork(TINY).eval()
    process = SymmetricProcess(CrystalProcess(species=AbsorbingD3PM(remask=remask)), sites)
    steps = []

    def on_step(step, x):
        steps.append(step)
        coords, lattices, kinds = broken(x, sites)
        assert coords < 1e-3, f"step {step}"
        assert lattices < 1e-3, f"step {step}"
        assert kinds == 0, f"step {step}"

    streams = RandomStreams(0, range(len(sites)))
    draw(
        process, network, template(sites), times=fast_times(20), n_corrector_steps=1, generator=streams, on_step=on_step
    )
    assert len(steps) == 20


def oracle(clean, process):
    """The network's targets for known crystals."""

    def model(noisy, t, conditions=None):
        n = clean.num_atoms
        mean, std = process.lattice.mean(clean.lattice, t, n), process.lattice.std(t, n)[:, None, None]
        sigma = process.frac_coords.sigma(t, n).repeat_interleave(n).unsqueeze(-1)
        apart = noisy.frac_coords - clean.frac_coords
        return Prediction(
            lattice=-(noisy.lattice - mean) / std,
            frac_coords=sigma * wrapped_normal_score(apart, sigma),
            species_logits=100.0 * torch.nn.functional.one_hot(clean.atomic_numbers - 1, NUM_CLASSES).float(),
        )

    return model


def test_noise_moves_crystals_within_their_group_and_an_oracle_brings_them_back(crystals, sites):
    clean = CrystalBatch.from_crystals(crystals)
    clean = clean.replace(frac_coords=torch.tensor(np.concatenate([s.origin for s in sites])).float())
    plain = CrystalProcess()
    process, model, streams = SymmetricProcess(plain, sites), oracle(clean, plain), RandomStreams(1, range(len(sites)))

    def moment(value):
        return torch.full((len(sites),), value)

    def apart(batch):
        difference = batch.frac_coords - clean.frac_coords
        return (difference - difference.round()).abs().max()

    x, t = clean, moment(0.4)
    for _ in range(10):
        x = process.correct(model(x, t), x, t, generator=streams)
    assert apart(x) > 0.03
    assert (x.lattice - clean.lattice).abs().max() > 0.1
    assert max(broken(x, sites)[:2]) < 1e-4
    for now, then in pairwise([0.4, 0.3, 0.2, 0.1, 0.05, 0.0]):
        x = process.denoise(model(x, moment(now)), x, moment(now), moment(then), generator=streams)
    assert apart(x) < 1e-3
    assert torch.equal(x.atomic_numbers, clean.atomic_numbers)
    assert (x.lattice - clean.lattice).abs().max() < 0.05  # the metric of a real crystal is not exactly symmetric
    for crystal, s in zip(x.to_crystals(), sites, strict=True):
        assert space_group(crystal, symprec=0.01).number == s.space_group


def test_a_crystal_does_not_see_the_others(sites):
    network = PairNetwork(TINY).eval()

    def drawn(some, names):
        process = SymmetricProcess(CrystalProcess(), some)
        streams = RandomStreams(3, torch.tensor(names))
        return draw(process, network, template(some), times=fast_times(10), n_corrector_steps=1, generator=streams)

    together, alone = drawn(sites[:4], range(4)), drawn(sites[2:3], [2])
    assert torch.allclose(together.select([2]).lattice, alone.lattice, atol=1e-4)
    assert torch.equal(together.select([2]).atomic_numbers, alone.atomic_numbers)
    apart = together.select([2]).frac_coords - alone.frac_coords
    assert (apart - apart.round()).abs().max() < 1e-4


def test_a_formula_and_a_group_at_once(sites):
    """Orbits share out the atoms of each element, exactly."""
    chosen = [s for s in sites if len(s.orbit_sizes) > 1]
    bounds = [
        ElementCounts(
            least={8: s.orbit_sizes[0], 3: s.num_atoms - s.orbit_sizes[0]},
            most={8: s.orbit_sizes[0], 3: s.num_atoms - s.orbit_sizes[0]},
        )
        for s in chosen
    ]
    species = CountedSpecies(species=AbsorbingD3PM(remask=0.3), bounds=bounds, orbit=first_atoms(chosen))
    process = SymmetricProcess(CrystalProcess(species=species), chosen)
    streams = RandomStreams(0, range(len(chosen)))
    drawn = draw(
        process,
        PairNetwork(TINY).eval(),
        template(chosen),
        times=fast_times(10),
        n_corrector_steps=1,
        generator=streams,
    )
    assert broken(drawn, chosen)[2] == 0
    for crystal, counts in zip(drawn.num_atoms.cumsum(0).tolist(), bounds, strict=True):
        size = sum(counts.least.values())
        assert counts.comply(drawn.atomic_numbers[crystal - size : crystal].tolist())
