"""Published checkpoints from disk and from the hub: read without running anything, written as checkpoints of Druse."""

import argparse
import os
import pickle
from itertools import pairwise
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
import yaml
from druse_crystal import Crystal, CrystalBatch
from druse_crystal.dataset import CrystalDataset
from druse_scores import import_checkpoint, load_checkpoint, save_checkpoint, weights_hash
from druse_scores.gemnet import GemNet, GemNetConfig, KnownProperty
from druse_scores.gemnet.lightning_file import PUBLISHED
from druse_scores.gemnet.published import PREFIX, published_shapes
from druse_scores.importing import ASSUMED_SETTINGS

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


SCALER = "property_embeddings_adapt.ml_bulk_modulus.scaler.means"


def tell(folder, **changes):
    (folder / "config.yaml").write_text(yaml.safe_dump(settings(**changes)))


def put(folder, name, change):
    content = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    content["state_dict"][PREFIX + name] = change(content["state_dict"][PREFIX + name])
    torch.save(content, folder / "checkpoints/last.ckpt")


def only_settings(folder, beside, **inside):
    """Settings beside the weights and none in their file, but for what is given."""
    content = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    del content["config"]
    torch.save(content | inside, folder / "checkpoints/last.ckpt")
    (folder / "config.yaml").unlink() if beside is None else (folder / "config.yaml").write_text(beside)


def crystals():
    generator = torch.Generator().manual_seed(0)
    return CrystalBatch(
        lattice=5 * torch.eye(3).expand(2, 3, 3) + 0.1 * torch.ones(3, 3),
        frac_coords=torch.rand(7, 3, generator=generator),
        atomic_numbers=torch.randint(1, 102, (7,), generator=generator),
        num_atoms=torch.tensor([3, 4]),
    )


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
    assert checkpoint.provenance["settings"] == ASSUMED_SETTINGS


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_other_precisions_become_single(published, dtype):
    folder, network, _ = published
    put(folder, "fc_atom.bias", lambda value: value.to(dtype))
    found = import_checkpoint(str(folder)).network.state_dict()["fc_atom.bias"]
    assert found.dtype == torch.float32
    assert torch.allclose(found, network.state_dict()["fc_atom.bias"], atol=1e-3)


def test_best_is_the_lowest_loss_in_a_name(published):
    folder, _, content = published
    for loss, epoch in ((0.5, 1), (0.31, 2), (0.4, 3)):
        torch.save(content | {"epoch": epoch}, folder / "checkpoints" / f"epoch={epoch}-loss_val={loss}.ckpt")
    assert import_checkpoint(str(folder), which="best").provenance["epoch"] == 2
    assert import_checkpoint(str(folder)).provenance["epoch"] == 7


def test_the_latest_of_several_last_files_is_taken(published):
    folder, _, content = published
    for version in (2, 10, 1):
        torch.save(content | {"epoch": 100 + version}, folder / "checkpoints" / f"last-v{version}.ckpt")
    assert import_checkpoint(str(folder)).provenance["epoch"] == 110


def test_without_a_last_file_the_best_one_is_named_as_a_way_out(published):
    folder, _, content = published
    for loss in (0.5, 0.31):
        torch.save(content, folder / "checkpoints" / f"epoch=1-loss_val={loss}.ckpt")
    (folder / "checkpoints" / "last.ckpt").unlink()
    with pytest.raises(ValueError, match="--which best"):
        import_checkpoint(str(folder))


def test_what_trainers_leave_beside_the_weights_is_read(published):
    folder, network, content = published
    beside = {
        "hyper_parameters": argparse.Namespace(lr=np.float64(1e-4), folder=Path("runs"), kind=np.dtype("float32")),
        "callbacks": {"best": np.float32(0.3), "history": np.arange(3.0), "counts": np.array([1, 2])},
    }
    torch.save(content | beside, folder / "checkpoints" / "last.ckpt")
    found = import_checkpoint(str(folder)).network
    assert weights_hash(found) == weights_hash(network)


def test_a_hole_in_a_file_is_found(published):
    folder, _, _ = published
    path = folder / "checkpoints" / "last.ckpt"
    whole = bytearray(path.read_bytes())
    middle = len(whole) // 2
    whole[middle : middle + 400] = bytes(400)
    path.write_bytes(whole)
    with pytest.raises(ValueError, match=r"damaged .* \(the checksum of last/data/"):
        import_checkpoint(str(folder))


