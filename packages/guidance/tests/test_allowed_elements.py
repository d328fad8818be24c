"""Whatever a network says, only allowed elements come out, and everything else is the network's."""

from dataclasses import dataclass

import pytest
import torch
from druse_crystal import CrystalBatch
from druse_diffusion import (
    MASK,
    NUM_CLASSES,
    NUM_ELEMENTS,
    AbsorbingD3PM,
    CrystalProcess,
    Prediction,
    RandomStreams,
    ScoreModel,
    fast_times,
    sample,
)
from druse_guidance import AllowedElements, parse_elements
from druse_scores.testing import check_score_model

ALLOWED = (3, 8, 26)


@dataclass
class Hostile:
    """A model that wants everything but what is allowed."""

    kind: str
    num_classes: int = NUM_CLASSES

    def __call__(self, noisy, t, conditions=None):
        logits = torch.zeros(len(noisy.atomic_numbers), self.num_classes)
        if self.kind == "certain":
            logits[:] = 1e30
            logits[:, [z - 1 for z in ALLOWED]] = -1e30
        elif self.kind == "mask":
            logits[:, NUM_ELEMENTS:] = torch.inf
        elif self.kind == "random":
            logits = 50 * torch.randn_like(logits)
        else:
            logits[:] = {"nan": torch.nan, "inf": torch.inf, "-inf": -torch.inf}[self.kind]
        return Prediction(
            lattice=torch.zeros(len(noisy), 3, 3), frac_coords=torch.zeros(len(logits), 3), species_logits=logits
        )


def template(*sizes):
    n = torch.tensor(sizes)
    total = int(n.sum())
    return CrystalBatch(
        lattice=4 * torch.eye(3).expand(len(n), 3, 3),
        frac_coords=torch.rand(total, 3, generator=torch.Generator().manual_seed(0)),
        atomic_numbers=torch.full((total,), MASK),
        num_atoms=n,
    )


@pytest.mark.parametrize("kind", ["certain", "mask", "random", "nan", "inf", "-inf"])
@pytest.mark.parametrize(("temperature", "remask"), [(1.0, 0.0), (0.01, 1.0), (100.0, 1.0)])
def test_every_atom_complies_at_any_temperature_and_with_remasking(kind, temperature, remask):
    seen = set()
    drawn = sample(
        CrystalProcess(species=AbsorbingD3PM(temperature=temperature, remask=remask)),
        AllowedElements(Hostile(kind), ALLOWED),
        template(*[7] * 30),
        times=fast_times(10),
        n_corrector_steps=2,
        generator=RandomStreams(1, range(30)),
        on_step=lambda _, x: seen.update(x.atomic_numbers.tolist()),
    )
    assert set(drawn.atomic_numbers.tolist()) <= set(ALLOWED)
    assert seen <= {*ALLOWED, MASK}
    if kind != "random" and temperature >= 1:  # nothing prefers one of them
        assert set(drawn.atomic_numbers.tolist()) == set(ALLOWED)


def test_the_corrector_alone_complies():
    """From data of allowed elements, remasking only ever puts allowed elements or masks."""
    process, n = AbsorbingD3PM(remask=1.0), torch.tensor([500])
    x = torch.tensor(ALLOWED).repeat(167)[:500]
    logits = AllowedElements(Hostile("certain"), ALLOWED)(template(500), torch.tensor([0.5])).species_logits
    changed = 0
    for draw in range(20):
        after = process.correct(logits, x, torch.tensor([0.5]), n, generator=RandomStreams(draw, range(1)))
        assert set(after.tolist()) <= {*ALLOWED, MASK}
        changed += int((after != x).sum())
        x = after
    assert changed > 1000


def test_probabilities_are_those_of_the_network_given_the_elements():
    inner = Hostile("random")
    torch.manual_seed(3)
    plain = inner(template(6), torch.tensor([0.5])).species_logits
    torch.manual_seed(3)
    masked = AllowedElements(inner, ALLOWED)(template(6), torch.tensor([0.5])).species_logits
    columns = [z - 1 for z in ALLOWED]
    expected = plain[:, columns].softmax(-1)
    assert torch.allclose(masked[:, :NUM_ELEMENTS].softmax(-1)[:, columns], expected)
    assert torch.equal(masked[:, NUM_ELEMENTS], plain[:, NUM_ELEMENTS])
    assert int((masked == -torch.inf).sum()) == 6 * (NUM_ELEMENTS - len(ALLOWED))


def test_a_network_without_a_mask_class():
    logits = AllowedElements(Hostile("random", NUM_ELEMENTS), ALLOWED)(template(4), torch.tensor([0.5])).species_logits
    assert torch.equal((logits > -torch.inf).sum(-1), torch.full((4,), len(ALLOWED)))
    with pytest.raises(ValueError, match="20 classes and none for Fe"):
        AllowedElements(Hostile("random", 20), ALLOWED)(template(4), torch.tensor([0.5]))


def test_it_is_a_score_model_and_stacks(random_network):
    batch = template(3, 5).to(dtype=torch.float64)
    batch = batch.replace(atomic_numbers=torch.tensor([3, MASK, 8, 3, MASK, 26, 8, MASK]))
    t = torch.tensor([0.3, 0.6], dtype=torch.float64)
    once = AllowedElements(random_network, ALLOWED)
    twice = AllowedElements(once, (8, 3))
    assert isinstance(once, ScoreModel)
    assert twice.elements == (3, 8)
    for model in (once, twice):
        check_score_model(model, batch, t)
    assert torch.equal(twice(batch, t).species_logits[:, 7], random_network(batch, t).species_logits[:, 7])
    assert bool((twice(batch, t).species_logits[:, 25] == -torch.inf).all())
    with pytest.raises(ValueError, match="holds Na"):
        AllowedElements(once, (8, 11))


@pytest.mark.slow
def test_a_compiled_network(random_network):
    network = random_network.float()
    plain, compiled = (
        AllowedElements(network, ALLOWED),
        AllowedElements(torch.compile(network, backend="eager"), ALLOWED),
    )
    with torch.no_grad():
        expected, found = (model(template(3, 5), torch.tensor([0.3, 0.6])) for model in (plain, compiled))
    assert torch.allclose(found.species_logits, expected.species_logits, atol=1e-4)


@pytest.mark.parametrize(
    ("elements", "known", "words"),
    [
        ((), None, "no element is allowed"),
        ((3, 101), None, "no class for Md"),
        ((0,), None, "no class for atomic number 0"),
        ((3, 92, 94), (3, 8), "holds U or Pu"),
    ],
)
def test_elements_that_cannot_be_are_refused(elements, known, words):
    with pytest.raises(ValueError, match=words):
        AllowedElements(Hostile("random"), elements, known=known)


def test_words():
    assert parse_elements("Li-Fe-O") == (3, 8, 26)
    assert parse_elements(" O ") == (8,)
    for text, words in (("Li-Xx", "'Xx' in"), ("", "'' in"), ("Li--O", "'' in"), ("X", "no element"), ("LiO", "LiO")):
        with pytest.raises(ValueError, match=words):
            parse_elements(text)
    with pytest.raises(ValueError, match="more than once"):
        parse_elements("Li-O-Li")
