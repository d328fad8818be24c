"""Published checkpoints from disk and from the hub: read without running anything, written as checkpoints of Druse."""

import os
import pickle
from pathlib import Path

import huggingface_hub
import pytest
import torch
import yaml
from druse_crystal import CrystalBatch
from druse_scores import import_checkpoint, load_checkpoint, save_checkpoint, weights_hash
from druse_scores.gemnet import GemNet, GemNetConfig, KnownProperty
from druse_scores.gemnet.lightning_file import PUBLISHED
from druse_scores.gemnet.published import PREFIX, published_shapes

KNOWN = (
    KnownProperty(name="ml_bulk_modulus", kind="log_scalar", mean=1.75, std=0.25),
    KnownProperty(name="chemical_system", kind="chemical_system"),
)
TINY = GemNetConfig(num_blocks=2, hidden=16, trip=8, bilinear=8, rbf=4, cbf=4, num_radial=16, properties=KNOWN)
GRAPH = {
    "_target_": "mattergen.common.gemnet.gemnet_ctrl.GemNetTCtrl",
    "cutoff": 6.5,
    "max_neighbors": 40,
    "max_cell_images_per_dim": 3,
    "rbf": {"name": "gaussian"},
    "cbf": {"name": "spherical_harmonics"},
    "num_spherical": 7,
}


def settings(**changes):
    model = {"_target_": "mattergen.adapter.GemNetTAdapter", "hidden_dim": 16, "gemnet": GRAPH | changes}
    return {"lightning_module": {"diffusion_module": {"model": model}}, "trainer": {"max_epochs": 3}}


@pytest.fixture
def published(tmp_path):
    """A folder as the published code leaves it, with a tiny random network; and that network."""
    torch.manual_seed(0)
    network = GemNet(TINY).eval()
    tensors = {name: torch.randn(shape) for name, shape in published_shapes(network).items()} | network.state_dict()
    content = {
        "epoch": 7,
        "pytorch-lightning_version": "2.0.6",
        "state_dict": {PREFIX + name: value for name, value in tensors.items()},
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.4)}},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 1e-4}]}],
        "config": settings(),
    }
    folder = tmp_path / "dft_some"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(settings()))
    torch.save(content, folder / "checkpoints" / "last.ckpt")
    return folder, network, content


def crystals():
    generator = torch.Generator().manual_seed(0)
    return CrystalBatch(
        lattice=5 * torch.eye(3).expand(2, 3, 3) + 0.1 * torch.ones(3, 3),
        frac_coords=torch.rand(7, 3, generator=generator),
        atomic_numbers=torch.randint(1, 102, (7,), generator=generator),
        num_atoms=torch.tensor([3, 4]),
    )


@pytest.mark.parametrize("denoised", [True, False])
def test_a_checkpoint_of_crystal_structure_prediction_is_given_its_species(published, denoised):
    folder, _, _ = published
    told = settings()
    told["lightning_module"]["diffusion_module"]["model"]["denoise_atom_types"] = denoised
    (folder / "config.yaml").write_text(yaml.safe_dump(told))
    assert import_checkpoint(str(folder)).given_species is not denoised


@pytest.mark.parametrize("part", [".", "checkpoints", "checkpoints/last.ckpt"])
def test_a_folder_and_a_file_become_a_checkpoint_that_predicts_the_same(published, tmp_path, part):
    folder, network, _ = published
    checkpoint = import_checkpoint(str(folder / part))
    assert isinstance(checkpoint.network, GemNet)
    config = checkpoint.network.config
    assert (config.cutoff, config.max_neighbors, config.max_images) == (6.5, 40, 3)
    assert config.properties == KNOWN
    assert (len(checkpoint.elements), sum(checkpoint.num_atoms.values())) == (76, 607_684)
    assert checkpoint.provenance["epoch"] == 7
    assert len(checkpoint.provenance["sha256"]) == 64
    save_checkpoint(checkpoint, tmp_path / "druse")
    again = load_checkpoint(tmp_path / "druse")
    assert again.network.config == config
    assert weights_hash(again.network) == weights_hash(network)
    t = torch.tensor([0.2, 0.7])
    ours, theirs = again.network(crystals(), t), checkpoint.network(crystals(), t)
    assert torch.equal(ours.species_logits, theirs.species_logits)
    with pytest.raises(ValueError, match="does not train"):
        _ = again.pair_network


