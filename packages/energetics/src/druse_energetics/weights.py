"""Where the weights of the potentials lie, and which they are, without loading anything."""

from collections.abc import Iterable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from druse_crystal.manifest import file_hash

WEIGHTS: dict[str, tuple[str, str]] = {
    "sevennet-0": ("sevenn", "pretrained_potentials/SevenNet_0__11Jul2024/checkpoint_sevennet_0.pth"),
    "sevennet-l3i5": ("sevenn", "pretrained_potentials/SevenNet_l3i5/checkpoint_l3i5.pth"),
    "chgnet": ("chgnet", "pretrained/0.3.0/chgnet_0.3.0_e29f68s314m37.pth.tar"),
}
"""The package that ships the weights of each potential, and the file in it."""


def weights_path(name: str) -> Path:
    """The file of weights of a potential in its installed package.

    Args:
        name: a key of ``WEIGHTS``.

    Raises:
        ValueError: if the package is not installed or lacks the weights.
    """
    package, file = WEIGHTS[name]
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ValueError(f"the weights of {name} are in the package {package}, which is not installed: install it")
    path = Path(spec.origin).parent / file
    if not path.is_file():
        raise ValueError(f"the installed {package} {version(package)} has no weights of {name}: install a later one")
    return path


def weights_digests(names: Iterable[str | None]) -> dict[str, str]:
    """SHA-256 of the file of weights of each potential; those that are not shipped or not installed are left out."""
    digests = {}
    for name in names:
        if name in WEIGHTS:
            try:
                digests[name] = file_hash(weights_path(name))
            except ValueError:  # energies may come from a machine that has it
                continue
    return digests
