"""Steering by a user's function: rewards rise, a seed means the same crystal, and bad functions are one sentence."""

import inspect
import json

import numpy as np
import pytest
import torch
from druse_generate.cli import app
from druse_generate.config import GenerateConfig, SamplerConfig, SteeringRequest
from druse_generate.generating import generate
from druse_generate.planning import check
from druse_guidance import Pull
from druse_scores import load_checkpoint
from typer.testing import CliRunner

SHORT = SamplerConfig(steps=10, corrector_steps=0, temperature=1.0, lattice_temperature=1.0)
FUNCTION = """
def dense(crystals):
    return [crystal.num_atoms / crystal.volume for crystal in crystals]

def short(crystals):
    return [0.0]

def picky(crystals):
    return [{11: 1.0}[crystal.atomic_numbers[0]] for crystal in crystals]

def broken(crystals):
    raise RuntimeError("no luck")
"""


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


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--steer", "energy"], "'energy' is no reward: give a function as FILE.py:FUNCTION"),
        (["--steer", "nowhere.py:dense"], "nowhere.py does not exist"),
        (["--steer", "FILE:beauty"], "has no function 'beauty'"),
        (["--steer", "FILE:broken"], "broken of"),
        (["--steer", "FILE:short"], "gives 1 numbers for 2 crystals"),
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
