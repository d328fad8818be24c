"""Training runs: they learn, they stop and resume on the same path, and bad recipes are named."""

import csv
import json
import os
import subprocess

import numpy as np
import pytest
import torch
from druse_crystal import Crystal
from druse_crystal.batch import size_buckets
from druse_crystal.dataset import CrystalDataset
from druse_crystal.settings import settings_text
from druse_scores import PairNetworkConfig, load_checkpoint
from druse_train import fitting
from druse_train.batches import BatchStream, Place, as_batch
from druse_train.cli import app
from druse_train.config import FitConfig, OptimizerConfig, read_recipe
from druse_train.fitting import AGREE_EVERY, DiffusionModule
from druse_train.state import Progress, load_state
from lightning.pytorch.loggers.logger import DummyLogger
from typer.testing import CliRunner

RECIPE = """
network: {width: 16, pair_width: 8, vector_width: 4, num_layers: 1, num_radial: 4, num_harmonics: 2}
data: {pair_budget: 60}
optimizer: {warmup_steps: 2, ema_decay: 0.9}
validate_every_steps: 4
checkpoint_every_minutes: 100
mixed_precision: false
threads: 1
"""


@pytest.fixture
def dataset(tmp_path):
    rng = np.random.default_rng(0)
    crystals = []
    for i in range(40):
        n = 1 + i % 4
        crystals.append(
            Crystal(
                lattice=4 * np.eye(3) + 0.3 * rng.normal(size=(3, 3)),
                frac_coords=rng.random((n, 3)),
                atomic_numbers=rng.integers(1, 20, n),
            )
        )
    data = CrystalDataset(
        ids=np.array([f"c{i}" for i in range(40)]),
        crystals=crystals,
        split=np.array(["val" if i % 5 == 0 else "train" for i in range(40)]),
    )
    data.write(tmp_path / "data.parquet")
    return tmp_path / "data.parquet"


def run(tmp_path, dataset, out, extra: str, *options, recipe: str = RECIPE):
    path = tmp_path / f"{out}.yaml"
    path.write_text(recipe + extra)
    arguments = ["fit", str(path), "--data", str(dataset), "--out", str(tmp_path / out), "--json", *options]
    return CliRunner().invoke(app, arguments)


def test_a_stopped_and_resumed_run_follows_the_same_path(tmp_path, dataset):
    whole = run(tmp_path, dataset, "whole", "max_steps: 12\n")
    assert whole.exit_code == 0, whole.output
    assert run(tmp_path, dataset, "parts", "max_steps: 7\n").exit_code == 0
    again = run(tmp_path, dataset, "parts", "max_steps: 12\n", "--resume")
    assert again.exit_code == 0, again.output
    a, b = (load_state(tmp_path / name / "state.safetensors") for name in ("whole", "parts"))
    for name in a[0]:
        assert torch.allclose(a[0][name], b[0][name], atol=1e-6), name
        assert torch.allclose(a[1][name], b[1][name], atol=1e-6), name
    assert (a[3].step, a[3].place, a[3].seen) == (b[3].step, b[3].place, b[3].seen)
    assert json.loads(whole.stdout.splitlines()[-1])["steps"] == 12
    rows = list(csv.DictReader((tmp_path / "whole" / "log.csv").open()))
    assert [int(float(row["step"])) for row in rows] == [4, 8, 12]
    best = load_checkpoint(tmp_path / "whole" / "best")
    assert best.provenance["steps"] in (4, 8, 12)
    assert best.num_atoms == dict.fromkeys(range(1, 5), 8)


def test_a_run_is_not_overwritten_by_accident(tmp_path, dataset):
    assert run(tmp_path, dataset, "one", "max_steps: 2\n").exit_code == 0
    second = run(tmp_path, dataset, "one", "max_steps: 2\n")
    assert second.exit_code == 2
    assert "--resume" in second.stderr


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("optimiser: {}\n", "optimiser"),
        ("data: {pair_budgets: 3}\n", "pair_budgets"),
        ("seed: soon\n", "seed"),
        ("threads: 0\n", "threads"),
        ("data: {pair_budget: -3}\n", "pair_budget"),
        ("optimizer: {ema_decay: 1.0}\n", "ema_decay"),
        ("[", "YAML"),
    ],
)
def test_a_wrong_recipe_is_named(tmp_path, text, named):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    result = CliRunner().invoke(app, ["fit", str(path), "--out", str(tmp_path / "run")])
    assert result.exit_code == 2
    assert named in result.stderr
    assert not (tmp_path / "run").exists()


