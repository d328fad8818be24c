"""Settings from YAML: frozen dataclasses checked field by field, so that a misspelt key is an error that names it."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError


def read_settings[T](path: str | os.PathLike | None, kind: type[T]) -> T:
    """Settings of a dataclass; those that the file does not mention keep their defaults, also within a section.

    Without a file all keep their defaults.

    Raises:
        ValueError: if the file cannot be read, or has a key or value that does not belong; the sentence names both.
    """
    if path is None:
        return kind()
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"cannot read the settings {path} ({error.strerror or error})") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is no valid YAML: {' '.join(str(error).split())}") from error
    if content is not None and not isinstance(content, Mapping):
        raise ValueError(f"{path} must hold keys and values, such as 'seed: 0'")
    try:
        adapter = TypeAdapter(kind)
        return adapter.validate_python(_merged(adapter.dump_python(kind()), content or {}), extra="forbid")
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        unknown = first["type"] in ("unexpected_keyword_argument", "extra_forbidden")
        message = "no such setting" if unknown else first["msg"].removeprefix("Value error, ")
        raise ValueError(f"{path}: {key}: {message}" if key else f"{path}: {message}") from error


def _merged(defaults: Mapping[str, Any], given: Mapping[Any, Any]) -> dict[str, Any]:
    """Defaults with what is given put over them, section by section."""
    result = dict(defaults)
    for key, value in given.items():
        default = result.get(str(key))
        both = isinstance(default, Mapping) and isinstance(value, Mapping)
        result[str(key)] = _merged(default, value) if both else value
    return result


def override[T](settings: T, **options: Any) -> T:
    """The settings with those fields replaced that were given (not None) on a command line."""
    given = {name: value for name, value in options.items() if value is not None}
    return replace(settings, **given)  # ty: ignore[invalid-argument-type]


def settings_text(settings: object) -> str:
    """Settings as YAML, with every default written out."""
    return yaml.safe_dump(TypeAdapter(type(settings)).dump_python(settings, mode="json"), sort_keys=False)
