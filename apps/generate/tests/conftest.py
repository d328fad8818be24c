import pytest
import torch
from druse_scores import Checkpoint, PairNetwork, PairNetworkConfig, save_checkpoint

TINY = PairNetworkConfig(width=16, pair_width=8, vector_width=4, num_layers=1, num_radial=4, num_harmonics=2)


@pytest.fixture(scope="session")
def save_tiny(tmp_path_factory):
    """Writes a checkpoint folder with a tiny network of random weights; takes the other parts of a checkpoint."""

    def save(**parts):
        torch.manual_seed(0)
        folder = tmp_path_factory.mktemp("model")
        network = PairNetwork(TINY)
        with torch.no_grad():
            for parameter in network.parameters():  # new heads are zero: nothing would depend on anything
                parameter.add_(0.05 * torch.randn_like(parameter))
        save_checkpoint(Checkpoint(network=network, **parts), folder)
        return folder

    return save
