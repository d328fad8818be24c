import json
from statistics import median

import numpy as np
import pytest
import torch
from druse_benchmarks.throughput import Learner, ThroughputConfig, throughput, training_batches
from druse_crystal.console import Display
from druse_crystal.dataset import load_embedded
from druse_crystal.manifest import Manifest
from druse_diffusion import CrystalProcess, RandomStreams, training_loss
from druse_scores import load_checkpoint
from druse_train.batches import as_batch
from druse_train.config import FitConfig


@pytest.fixture(scope="module")
def dataset():
    return load_embedded()


def test_a_pass_has_the_sizes_of_the_whole(dataset):
    recipe = FitConfig()
    batches = training_batches(dataset, ThroughputConfig(batches=24), recipe)
    assert len(batches) == 24
    sizes = dataset.num_atoms[np.concatenate(batches)]
    assert sizes.mean() == pytest.approx(dataset.num_atoms.mean(), rel=0.07)
    for batch in batches:
        assert len(batch) <= recipe.data.max_batch
        assert len(batch) * int(dataset.num_atoms[batch].max()) ** 2 <= recipe.data.pair_budget
    everything = training_batches(dataset, ThroughputConfig(batches=10**6), recipe)
    assert sorted(np.concatenate(everything).tolist()) == list(range(len(dataset)))


def test_a_step_is_a_step_of_training(dataset, tiny_model):
    """The same work, written out: AdamW on the clipped gradient of the loss, in its warm-up."""
    recipe = FitConfig(seed=5)
    assert recipe.times.focus > 0
    clean = as_batch(dataset.select(np.flatnonzero(dataset.num_atoms == 3)[:8]))
    learner = Learner(load_checkpoint(tiny_model).pair_network, recipe, clean)
    other = load_checkpoint(tiny_model).pair_network.train()
    rates = [recipe.optimizer.lr * (step + 1) / recipe.optimizer.warmup_steps for step in range(3)]
    optimizer = torch.optim.AdamW(other.parameters(), betas=(0.9, 0.98), weight_decay=0.0)
    for rate in rates:
        learner.step(torch.arange(8))
        streams = RandomStreams(5 << 32, range(8))
        loss = training_loss(
            CrystalProcess(), other, clean, weights=recipe.weights, times=recipe.times, generator=streams
        ).total.mean()
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(other.parameters(), 1.0)
        optimizer.step()
    before = load_checkpoint(tiny_model).pair_network.state_dict()
    network, average = learner.module.network, learner.module.average
    for (name, a), b in zip(network.named_parameters(), other.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6), name
    behind = sum(float((average[name] - before[name]).square().sum()) for name in average)
    ahead = sum(float((value - before[name]).square().sum()) for name, value in network.state_dict().items())
    assert 0 < behind < ahead


@pytest.mark.parametrize("precisions", [("float32", "mixed"), ("float32",)])
def test_record(dataset, tiny_model, tmp_path, monkeypatch, precisions):
    monkeypatch.setattr("druse_benchmarks.throughput.has_bfloat16", lambda device: "mixed" in precisions)
    threads = torch.get_num_threads()
    few = dataset.select(np.flatnonzero(dataset.num_atoms <= 3)[:200])
    folder = throughput(
        config=ThroughputConfig(threads=(1,), repeats=3, batches=2),
        model=tiny_model,
        dataset=few,
        out=tmp_path / "results",
        display=Display(quiet=True),
        manifest=Manifest(),
    )
    assert torch.get_num_threads() == threads
    content = json.loads((folder / "throughput.json").read_text())
    number = content["settings"]["throughput"]["crystals_in_a_pass"]
    assert {(r["task"], r["precision"]) for r in content["results"]["rows"]} == {
        (task, precision) for task in ("training", "inference") for precision in precisions
    }
    for row in content["results"]["rows"]:
        assert len(row["seconds"]) == 3
        assert row["threads"] == 1
        assert row["crystals_per_second"] == pytest.approx(number / median(row["seconds"]))
        assert row["slowest"] <= row["crystals_per_second"] <= row["fastest"]
    rates = {(r["task"], r["precision"]): r["crystals_per_second"] for r in content["results"]["rows"]}
    line = next(x for x in (folder / "table.md").read_text().splitlines() if x.startswith("| inference / training"))
    shown = [float(cell) for cell in line.split("|")[2 : 2 + len(precisions)]]
    expected = [rates["inference", p] / rates["training", p] for p in precisions]
    assert shown == pytest.approx(expected, abs=0.006)


@pytest.mark.parametrize("wrong", [{"threads": (0,)}, {"repeats": 0}, {"batches": 0}])
def test_nothing_to_time(wrong):
    with pytest.raises(ValueError, match="at least 1"):
        ThroughputConfig(**wrong)
