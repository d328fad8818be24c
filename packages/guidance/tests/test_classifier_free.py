"""Classifier-free guidance: the rule, its two ends, its interval, and what it leads to."""

import pytest
import torch
from druse_crystal import CrystalBatch
from druse_diffusion import (
    NUM_CLASSES,
    Conditions,
    CrystalProcess,
    LatticeVP,
    Prediction,
    RandomStreams,
    WrappedVE,
    uniform_times,
)
from druse_diffusion import sample as draw
from druse_guidance import ClassifierFreeGuidance


class Two:
    """A model whose predictions are 1 with conditions and 3 without; it counts its calls."""

    def __init__(self):
        self.calls = []

    def __call__(self, noisy, t, conditions=None):
        self.calls.append(len(noisy))
        value = torch.full((len(noisy),), 3.0)
        if conditions is not None:
            value = torch.where(conditions.given["x"], conditions.values["x"].float(), value)
        on_atoms = value.repeat_interleave(noisy.num_atoms)
        return Prediction(
            lattice=value[:, None, None].expand(-1, 3, 3),
            frac_coords=on_atoms[:, None].expand(-1, 3),
            species_logits=on_atoms[:, None].expand(-1, NUM_CLASSES),
        )


def batch(size=2):
    n = torch.tensor([2, 3] * (size // 2))
    total = int(n.sum())
    return CrystalBatch(
        lattice=4 * torch.eye(3).expand(size, 3, 3),
        frac_coords=torch.zeros(total, 3),
        atomic_numbers=torch.full((total,), 8),
        num_atoms=n,
    )


ASKED = Conditions(values={"x": torch.tensor([1.0, 1.0])}, given={"x": torch.tensor([True, False])})
T = torch.tensor([0.2, 0.8])


@pytest.mark.parametrize(("scale", "expected", "calls"), [(0, 3, [2]), (1, 1, [2]), (2, -1, [4]), (0.5, 2, [4])])
def test_the_rule_in_one_batch(scale, expected, calls):
    model = Two()
    found = ClassifierFreeGuidance(model=model, scale=float(scale))(batch(), T, ASKED)
    assert found.lattice[:, 0, 0].tolist() == [expected, 3]  # the second crystal is not conditioned on anything
    assert found.frac_coords[:, 0].tolist() == [expected] * 2 + [3] * 3
    assert found.species_logits[:, 0].tolist() == [expected] * 2 + [3] * 3
    assert model.calls == calls


def test_outside_of_the_interval_the_model_is_the_conditional_one():
    model = Two()
    both = Conditions(values={"x": torch.tensor([1.0, 1.0])}, given={"x": torch.tensor([True, True])})
    guidance = ClassifierFreeGuidance(model=model, scale=2.0, interval=(0.5, 1.0))
    assert guidance(batch(), T, both).lattice[:, 0, 0].tolist() == [1, -1]
    assert guidance(batch(), torch.tensor([0.1, 0.2]), both).lattice[:, 0, 0].tolist() == [1, 1]
    assert model.calls == [4, 2]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scale": -1.0}, "guidance scale is -1"),
        ({"scale": float("nan")}, "guidance scale is nan"),
        ({"scale": 1.0, "interval": (0.5, 0.2)}, "lower one first"),
        ({"scale": 1.0, "interval": (0.5, 1.2)}, "between 0 and 1"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(ValueError, match=words):
        ClassifierFreeGuidance(model=Two(), **options)


@pytest.mark.parametrize(("scale", "expected"), [(0.0, 4.0), (1.0, 4.5), (2.0, 5.0)])
def test_scores_of_two_normal_distributions_lead_to_the_third(scale, expected):
    """Lattices: free around 4 Å, conditioned around 4.5 Å, of one width; guided by 2 around 5 Å."""
    crystals, width = 400, 0.2
    process = LatticeVP()

    def model(noisy, t, conditions=None):
        n = noisy.num_atoms
        edge = torch.full((len(noisy),), 4.0)
        if conditions is not None:
            edge = torch.where(conditions.given["x"], 4.5, edge)
        mean = process.mean(edge[:, None, None] * torch.eye(3), t, n)
        std, m = process.std(t, n)[:, None, None], process.mean_coefficient(t)[:, None, None]
        return Prediction(
            lattice=-std * (noisy.lattice - mean) / (std**2 + (m * width) ** 2),
            frac_coords=torch.zeros_like(noisy.frac_coords),
            species_logits=torch.zeros(len(noisy.frac_coords), NUM_CLASSES),
        )

    n = torch.ones(crystals, dtype=torch.long)
    template = CrystalBatch(
        lattice=torch.eye(3).expand(crystals, 3, 3), frac_coords=torch.zeros(crystals, 3), atomic_numbers=n, num_atoms=n
    )
    asked = Conditions(values={"x": torch.zeros(crystals)}, given={"x": torch.ones(crystals, dtype=torch.bool)})
    drawn = draw(
        CrystalProcess(lattice=process, frac_coords=WrappedVE()),
        ClassifierFreeGuidance(model=model, scale=scale),
        template,
        times=uniform_times(200),
        conditions=asked,
        generator=RandomStreams(0, range(crystals)),
    )
    diagonal = drawn.lattice.diagonal(dim1=-2, dim2=-1)
    assert abs(float(diagonal.mean()) - expected) < 5 * width / (3 * crystals) ** 0.5 + 0.01
    assert abs(float(diagonal.std()) / width - 1) < 0.15