def test_truncated_state_is_refused(tmp_path, dataset):
    assert run(tmp_path, dataset, "one", "max_steps: 2\n").exit_code == 0
    state = tmp_path / "one" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:500])
    result = run(tmp_path, dataset, "one", "max_steps: 4\n", "--resume")
    assert result.exit_code == 2
    assert "state.safetensors" in result.stderr


def test_recipe_survives_a_round_trip(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(settings_text(FitConfig(seed=5)))
    assert read_recipe(path) == FitConfig(seed=5)


def test_batches_hold_every_crystal_once_an_epoch_and_resume_anywhere():
    sizes = np.random.default_rng(1).integers(1, 21, 500)
    stream = BatchStream(num_atoms=sizes, pair_budget=2000, max_batch=64, seed=3)
    batches = stream.epoch(0)
    assert sorted(np.concatenate(batches).tolist()) == list(range(500))
    assert all(len(b) * sizes[b].max() ** 2 <= 2000 for b in batches)
    first = [item for _, item in zip(range(len(batches) + 5), stream, strict=False)]
    place = first[10][0]
    resumed = iter(BatchStream(num_atoms=sizes, pair_budget=2000, max_batch=64, seed=3, start=place))
    for (_, expected), (_, got) in zip(first[11:], resumed, strict=False):
        assert torch.equal(expected, got)
    assert first[len(batches)][0] == Place(epoch=1, index=1)


def test_processes_share_an_epoch():
    sizes = np.full(101, 3)
    parts = [
        [index for _, (place, index) in zip(range(6), BatchStream(
            num_atoms=sizes, pair_budget=90, max_batch=8, seed=0, rank=rank, world=2), strict=False)]
        for rank in (0, 1)
    ]  # fmt: skip
    seen = [set(torch.cat(part).tolist()) for part in parts]
    assert not seen[0] & seen[1]


def test_a_crystal_larger_than_the_budget_gets_a_batch_of_its_own():
    assert [len(b) for b in size_buckets(np.array([20, 2, 2]), pair_budget=100, max_batch=8)] == [2, 1]


def test_a_killed_run_goes_on_from_its_last_checkpoint(tmp_path, dataset, monkeypatch):
    """Saved in the middle of an epoch and killed: the resumed run equals the undisturbed one."""
    from druse_train.fitting import Recorder

    assert run(tmp_path, dataset, "whole", "max_steps: 9\n").exit_code == 0
    always = RECIPE.replace("checkpoint_every_minutes: 100", "checkpoint_every_minutes: 0")
    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "on_train_end", lambda *_: None)  # a kill: nothing is saved at the end
        assert run(tmp_path, dataset, "killed", "max_steps: 6\n", recipe=always).exit_code == 0
    assert run(tmp_path, dataset, "killed", "max_steps: 9\n", "--resume").exit_code == 0
    a, b = (load_state(tmp_path / name / "state.safetensors") for name in ("whole", "killed"))
    for name in a[0]:
        assert torch.allclose(a[0][name], b[0][name], atol=1e-6), name
        assert torch.allclose(a[1][name], b[1][name], atol=1e-6), name
    assert a[3].step == b[3].step == 9


def test_a_run_ends_when_its_hours_are_over(tmp_path, dataset):
    done = run(tmp_path, dataset, "short", "max_hours: 1.0e-9\n")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout.splitlines()[-1])["steps"] == AGREE_EVERY


def test_learning_rate_warms_up_and_decays(dataset):
    data = as_batch(CrystalDataset.read(dataset))
    config = FitConfig(
        network=PairNetworkConfig(width=16, pair_width=8, vector_width=4, num_layers=1, num_radial=4, num_harmonics=2),
        optimizer=OptimizerConfig(warmup_steps=10, decay_start_hours=3.0),
        max_hours=5.0,
    )
    module = DiffusionModule(config, data, data, Progress())
    assert module.rate() == pytest.approx(0.1)
    module.progress.step = 100
    for hours, rate in ((0.0, 1.0), (3.0, 1.0), (4.0, 0.5), (5.0, 0.0), (6.0, 0.0)):
        module.hours = hours
        assert module.rate() == pytest.approx(rate)


