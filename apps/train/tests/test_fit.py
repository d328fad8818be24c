"""Training runs: they learn, they stop and resume on the same path, and bad recipes are named."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from druse_crystal import Crystal
from druse_crystal.batch import size_buckets
from druse_crystal.dataset import CrystalDataset
from druse_crystal.settings import settings_text
from druse_diffusion.training import FieldLosses
from druse_scores import PairNetworkConfig, load_checkpoint
from druse_train import diffusion_module, running
from druse_train.batches import BatchStream, Place, as_batch
from druse_train.cli import app
from druse_train.code_version import code_version
from druse_train.config import DataConfig, FitConfig, OptimizerConfig, read_recipe
from druse_train.diffusion_module import DiffusionModule, make_stream
from druse_train.fitting import make_network
from druse_train.recorder import AGREE_EVERY, Recorder
from druse_train.state import Progress, load_state
from lightning.pytorch.loggers.logger import DummyLogger
from safetensors import safe_open
from safetensors.torch import load_file, save_file
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


def test_a_run_with_given_species_noises_none_and_says_so(tmp_path, dataset):
    drawn = run(tmp_path, dataset, "drawn", "max_steps: 4\n")
    given = run(tmp_path, dataset, "given", "max_steps: 4\ngiven_species: true\n")
    assert (drawn.exit_code, given.exit_code) == (0, 0), given.output
    assert load_checkpoint(tmp_path / "given" / "best").given_species
    assert not load_checkpoint(tmp_path / "drawn" / "best").given_species
    losses = {name: next(csv.DictReader((tmp_path / name / "log.csv").open())) for name in ("drawn", "given")}
    assert float(losses["given"]["val_species"]) == 0
    assert float(losses["drawn"]["val_species"]) > 0


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


@pytest.mark.parametrize(("recipe", "words"), [(RECIPE + "seed: 5\n", "seed 0"), (RECIPE, "other crystals")])
def test_other_seeds_and_other_data_are_refused(tmp_path, dataset, recipe, words):
    assert run(tmp_path, dataset, "one", "max_steps: 2\n").exit_code == 0
    files = {path: path.read_bytes() for path in (tmp_path / "one").iterdir() if path.is_file()}
    if "seed: 5" not in recipe:
        data = CrystalDataset.read(dataset)
        data.select(np.arange(1, len(data))).write(dataset)
    refused = run(tmp_path, dataset, "one", "max_steps: 4\n", "--resume", recipe=recipe)
    assert refused.exit_code == 2, refused.output
    assert words in refused.stderr
    assert "state.safetensors" in refused.stderr
    assert files == {path: path.read_bytes() for path in (tmp_path / "one").iterdir() if path.is_file()}


def test_data_in_another_file_are_the_same_data(tmp_path, dataset):
    assert run(tmp_path, dataset, "one", "max_steps: 2\n").exit_code == 0
    moved = dataset.rename(tmp_path / "moved.parquet")
    data = CrystalDataset.read(moved)
    data.metadata = {"source": "moved"}
    data.write(moved)
    assert run(tmp_path, moved, "one", "max_steps: 4\n", "--resume").exit_code == 0


def without_origin(path):
    """Make a state one that an older version of Druse wrote."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    del metadata["origin"]
    save_file(load_file(path), path, metadata=metadata)


def test_states_of_before_resume_with_any_seed(tmp_path, dataset):
    assert run(tmp_path, dataset, "one", "max_steps: 2\n").exit_code == 0
    without_origin(tmp_path / "one" / "state.safetensors")
    resumed = run(tmp_path, dataset, "one", "max_steps: 4\nseed: 1\n", "--resume")
    assert resumed.exit_code == 0, resumed.output
    assert load_state(tmp_path / "one" / "state.safetensors").origin.seed == 1


