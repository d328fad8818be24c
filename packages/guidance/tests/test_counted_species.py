"""Counted species: every crystal complies, whatever the network says, and what is free follows the network."""

from collections import Counter

import pytest
import torch
from druse_crystal import CrystalBatch
from druse_diffusion import (
    MASK,
    NUM_CLASSES,
    AbsorbingD3PM,
    CrystalProcess,
    Prediction,
    RandomStreams,
    fast_times,
    uniform_times,
)
from druse_diffusion import sample as draw
from druse_diffusion.published import PublishedSpecies, published_process
from druse_guidance import AllowedElements, CountedSpecies, ElementCounts
from druse_scores import PairNetwork, PairNetworkConfig

LI, OX, FE = 3, 8, 26
TINY = PairNetworkConfig(width=16, pair_width=8, vector_width=4, num_layers=1, num_radial=4, num_harmonics=2)


class Stubborn:
    """A model that wants nothing but iron, forbids oxygen, and gives numbers that are none."""

    def __call__(self, noisy, t, conditions=None):
        n = len(noisy.atomic_numbers)
        logits = torch.zeros(n, NUM_CLASSES)
        logits[:, FE - 1] = 50.0
        logits[:, OX - 1] = -torch.inf
        return Prediction(lattice=torch.zeros(len(noisy), 3, 3), frac_coords=torch.zeros(n, 3), species_logits=logits)


def template(*sizes):
    n = torch.tensor(sizes)
    total = int(n.sum())
    return CrystalBatch(
        lattice=4 * torch.eye(3).expand(len(n), 3, 3),
        frac_coords=torch.rand(total, 3, generator=torch.Generator().manual_seed(0)),
        atomic_numbers=torch.full((total,), MASK),
        num_atoms=n,
    )


def species_of(bounds, model, *sizes, steps=20, remask=0.3, seed=0):
    process = CrystalProcess(species=CountedSpecies(species=AbsorbingD3PM(remask=remask), bounds=bounds))
    streams = RandomStreams(seed, range(len(sizes)))
    drawn = draw(process, model, template(*sizes), times=fast_times(steps), n_corrector_steps=1, generator=streams)
    return [Counter(c.atomic_numbers.tolist()) for c in drawn.to_crystals()]


FORMULA = ElementCounts(least={LI: 2, FE: 1, OX: 4}, most={LI: 2, FE: 1, OX: 4})
AT_LEAST = ElementCounts(least={LI: 1, OX: 3}, others=True)
AT_MOST = ElementCounts(least={OX: 2}, most={OX: 2, FE: 0}, others=True)


@pytest.mark.parametrize("model", [Stubborn(), PairNetwork(TINY).eval()])
def test_every_crystal_complies_whatever_the_network_says(model):
    bounds = [FORMULA, AT_LEAST, AT_MOST] * 8
    found = species_of(bounds, model, *[7, 4, 5] * 8)
    for counts, species in zip(bounds, found, strict=True):
        assert counts.comply(list(species.elements())), (counts, species)
    assert all(species == {LI: 2, FE: 1, OX: 4} for species in found[::3])


def test_crystals_comply_where_the_wrapped_process_changes_what_is_revealed():
    """The published posterior leaves a chance to revealed atoms, which a network sure of itself turns into changes."""
    streams = torch.Generator().manual_seed(0)
    changing = 0

    def sure(noisy, t, conditions=None):
        logits = 40 * torch.randn(len(noisy.atomic_numbers), NUM_CLASSES, generator=streams)
        zeros = torch.zeros(len(noisy), 3, 3)
        return Prediction(lattice=zeros, frac_coords=torch.zeros(len(logits), 3), species_logits=logits)

    steps, bounds = 30, [FORMULA] * 20
    published = published_process(steps)

    class Watched(PublishedSpecies):
        def denoise(self, prediction, x_t, *args, **kwargs):
            nonlocal changing
            x_s = super().denoise(prediction, x_t, *args, **kwargs)
            changing += int(((x_t != MASK) & (x_s != x_t)).sum())
            return x_s

    species = CountedSpecies(species=Watched(num_steps=steps), bounds=bounds)
    process = CrystalProcess(lattice=published.lattice, frac_coords=published.frac_coords, species=species)
    model = AllowedElements(sure, [LI, OX, FE])
    drawn = draw(process, model, template(*[7] * 20), times=uniform_times(steps), generator=RandomStreams(0, range(20)))
    assert changing > 0
    assert all(b.comply(numbers) for b, numbers in zip(bounds, drawn.atomic_numbers.view(20, 7).tolist(), strict=True))


def test_a_crystal_does_not_see_the_others():
    network = PairNetwork(TINY).eval()
    together = species_of([FORMULA, AT_LEAST], network, 7, 4)
    assert species_of([FORMULA], network, 7) == together[:1]


def test_without_bounds_that_bite_the_choice_is_that_of_the_network():
    """Shares of elements in many one-atom crystals against the softmax of the logits."""
    shares = torch.tensor([0.5, 0.3, 0.2])

    def model(noisy, t, conditions=None):
        logits = torch.full((len(noisy.atomic_numbers), NUM_CLASSES), -torch.inf)
        logits[:, [LI - 1, OX - 1, FE - 1]] = shares.log()
        zeros = torch.zeros(len(noisy), 3, 3)
        return Prediction(lattice=zeros, frac_coords=torch.zeros(len(logits), 3), species_logits=logits)

    n = 2000
    found = species_of([ElementCounts(most={LI: 1, OX: 1, FE: 1})] * n, model, *[1] * n, steps=5)
    for z, share in zip((LI, OX, FE), shares.tolist(), strict=True):
        assert abs(sum(c[z] for c in found) / n - share) < 4 * (share * (1 - share) / n) ** 0.5


def test_forbidden_by_the_model_and_demanded_by_the_bounds():
    """Bounds win over logits of minus infinity: they are a promise."""
    model = AllowedElements(Stubborn(), [FE])
    assert species_of([ElementCounts(least={LI: 2, OX: 2}, most={LI: 2, OX: 2})], model, 4) == [{LI: 2, OX: 2}]


def test_elements_that_are_not_allowed_stay_out_when_likely_ones_are_spent():
    """The model wants iron only; two of four atoms may be iron, the rest comes from the allowed ones, not from all."""
    bounds = ElementCounts(most={FE: 2}, others=True, among=frozenset({LI, OX, FE}))
    for species in species_of([bounds] * 10, AllowedElements(Stubborn(), [LI, OX, FE]), *[4] * 10):
        assert set(species) <= {LI, OX, FE}
        assert species[FE] <= 2
    nothing = ElementCounts(most={FE: 1}, others=True, among=frozenset({FE}))
    with pytest.raises(ValueError, match="no crystal of 4 atoms"):
        species_of([nothing], AllowedElements(Stubborn(), [FE]), 4)


def test_impossible_bounds_are_refused_before_the_first_step():
    with pytest.raises(
        ValueError, match=r"no crystal of 6 atoms has at least 2 Li, 1 Fe, 4 O and at most 2 Li, 1 Fe, 4 O"
    ):
        species_of([FORMULA], Stubborn(), 6)
    with pytest.raises(ValueError, match="bounds for 1 crystals, the batch has 2"):
        species_of([FORMULA], Stubborn(), 7, 7)
