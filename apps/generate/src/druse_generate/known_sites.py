"""Arrangements of sites to start from: the space groups and Wyckoff positions of known crystals."""

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from druse_crystal import Crystal
from druse_crystal.site_symmetry import SiteSymmetry, find_site_symmetry


class KnownSites:
    """The site symmetries of known crystals, found when they are needed.

    Attributes:
        num_atoms: (b,) of each crystal.
    """

    def __init__(self, crystals: Sequence[Crystal]):
        """Choose the crystals, in cells without long edges (``druse_crystal.symmetry.standardize``)."""
        self.num_atoms = np.array([crystal.num_atoms for crystal in crystals])
        self._find = cache(lambda row: find_site_symmetry(crystals[row]))

    def select(
        self,
        sizes: Sequence[int],
        *,
        space_group: int | None = None,
        accept: Callable[[SiteSymmetry], bool] = lambda sites: True,
    ) -> list[SiteSymmetry]:
        """All arrangements with these numbers of atoms that have a space group, if one is given, and are accepted.

        Raises:
            ValueError: if there is none; says which groups there are, or that the group has no such cell.
        """
        rows = np.flatnonzero(np.isin(self.num_atoms, sizes)).tolist()
        found = [sites for row in rows if (sites := self._find(row)) is not None]
        of_group = [s for s in found if space_group is None or s.space_group == space_group]
        if not of_group:
            groups = sorted({s.space_group for s in found})
            raise ValueError(
                f"no known crystal with {_numbers(sizes)} atoms in the primitive cell has space group {space_group}: "
                f"known ones have {', '.join(map(str, groups))}; ask for one of these or for other numbers of atoms"
            )
        accepted = [s for s in of_group if accept(s)]
        if not accepted:
            orbits = sorted({s.orbit_sizes for s in of_group}, key=lambda sizes: (sum(sizes), sizes))
            some = "; ".join("+".join(map(str, sorted(sizes))) for sizes in orbits[:8])
            where = "" if space_group is None else f" of space group {space_group}"
            raise ValueError(
                f"none of the {len(orbits)} known ways to share out {_numbers(sizes)} atoms over sites{where} can hold "
                f"what was asked for (such as {some}): ask for other numbers of atoms or another group"
            )
        return accepted


def _numbers(sizes: Sequence[int]) -> str:
    low, high = min(sizes), max(sizes)
    return f"{low}" if low == high else f"{low} to {high}"
