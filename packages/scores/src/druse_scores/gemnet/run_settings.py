"""What the settings of a published run say and no tensor tells; what Druse does not have is refused by name.

They are those of ``config.yaml``: the network under ``lightning_module.diffusion_module.model``, the noise under
``corruption`` beside it, the loss under ``loss_fn``.
"""

import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from druse_diffusion import NUM_CLASSES, AbsorbingD3PM, LatticeVP, WrappedVE

from druse_scores.gemnet.config import check_sizes
from druse_scores.gemnet.published import LOGARITHMIC

MODULE = "lightning_module"
"""The section that every published run has."""
NETWORKS = ("GemNetTDenoiser", "GemNetTAdapter")
_SHORT = reprlib.Repr(maxlevel=1)  # a few letters can stand for millions of values
_FREE = object()
"""Tensors tell it, or it makes no difference to a finished network."""

_PROPERTY = {
    "_target_": ("PropertyEmbedding",),
    "name": _FREE,
    "conditional_embedding_module": {
        "_target_": ("NoiseLevelEncoding", "ChemicalSystemMultiHotEmbedding", "SpaceGroupEmbeddingVector"),
        **dict.fromkeys(("d_model", "hidden_dim", "dropout"), _FREE),
    },
    "unconditional_embedding_module": {
        "_target_": ("EmbeddingVector", "ZerosEmbedding"),
        **dict.fromkeys(("hidden_dim",), _FREE),
    },
    "scaler": {
        "_target_": ("Identity", "StandardScalerTorch"),
        **dict.fromkeys(("means", "stds", "stats_dim", "log10_transform"), _FREE),
    },
}
_GEMNET = {
    "_target_": ("GemNetT", "GemNetTCtrl"),
    "atom_embedding": {"_target_": ("AtomEmbedding",), "emb_size": _FREE, "with_mask_type": (True,)},
    "rbf": {"name": ("gaussian",)},
    "cbf": {"name": ("spherical_harmonics",)},
    "envelope": {"name": ("polynomial",), "exponent": (5,)},
    "activation": ("swish",),
    "num_before_skip": (1,),
    "num_after_skip": (2,),
    "num_concat": (1,),
    "num_atom": (3,),
    "num_targets": (1,),
    "regress_stress": (True,),
    "otf_graph": (True,),
    "encoder_mode": (False,),
    **dict.fromkeys(("cutoff", "max_neighbors", "max_cell_images_per_dim"), _FREE),
    **dict.fromkeys(("num_blocks", "num_radial", "num_spherical", "latent_dim", "condition_on_adapt"), _FREE),
    **{f"emb_size_{part}": _FREE for part in ("atom", "edge", "trip", "rbf", "cbf", "bil_trip")},
    **dict.fromkeys(("output_init", "scale_file"), _FREE),
}
_MODEL = {
    "_target_": NETWORKS,
    "gemnet": _GEMNET,
    "atom_type_diffusion": ("mask",),
    "element_mask_func": (None,),
    **dict.fromkeys(("hidden_dim", "denoise_atom_types", "property_embeddings", "property_embeddings_adapt"), _FREE),
}
_SPECIES, _LATTICE, _COORDINATES = AbsorbingD3PM(), LatticeVP(), WrappedVE()
_NOISE = {
    "_target_": ("MultiCorruption",),
    "sdes": {
        "pos": {
            "_target_": ("NumAtomsVarianceAdjustedWrappedVESDE",),
            "limit_info_key": ("num_atoms",),
            "sigma_min": (_COORDINATES.sigma_min,),
            "sigma_max": (_COORDINATES.sigma_max,),
            "wrapping_boundary": (1.0,),
        },
        "cell": {
            "_target_": ("LatticeVPSDE", "from_vpsde_config"),
            "vpsde_config": {
                "beta_min": (_LATTICE.beta_min,),
                "beta_max": (_LATTICE.beta_max,),
                "limit_density": _FREE,
                "limit_var_scaling_constant": (_LATTICE.variance_scale,),
                "limit_mean": ("scaled",),
            },
        },
    },
    "discrete_corruptions": {
        "atomic_numbers": {
            "_target_": ("D3PMCorruption",),
            "offset": (1,),
            "d3pm": {
                "_target_": ("MaskDiffusion",),
                "dim": (NUM_CLASSES,),
                "schedule": {
                    "_target_": ("create_discrete_diffusion_schedule",),
                    "kind": ("standard",),
                    "num_steps": (_SPECIES.num_steps,),
                },
            },
        },
    },
}
_GRAPH = {"cutoff": "cutoff", "max_neighbors": "max_neighbors", "max_cell_images_per_dim": "max_images"}