@pytest.mark.parametrize("hook", ["validation_step", "backward"])
def test_a_run_stopped_within_a_step_goes_on_from_before_it(tmp_path, dataset, monkeypatch, hook):
    """Ctrl-C while a validation uses the averaged weights, or before a batch was learnt from."""
    assert run(tmp_path, dataset, "whole", "max_steps: 7\n").exit_code == 0
    original, calls = getattr(DiffusionModule, hook), []

    def stop(self, *arguments):
        calls.append(self.progress.step)
        if self.progress.step == 4:
            raise KeyboardInterrupt
        return original(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(DiffusionModule, hook, stop)
        assert run(tmp_path, dataset, "parts", "max_steps: 7\n").exit_code != 0
    assert calls[-1] == 4
    assert run(tmp_path, dataset, "parts", "max_steps: 7\n", "--resume").exit_code == 0
    a, b = (load_state(tmp_path / name / "state.safetensors") for name in ("whole", "parts"))
    for name in a[0]:
        assert torch.allclose(a[0][name], b[0][name], atol=1e-6), name
    assert (a[3].step, a[3].place, a[3].seen) == (b[3].step, b[3].place, b[3].seen)


def test_losses_are_logged_at_the_steps_of_the_whole_run(tmp_path, dataset, monkeypatch):
    logged = []

    class Logger(DummyLogger):
        def log_metrics(self, metrics, step=None):
            logged.append((step, set(metrics)))

    monkeypatch.setattr(fitting, "_tensorboard", lambda folder: Logger())
    steps = 2 * AGREE_EVERY
    text = f"tensorboard: true\nvalidate_every_steps: {AGREE_EVERY}\n"
    recipe = RECIPE.replace("validate_every_steps: 4\n", "")
    assert run(tmp_path, dataset, "one", f"{text}max_steps: {AGREE_EVERY}\n", recipe=recipe).exit_code == 0
    assert run(tmp_path, dataset, "one", f"{text}max_steps: {steps}\n", "--resume", recipe=recipe).exit_code == 0
    for step in (AGREE_EVERY, steps):
        assert (step, {"train_lattice", "train_frac_coords", "train_species"}) in logged
        assert (step, {"val_lattice", "val_frac_coords", "val_species", "val_total"}) in logged
    assert {step for step, _ in logged} == {AGREE_EVERY, steps}


def test_a_run_that_starts_from_another_says_so_and_refuses_another_network(tmp_path, dataset):
    assert run(tmp_path, dataset, "small", "max_steps: 4\n").exit_code == 0
    best = tmp_path / "small" / "best"
    assert run(tmp_path, dataset, "again", f"max_steps: 2\ninit_from: {best}\n").exit_code == 0
    first, second = load_checkpoint(best).provenance, load_checkpoint(tmp_path / "again" / "last").provenance
    assert second["runs"][:-1] == first["runs"]
    assert [r["steps"] for r in second["runs"]] == [4, 2]
    for name in ("steps", "crystals_seen"):
        assert second[name] == sum(r[name] for r in second["runs"])
    assert second["runs"][1]["data"]["file"] == first["runs"][0]["data"]["file"]
    best.rename(tmp_path / "moved")  # a resumed run does not need it
    resumed = run(tmp_path, dataset, "again", f"max_steps: 3\ninit_from: {best}\n", "--resume")
    assert resumed.exit_code == 0, resumed.output
    provenance = load_checkpoint(tmp_path / "again" / "last").provenance
    assert [r["steps"] for r in provenance["runs"]] == [4, 3]
    assert provenance["runs"][0] == second["runs"][0]
    best = tmp_path / "moved"
    larger = RECIPE.replace("width: 16", "width: 24")
    refused = run(tmp_path, dataset, "larger", f"max_steps: 2\ninit_from: {best}\n", recipe=larger)
    assert refused.exit_code == 2
    assert "init_from" in refused.stderr


def test_paths_of_a_recipe_start_at_its_folder(tmp_path):
    (tmp_path / "recipe.yaml").write_text("data: {path: mine.parquet}\ninit_from: models/first\n")
    config = read_recipe(tmp_path / "recipe.yaml")
    assert config.data.path == tmp_path.resolve() / "mine.parquet"
    assert config.init_from == tmp_path.resolve() / "models" / "first"


@pytest.mark.slow
def test_processes_of_one_run_end_together(tmp_path, dataset):
    """Both follow one clock: none waits for the other for ever."""
    path = tmp_path / "pair.yaml"
    path.write_text(
        RECIPE.replace("optimizer: {", "optimizer: {decay_start_hours: 0.0, ") + "devices: 2\nmax_hours: 0.0005\n"
    )
    command = ["druse-train", "fit", str(path), "--data", str(dataset), "--out", str(tmp_path / "pair"), "--json"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=180, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    assert load_state(tmp_path / "pair" / "state.safetensors")[3].seconds > 0.0005 * 3600
