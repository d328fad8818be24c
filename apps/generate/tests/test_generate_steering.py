"""Steering by a user's function: rewards rise, a seed means the same crystal, and bad functions are one sentence."""

import inspect
import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from druse_crystal import Crystal
from druse_generate.checking import check
from druse_generate.cli import app
from druse_generate.config import GenerateConfig, SamplerConfig, SteeringRequest
from druse_generate.generating import generate
from druse_generate.steering_request import function_of
from druse_guidance import Pull
from druse_scores import load_checkpoint
from typer.testing import CliRunner

SHORT = SamplerConfig(steps=10, corrector_steps=0, temperature=1.0, lattice_temperature=1.0)
FUNCTION = """
import torch
from druse_guidance import Pull

def dense(crystals):
    return [crystal.num_atoms / crystal.volume for crystal in crystals]

def short(crystals):
    return [0.0]

def picky(crystals):
    return [{11: 1.0}[crystal.atomic_numbers[0]] for crystal in crystals]

def broken(crystals):
    raise RuntimeError("no luck")

def nothing(crystals):
    return [float("nan") for _ in crystals]

def infinite(crystals):
    return [float("inf") for _ in crystals]

class Pulling:
    def __init__(self, gradient):
        self.gradient = gradient

    def __call__(self, crystals):
        return [0.0 for _ in crystals]

def not_finite(crystals):
    return [Pull(on_atoms=torch.full((2, 3), torch.inf), on_strain=torch.zeros(3, 3)) for _ in crystals]

floats, few, raising = (Pulling(g) for g in (lambda crystals: [1.0, 2.0], lambda crystals: [None], broken))
far = Pulling(not_finite)
"""


SALT = Crystal(
    lattice=2.82 * np.array([[0.0, 1, 1], [1, 0, 1], [1, 1, 0]]),
    frac_coords=np.array([[0, 0, 0], [0.5, 0.5, 0.5]]),
    atomic_numbers=np.array([11, 17]),
)


@pytest.fixture(scope="module")
def model(save_tiny):
    return save_tiny(num_atoms={2: 30, 4: 50}, elements=(3, 8, 11, 17, 26))


def dense(crystals):
    return np.array([crystal.num_atoms / crystal.volume for crystal in crystals])


def drawn(model, reward, **options):
    config = GenerateConfig(num=16, seed=2, sampler=SHORT, steering=SteeringRequest(reward=reward and "x", **options))
    batches = generate(check(load_checkpoint(model), config), range(16), reward=reward)
    return sorted((draw for batch in batches for draw in batch), key=lambda draw: draw.index)


def test_rewards_rise_with_particles(model):
    means = []
    for particles in (None, 2, 6):
        draws = drawn(model, dense, particles=particles, strength=300.0) if particles else drawn(model, None)
        assert [draw.index for draw in draws] == list(range(16))
        found = dense([draw.crystal for draw in draws])
        means.append(found.mean())
        assert all((draw.reward is None) == (particles is None) for draw in draws)
        if particles:
            assert np.allclose([draw.reward for draw in draws], found, rtol=1e-4)
    assert means[0] < means[1] < means[2]


class Small:
    """Prefers small cells, and says in which direction they are."""

    def __call__(self, crystals):
        return np.array([-crystal.volume / crystal.num_atoms for crystal in crystals])

    def gradient(self, crystals):
        return [
            Pull(on_atoms=torch.zeros(c.num_atoms, 3), on_strain=-c.volume / c.num_atoms * torch.eye(3))
            for c in crystals
        ]


def test_a_gradient_acts_in_the_last_part(model):
    plain, pulled = (
        drawn(model, Small(), particles=2, strength=0.3, times=(0.5,), gradient_below=below) for below in (0.0, 0.3)
    )
    assert np.mean([draw.reward for draw in pulled]) > np.mean([draw.reward for draw in plain]) + 0.1
    with pytest.raises(ValueError, match=r"gradient_below is 2\.0"):
        SteeringRequest(gradient_below=2.0)
    with pytest.raises(ValueError, match="has no gradient"):
        SteeringRequest(reward="dense", gradient_below=0.1).read({"dense": dense})


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_the_command_takes_a_function_of_a_file_and_continues(model, tmp_path):
    file = tmp_path / "reward.py"
    file.write_text(FUNCTION)
    common = ["--steps", 6, "--model", model, "--steer", f"{file}:dense", "--particles", 3]
    first = run("generate", "--num", 2, *common, "--out", tmp_path / "a", "--json")
    assert first.exit_code == 0, first.output
    steering = json.loads(first.stdout)["results"]["steering"]
    assert (
        steering["rewards_asked_for"] == 2 * 3 * 3
    )  # six steps begin at 1, 0.6, ..., so that two are due, and the end
    assert steering["mean_reward"] > 0
    assert run("generate", "--num", 4, *common, "--out", tmp_path / "a").exit_code == 0
    assert run("generate", "--num", 4, *common, "--out", tmp_path / "b").exit_code == 0

    def crystals(folder):
        lines = map(json.loads, (tmp_path / folder / "generated.jsonl").read_text().splitlines()[1:])
        return {line["index"]: (line["crystal"]["atomic_numbers"], round(line["reward"], 5)) for line in lines}

    assert crystals("a") == crystals("b")
    file.write_text(FUNCTION.replace("num_atoms", "volume"))
    changed = run("generate", "--num", 4, *common, "--out", tmp_path / "a")
    assert changed.exit_code == 2
    assert "steering" in changed.stderr