def test_without_settings_the_published_ones_are_taken_and_it_says_so(published, tmp_path):
    _, _, content = published
    torch.save({"state_dict": content["state_dict"]}, tmp_path / "alone.ckpt")
    checkpoint = import_checkpoint(str(tmp_path / "alone.ckpt"))
    assert checkpoint.network.config.cutoff == 7.0
    assert "none beside the file" in checkpoint.provenance["settings"]


def test_best_is_the_lowest_loss_in_a_name(published):
    folder, _, content = published
    for loss, epoch in ((0.5, 1), (0.31, 2), (0.4, 3)):
        torch.save(content | {"epoch": epoch}, folder / "checkpoints" / f"epoch={epoch}-loss_val={loss}.ckpt")
    assert import_checkpoint(str(folder), which="best").provenance["epoch"] == 2
    assert import_checkpoint(str(folder)).provenance["epoch"] == 7


class Bomb:
    def __reduce__(self):
        return (os.system, ("touch exploded",))


def test_a_file_that_wants_to_run_code_is_refused(published, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder, _, content = published
    for name, write in (
        ("zip.ckpt", lambda path: torch.save(content | {"hyper_parameters": Bomb()}, path)),
        ("plain.ckpt", lambda path: path.write_bytes(pickle.dumps(Bomb()))),
    ):
        write(folder / name)
        with pytest.raises(ValueError, match=r"refused|no Lightning file") as refusal:
            import_checkpoint(str(folder / name))
        assert name in str(refusal.value)
    assert not Path("exploded").exists()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            lambda f: (f / "checkpoints/last.ckpt").write_bytes((f / "checkpoints/last.ckpt").read_bytes()[:5000]),
            "trunc",
        ),
        (lambda f: (f / "checkpoints/last.ckpt").write_text("weights"), "last.ckpt"),
        (lambda f: (f / "config.yaml").write_text("a: [1"), "is no YAML"),
        (lambda f: (f / "config.yaml").write_text("trainer: 1"), "lack lightning_module.diffusion_module.model"),
        (lambda f: (f / "config.yaml").write_text(yaml.safe_dump(settings(rbf={"name": "bessel"}))), "ask for rbf"),
        (lambda f: (f / "config.yaml").write_text(yaml.safe_dump(settings(activation="relu"))), "ask for activation"),
        (
            lambda f: (f / "config.yaml").write_text(
                yaml.safe_dump(settings()).replace("adapter.GemNetTAdapter", "other.Transformer")
            ),
            "of a network 'Transformer'",
        ),
        (lambda f: torch.save({"weights": 1}, f / "checkpoints/last.ckpt"), "no state_dict"),
        (lambda f: torch.save({"state_dict": {"a": torch.ones(2)}}, f / "checkpoints/last.ckpt"), "lacks tensors"),
        (lambda f: (f / "checkpoints/last.ckpt").rename(f / "a.ckpt.part"), "holds 0 .ckpt files"),
    ],
)
def test_what_is_no_published_checkpoint_is_one_sentence(published, spoil, words):
    folder, _, _ = published
    spoil(folder)
    with pytest.raises(ValueError, match=words) as refusal:
        import_checkpoint(str(folder))
    assert "\n" not in str(refusal.value)


def test_names_are_fetched_or_taken_from_the_cache(published, monkeypatch):
    folder, network, _ = published
    asked = []

    def download(repository, file, local_files_only=False):
        asked.append((repository, file, local_files_only))
        if not local_files_only:
            raise ConnectionError("no network")
        assert file.startswith("checkpoints/dft_band_gap/")
        return str(folder / file.removeprefix("checkpoints/dft_band_gap/"))

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    checkpoint = import_checkpoint("dft_band_gap")
    assert weights_hash(checkpoint.network) == weights_hash(network)
    assert [(file.split("/")[-1], local) for _, file, local in asked] == [
        ("config.yaml", False),
        ("config.yaml", True),
        ("last.ckpt", False),
        ("last.ckpt", True),
    ]

    def nothing(*_, local_files_only=False):
        raise huggingface_hub.errors.LocalEntryNotFoundError("not here")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", nothing)
    with pytest.raises(ValueError, match="space_group could not be fetched and is not in the local cache"):
        import_checkpoint("space_group")
    with pytest.raises(ValueError, match="matergen_base does not exist: give a Lightning file"):
        import_checkpoint("matergen_base")
    assert len(PUBLISHED) == 9