@pytest.mark.parametrize(
    ("out", "extra", "options"),
    [
        ("new", "network: {width: -16}\n", []),
        ("new", "data: {max_atoms: 0}\n", []),
        ("new", "max_steps: 2\n", ["--data", "empty.cif"]),
        ("new", "max_steps: 2\n", ["--data", "empty.parquet"]),
        ("new", "max_steps: 2\n", ["--resume"]),
        ("new", "init_from: nowhere\n", []),
        ("old", "network: {width: 32}\n", ["--resume"]),
        ("old", "max_steps: 3\n", []),
    ],
)
def test_nothing_is_written_before_everything_is_checked(tmp_path, dataset, monkeypatch, out, extra, options):
    assert run(tmp_path, dataset, "old", "max_steps: 2\n").exit_code == 0
    before = (tmp_path / "old" / "recipe.yaml").read_bytes()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.cif").write_text("")
    CrystalDataset.read(dataset).select([]).write("empty.parquet")
    (tmp_path / "bad.yaml").write_text("mixed_precision: false\nthreads: 1\n" + extra)
    if "--data" not in options:
        options = [*options, "--data", "data.parquet"]
    result = CliRunner().invoke(app, ["fit", "bad.yaml", "--out", out, *options])
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "new").exists()
    assert (tmp_path / "old" / "recipe.yaml").read_bytes() == before


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
    assert read_recipe(path, FitConfig) == FitConfig(seed=5)


def test_batches_hold_every_crystal_once_an_epoch_and_resume_anywhere():
    sizes = np.random.default_rng(1).integers(1, 21, 500)
    stream = BatchStream(num_atoms=sizes, pair_budget=2000, max_batch=64, seed=3)
    batches = stream.epoch(0)
    assert sorted(np.concatenate(batches).tolist()) == list(range(500))
    assert all(len(b) * sizes[b].max() ** 2 <= 2000 for b in batches)
    first = [item for _, item in zip(range(len(batches) + 5), stream, strict=False)]
    place = first[10][0]
    resumed = iter(BatchStream(num_atoms=sizes, pair_budget=2000, max_batch=64, seed=3, start=place))
    for (_, expected, _), (_, got, _) in zip(first[11:], resumed, strict=False):
        assert torch.equal(expected, got)
    assert first[len(batches)][0] == Place(epoch=1, index=1)


def test_processes_share_an_epoch():
    sizes = np.full(101, 3)
    parts = [
        [index for _, (place, index, seen) in zip(range(6), BatchStream(
            num_atoms=sizes, pair_budget=90, max_batch=8, seed=0, rank=rank, world=2), strict=False)]
        for rank in (0, 1)
    ]  # fmt: skip
    seen = [set(torch.cat(part).tolist()) for part in parts]
    assert not seen[0] & seen[1]


def test_processes_count_the_crystals_of_all_of_them():
    sizes = np.random.default_rng(2).integers(1, 9, 300)
    streams = [
        BatchStream(num_atoms=sizes, pair_budget=300, max_batch=64, seed=0, rank=rank, world=3) for rank in range(3)
    ]
    for _, steps in zip(range(40), zip(*streams, strict=True), strict=False):
        own = [len(index) for _, index, _ in steps]
        assert [seen for _, _, seen in steps] == [sum(own)] * 3


def test_a_crystal_larger_than_the_budget_gets_a_batch_of_its_own():
    assert [len(b) for b in size_buckets(np.array([20, 2, 2]), pair_budget=100, max_batch=8)] == [2, 1]


def test_a_killed_run_goes_on_from_its_last_checkpoint(tmp_path, dataset, monkeypatch):
    """Saved in the middle of an epoch and killed: the resumed run equals the undisturbed one."""
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
    module = DiffusionModule(config, make_network(config), data, data, Progress())
    assert module.rate() == pytest.approx(1e-4)
    module.progress.step = 100
    for hours, rate in ((0.0, 1e-3), (3.0, 1e-3), (4.0, 5e-4), (5.0, 0.0), (6.0, 0.0)):
        module.hours = hours
        assert module.rate() == pytest.approx(rate)


def test_a_resumed_run_has_the_learning_rate_of_the_whole_one(tmp_path, dataset, monkeypatch):
    """Stopped within the warm-up; and within the decay, which goes by the clock of the whole run."""
    rates = {}

    def note(self, optimizer):
        original(self, optimizer)
        rates.setdefault(self.progress.step, []).append(optimizer.param_groups[0]["lr"])

    original = DiffusionModule.on_before_optimizer_step
    monkeypatch.setattr(DiffusionModule, "on_before_optimizer_step", note)
    warm = RECIPE.replace("warmup_steps: 2", "warmup_steps: 10")
    assert run(tmp_path, dataset, "warm", "max_steps: 3\n", recipe=warm).exit_code == 0
    assert run(tmp_path, dataset, "warm", "max_steps: 5\n", "--resume", recipe=warm).exit_code == 0
    assert [rate for step in range(5) for rate in rates[step]] == pytest.approx([1e-4, 2e-4, 3e-4, 4e-4, 5e-4])
    rates.clear()
    assert run(tmp_path, dataset, "decay", "max_steps: 4\n").exit_code == 0
    seconds = load_state(tmp_path / "decay" / "state.safetensors")[3].seconds
    decaying = RECIPE.replace("{warmup_steps: 2", "{decay_start_hours: 0.0, warmup_steps: 2")
    end = f"max_steps: 5\nmax_hours: {2 * seconds / 3600}\n"
    assert run(tmp_path, dataset, "decay", end, "--resume", recipe=decaying).exit_code == 0
    assert rates[4] == pytest.approx([5e-4], rel=1e-4)