def test_settings_of_something_else_do_not_hide_those_of_the_file(published):
    folder, _, content = published
    own = yaml.safe_load((folder / "config.yaml").read_text())
    torch.save(content | {"config": own}, folder / "checkpoints" / "last.ckpt")
    (folder / "config.yaml").write_text("editor: vim")
    assert import_checkpoint(str(folder)).network.config.cutoff == 6.5
    only_settings(folder, None, config="words")
    assert import_checkpoint(str(folder)).provenance["settings"] == ASSUMED_SETTINGS


def test_many_settings_make_no_long_sentence(published):
    folder, _, _ = published
    lines = ["a: &a [x,x,x,x,x,x,x,x,x,x]", *(f"{b}: &{b} [{','.join([f'*{a}'] * 10)}]" for a, b in pairwise("abcde"))]
    model = "{_target_: GemNetTDenoiser, gemnet: {activation: *e}}"
    lines.append(f"lightning_module: {{diffusion_module: {{model: {model}}}}}")
    (folder / "config.yaml").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"ask for gemnet\.activation") as refusal:
        import_checkpoint(str(folder))
    assert len(str(refusal.value)) < 1000


def test_where_it_comes_from_and_what_is_assumed(published, tmp_path):
    folder, _, _ = published
    facts = import_checkpoint(str(folder)).provenance
    assert facts["from"] == f"the file {folder / 'checkpoints' / 'last.ckpt'}"
    assert facts["assumed"] == "sizes and elements"
    with pytest.raises(ValueError, match="data build --from"):
        import_checkpoint(str(folder), data=tmp_path)
    with pytest.raises(ValueError, match=r"train.csv is no Parquet file.*data build --from"):
        import_checkpoint(str(folder), data=tmp_path / "train.csv")


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
        (lambda f: put(f, "fc_atom.bias", lambda value: value.to_sparse()), "no plain array"),
        (lambda f: (f / "config.yaml").write_text("when: 2024-13-45"), "is no YAML"),
        (lambda f: (f / "checkpoints/last.ckpt").write_text("weights"), "last.ckpt"),
        (
            lambda f: (f / "checkpoints/last.ckpt").write_text("version https://git-lfs.github.com/spec/v1\noid x\n"),
            "git lfs pull",
        ),
        (lambda f: (f / "checkpoints/last.ckpt").write_text("root:x:0:\ndaemon:x:1:\n"), "no Lightning file"),
        (lambda f: (f / "checkpoints/last.ckpt").write_bytes(b"\x80\x02\x8a\nl\xfc"), "no Lightning file"),
        (lambda f: (f / "config.yaml").write_text("a: [1"), "is no YAML"),
        (lambda f: (f / "config.yaml").write_text("[" * 5000), "is no YAML"),
        (lambda f: put(f, "fc_atom.bias", lambda value: value.to("meta")), "holds no numbers in .* fc_atom.bias"),
        (lambda f: only_settings(f, "trainer: 1"), "config.yaml lack lightning_module.diffusion_module.model"),
        (lambda f: only_settings(f, "trainer"), "config.yaml holds no settings"),
        (
            lambda f: (f / "config.yaml").write_text(yaml.safe_dump(settings(rbf={"name": "bessel"}))),
            "ask for gemnet.rbf.name",
        ),
        (
            lambda f: (f / "config.yaml").write_text(yaml.safe_dump(settings(activation="relu"))),
            "ask for gemnet.activation",
        ),
        (
            lambda f: (f / "config.yaml").write_text(
                yaml.safe_dump(settings()).replace("adapter.GemNetTAdapter", "other.Transformer")
            ),
            "of a network 'Transformer'",
        ),
        (lambda f: tell(f, cutoff=None), "cutoff is None, it must be a positive number of Å"),
        (lambda f: tell(f, cutoff=-7.0), "cutoff is -7.0, it must be a positive number of Å"),
        (lambda f: tell(f, cutoff="far"), "cutoff is 'far'"),
        (lambda f: tell(f, max_neighbors=0), "max_neighbors is 0, it must be a positive whole number"),
        (lambda f: tell(f, max_cell_images_per_dim=1.5), "max_images is 1.5"),
        (lambda f: put(f, "fc_atom.bias", lambda value: value.long()), "no floating-point numbers in .* fc_atom.bias"),
        (lambda f: put(f, SCALER, lambda value: value.expand(2)), "another shape of tensors .*scaler.means"),
        (lambda f: put(f, SCALER, lambda value: value.long()), "no floating-point numbers in .*scaler.means"),
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


