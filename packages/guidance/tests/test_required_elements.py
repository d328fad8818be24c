"""Required elements: the probabilities are those of counting all cases, and nearly every crystal is complete."""

from dataclasses import dataclass
from itertools import product

import pytest
import torch
from druse_crystal import CrystalBatch
from druse_diffusion import MASK, NUM_CLASSES, AbsorbingD3PM, CrystalProcess, Prediction, RandomStreams, fast_times
from druse_diffusion import sample as draw
from druse_guidance import AllowedElements, RequiredElements
from druse_guidance.required_elements import SMOOTHING
from druse_scores.testing import check_score_model

ELEMENTS = (3, 8, 26)


@dataclass
class Says:
    """A model with given probabilities of lithium, oxygen and iron, atom by atom."""

    probabilities: torch.Tensor

    def __call__(self, noisy, t, conditions=None):
        n = len(noisy.atomic_numbers)
        logits = torch.full((n, NUM_CLASSES), -torch.inf)
        logits[:, [z - 1 for z in ELEMENTS]] = self.probabilities.expand(n, -1).log()
        return Prediction(lattice=torch.zeros(len(noisy), 3, 3), frac_coords=torch.zeros(n, 3), species_logits=logits)


def template(*sizes, numbers=None):
    n = torch.tensor(sizes)
    total = int(n.sum())
    return CrystalBatch(
        lattice=4 * torch.eye(3).expand(len(n), 3, 3),
        frac_coords=torch.rand(total, 3, generator=torch.Generator().manual_seed(0)),
        atomic_numbers=torch.full((total,), MASK) if numbers is None else torch.tensor(numbers),
        num_atoms=n,
    )


def test_probabilities_are_those_of_all_cases():
    """A crystal with oxygen and three masked atoms, and one with nothing revealed, against enumeration."""
    batch = template(4, 3, numbers=[8, MASK, MASK, MASK, MASK, MASK, MASK])
    p = torch.tensor([[0.1, 0.6, 0.3], [0.7, 0.2, 0.1], [0.05, 0.9, 0.05], [0.3, 0.3, 0.4]]).repeat(2, 1)[:7]
    found = RequiredElements(Says(p), ELEMENTS)(batch, torch.tensor([0.5, 0.5])).species_logits
    found = found[:, [z - 1 for z in ELEMENTS]].softmax(-1)
    smooth = (1 - SMOOTHING) * p + SMOOTHING / 3
    for start, stop, there in ((1, 4, {1}), (4, 7, set())):
        for atom in range(start, stop):
            others = [j for j in range(start, stop) if j != atom]
            expected = torch.zeros(3)
            for choice in range(3):
                for cases in product(range(3), repeat=len(others)):
                    if {*cases, choice, *there} == {0, 1, 2}:
                        chance = torch.stack([smooth[j, c] for j, c in zip(others, cases, strict=True)]).prod()
                        expected[choice] += p[atom, choice] * chance
            assert torch.allclose(found[atom], expected / expected.sum(), atol=1e-5)


def test_revealed_atoms_and_complete_crystals_are_left_alone():
    batch = template(4, 2, numbers=[8, 3, 26, MASK, 8, MASK])
    p = torch.tensor([[0.2, 0.5, 0.3]])
    models = Says(p), RequiredElements(Says(p), ELEMENTS)
    plain, led = (model(batch, torch.tensor([0.5, 0.5])).species_logits for model in models)
    assert torch.allclose(led[:5], plain[:5], atol=1e-5)  # all of the first crystal, and the revealed oxygen
    assert led[5].isfinite().sum() == 3  # two elements are missing and one atom is left: hopeless, but no nonsense


def test_the_last_atom_takes_what_is_missing():
    batch = template(3, numbers=[8, 3, MASK])
    led = RequiredElements(Says(torch.tensor([[0.5, 0.5 - 1e-9, 1e-9]])), ELEMENTS)(batch, torch.tensor([0.1]))
    assert led.species_logits.argmax(-1)[2] == 25
    assert led.species_logits[2, :100].softmax(-1)[25] > 0.999


@pytest.mark.parametrize("remask", [0.0, 0.3])
def test_nearly_every_crystal_is_complete(remask):
    """A model that hardly ever gives iron: without guidance 4 % of the crystals would hold all three."""
    p = torch.tensor([[0.3, 0.69, 0.01]])
    process = CrystalProcess(species=AbsorbingD3PM(remask=remask))
    complete = []
    for model in (Says(p), RequiredElements(Says(p), ELEMENTS)):
        batch = draw(
            process,
            model,
            template(*[5] * 200),
            times=fast_times(50),
            n_corrector_steps=1,
            generator=RandomStreams(0, range(200)),
        )
        sets = batch.atomic_numbers.reshape(200, 5).tolist()
        assert {z for atoms in sets for z in atoms} <= set(ELEMENTS)
        complete.append(sum(set(atoms) == set(ELEMENTS) for atoms in sets))
    assert complete[0] < 20
    assert complete[1] > 180


def test_it_is_a_score_model(random_network):
    batch = template(3, 5, numbers=[3, MASK, 8, 3, MASK, 26, MASK, MASK]).to(dtype=torch.float64)
    model = RequiredElements(AllowedElements(random_network, (*ELEMENTS, 11)), ELEMENTS)
    check_score_model(model, batch, torch.tensor([0.3, 0.6], dtype=torch.float64))


@pytest.mark.parametrize("elements", [(), tuple(range(1, 12)), (0, 3), (3, 101)])
def test_elements_that_cannot_be_are_refused(elements):
    with pytest.raises(ValueError, match="ask for 1 to 10"):
        RequiredElements(Says(torch.ones(1, 3)), elements)