def test_the_command_takes_gradients_and_counts_them(model, tmp_path):
    file = tmp_path / "small.py"
    imports = "import numpy as np\nimport torch\nfrom druse_guidance import Pull"
    file.write_text(f"{imports}\n{inspect.getsource(Small)}\nsmall = Small()")
    common = ["--num", 2, "--steps", 10, "--model", model, "--steer", f"{file}:small", "--particles", 2]
    counted = {}
    for below in (0.0, 0.3):
        result = run("generate", *common, "--gradient-below", below, "--out", tmp_path / str(below), "--json")
        assert result.exit_code == 0, result.output
        counted[below] = json.loads(result.stdout)["results"]["steering"]["gradients_asked_for"]
    assert counted[0.0] == 0
    assert counted[0.3] >= 4
    kept = (tmp_path / "0.3" / "generated.jsonl").read_text().splitlines()[1:]
    assert sum(json.loads(line)["gradients"] for line in kept) == counted[0.3]


SALT_ONLY = """
def reward(crystals):
    return [SALT if c.num_atoms == 2 and set(c.atomic_numbers) == {11, 17} else OTHER for c in crystals]
"""


@pytest.mark.parametrize("none", ["nan", "inf", "-inf"])
def test_a_run_without_rewards_is_one_sentence(model, tmp_path, none):
    file = tmp_path / "reward.py"
    file.write_text(SALT_ONLY.replace("SALT", "1.0").replace("OTHER", f"float('{none}')"))
    command = ["generate", "--num", 3, "--steps", 6, "--model", model, "--steer", f"{file}:reward", "--num-atoms", 4]
    for _ in range(2):  # what is finished is kept, and judged in the same way
        result = run(*command, "--out", tmp_path / "x")
        assert result.exit_code == 2
        sentence = " ".join(result.stderr.split())
        assert "reward.py:reward gave none of the 3 crystals a reward that is a finite number: correct it" in sentence
        assert "Traceback" not in sentence


@pytest.mark.parametrize("none", ["nan", "inf"])
def test_crystals_without_a_reward_are_counted_and_warned_of(model, tmp_path, none):
    """Those with four atoms have none."""
    file = tmp_path / "reward.py"
    file.write_text(
        f"def reward(crystals):\n    return [3.0 if c.num_atoms == 2 else float('{none}') for c in crystals]"
    )
    result = run(
        *("generate", "--num", 12, "--steps", 6, "--model", model, "--steer", f"{file}:reward", "--quiet", "--json"),
        *("--out", tmp_path / "x"),
    )
    assert result.exit_code == 0, result.output
    results = json.loads(result.stdout)["results"]
    lines = [json.loads(line) for line in (tmp_path / "x" / "generated.jsonl").read_text().splitlines()[1:]]
    missing = sum(len(line["crystal"]["atomic_numbers"]) == 4 for line in lines)
    assert 0 < missing < 12
    assert sum(line["reward"] is None for line in lines) == missing
    assert results["steering"]["crystals_without_reward"] == missing
    assert results["steering"]["mean_reward"] == 3.0
    assert results["steering"]["rewards_asked_for"] == 12 * 4 * 3  # also for those that have none
    assert f"{missing} of 12 crystals have no reward" in results["warnings"][-1]
    assert f"{missing} of 12 crystals have no reward" in " ".join(result.stderr.split())


