"""The model keeps the contract of every other method."""

import pytest
from druse_baselines import Proposer
from druse_baselines.proposer import element_counts
from druse_baselines.testing import check_proposer, same_crystal
from druse_benchmarks import model_proposer
from druse_benchmarks.model_proposer import ModelProposer
from druse_generate.config import SamplerConfig

SHORT = SamplerConfig(steps=12, corrector_steps=1)


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(model_proposer, "BLOCK", 3)


def test_the_contract(small_blocks):
    """The shipped model; the sampler is far too short for good crystals, and long enough for atoms that are apart."""
    proposer = ModelProposer(sampler=SHORT, num_atoms=(3, 4))
    assert isinstance(proposer, Proposer)
    check_proposer(proposer, targets=["Li-O"], n=3)


def test_formulas(tiny_model):
    proposer = ModelProposer(tiny_model, sampler=SamplerConfig(steps=4, corrector_steps=0))
    found = list(proposer(5, target="Li3O", seed=1))
    assert [dict(element_counts(crystal)) for crystal in found] == [{3: 3, 8: 1}] * 5


def test_what_is_kept_is_not_drawn_again(tiny_model, tmp_path, monkeypatch, small_blocks):
    fresh = ModelProposer(tiny_model, sampler=SHORT, keep=tmp_path)
    first = list(fresh(4, target="Li-O", seed=2))
    calls = []
    generate = model_proposer.generate
    monkeypatch.setattr(model_proposer, "generate", lambda *a, **k: calls.append(1) or generate(*a, **k))
    again = list(ModelProposer(tiny_model, sampler=SHORT, keep=tmp_path)(4, target="Li-O", seed=2))
    assert calls == []
    assert all(same_crystal(a, b) for a, b in zip(first, again, strict=True))
    list(ModelProposer(tiny_model, sampler=SHORT, keep=tmp_path)(7, target="Li-O", seed=2))
    assert len(calls) == 1
    with pytest.raises(ValueError, match="other settings"):
        list(ModelProposer(tiny_model, sampler=SamplerConfig(steps=5), keep=tmp_path)(1, target="Li-O", seed=2))


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("Li--O", "neither a chemical system"),
        ("Na-O", "no crystal that the model was trained on holds Na"),
        ("Li5O", "atoms"),
        ("Li3O1", None),
    ],
)
def test_targets_out_of_reach(tiny_model, target, words):
    proposer = ModelProposer(tiny_model, sampler=SamplerConfig(steps=3, corrector_steps=0))
    if words is None:
        assert len(list(proposer(1, target=target))) == 1
    else:
        with pytest.raises(ValueError, match=words):
            list(proposer(1, target=target))


def test_a_search_without_success_ends(tiny_model, monkeypatch, small_blocks):
    monkeypatch.setattr(model_proposer, "element_counts", lambda crystal: {3: 1})
    with pytest.raises(ValueError, match="none of the last 24 crystals drawn is Li-O"):
        list(ModelProposer(tiny_model, sampler=SamplerConfig(steps=2, corrector_steps=0))(1, target="Li-O"))