class ForeignSettings(ValueError):
    """Settings of another network or another noise; names the setting."""


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What an import needs of them.

    Attributes:
        graph: those of ``cutoff`` (Å), ``max_neighbors`` and ``max_images`` that they name.
        density: atoms per Å³ of the lattices that noise ends in.
        given_species: whether species were given and never noised (crystal structure prediction).
        logarithmic: properties of which the decadic logarithm was learnt; where the settings are silent, as in the
            published models.
    """

    graph: dict[str, Any] = field(default_factory=dict)
    density: float = LatticeVP.density
    given_species: bool = False
    logarithmic: tuple[str, ...] = LOGARITHMIC


def run_settings(content: Mapping[str, Any], path: Path) -> RunSettings:
    """What the settings of a run say.

    Args:
        content: of ``config.yaml``, or of the entry ``config`` of a Lightning file.
        path: of the checkpoint, for messages.

    Raises:
        ForeignSettings: if there are none of a network, they make no sense, or they are of another network or noise
            than the published one.
    """
    module = _section(_section(content, MODULE), "diffusion_module")
    model = module.get("model")
    if not isinstance(model, Mapping):
        raise ForeignSettings(
            f"the settings of {path} lack lightning_module.diffusion_module.model: they are not those of a MatterGen "
            "checkpoint"
        )
    kind = str(model.get("_target_", "")).rpartition(".")[2]
    if kind not in NETWORKS:
        raise ForeignSettings(
            f"the settings of {path} are of a network {kind!r}, and Druse knows {' and '.join(NETWORKS)}: this "
            "checkpoint cannot be imported"
        )
    _check("", _without_mask(model), _MODEL, path)
    logarithmic = set(LOGARITHMIC)
    for branch in ("property_embeddings", "property_embeddings_adapt"):
        known = model.get(branch) or {}
        _check(branch, known, dict.fromkeys(known, _PROPERTY) if isinstance(known, Mapping) else {}, path)
        for name, one in known.items():
            told = _section(one, "scaler").get("log10_transform") is True
            logarithmic = logarithmic | {name} if told else logarithmic - {name}
    noise = module.get("corruption")
    drawn, density = True, _LATTICE.density
    if noise is not None:
        _check("corruption", noise, _NOISE | {"discrete_corruptions": _FREE}, path)
        density = _density(noise, path)
        species = noise.get("discrete_corruptions")
        drawn = species not in (None, {})
        if drawn:
            _check("corruption.discrete_corruptions", species, _NOISE["discrete_corruptions"], path)
    learnt = _section(module, "loss_fn").get("include_atomic_numbers") is not False
    gemnet = _section(model, "gemnet")
    for name in _GRAPH:
        _refuse_to_fill_in(f"gemnet.{name}", gemnet.get(name), path)
    graph = {ours: gemnet[theirs] for theirs, ours in _GRAPH.items() if theirs in gemnet}
    try:
        check_sizes(graph)
    except ValueError as error:
        raise ForeignSettings(f"in the settings of {path} {error}: download or copy them again") from error
    return RunSettings(
        graph=graph,
        density=density,
        given_species=not (drawn and learnt and model.get("denoise_atom_types") is not False),
        logarithmic=tuple(sorted(logarithmic)),
    )


def _section(settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = settings.get(name)
    return found if isinstance(found, Mapping) else {}


def _check(name: str, value: Any, known: Any, path: Path) -> None:
    """Hold a setting, or a section of settings, against what there is here.

    Args:
        name: of the setting, with dots; empty for the network.
        value: that it has.
        known: ``_FREE``, the values that it may have, or what a section may hold.
        path: of the checkpoint.
    """
    if known is _FREE:
        return
    _refuse_to_fill_in(name, value, path)
    if isinstance(known, tuple):
        if not any(_same(value, one, target=name.endswith("_target_")) for one in known):
            raise ForeignSettings(
                f"the settings of {path} ask for {name} = {_SHORT.repr(value)}, and Druse has "
                f"{' or '.join(map(repr, known))}: this checkpoint cannot be imported"
            )
        return
    if not isinstance(value, Mapping):
        raise ForeignSettings(
            f"the settings of {path} have {_SHORT.repr(value)} for {name}, which has to be a section: download or "
            "copy them again"
        )
    for key, item in value.items():
        inner = f"{name}.{key}" if name else str(key)
        if key in known:
            _check(inner, item, known[key], path)
        elif not str(key).startswith("_"):  # the underscored ones say how objects are made
            raise ForeignSettings(
                f"the settings of {path} hold {inner}, which Druse does not know: this checkpoint cannot be imported"
            )


def _density(noise: Mapping[str, Any], path: Path) -> float:
    """Atoms per Å³ of the lattices that noise ends in, which the published code takes from the training data."""
    config = _section(_section(_section(noise, "sdes"), "cell"), "vpsde_config")
    if not config:
        return _LATTICE.density
    name = "corruption.sdes.cell.vpsde_config.limit_density"
    density = config.get("limit_density")
    _refuse_to_fill_in(name, density, path)
    if isinstance(density, bool) or not isinstance(density, int | float) or not 0 < density < math.inf:
        said = "do not say" if density is None else f"have {_SHORT.repr(density)} for"
        raise ForeignSettings(
            f"the settings of {path} {said} {name}: write there the mean of the atoms per Å³ of what it was trained on"
        )
    return float(density)


def _refuse_to_fill_in(name: str, value: Any, path: Path) -> None:
    if isinstance(value, str) and "${" in value:
        raise ForeignSettings(
            f"the settings of {path} leave {name} to be filled in ({value[:80]}): write its value there"
        )


def _without_mask(model: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings of a network without the mask of the published commands, which elements are allowed by here too."""
    mask = model.get("element_mask_func")
    target = mask.get("_target_") if isinstance(mask, Mapping) else mask
    known = _same(target, "mask_disallowed_elements", target=True)
    return {name: value for name, value in model.items() if not (known and name == "element_mask_func")}


def _same(value: Any, expected: Any, *, target: bool) -> bool:
    if target:
        return str(value).rpartition(".")[2] == expected
    if isinstance(expected, float) and isinstance(value, int | float):
        return math.isclose(value, expected, rel_tol=1e-6)
    return value == expected and isinstance(value, bool) == isinstance(expected, bool)
