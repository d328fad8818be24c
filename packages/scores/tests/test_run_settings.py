"""Settings of published runs: what an import takes from them, and what of another network or noise is refused."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from druse_diffusion import LatticeVP
from druse_scores import Checkpoint, import_checkpoint, load_checkpoint, save_checkpoint
from druse_scores.gemnet import GemNet, GemNetConfig
from druse_scores.gemnet.run_settings import ForeignSettings, run_settings

TINY = GemNetConfig(num_blocks=1, hidden=16, trip=8, bilinear=8, rbf=4, cbf=4, num_radial=16)


def published_settings():
    """Network, noise and loss as in the settings of the published models."""
    folded = """
    lightning_module:
      diffusion_module:
        corruption:
          _target_: mattergen.diffusion.corruption.multi_corruption.MultiCorruption
          discrete_corruptions:
            atomic_numbers:
              _target_: mattergen.diffusion.corruption.d3pm_corruption.D3PMCorruption
              offset: 1
              d3pm:
                _target_: mattergen.diffusion.d3pm.d3pm.MaskDiffusion
                dim: 101
                schedule: {_target_: a.create_discrete_diffusion_schedule, kind: standard, num_steps: 1000}
          sdes:
            cell:
              _target_: mattergen.common.diffusion.corruption.LatticeVPSDE.from_vpsde_config
              vpsde_config:
                {beta_max: 20, beta_min: 0.1, limit_density: 0.05771451654022283, limit_var_scaling_constant: 0.25}
            pos:
              _target_: mattergen.common.diffusion.corruption.NumAtomsVarianceAdjustedWrappedVESDE
              limit_info_key: num_atoms
              sigma_max: 5.0
              wrapping_boundary: 1.0
        loss_fn:
          _target_: mattergen.common.loss.MaterialsLoss
          d3pm_hybrid_lambda: 0.01
          include_atomic_numbers: true
          weights: {atomic_numbers: 1.0, cell: 1.0, pos: 0.1}
        model:
          _target_: mattergen.adapter.GemNetTAdapter
          atom_type_diffusion: mask
          denoise_atom_types: true
          gemnet:
            _target_: mattergen.common.gemnet.gemnet_ctrl.GemNetTCtrl
            atom_embedding: {_target_: a.AtomEmbedding, emb_size: 512, with_mask_type: true}
            condition_on_adapt: [ml_bulk_modulus, chemical_system]
            cutoff: 7.0
            emb_size_atom: 512
            emb_size_edge: 512
            latent_dim: 512
            max_cell_images_per_dim: 5
            max_neighbors: 50
            num_blocks: 4
            num_targets: 1
            otf_graph: true
            regress_stress: true
          hidden_dim: 512
          property_embeddings: {}
          property_embeddings_adapt:
            ml_bulk_modulus:
              _target_: mattergen.property_embeddings.PropertyEmbedding
              conditional_embedding_module: {_target_: a.NoiseLevelEncoding, d_model: 512}
              name: ml_bulk_modulus
              scaler: {_target_: mattergen.common.utils.data_utils.StandardScalerTorch, log10_transform: true}
              unconditional_embedding_module: {_target_: mattergen.property_embeddings.EmbeddingVector, hidden_dim: 512}
            chemical_system:
              _target_: mattergen.property_embeddings.PropertyEmbedding
              conditional_embedding_module: {_target_: a.ChemicalSystemMultiHotEmbedding, hidden_dim: 512}
              name: chemical_system
              scaler: {_target_: torch.nn.Identity}
              unconditional_embedding_module: {_target_: mattergen.property_embeddings.EmbeddingVector, hidden_dim: 512}
    """
    return yaml.safe_load(folded)


def changed(where, value=None):
    """The published settings with one of them changed, or without it."""
    told = published_settings()
    *sections, last = where.split(".")
    section = told["lightning_module"]["diffusion_module"]
    for name in sections:
        section = section.setdefault(name, {})
    section.pop(last, None)
    if value is not None:
        section[last] = value
    return told


def test_the_published_settings_of_structure_prediction_give_the_species(tmp_path):
    """They keep ``denoise_atom_types``, have no noise of species and leave these out of the loss."""
    shapes = json.loads((Path(__file__).parent / "data" / "published_key_shapes.json").read_text())["mattergen_base"]
    assert len(shapes) == 281
    tensors = {name: torch.ones(()).expand(shape) for name, shape in shapes.items()}
    torch.save({"state_dict": tensors}, tmp_path / "last.ckpt")
    told = published_settings()
    module = told["lightning_module"]["diffusion_module"]
    module["model"]["property_embeddings_adapt"] = {}
    del module["corruption"]["discrete_corruptions"]
    module["loss_fn"] |= {"include_atomic_numbers": False, "weights": {"cell": 1.0, "pos": 0.1}}
    assert module["model"]["denoise_atom_types"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(told))
    checkpoint = import_checkpoint(str(tmp_path))
    assert checkpoint.given_species
    assert checkpoint.network.config == GemNetConfig()


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("corruption.discrete_corruptions", None),
        ("corruption.discrete_corruptions", {}),
        ("loss_fn.include_atomic_numbers", False),
        ("model.denoise_atom_types", False),
    ],
)
def test_any_sign_of_structure_prediction_is_enough(where, value):
    assert not run_settings(published_settings(), Path("a.ckpt")).given_species
    assert run_settings(changed(where, value), Path("a.ckpt")).given_species


def test_logarithms_are_those_of_the_settings():
    known = "model.property_embeddings_adapt.ml_bulk_modulus.scaler.log10_transform"
    assert "ml_bulk_modulus" in run_settings(published_settings(), Path("a.ckpt")).logarithmic
    assert "ml_bulk_modulus" not in run_settings(changed(known, False), Path("a.ckpt")).logarithmic
    assert "ml_bulk_modulus" in run_settings(changed("model.property_embeddings_adapt"), Path("a.ckpt")).logarithmic


@pytest.mark.parametrize(
    ("where", "value", "words"),
    [
        ("model.gemnet.attention_block", {"name": "transformer"}, "hold gemnet.attention_block, which Druse does not"),
        ("model.gemnet.quadruplets", True, "hold gemnet.quadruplets"),
        ("model.decoder", {"layers": 2}, "hold decoder"),
        ("model.gemnet._target_", "mattergen.common.gemnet.GemNetQ", "ask for gemnet._target_ = 'mattergen.*GemNetQ'"),
        ("model.gemnet.atom_embedding.with_mask_type", False, "with_mask_type = False, and Druse has True"),
        ("model.gemnet.rbf", "gaussian", "'gaussian' for gemnet.rbf, which has to be a section"),
        ("model.gemnet.envelope", {"name": "polynomial", "exponent": 6}, "ask for gemnet.envelope.exponent = 6"),
        ("model.atom_type_diffusion", "uniform", "ask for atom_type_diffusion = 'uniform'"),
        (
            "model.property_embeddings_adapt.colour",
            {"_target_": "mattergen.property_embeddings.PropertyEmbedding", "conditional_embedding_module": {}}
            | {"conditional_embedding_module": {"_target_": "mine.WordEmbedding"}},
            "ask for property_embeddings_adapt.colour.conditional_embedding_module._target_ = 'mine.WordEmbedding'",
        ),
        (
            "model.property_embeddings_adapt.colour",
            {"_target_": "mine.Embedding"},
            "colour._target_ = 'mine.Embedding'",
        ),
        ("model.gemnet.cutoff", "${oc.env:X}", r"leave gemnet.cutoff to be filled in .*: write its value there"),
        ("model.atom_type_diffusion", "${oc.env:X}", "leave atom_type_diffusion to be filled in"),
        ("corruption.sdes.pos.sigma_max", 1, "ask for corruption.sdes.pos.sigma_max = 1, and Druse has 5.0"),
        ("corruption.sdes.pos._target_", "mine.WrappedVESDE", "ask for corruption.sdes.pos._target_ = 'mine.Wr"),
        ("corruption.sdes.cell.vpsde_config.limit_density", None, "do not say .*limit_density: write there the mean"),
        ("corruption.sdes.cell.vpsde_config.limit_density", -1, "have -1 for .*limit_density"),
        ("corruption.sdes.cell.vpsde_config.limit_density", "${x}", "leave .*limit_density to be filled in"),
        ("model.element_mask_func", "mine.mask", "ask for element_mask_func = 'mine.mask'"),
        ("corruption.sdes.cell.vpsde_config.beta_max", 10, "beta_max = 10, and Druse has 20.0"),
        ("corruption.sdes.forces", {"sigma_max": 1}, "hold corruption.sdes.forces"),
        ("corruption.discrete_corruptions.atomic_numbers.d3pm.schedule.num_steps", 100, "num_steps = 100, and .* 1000"),
        ("corruption.discrete_corruptions.atomic_numbers.d3pm.schedule.kind", "cosine", "schedule.kind = 'cosine'"),
        ("corruption.discrete_corruptions.atomic_numbers.d3pm.dim", 120, "dim = 120, and Druse has 101"),
    ],
)
def test_another_network_or_noise_is_refused_by_name(where, value, words):
    with pytest.raises(ForeignSettings, match=words) as refusal:
        run_settings(changed(where, value), Path("a.ckpt"))
    assert "\n" not in str(refusal.value)
    assert "a.ckpt" in str(refusal.value)


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("model.gemnet.scale_file", "${oc.env:PROJECT_ROOT}/scales.json"),
        ("model.element_mask_func", "mattergen.denoiser.mask_disallowed_elements"),
        ("model.element_mask_func", {"_target_": "mattergen.denoiser.mask_disallowed_elements", "_partial_": True}),
    ],
)
def test_what_makes_no_difference_to_a_finished_network_is_no_obstacle(where, value):
    assert run_settings(changed(where, value), Path("a.ckpt")) == run_settings(published_settings(), Path("a.ckpt"))


def test_a_run_on_other_data_has_a_density_of_its_own(tmp_path):
    told = changed("corruption.sdes.cell.vpsde_config.limit_density", 0.0623)
    assert run_settings(told, Path("a.ckpt")).density == 0.0623
    assert run_settings(changed("corruption.sdes.cell.vpsde_config"), Path("a.ckpt")).density == LatticeVP.density
    checkpoint = Checkpoint(network=GemNet(TINY), num_atoms={4: 1}, elements=(3, 8), density=0.0623)
    save_checkpoint(checkpoint, tmp_path / "druse")
    assert load_checkpoint(tmp_path / "druse").density == 0.0623
