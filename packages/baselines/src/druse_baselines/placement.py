"""Put atoms on Wyckoff positions of a random space group, with PyXtal; also the program of ``PlacementWorker``.

PyXtal: Fredericks, Parrish, Sayre, Zhu, Comput. Phys. Commun. 261, 107810 (2021).
"""

import json
import os
import sys
import warnings
from collections.abc import Mapping

import numpy as np
from druse_crystal import Crystal
from pymatgen.core import Element

NUM_SPACE_GROUPS = 230


def place_atoms(
    counts: Mapping[int, int], *, volume: float, tolerance: float, rng: np.random.Generator
) -> Crystal | None:
    """One random crystal of a given composition.

    A space group is drawn from all 230 until one has Wyckoff positions for these numbers of atoms; lattice and free
    coordinates are random within it. This can take unbounded time: see ``PlacementWorker``.

    Args:
        counts: atoms in the primitive cell, by atomic number.
        volume: volume of the primitive cell, Å³.
        tolerance: atoms keep at least half the sum of their covalent radii times this number apart.
        rng: source of randomness.

    Returns:
        The crystal in the conventional cell of its space group, or None if the atoms did not fit.
    """
    from pyxtal.crystal import random_crystal
    from pyxtal.lattice import Lattice
    from pyxtal.symmetry import Group
    from pyxtal.tolerance import Tol_matrix

    while True:
        group = Group(int(rng.integers(1, NUM_SPACE_GROUPS + 1)))
        points = group.cellsize()  # lattice points in the conventional cell
        conventional = [count * points for count in counts.values()]
        if group.check_compatible(conventional)[0]:
            break
    placed = random_crystal(
        dim=3,
        group=group,
        species=[Element.from_Z(z).symbol for z in counts],
        numIons=conventional,
        lattice=Lattice(group.lattice_type, volume * points, random_state=rng),
        tm=Tol_matrix(prototype="atomic", factor=tolerance),
        random_state=rng,
    )
    if not placed.valid:
        return None
    sites = [(Element(site.specie).Z, site.coords) for site in placed.atom_sites]
    return Crystal(
        lattice=placed.lattice.matrix,
        frac_coords=np.concatenate([coords for _, coords in sites]),
        atomic_numbers=np.concatenate([np.full(len(coords), z) for z, coords in sites]),
    )


def main() -> None:
    """Answer requests, one JSON object a line on stdin, with one JSON object a line on stdout."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    sys.stdout = sys.stderr  # PyXtal prints
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        request = json.loads(line)
        try:
            crystal = place_atoms(
                {int(z): count for z, count in request["counts"]},
                volume=request["volume"],
                tolerance=request["tolerance"],
                rng=np.random.default_rng(request["seed"]),
            )
        except Exception as error:  # whatever PyXtal raises costs this draw, not the run
            answer: dict | None = {"error": f"{type(error).__name__}: {error}"}
        else:
            answer = crystal and {
                "lattice": crystal.lattice.tolist(),
                "frac_coords": crystal.frac_coords.tolist(),
                "atomic_numbers": crystal.atomic_numbers.tolist(),
            }
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