def test_every_crystal_weighs_the_same_whatever_its_batch(dataset, monkeypatch):
    """A crystal alone in its batch adds to the gradient what it would in a batch of many."""
    monkeypatch.setattr(diffusion_module, "training_loss", lambda *_, **__: FieldLosses(**dict.fromkeys(
        ("lattice", "frac_coords", "species", "total"), torch.ones(int(_[2].num_atoms.numel())))))  # fmt: skip
    data = as_batch(CrystalDataset.read(dataset))
    config = FitConfig(data=DataConfig(pair_budget=60))
    module = DiffusionModule(config, make_network(config), data, data, Progress())
    stream = make_stream(module.config, data)
    batches = stream.epoch(0)
    assert len({len(b) for b in batches}) > 1
    losses = [float(module.training_step((Place(), torch.tensor(b), len(b)), 0)) for b in batches]
    per_crystal = [loss / len(b) for loss, b in zip(losses, batches, strict=True)]
    assert per_crystal == pytest.approx([per_crystal[0]] * len(batches))
    assert np.mean(losses) == pytest.approx(1.0)


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
        assert run(tmp_path, dataset, "parts", "max_steps: 7\n").exit_code == 130
    assert calls[-1] == 4
    assert run(tmp_path, dataset, "parts", "max_steps: 7\n", "--resume").exit_code == 0
    a, b = (load_state(tmp_path / name / "state.safetensors") for name in ("whole", "parts"))
    for name in a[0]:
        assert torch.allclose(a[0][name], b[0][name], atol=1e-6), name
    assert (a[3].step, a[3].place, a[3].seen) == (b[3].step, b[3].place, b[3].seen)


def test_a_polite_kill_is_a_ctrl_c(tmp_path, dataset, monkeypatch):
    original, before = DiffusionModule.backward, signal.getsignal(signal.SIGTERM)

    def killed(self, *arguments):
        if self.progress.step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, *arguments)

    monkeypatch.setattr(DiffusionModule, "backward", killed)
    result = run(tmp_path, dataset, "one", "max_steps: 7\n")
    assert result.exit_code == 130
    assert "stopped. What was learnt is kept" in " ".join(result.stderr.split())
    assert load_state(tmp_path / "one" / "state.safetensors")[3].step == 4
    assert signal.getsignal(signal.SIGTERM) == before


def test_losses_are_logged_at_the_steps_of_the_whole_run(tmp_path, dataset, monkeypatch):
    logged = []

    class Logger(DummyLogger):
        def log_metrics(self, metrics, step=None):
            logged.append((step, set(metrics)))

    monkeypatch.setattr(running, "_tensorboard", lambda folder: Logger())
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
    best.rename(tmp_path / "moved")  # a resumed run needs neither this
    (tmp_path / "again" / "last" / "config.yaml").unlink()  # nor its own latest checkpoint, killed while it is written
    resumed = run(tmp_path, dataset, "again", f"max_steps: 3\ninit_from: {best}\n", "--resume")
    assert resumed.exit_code == 0, resumed.output
    provenance = load_checkpoint(tmp_path / "again" / "last").provenance
    assert [r["steps"] for r in provenance["runs"]] == [4, 3]
    assert provenance["runs"][0] == second["runs"][0]
    without_origin(tmp_path / "again" / "state.safetensors")  # of an older version, which read the latest checkpoint
    assert run(tmp_path, dataset, "again", f"max_steps: 4\ninit_from: {best}\n", "--resume").exit_code == 0
    assert load_checkpoint(tmp_path / "again" / "last").provenance["runs"][0] == second["runs"][0]
    assert second["runs"][1]["code"] == code_version()
    best = tmp_path / "moved"
    larger = RECIPE.replace("width: 16", "width: 24")
    refused = run(tmp_path, dataset, "larger", f"max_steps: 2\ninit_from: {best}\n", recipe=larger)
    assert refused.exit_code == 2
    assert "init_from" in refused.stderr