def test_a_particle_that_explodes_is_not_the_best(model):
    """The first particles explode at the end, when nothing is chosen any more."""
    wishes = check(
        load_checkpoint(model),
        GenerateConfig(num=6, sampler=SHORT, steering=SteeringRequest(reward="x", particles=2, times=(0.5,))),
    )

    def wild(noisy, t, conditions=None):
        prediction = wishes.model(noisy, t, conditions)
        lost = (torch.arange(len(noisy)) % 2 == 0) & (t < 0.15)
        return replace(prediction, lattice=torch.where(lost[:, None, None], 1e30, prediction.lattice))

    for reward, found in ((dense, True), (lambda crystals: np.full(len(crystals), np.nan), False)):
        draws = [draw for batch in generate(replace(wishes, model=wild), range(6), reward=reward) for draw in batch]
        assert all(draw.crystal is not None for draw in draws)
        assert all((draw.reward is not None) == found for draw in draws)


@pytest.fixture
def modules():
    """What is imported, and from where, is as before afterwards."""
    path, names = list(sys.path), set(sys.modules)
    yield
    assert sys.path == path
    for name in set(sys.modules) - names:
        del sys.modules[name]


DATACLASS = """
from __future__ import annotations
from dataclasses import dataclass

@dataclass
class Dense:
    power: float

    def __call__(self, crystals):
        return [(c.num_atoms / c.volume) ** self.power for c in crystals]

reward = Dense(1.0)
"""
HELPED = """
from helper_beside import density

def reward(crystals):
    from late_helper_beside import first

    return [first * density(c) for c in crystals]
"""


@pytest.mark.parametrize("source", [DATACLASS, HELPED])
def test_a_file_may_hold_dataclasses_and_import_its_neighbours(tmp_path, modules, source):
    (tmp_path / "helper_beside.py").write_text("def density(c):\n    return c.num_atoms / c.volume\n")
    (tmp_path / "late_helper_beside.py").write_text("first = 1\n")
    (tmp_path / "json.py").write_text(source)  # hides no module of that name
    reward = function_of(tmp_path / "json.py", "reward")
    assert reward([SALT, SALT]) == pytest.approx([2 / SALT.volume] * 2)
    assert sys.modules["json"] is json


@pytest.mark.parametrize(
    ("source", "error"), [("import nowhere_at_all", "ModuleNotFoundError"), ("import sys; sys.exit(1)", "SystemExit")]
)
def test_a_file_that_fails_leaves_nothing_behind(tmp_path, modules, source, error):
    (tmp_path / "failing_reward.py").write_text(source)
    before = set(sys.modules)
    with pytest.raises(ValueError, match=rf"cannot be run \({error}"):
        function_of(tmp_path / "failing_reward.py", "reward")
    assert set(sys.modules) == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ["--steer", "energy_above_hull"],
            "'energy_above_hull' is no reward: give a function as FILE.py:FUNCTION; rewards by name, such as "
            "energy_above_hull, and by target, such as hhi_score<=1500, are there in `druse discover`",
        ),
        (["--steer", "nowhere.py:dense"], "nowhere.py does not exist"),
        (["--steer", "FILE:beauty"], "has no function 'beauty'"),
        (["--steer", "FILE:broken"], "broken of"),
        (["--steer", "FILE:short"], "gives 1 numbers for 2 crystals"),
        (["--steer", "FILE:nothing"], "gives nan for rock salt: give a finite number"),
        (["--steer", "FILE:infinite"], "gives inf for rock salt: give a finite number"),
        (["--steer", "FILE:dense", "--gradient-below", "0.1"], "has no gradient: leave out gradient_below"),
        (["--steer", "FILE:raising", "--gradient-below", "0.1"], "on rock salt: the gradient to steer by failed (Runt"),
        (["--steer", "FILE:floats", "--gradient-below", "0.1"], "gave a float: give a Pull or None"),
        (["--steer", "FILE:few", "--gradient-below", "0.1"], "gave 1 results for 2 crystals"),
        (["--steer", "FILE:far", "--gradient-below", "0.1"], "gives for rock salt a gradient that is not finite"),
        (["--steer", "FILE:dense", "--particles", "1"], "at least 2"),
        (["--particles", "4"], "nothing to steer by"),
        (["--steer", "FILE:picky"], "the reward to steer by failed (KeyError"),
        (["--steer", "FILE:dense", "--steering-strength", "0"], "must be a positive number"),
    ],
)
def test_bad_requests_are_one_sentence(model, tmp_path, options, words):
    file = tmp_path / "reward.py"
    file.write_text(FUNCTION)
    options = [option.replace("FILE", str(file)) for option in options]
    result = run("generate", "--out", tmp_path / "x", "--model", model, *options)
    assert result.exit_code == 2, result.output
    assert words in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
