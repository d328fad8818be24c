"""Adapters on disk: one safetensors file, with the properties and the base that it belongs to in its header.

Nothing is ever unpickled.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from druse_crystal.files import replacing
from druse_scores import Network, weights_hash
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from druse_guidance.adapter import Adapter
from druse_guidance.properties import Property

_HEADER = "druse_adapter"
_FORMAT = 1


class AdapterError(ValueError):
    """A file is no adapter that this version can read, or one of another base; the message names it and the remedy."""


@dataclass(frozen=True, kw_only=True)
class StoredAdapter:
    """An adapter as it was saved.

    Attributes:
        adapter: in evaluation mode.
        base: ``weights_hash`` of the network that it was trained on.
        provenance: code, data, steps, seed; free form.
    """

    adapter: Adapter
    base: str
    provenance: dict[str, Any] = field(default_factory=dict)


def save_adapter(
    path: Path | str,
    adapter: Adapter,
    *,
    base: Network,
    provenance: Mapping[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write an adapter.

    Args:
        path: of the file.
        adapter: to be written.
        base: the network that it was trained on.
        provenance: code, data, steps, seed.
        dtype: of the stored weights.
    """
    header = {
        "format": _FORMAT,
        "base": weights_hash(base),
        "width": adapter.width,
        "num_layers": adapter.num_layers,
        "properties": [asdict(p) for p in adapter.properties.values()],
        "provenance": dict(provenance or {}),
    }
    tensors = {name: value.detach().cpu().to(dtype).contiguous() for name, value in adapter.state_dict().items()}
    with replacing(Path(path)) as temporary:
        save_file(tensors, temporary, metadata={_HEADER: json.dumps(header)})


def load_adapter(path: Path | str, *, base: Network | None = None) -> StoredAdapter:
    """Read an adapter.

    Args:
        path: of the file.
        base: the network that it is to be put on; None: nobody asks.

    Raises:
        AdapterError: if the file is missing, truncated, no adapter, of another format, or of another base.
    """
    path = Path(path)
    if not path.is_file():
        raise AdapterError(f"{path} does not exist: an adapter is one file, such as adapter.safetensors of a run")
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get(_HEADER, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise AdapterError(
            f"{path} is truncated or no safetensors file ({error}): download or copy it again"
        ) from error
    if not isinstance(header, dict) or header.get("format") != _FORMAT:
        raise AdapterError(
            f"{path} is not an adapter that this version of Druse reads: use the version that wrote it, or train one "
            "with `druse-train finetune`"
        )
    try:
        adapter = Adapter(
            [_property(content) for content in header["properties"]],
            width=header["width"],
            num_layers=header["num_layers"],
        )
        adapter.load_state_dict({name: value.float() for name, value in tensors.items()})
        if not all(bool(torch.isfinite(value).all()) for value in tensors.values()):
            raise ValueError("it holds numbers that are not finite")
        stored = StoredAdapter(adapter=adapter.eval(), base=header["base"], provenance=header["provenance"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise AdapterError(
            f"{path} is damaged ({' '.join(str(error).split())[:200]}): download or copy it again"
        ) from error
    if base is not None and weights_hash(base) != stored.base:
        raise AdapterError(
            f"{path} was trained on another base than the model given: take the model that it was trained on, or train "
            "it again with `druse-train finetune`"
        )
    return stored


def _property(content: dict[str, Any]) -> Property:
    statistics: dict[str, Any] = {name: tuple(content[name]) for name in ("levels", "groups")}
    return Property(**content | statistics)