def test_a_run_goes_on_with_a_deeper_network(tmp_path, dataset):
    recipe = RECIPE.replace("num_layers: 1", "num_layers: 2")
    assert run(tmp_path, dataset, "first", "max_steps: 4\n", recipe=recipe).exit_code == 0
    start = tmp_path / "first" / "last"
    deeper = RECIPE.replace("num_layers: 1", "num_layers: 3")
    second = run(tmp_path, dataset, "deeper", f"max_steps: 2\ninit_from: {start}\n", recipe=deeper)
    assert second.exit_code == 0, second.output
    checkpoint = load_checkpoint(tmp_path / "deeper" / "last")
    assert checkpoint.pair_network.config.num_layers == 3
    assert [r["steps"] for r in checkpoint.provenance["runs"]] == [4, 2]


def test_paths_of_a_recipe_start_at_its_folder(tmp_path):
    (tmp_path / "recipe.yaml").write_text("data: {path: mine.parquet}\ninit_from: models/first\n")
    config = read_recipe(tmp_path / "recipe.yaml", FitConfig)
    assert config.data.path == tmp_path.resolve() / "mine.parquet"
    assert config.init_from == tmp_path.resolve() / "models" / "first"


@pytest.mark.slow
def test_processes_of_one_run_end_together(tmp_path, dataset):
    """Both follow one clock: none waits for the other for ever."""
    path = tmp_path / "pair.yaml"
    path.write_text(
        RECIPE.replace("optimizer: {", "optimizer: {decay_start_hours: 0.0, ") + "devices: 2\nmax_hours: 0.0005\n"
    )
    command = [
        str(Path(sys.executable).parent / "druse-train"),
        "fit",
        str(path),
        "--data",
        str(dataset),
        "--out",
        str(tmp_path / "pair"),
        "--json",
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=180, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    progress = load_state(tmp_path / "pair" / "state.safetensors").progress
    assert progress.step > 0
    assert progress.step % AGREE_EVERY == 0  # where both look at the clock, the mean of theirs
    learnt = as_batch(CrystalDataset.read(dataset).subset("train"))
    steps = replace(make_stream(FitConfig(data=DataConfig(pair_budget=60)), learnt), world=2)
    assert progress.seen == sum(seen for _, (_, _, seen) in zip(range(progress.step), steps, strict=False))


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_code_is_named_by_version_and_in_a_checkout_of_it_by_commit(tmp_path, monkeypatch):
    def git(*arguments):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *who, "-C", str(tmp_path), *arguments], check=True, capture_output=True)

    file = tmp_path / "code.py"
    file.write_text("")
    monkeypatch.setattr("druse_train.code_version.__file__", str(file))
    alone = {"version": version("druse-train")}
    assert code_version() == alone
    git("init")
    git("commit", "--allow-empty", "-m", "first")
    assert code_version() == alone  # a checkout of something else
    git("add", "code.py")
    git("commit", "-m", "second")
    commit = code_version()["commit"]
    assert re.fullmatch(r"[0-9a-f]{40}", commit)
    file.write_text("changed")
    assert code_version() == alone | {"commit": f"{commit}-dirty"}


@pytest.mark.parametrize("form", ["csv", "cache"])
def test_published_formats_train_a_model(tmp_path, dataset, form):
    """There and back through files as others publish them, in cells that are neither standard nor symmetric."""
    commands = [
        ["export", dataset, "--to", form, "--out", tmp_path / "published"],
        ["build", "--from", tmp_path / "published", "--out", tmp_path / "back.parquet", "--as-is"],
    ]
    for command in commands:
        result = CliRunner().invoke(app, ["data", *map(str, command), "--workers", "1"])
        assert result.exit_code == 0, result.output
    assert set(CrystalDataset.read(tmp_path / "back.parquet").split.tolist()) == {"train", "val"}
    assert run(tmp_path, tmp_path / "back.parquet", "learnt", "max_steps: 2\n").exit_code == 0
