import pytest
import torch
from druse_scores import Checkpoint, PairNetwork, PairNetworkConfig, save_checkpoint

TINY = PairNetworkConfig(width=16, pair_width=8, vector_width=4, num_layers=1, num_radial=4, num_harmonics=2)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """A checkpoint folder with a tiny untrained network."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("tiny")
    checkpoint = Checkpoint(network=PairNetwork(TINY), num_atoms={2: 30, 4: 50}, elements=(3, 8), provenance={})
    save_checkpoint(checkpoint, folder)
    return folder
