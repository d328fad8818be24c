"""A crystal as shapes for a three-dimensional picture: atoms, bonds, cell edges."""

import itertools
from typing import Any

import numpy as np
from druse_crystal.crystal import Crystal
from druse_crystal.symmetry import symmetrized
from jaxtyping import Float64

RADIUS_SCALE = 0.42
"""Radius of a drawn atom as a fraction of its covalent radius, so that bonds show between them."""
BOND_TOLERANCE = 1.18
"""Atoms are drawn bonded up to this multiple of the sum of their covalent radii."""
MAX_DRAWN_ATOMS = 160
"""Larger conventional cells are drawn as the cell that was relaxed."""
EDGE = 1e-3
"""Fractional distance from a cell face within which an atom is drawn on the opposite face, too."""


def scene(crystal: Crystal) -> dict[str, Any]:
    """What to draw of the conventional cell, centred at the origin, in Å.

    Returns:
        ``elements``: by symbol, ``color`` (#rrggbb), ``radius`` (Å), ``atoms`` (points);
        ``bonds``: by symbol, the halves of bonds that end at such an atom, as pairs of points;
        ``edges``: the twelve edges of the cell as pairs of points;
        ``axes``: by ``a``, ``b``, ``c``, the point to write that letter at; ``size``: radius of it all, in Å.
    """
    from ase.data import chemical_symbols, covalent_radii
    from ase.data.colors import jmol_colors

    crystal = _drawn_cell(crystal)
    frac, numbers = _with_boundary_images(crystal)
    centre = 0.5 * crystal.lattice.sum(axis=0)
    points = frac @ crystal.lattice - centre
    elements: dict[str, dict[str, Any]] = {}
    for z in sorted(set(numbers.tolist()), reverse=True):
        elements[chemical_symbols[z]] = {
            "color": "#" + "".join(f"{round(255 * float(c)):02x}" for c in jmol_colors[z]),
            "radius": round(RADIUS_SCALE * float(covalent_radii[z]), 3),
            "atoms": _rounded(points[numbers == z]),
        }
    bonds: dict[str, list] = {symbol: [] for symbol in elements}
    for i, j in _bonded(points, numbers, covalent_radii[numbers]):
        # the border between both colours lies where the visible parts of the bond are equally long
        direction = points[j] - points[i]
        length = float(np.linalg.norm(direction))
        r_i, r_j = (elements[chemical_symbols[numbers[k]]]["radius"] for k in (i, j))
        border = points[i] + direction * (0.5 + 0.5 * (r_i - r_j) / length)
        bonds[chemical_symbols[numbers[i]]].append(_rounded(np.stack([points[i], border])))
        bonds[chemical_symbols[numbers[j]]].append(_rounded(np.stack([points[j], border])))
    corners = np.array(list(itertools.product((0, 1), repeat=3)))
    edges = [(p, q) for p, q in itertools.combinations(corners, 2) if np.abs(p - q).sum() == 1]
    return {
        "elements": elements,
        "bonds": {symbol: halves for symbol, halves in bonds.items() if halves},
        "edges": [_rounded(np.stack(edge) @ crystal.lattice - centre) for edge in edges],
        "axes": {
            name: _rounded(vector + 0.7 * vector / np.linalg.norm(vector) - centre)
            for name, vector in zip("abc", crystal.lattice, strict=True)
        },
        "size": round(float(np.linalg.norm(corners @ crystal.lattice - centre, axis=1).max()) + 0.6, 3),
    }


def _drawn_cell(crystal: Crystal) -> Crystal:
    try:
        conventional = symmetrized(crystal)
    except ValueError:
        return crystal
    return conventional if conventional.num_atoms <= MAX_DRAWN_ATOMS else crystal


def _with_boundary_images(crystal: Crystal) -> tuple[Float64[np.ndarray, "m 3"], np.ndarray]:
    """All atoms, and copies of those on a face, edge or corner of the cell on the opposite ones."""
    frac, numbers = [], []
    for position, z in zip(crystal.frac_coords, crystal.atomic_numbers, strict=True):
        position = np.where(position > 1 - EDGE, position - 1, position)
        for shift in itertools.product(*[(0, 1) if x < EDGE else (0,) for x in position]):
            frac.append(position + shift)
            numbers.append(z)
    return np.array(frac), np.array(numbers)


def _bonded(points: np.ndarray, numbers: np.ndarray, radii: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of drawn atoms near enough to be bonded; between metals only in all-metal crystals."""
    from pymatgen.core import Element

    metal = np.array([Element.from_Z(int(z)).is_metal for z in numbers])
    distance = np.linalg.norm(points[:, None] - points[None, :], axis=-1)
    near = (distance < BOND_TOLERANCE * (radii[:, None] + radii[None, :])) & (distance > 0.4)
    if not metal.all():
        near &= ~(metal[:, None] & metal[None, :])
    return [(int(i), int(j)) for i, j in np.argwhere(np.triu(near, 1))]


def _rounded(values: np.ndarray) -> list:
    return np.round(values, 3).tolist()
