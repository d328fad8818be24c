"""Sizes of a network, and the properties that it knows."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

KINDS = ("scalar", "log_scalar", "chemical_system", "space_group")
GRAPHS = ("published", "symmetric")
_SIZES = (
    *("num_blocks", "hidden", "trip", "bilinear", "rbf", "cbf", "num_radial", "num_spherical"),
    *("max_neighbors", "max_images"),
)


@dataclass(frozen=True, kw_only=True)
class KnownProperty:
    """A property that a network was trained with.

    Attributes:
        name: such as ``dft_band_gap``.
        kind: ``scalar``; ``log_scalar``, of which the decadic logarithm is learnt; ``chemical_system`` or
            ``space_group``.
        mean: of the number that is learnt, in the training data.
        std: of the same.
        adapter: whether it was added to a finished network, by a branch before each interaction; else it stands beside
            the time.
    """

    name: str
    kind: str = "scalar"
    mean: float = 0.0
    std: float = 1.0
    adapter: bool = True

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"{self.name} is of kind {self.kind!r}, it must be one of {', '.join(KINDS)}")

    @property
    def is_number(self) -> bool:
        """Whether its values are numbers on a scale."""
        return self.kind in ("scalar", "log_scalar")


@dataclass(frozen=True, kw_only=True)
class GemNetConfig:
    """Sizes; the defaults are those of all published models.

    Attributes:
        num_blocks: interactions.
        hidden: channels of atoms, edges, time and properties.
        trip: channels of an edge in the triplet interaction.
        bilinear: channels that the triplet interaction gives.
        rbf: channels of a radial basis after its projection.
        cbf: the same of the radial part of the angular basis.
        num_radial: Gaussians of the radial basis.
        num_spherical: Legendre polynomials of the angular basis.
        cutoff: longest edge, Å.
        max_neighbors: of each atom that are looked at, the nearest ones.
        max_images: lattice translations that are looked at, along each axis and in both directions.
        graph: ``published``: of two atoms that see each other, the later one's neighbours decide; ``symmetric``: an
            edge is there if either atom has it among its nearest, so that the order of the atoms makes no difference.
        properties: that it knows.

    Raises:
        ValueError: for a size that is no positive whole number, a cutoff that is no positive number, or another graph.
    """

    num_blocks: int = 4
    hidden: int = 512
    trip: int = 64
    bilinear: int = 64
    rbf: int = 16
    cbf: int = 16
    num_radial: int = 128
    num_spherical: int = 7
    cutoff: float = 7.0
    max_neighbors: int = 50
    max_images: int = 5
    graph: str = "published"
    properties: tuple[KnownProperty, ...] = ()

    def __post_init__(self):
        check_sizes(vars(self))
        if self.graph not in GRAPHS:
            raise ValueError(f"the graph is {self.graph!r}, it must be one of {', '.join(GRAPHS)}")

    @property
    def base_properties(self) -> tuple[KnownProperty, ...]:
        """Those that stand beside the time, in the order of their names."""
        return tuple(sorted((p for p in self.properties if not p.adapter), key=lambda p: p.name))

    @property
    def adapter_properties(self) -> tuple[KnownProperty, ...]:
        """Those with a branch before each interaction."""
        return tuple(p for p in self.properties if p.adapter)


def check_sizes(values: Mapping[str, object]) -> None:
    """Refuse sizes that make no sense.

    Args:
        values: of ``GemNetConfig``, some or all; other names are passed over.

    Raises:
        ValueError: for a size that is no positive whole number, or a cutoff that is no positive number.
    """
    for name in _SIZES:
        value = values.get(name, 1)
        if type(value) is not int or value < 1:
            raise ValueError(f"{name} is {value!r}, it must be a positive whole number")
    cutoff = values.get("cutoff", 1.0)
    if isinstance(cutoff, bool) or not isinstance(cutoff, int | float) or not 0 < cutoff < math.inf:
        raise ValueError(f"cutoff is {cutoff!r}, it must be a positive number of Å")
