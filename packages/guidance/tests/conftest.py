import pytest
import torch
from druse_scores import PairNetwork, PairNetworkConfig

TINY = PairNetworkConfig(width=16, pair_width=8, vector_width=4, num_layers=1, num_radial=4, num_harmonics=2)


@pytest.fixture
def random_network():
    """A tiny network in float64 all of whose weights are random, also those that start as zero."""
    torch.manual_seed(0)
    network = PairNetwork(TINY).double().eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return network
