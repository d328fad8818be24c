"""Checkpoints come back as they were written, and broken ones are refused with a reason."""

import pytest
import torch
import yaml
from druse_scores import Checkpoint, CheckpointError, PairNetwork, PairNetworkConfig, load_checkpoint, save_checkpoint

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
    assert loaded.provenance == {"steps": 7, "seed": 0}
    assert not loaded.network.training
    files = sorted(folder.iterdir())
    assert [p.name for p in files] == ["config.yaml", "weights.safetensors"]
    assert files[0].stat().st_mode == files[1].stat().st_mode  # who may read one may read the other


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
