"""Sites of any space group, by the letters of its Wyckoff positions.

The positions are those of the International Tables for Crystallography, vol. A, from the tables of PyXtal (Fredericks,
Parrish, Sayre, Zhu, Comput. Phys. Commun. 261, 107810 (2021)): unique axis b, hexagonal axes, the second choice of the
origin.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

import numpy as np
from ase.geometry import cellpar_to_cell
from druse_crystal import Crystal
from druse_crystal.site_symmetry import SiteSymmetry, find_site_symmetry
from druse_crystal.symmetry import crystal_system, standardize
from jaxtyping import Float64

_EDGE = 1000.0  # Å, so long that random coordinates hardly ever seem special to a search with a tolerance
_STRETCH = 0.5  # edges are up to this power of e longer or shorter
_ATTEMPTS = 2  # at random numbers that are not special
_CELLS = 16  # shapes of the cell for the sites that a user chose


class HigherSymmetryError(ValueError):
    """Any crystal with these sites has more symmetry than was asked for."""


@dataclass(frozen=True, kw_only=True, eq=False)
class WyckoffPosition:
    """One Wyckoff position of a space group.

    Attributes:
        letter: as in the International Tables.
        multiplicity: atoms in the conventional cell.
        num_atoms: in the primitive cell.
        free: whether it has a free coordinate; if it has none, it can be occupied once.
        coordinates: (multiplicity, 3, 4), what takes (x, y, z, 1) to the fractional coordinates of the atoms.
    """

    letter: str
    multiplicity: int
    num_atoms: int
    free: bool
    coordinates: Float64[np.ndarray, "m 3 4"]

    @property
    def name(self) -> str:
        """Multiplicity and letter, such as ``4a``."""
        return f"{self.multiplicity}{self.letter}"


def has_positions() -> bool:
    """Whether PyXtal is there, without which nobody knows the Wyckoff positions."""
    return find_spec("pyxtal") is not None


@cache
def positions_of(space_group: int) -> tuple[WyckoffPosition, ...]:
    """The Wyckoff positions of a space group, from a on.

    Raises:
        ValueError: if PyXtal is not installed.
    """
    try:
        from pyxtal.symmetry import Group
    except ImportError as error:
        raise ValueError("Wyckoff positions need PyXtal: pip install 'druse-generate[wyckoff]'") from error
    group = Group(space_group)
    lattice_points = int(group.cellsize())
    return tuple(
        WyckoffPosition(
            letter=str(position.letter),
            multiplicity=len(position.ops),
            num_atoms=len(position.ops) // lattice_points,
            free=bool(position.get_dof()),
            coordinates=np.array([operation.affine_matrix[:3] for operation in position.ops]),
        )
        for position in reversed(list(group))
    )


def parse_wyckoff(text: str) -> list[tuple[int | None, str]]:
    """``4a,8c`` or ``a,c`` as multiplicities, None where there is none, and letters.

    Raises:
        ValueError: names the part that makes no sense.
    """
    parts = []
    for part in text.split(","):
        match = re.fullmatch(r"([1-9][0-9]*)?([A-Za-z])", part.strip())
        if match is None:
            raise ValueError(f"{part.strip()!r} is no Wyckoff position: write 4a,8c or a,c")
        parts.append((int(match[1]) if match[1] else None, match[2]))
    return parts


def chosen_positions(space_group: int, text: str) -> tuple[WyckoffPosition, ...]:
    """The Wyckoff positions with these names, such as ``4a,8c``.

    Raises:
        ValueError: for a name that the group does not have, or a position without a free coordinate named twice; if
            PyXtal is not installed.
    """
    known = {position.letter: position for position in positions_of(space_group)}
    chosen = []
    for multiplicity, letter in parse_wyckoff(text):
        if letter not in known:
            names = ", ".join(position.name for position in known.values())
            raise ValueError(f"space group {space_group} has no Wyckoff position {letter}: it has {names}")
        position = known[letter]
        if multiplicity not in (None, position.multiplicity):
            raise ValueError(
                f"{multiplicity}{letter} was asked for, and position {letter} of space group {space_group} is "
                f"{position.name}: write the multiplicity of the conventional cell, or the letter alone"
            )
        if position in chosen and not position.free:
            raise ValueError(
                f"{position.name} of space group {space_group} has no free coordinate and stands in {text!r} more than "
                "once: write it once"
            )
        chosen.append(position)
    return tuple(chosen)


def chosen_sites(space_group: int, positions: Sequence[WyckoffPosition], *, seed: int) -> Sequence[SiteSymmetry]:
    """The sites of these Wyckoff positions in primitive cells of several shapes.

    Which cell is the reduced one depends on the lengths and angles of the lattice, and with it how the operations act.

    Raises:
        HigherSymmetryError: if such crystals have more symmetry; says which.
    """
    rng = np.random.default_rng([seed, space_group])
    return [occupy(space_group, positions, rng=rng) for _ in range(_CELLS)]


def occupy(space_group: int, positions: Sequence[WyckoffPosition], *, rng: np.random.Generator) -> SiteSymmetry:
    """The sites of these Wyckoff positions in the primitive cell of a random lattice that the group allows.

    A crystal with a different element on each of them is made, reduced as the training data are, and searched for its
    symmetry.

    Raises:
        HigherSymmetryError: if the group of such a crystal is another, or its cell smaller; says which.
    """
    expected = [position.num_atoms for position in positions]
    found = None
    for _ in range(_ATTEMPTS):
        places = [p.coordinates @ np.append(rng.random(3), 1.0) for p in positions]
        crystal = Crystal(
            lattice=_random_lattice(space_group, rng),
            frac_coords=np.concatenate(places),
            atomic_numbers=np.repeat(np.arange(len(places)) + 1, [len(place) for place in places]),
        )
        found = find_site_symmetry(standardize(crystal)) or found
        if found is not None and found.space_group == space_group and sorted(found.orbit_sizes) == sorted(expected):
            return found
    names = ",".join(position.name for position in positions)
    other = (
        "another group" if found is None else f"space group {found.space_group}, {_atoms(found.num_atoms)} in a cell"
    )
    raise HigherSymmetryError(
        f"crystals of space group {space_group} with atoms at {names} alone have more symmetry than that: {other}; ask "
        "for that group or for further positions"
    )


def _random_lattice(space_group: int, rng: np.random.Generator) -> Float64[np.ndarray, "3 3"]:
    """A lattice of the group's conventional cell with no symmetry beyond it, Å."""
    a, b, c = _EDGE * np.exp(rng.uniform(-_STRETCH, _STRETCH, 3))
    alpha, beta, gamma = rng.uniform(65.0, 115.0, 3)
    lengths_and_angles = {
        "triclinic": (a, b, c, alpha, beta, gamma),
        "monoclinic": (a, b, c, 90, beta, 90),
        "orthorhombic": (a, b, c, 90, 90, 90),
        "tetragonal": (a, a, c, 90, 90, 90),
        "trigonal": (a, a, c, 90, 90, 120),
        "hexagonal": (a, a, c, 90, 90, 120),
        "cubic": (a, a, a, 90, 90, 90),
    }
    return np.array(cellpar_to_cell(lengths_and_angles[crystal_system(space_group)]))


def _atoms(number: int) -> str:
    return "1 atom" if number == 1 else f"{number} atoms"
