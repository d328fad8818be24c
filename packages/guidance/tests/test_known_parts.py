"""Known parts come back exactly, as noisy as the rest on the way, and the rest is the model's."""

import pytest
import torch
from druse_crystal import CrystalBatch
from druse_crystal.lattice import symmetric_form
from druse_diffusion import MASK, AbsorbingD3PM, CrystalProcess, LatticeVP, RandomStreams, WrappedVE, fast_times
from druse_diffusion import sample as draw
from druse_guidance import CountedSpecies, ElementCounts, KnownParts
from druse_scores import PairNetwork, PairNetworkConfig

TINY = PairNetworkConfig(width=16, pair_width=8, vector_width=4, num_layers=1, num_radial=4, num_harmonics=2)
SIZES = (5, 3, 8)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return PairNetwork(TINY).eval()


@pytest.fixture
def known():
    generator = torch.Generator().manual_seed(0)
    total = sum(SIZES)
    return CrystalBatch(
        lattice=symmetric_form(4 * torch.eye(3) + 0.5 * torch.randn(3, 3, 3, generator=generator)),
        frac_coords=torch.rand(total, 3, generator=generator),
        atomic_numbers=torch.randint(1, 80, (total,), generator=generator),
        num_atoms=torch.tensor(SIZES),
    )


def kept(network, known, process, *, lattice=True):
    some = torch.arange(sum(SIZES)) % 2 == 0
    return KnownParts(
        model=network,
        process=process,
        known=known,
        lattice=torch.tensor([lattice, False, lattice]),
        frac_coords=some,
        species=some,
    )


def apart(a, b):
    return (a - b - (a - b).round()).abs()


@pytest.mark.parametrize("process", [CrystalProcess(), CrystalProcess(species=AbsorbingD3PM(remask=0.3))])
def test_what_is_kept_comes_back_and_the_rest_is_free(network, known, process):
    model = kept(network, known, process)
    streams = RandomStreams(0, range(3))
    drawn = draw(process, model, known, times=fast_times(100), n_corrector_steps=1, generator=streams)
    assert apart(drawn.frac_coords, known.frac_coords)[model.frac_coords].max() < 1e-3
    assert (drawn.lattice - known.lattice)[[0, 2]].abs().max() < 1e-2
    assert torch.equal(drawn.atomic_numbers[model.species], known.atomic_numbers[model.species])
    exact = model.restore(drawn)
    assert torch.equal(exact.frac_coords[model.frac_coords], known.frac_coords[model.frac_coords])
    assert torch.equal(exact.lattice[[0, 2]], known.lattice[[0, 2]])
    free = ~model.frac_coords
    assert apart(exact.frac_coords, known.frac_coords)[free].amax(-1).min() > 1e-3
    assert (exact.atomic_numbers != known.atomic_numbers)[free].float().mean() > 0.5
    assert (exact.lattice - known.lattice)[1].abs().max() > 0.1


def test_what_is_kept_is_as_noisy_as_the_process_has_it(network):
    """At every time the kept coordinates and lattices of many crystals have the width of x_t given x_0."""
    crystals = 300
    known = CrystalBatch(
        lattice=torch.diag(torch.tensor([3.0, 4.0, 5.0])).expand(crystals, 3, 3),
        frac_coords=torch.full((2 * crystals, 3), 0.4),
        atomic_numbers=torch.full((2 * crystals,), 8),
        num_atoms=torch.full((crystals,), 2),
    )
    lattices, coordinates, elements = LatticeVP(), WrappedVE(), AbsorbingD3PM()
    process, times = CrystalProcess(lattice=lattices, frac_coords=coordinates, species=elements), fast_times(50)
    everything = torch.ones(2 * crystals, dtype=torch.bool)
    model = KnownParts(
        model=network,
        process=process,
        known=known,
        lattice=everything[:crystals],
        frac_coords=everything,
        species=everything,
    )
    widths = []

    def on_step(step, x):
        t = torch.full((crystals,), times[step + 1])
        difference = x.frac_coords - known.frac_coords
        sigma = float(coordinates.sigma(t, x.num_atoms)[0])
        if 1e-3 < sigma < 0.15:
            widths.append(float((difference - difference.round()).std()) / sigma)
            spread = (x.lattice - lattices.mean(known.lattice, t, x.num_atoms)).std()
            assert abs(float(spread / lattices.std(t, x.num_atoms)[0]) - 1) < 0.1
            masked = float((x.atomic_numbers == MASK).float().mean())
            assert abs(masked - float(elements.masked_probability(t)[0])) < 0.09

    draw(process, model, known, times=times, generator=RandomStreams(0, range(crystals)), on_step=on_step)
    assert len(widths) > 5
    assert all(abs(width - 1) < 0.1 for width in widths)


def test_kept_atoms_count_from_the_start(network, known):
    """With bounds that the free atoms would break if they did not know of the kept ones."""
    numbers = known.atomic_numbers.clone()
    some = torch.arange(sum(SIZES)) % 2 == 0
    numbers[some] = 26
    known = known.replace(atomic_numbers=numbers)
    bounds = [ElementCounts(least={26: n - n // 2, 8: n // 2}, most={26: n - n // 2, 8: n // 2}) for n in (5, 3)]
    bounds.append(ElementCounts(least={26: 4}, most={26: 4}, others=True))
    species = CountedSpecies(species=AbsorbingD3PM(remask=0.3), bounds=bounds, known=torch.where(some, numbers, 0))
    process = CrystalProcess(species=species)
    streams = RandomStreams(0, range(3))
    drawn = draw(
        process, kept(network, known, process), known, times=fast_times(20), n_corrector_steps=1, generator=streams
    )
    assert torch.equal(drawn.atomic_numbers[some], numbers[some])
    for counts, atoms in zip(bounds, drawn.atomic_numbers.split(SIZES), strict=True):
        assert counts.comply(atoms.tolist())
    too_many = CountedSpecies(
        species=AbsorbingD3PM(), bounds=[ElementCounts(most={26: 1}, others=True)] * 3, known=species.known
    )
    with pytest.raises(ValueError, match="of which 3 Fe are kept"):
        too_many.prior(known.num_atoms, generator=streams)