class Hub:
    """Stands in for the hub's client: what the cache has, and whether there is a network."""

    def __init__(self, monkeypatch, folder, *, cached, network):
        self.folder, self.cached, self.network, self.asked = folder, cached, network, []
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", self.download)
        monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", self.look)

    def download(self, repository, file, local_files_only=False):
        assert repository == "microsoft/mattergen"
        self.asked.append(("cache" if local_files_only else "hub", file.split("/")[-1]))
        if local_files_only and not self.cached:
            raise huggingface_hub.errors.LocalEntryNotFoundError("not here")
        assert file.startswith("checkpoints/dft_band_gap/")
        return str(self.folder / file.removeprefix("checkpoints/dft_band_gap/"))

    def look(self, url, **_):
        self.asked.append(("look", url.split("/")[-1]))
        if not self.network:
            raise RuntimeError("whatever the HTTP library raises")


def test_names_are_taken_from_the_cache_or_fetched_and_it_says_which(published, monkeypatch):
    folder, network, _ = published
    hub = Hub(monkeypatch, folder, cached=True, network=False)
    checkpoint = import_checkpoint("dft_band_gap")
    assert weights_hash(checkpoint.network) == weights_hash(network)
    assert checkpoint.provenance["from"] == "the local cache of microsoft/mattergen"
    assert hub.asked == [("cache", "config.yaml"), ("cache", "last.ckpt")]
    Hub(monkeypatch, folder, cached=False, network=True)
    assert import_checkpoint("dft_band_gap").provenance["from"] == "microsoft/mattergen on the hub"
    hub = Hub(monkeypatch, folder, cached=False, network=False)
    with pytest.raises(ValueError, match="dft_band_gap could not be fetched and is not in the local cache"):
        import_checkpoint("dft_band_gap")
    assert hub.asked[2:] == [("look", "config.yaml")]  # once, before any download that would try again and again
    with pytest.raises(ValueError, match="matergen_base does not exist: give a Lightning file"):
        import_checkpoint("matergen_base")
    assert len(PUBLISHED) == 9


def test_the_folder_of_a_run_is_searched(published, tmp_path):
    _, network, content = published
    one = tmp_path / "run" / "logs" / "lightning_logs" / "version_0" / "checkpoints"
    one.mkdir(parents=True)
    torch.save(content, one / "last.ckpt")
    torch.save(content | {"epoch": 3}, one / "epoch=3-loss_val=0.4.ckpt")
    assert weights_hash(import_checkpoint(str(tmp_path / "run")).network) == weights_hash(network)
    assert import_checkpoint(str(tmp_path / "run"), which="best").provenance["epoch"] == 3
    two = one.parents[1] / "version_1" / "checkpoints"
    two.mkdir(parents=True)
    torch.save(content, two / "last.ckpt")
    with pytest.raises(ValueError, match=r"several runs: give one of .*version_0/checkpoints, .*version_1/checkpoints"):
        import_checkpoint(str(tmp_path / "run"))


def test_sizes_and_elements_are_those_of_the_data(published, tmp_path):
    folder, _, _ = published
    made = [
        Crystal(lattice=5 * np.eye(3), frac_coords=np.arange(3 * n).reshape(n, 3) / 12, atomic_numbers=np.full(n, z))
        for n, z in ((1, 3), (2, 8), (2, 26), (4, 92))
    ]
    split = ["train", "train", "train", "val"]
    CrystalDataset(ids=["a", "b", "c", "d"], crystals=made, split=split).write(tmp_path / "mine.parquet")
    checkpoint = import_checkpoint(str(folder), data=tmp_path / "mine.parquet")
    assert checkpoint.num_atoms == {1: 1, 2: 2}
    assert checkpoint.elements == (3, 8, 26)
    assert checkpoint.provenance["sizes_and_elements"] == "those of mine.parquet"
    assert import_checkpoint(str(folder)).provenance["sizes_and_elements"] == "those of Alex-MP-20"


def test_files_of_before_zip_archives_are_read(published):
    folder, network, content = published
    torch.save(content, folder / "checkpoints/last.ckpt", _use_new_zipfile_serialization=False)
    assert weights_hash(import_checkpoint(str(folder)).network) == weights_hash(network)
