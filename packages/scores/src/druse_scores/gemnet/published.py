"""Weights of the published MatterGen code: which tensors a checkpoint has, and a network made of them.

A Lightning checkpoint names them with ``diffusion_module.model.`` before. Of these a network needs the ones of its own
``state_dict``, under the same names. The others never reach an output: an energy head in each output block, of which
half of the tensors stand there twice, and the centres of the Gaussians a second time. They are checked and left out.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from druse_scores.gemnet.config import GemNetConfig, KnownProperty
from druse_scores.gemnet.network import GemNet

PREFIX = "diffusion_module.model."
LOGARITHMIC = ("dft_bulk_modulus", "ml_bulk_modulus")
"""Properties of which the published models learnt the decadic logarithm."""

type Shapes = dict[str, tuple[int, ...]]


class ForeignWeights(ValueError):
    """Tensors that are not those of a published network; names what is missing, extra or of another shape."""


def network_of(
    tensors: Mapping[str, Tensor],
    *,
    cutoff: float = 7.0,
    max_neighbors: int = 50,
    max_images: int = 5,
    logarithmic: Sequence[str] = LOGARITHMIC,
) -> GemNet:
    """The network of a published state dictionary; sizes and properties are read off the tensors.

    Args:
        tensors: by name, with the prefix of a Lightning checkpoint or without.
        cutoff: see ``GemNetConfig``; no tensor tells it, as the next ones.
        max_neighbors: the same.
        max_images: the same.
        logarithmic: properties of which the decadic logarithm was learnt.

    Returns:
        the network, in evaluation mode; it shares the memory of the tensors.

    Raises:
        ForeignWeights: if a tensor is missing, unknown, of another shape or type, or not finite.
        ValueError: for a setting of the graph that makes no sense.
    """
    tensors = {name.removeprefix(PREFIX): value for name, value in tensors.items()}
    _refuse("holds no numbers in", {name for name, value in tensors.items() if value.is_meta})
    config = replace(
        config_of(tensors, logarithmic=logarithmic), cutoff=cutoff, max_neighbors=max_neighbors, max_images=max_images
    )
    with torch.device("meta"):  # nothing is drawn that is about to be overwritten
        network = GemNet(config)
    expected = published_shapes(network)
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    _refuse("lacks", expected.keys() - found.keys())
    _refuse("has unknown", found.keys() - expected.keys())
    _refuse("has another shape of", {name for name in found if found[name] != expected[name]})
    own = network.state_dict()
    _refuse("holds no plain array in", {name for name in own if tensors[name].layout is not torch.strided})
    _refuse("holds no floating-point numbers in", {name for name in own if not tensors[name].is_floating_point()})
    _refuse("holds numbers that are not finite in", {name for name in own if not tensors[name].isfinite().all()})
    half = (torch.float16, torch.bfloat16)  # everything around the network computes in single precision or better
    network.load_state_dict(
        {n: tensors[n].float() if tensors[n].dtype in half else tensors[n] for n in own}, assign=True
    )
    return network.eval()


def published_shapes(network: GemNet) -> Shapes:
    """Names and shapes of all tensors of the published code's network of the same sizes."""
    c = network.config
    own: Shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    return own | dict(_dead(c))


def _dead(c: GemNetConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Tensors that never reach an output."""
    yield "gemnet.cbf_basis3.radial_basis.rbf.offset", (c.num_radial,)
    for i in range(c.num_blocks + 1):
        block = f"gemnet.out_blocks.{i}"
        yield f"{block}.dense_rbf.linear.weight", (c.hidden, c.rbf)
        yield f"{block}.scale_sum.scale_factor", ()
        yield f"{block}.out_energy.linear.weight", (1, c.hidden)
        for part in ("layers", "seq_energy"):
            yield f"{block}.{part}.0.linear.weight", (c.hidden, c.hidden)
            for j in (1, 2, 3):
                for k in (0, 1):
                    yield f"{block}.{part}.{j}.dense_mlp.{k}.linear.weight", (c.hidden, c.hidden)


def config_of(tensors: Mapping[str, Tensor], *, logarithmic: Sequence[str] = LOGARITHMIC) -> GemNetConfig:
    """Sizes and properties of a network, by its tensors.

    Raises:
        ForeignWeights: if a tensor that tells a size is missing or of another rank.
    """

    def size(name: str, rank: int) -> tuple[int, ...]:
        _refuse("lacks", {name} - tensors.keys())
        shape = tuple(tensors[name].shape)
        if len(shape) != rank:
            raise ForeignWeights(f"{name} has shape {shape}, which no published network has")
        return shape

    rbf, num_radial = size("gemnet.mlp_rbf3.linear.weight", 2)
    num_spherical, _, cbf = size("gemnet.mlp_cbf3.weight", 3)
    _, hidden = size("gemnet.atom_emb.embeddings.weight", 2)
    trip, _, bilinear = size("gemnet.int_blocks.0.trip_interaction.mlp_cbf.weight", 3)
    blocks = {found[1] for name in tensors if (found := re.match(r"gemnet\.int_blocks\.(\d+)\.", name))}
    return GemNetConfig(
        num_blocks=len(blocks),
        hidden=hidden,
        trip=trip,
        bilinear=bilinear,
        rbf=rbf,
        cbf=cbf,
        num_radial=num_radial,
        num_spherical=num_spherical,
        properties=tuple(_properties(tensors, logarithmic)),
    )


def _properties(tensors: Mapping[str, Tensor], logarithmic: Sequence[str]) -> Iterator[KnownProperty]:
    for branch, adapter in (("property_embeddings", False), ("property_embeddings_adapt", True)):
        names = [found[1] for name in tensors if (found := re.match(rf"{branch}\.(\w+)\.", name))]
        for name in dict.fromkeys(names):
            start = f"{branch}.{name}"
            if f"{start}.conditional_embedding_module.div_term" in tensors:
                scaler = {f"{start}.scaler.{part}" for part in ("means", "stds")}
                _refuse("lacks", scaler - tensors.keys())
                _refuse("has another shape of", {part for part in scaler if tuple(tensors[part].shape) != (1,)})
                yield KnownProperty(
                    name=name,
                    kind="log_scalar" if name in logarithmic else "scalar",
                    mean=float(tensors[f"{start}.scaler.means"]),
                    std=float(tensors[f"{start}.scaler.stds"]),
                    adapter=adapter,
                )
            else:
                table = f"{start}.conditional_embedding_module.embedding"
                kind = "chemical_system" if f"{table}.bias" in tensors else "space_group"
                yield KnownProperty(name=name, kind=kind, adapter=adapter)


def _refuse(complaint: str, names: set[str]) -> None:
    if names:
        some = sorted(names)
        more = f" and {len(some) - 3} more" if len(some) > 3 else ""
        raise ForeignWeights(
            f"the checkpoint {complaint} tensors {', '.join(some[:3])}{more}: it is damaged, or of another network "
            "than a published MatterGen model"
        )
