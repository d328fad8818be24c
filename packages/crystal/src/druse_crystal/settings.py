"""Settings from YAML: frozen dataclasses checked field by field, so that a misspelt key is an error that names it."""

import os
from collections.abc import Mapping
from pathlib import Path

import yaml
from pydantic import TypeAdapter, ValidationError


def read_settings[T](path: str | os.PathLike, kind: type[T]) -> T:
    """Settings of a dataclass; those that the file does not mention keep their defaults.

    Raises:
        ValueError: if the file cannot be read, or has a key or value that does not belong; the sentence names both.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"cannot read the settings {path} ({error.strerror or error})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no valid YAML: {' '.join(str(error).split())}") from error
    if content is not None and not isinstance(content, Mapping):
        raise ValueError(f"{path} must hold keys and values, such as 'seed: 0'")
    try:
        return TypeAdapter(kind).validate_python({str(k): v for k, v in (content or {}).items()}, extra="forbid")
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        unknown = first["type"] in ("unexpected_keyword_argument", "extra_forbidden")
        raise ValueError(f"{path}: {key}: {'no such setting' if unknown else first['msg']}") from error


def settings_text(settings: object) -> str:
    """Settings as YAML, with every default written out."""
    return yaml.safe_dump(TypeAdapter(type(settings)).dump_python(settings, mode="json"), sort_keys=False)
