import shutil

import numpy as np
import pytest
import torch
from druse_guidance import Adapter, Property, save_adapter
from druse_scores import Checkpoint, PairNetwork, PairNetworkConfig, load_checkpoint, save_checkpoint

TINY = PairNetworkConfig(width=16, pair_width=8, vector_width=4, num_layers=1, num_radial=4, num_harmonics=2)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """A checkpoint folder with a tiny untrained network."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("tiny")
    checkpoint = Checkpoint(network=PairNetwork(TINY), num_atoms={2: 30, 4: 50}, elements=(3, 8), provenance={})
    save_checkpoint(checkpoint, folder)
    return folder


@pytest.fixture(scope="session")
def tiny_adapted(tiny_model, tmp_path_factory):
    """The same with an untrained adapter that knows what magnets are asked for."""
    folder = tmp_path_factory.mktemp("adapted") / "model"
    shutil.copytree(tiny_model, folder)
    network = load_checkpoint(folder).pair_network
    known = (
        Property(name="dft_mag_density", unit="µB/Å³").fitted(np.linspace(0, 0.3, 50)),
        Property(name="hhi_score").fitted(np.linspace(500, 9000, 50)),
    )
    torch.manual_seed(0)
    adapter = Adapter(known, width=network.config.width, num_layers=network.config.num_layers)
    (folder / "adapters").mkdir()
    save_adapter(folder / "adapters" / "known.safetensors", adapter, base=network)
    return folder
