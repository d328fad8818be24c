"""Settings of a relaxation and of an evaluation, with defaults and units, and how they are read from YAML."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class RelaxationConfig:
    """How crystals are relaxed.

    Attributes:
        potential: ``sevennet-0``, ``sevennet-l3i5`` or ``chgnet``.
        fmax: eV/Å; finished when no force is larger.
        max_steps: give up after so many steps; 0 judges the crystals as they are.
        device: torch device.
    """

    potential: str = "sevennet-0"
    fmax: float = 0.05
    max_steps: int = 500
    device: str = "cpu"


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How crystals are judged.

    Attributes:
        reference: ``embedded``, or the path of a reference.
        relaxation: how they are relaxed first.
        n_best: crystals drawn in the report.
    """

    reference: str = "embedded"
    relaxation: RelaxationConfig = field(default_factory=RelaxationConfig)
    n_best: int = 9

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def read_config(path: str | os.PathLike | None) -> EvaluationConfig:
    """Settings from a YAML file; those that it does not mention keep their defaults, and so do all without a file.

    Raises:
        ValueError: if the file cannot be read, or has a key or value that does not belong; the sentence names both.
    """
    import yaml
    from pydantic import TypeAdapter, ValidationError

    if path is None:
        return EvaluationConfig()
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"cannot read the settings {path} ({error.strerror or error})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no valid YAML: {' '.join(str(error).split())}") from error
    if content is not None and not isinstance(content, Mapping):
        raise ValueError(f"{path} must hold keys and values, such as 'reference: embedded'")
    try:
        return TypeAdapter(EvaluationConfig).validate_python(dict(content or {}), extra="forbid")
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        message = "no such setting" if "unexpected" in first["type"] or "extra" in first["type"] else first["msg"]
        raise ValueError(f"{path}: {key}: {message}") from error


def with_options(config: EvaluationConfig, *, reference: str | None, **relaxation: Any) -> EvaluationConfig:
    """The settings with those replaced that were given (not None) on the command line."""
    given = {name: value for name, value in relaxation.items() if value is not None}
    changed = replace(config, relaxation=replace(config.relaxation, **given))
    return changed if reference is None else replace(changed, reference=reference)
