"""Checkpoints come back as they were written, and broken ones are refused with a reason."""

from dataclasses import replace

import pytest
import torch
import yaml
from druse_scores import Checkpoint, CheckpointError, PairNetwork, PairNetworkConfig, load_checkpoint, save_checkpoint
from safetensors.torch import load_file, save_file

TINY = PairNetworkConfig(width=16, pair_width=8, vector_width=4, num_layers=1, num_radial=4, num_harmonics=2)


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    checkpoint = Checkpoint(
        network=PairNetwork(TINY), num_atoms={2: 10, 5: 3}, elements=(8, 12), provenance={"steps": 7, "seed": 0}
    )
    save_checkpoint(checkpoint, tmp_path / "model")
    return tmp_path / "model"


def test_round_trip(folder):
    loaded = load_checkpoint(folder)
    torch.manual_seed(0)
    original = PairNetwork(TINY)
    for name, value in original.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[name], value)
    assert loaded.num_atoms == {2: 10, 5: 3}
    assert loaded.elements == (8, 12)
    assert not loaded.given_species
    assert loaded.provenance == {"steps": 7, "seed": 0}
    assert not loaded.network.training
    files = sorted(folder.iterdir())
    assert [p.name for p in files] == ["config.yaml", "weights.safetensors"]
    assert files[0].stat().st_mode == files[1].stat().st_mode  # who may read one may read the other


def test_a_network_of_given_species_says_so(folder, tmp_path):
    save_checkpoint(replace(load_checkpoint(folder), given_species=True), tmp_path / "given")
    assert load_checkpoint(tmp_path / "given").given_species


def test_missing_file_is_named(folder):
    (folder / "weights.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"weights.safetensors does not exist"):
        load_checkpoint(folder)


def test_truncated_weights_are_refused(folder):
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="truncated"):
        load_checkpoint(folder)


def test_pickle_is_refused_and_never_run(folder):
    path = folder / "weights.safetensors"
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="no safetensors"):
        load_checkpoint(folder)


def test_foreign_weights_are_refused(folder):
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["config"]["width"] = 32
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(CheckpointError, match="wrong shape"):
        load_checkpoint(folder)


@pytest.mark.parametrize("text", ["", "- 1", "format: 1", "format: 99\nnetwork: pair", "a: [", "\x00"])
def test_foreign_config_is_refused(folder, text):
    (folder / "config.yaml").write_text(text)
    with pytest.raises(CheckpointError, match=r"config.yaml"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"config": {"width": -128}}, "width is -128"),
        ({"config": {"num_layers": 1.5}}, "num_layers"),
        ({"config": {"num_radial": True}}, "num_radial is True"),
        ({"config": {"cutoff": float("nan")}}, "cutoff is nan"),
        ({"config": {"cutoff": "far"}}, "cutoff"),
        ({"config": {"lattice_spread": 0}}, "lattice_spread is 0"),
        ({"config": {"depth": 3}}, "depth"),
        ({"elements": []}, "elements is"),
        ({"elements": [0]}, "elements holds 0"),
        ({"elements": [200]}, "elements holds 200"),
        ({"elements": "Fe"}, "elements is 'Fe'"),
        ({"num_atoms": {}}, "num_atoms is"),
        ({"density": "dense"}, "density is 'dense'"),
        ({"num_atoms": {0: 5}}, "num_atoms has the entry 0: 5"),
        ({"num_atoms": {5: 0}}, "num_atoms has the entry 5: 0"),
        ({"num_atoms": {2.5: 3}}, "num_atoms has the entry 2.5: 3"),
        ({"provenance": 5}, "provenance is 5"),
        ({"format": 1}, "in format 1"),
    ],
)
def test_values_that_no_model_has_are_refused_with_file_and_remedy(folder, change, words):
    path = folder / "config.yaml"
    content = yaml.safe_load(path.read_text())
    for key, value in change.items():
        content[key] = content[key] | value if key == "config" else value
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(CheckpointError) as refused:
        load_checkpoint(folder)
    for part in (words, str(path), "druse-train fit"):
        assert part in str(refused.value)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (torch.full((101, 16), float("nan")), "not finite in tensors species.weight"),
        (torch.full((101, 16), float("inf")), "not finite"),
        (torch.full((101, 16), 1e300, dtype=torch.float64), "not finite"),  # too large for the network's type
        (torch.zeros(101, 16, dtype=torch.int8), "wrong type of tensors species.weight"),
        (torch.zeros(101, 17), "wrong shape of tensors species.weight"),
        (None, "lacks tensors species.weight"),
    ],
)
def test_unusable_weights_are_refused_with_file_and_remedy(folder, value, words):
    path = folder / "weights.safetensors"
    tensors = load_file(path)
    del tensors["species.weight"]
    save_file(tensors if value is None else tensors | {"species.weight": value}, path)
    with pytest.raises(CheckpointError) as refused:
        load_checkpoint(folder)
    for part in (words, str(path), "copy the whole folder again"):
        assert part in str(refused.value)


@pytest.mark.parametrize(
    "values", [{"width": 0}, {"num_layers": True}, {"num_neighbors": -1}, {"cutoff": float("inf")}]
)
def test_sizes_that_no_network_has_are_refused(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        PairNetworkConfig(**values)
