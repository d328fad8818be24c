"""The published masks: elements and the mask class everywhere, a chemical system where it is told."""

import pytest
import torch
from druse_crystal import CrystalBatch
from druse_crystal.alex_mp_20 import ELEMENTS
from druse_diffusion import (
    MASK,
    NUM_CLASSES,
    NUM_ELEMENTS,
    Conditions,
    Prediction,
    RandomStreams,
    sample,
    uniform_times,
)
from druse_diffusion.published import published_process
from druse_guidance import AllowedElements, ClassifierFreeGuidance, PublishedElements
from druse_scores.testing import check_score_model

SYSTEM = (3, 8)


def template(*sizes):
    n = torch.tensor(sizes)
    return CrystalBatch(
        lattice=5 * torch.eye(3).expand(len(n), 3, 3),
        frac_coords=torch.rand(int(n.sum()), 3, generator=torch.Generator().manual_seed(0)),
        atomic_numbers=torch.full((int(n.sum()),), MASK),
        num_atoms=n,
    )


def wants_the_mask(noisy, t, conditions=None):
    """A model that is sure of the mask class, told or not."""
    logits = torch.zeros(len(noisy.atomic_numbers), NUM_CLASSES)
    logits[:, NUM_ELEMENTS] = 50.0
    logits[:, 91] = 40.0  # uranium, which is not allowed
    return Prediction(
        lattice=torch.zeros(len(noisy), 3, 3), frac_coords=torch.zeros(len(logits), 3), species_logits=logits
    )


def conditions(*given):
    system = torch.zeros(len(given), NUM_ELEMENTS)
    system[:, [z - 1 for z in SYSTEM]] = 1
    return Conditions(values={"chemical_system": system}, given={"chemical_system": torch.tensor(given)})


def drawn(model, told=None):
    return sample(
        published_process(20),
        model,
        template(*[4] * 10),
        times=uniform_times(20),
        n_corrector_steps=1,
        conditions=told,
        generator=RandomStreams(0, range(10)),
    ).atomic_numbers


def test_the_mask_class_is_never_drawn():
    assert MASK in drawn(AllowedElements(wants_the_mask, ELEMENTS)).tolist()  # as without the published mask
    assert set(drawn(PublishedElements(wants_the_mask, ELEMENTS)).tolist()) <= set(ELEMENTS)


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_a_system_that_is_asked_for_is_kept_under_guidance(scale):
    model = ClassifierFreeGuidance(model=PublishedElements(wants_the_mask, ELEMENTS), scale=scale)
    assert set(drawn(model, conditions(*[True] * 10)).tolist()) == set(SYSTEM)


def test_it_acts_on_the_crystals_that_are_told():
    logits = PublishedElements(wants_the_mask, ELEMENTS)(
        template(2, 3), torch.tensor([0.5, 0.5]), conditions(True, False)
    ).species_logits
    free = logits > -1e9
    assert (free[:2].nonzero()[:, 1] + 1).tolist() == [*SYSTEM] * 2
    assert (free[2].nonzero()[:, 0] + 1).tolist() == [*ELEMENTS]
    assert float(logits[~free].unique()) == -1e10


def test_it_is_a_score_model(random_network):
    batch = template(3, 5).to(dtype=torch.float64)
    check_score_model(PublishedElements(random_network, ELEMENTS), batch, torch.tensor([0.3, 0.6], dtype=torch.float64))
