"""Arrangements of sites to start from: the space groups and Wyckoff positions of known crystals."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import overload

import numpy as np
from druse_crystal import Crystal
from druse_crystal.site_symmetry import SiteSymmetry, find_site_symmetry
from druse_crystal.symmetry import spglib_dataset


class KnownSites:
    """The site symmetries of known crystals, found when they are needed.

    Attributes:
        num_atoms: (b,) of each crystal.
    """

    def __init__(self, crystals: Sequence[Crystal]):
        """Choose the crystals, in cells without long edges (``druse_crystal.symmetry.standardize``)."""
        self.num_atoms = np.array([crystal.num_atoms for crystal in crystals])
        self._find = cache(lambda row: find_site_symmetry(crystals[row]))
        self._group = cache(lambda row: _group_of(crystals[row]))

    def of_sizes(self, sizes: Sequence[int]) -> Sequence[SiteSymmetry]:
        """All arrangements with these numbers of atoms, each found when it is asked for."""
        return _Lazy(np.flatnonzero(np.isin(self.num_atoms, sizes)).tolist(), self._find)

    def select(
        self,
        sizes: Sequence[int],
        *,
        space_group: int | None = None,
        accept: Callable[[SiteSymmetry], bool] = lambda sites: True,
    ) -> Sequence[SiteSymmetry]:
        """All arrangements with these numbers of atoms that have a space group, if one is given, and are accepted.

        Raises:
            ValueError: if there is none; says which groups there are, or that the group has no such cell.
        """
        rows = np.flatnonzero(np.isin(self.num_atoms, sizes)).tolist()
        if space_group is not None:
            groups = {row: self._group(row) for row in rows}
            rows = [row for row in rows if groups[row] == space_group]
            if not rows:
                known = sorted({group for group in groups.values() if group})
                raise ValueError(
                    f"no known crystal with {_numbers(sizes)} atoms in the primitive cell has space group "
                    f"{space_group}: known ones have {', '.join(map(str, known))}; ask for one of these or for other "
                    "numbers of atoms"
                )
        found = [sites for row in rows if (sites := self._find(row)) is not None]
        accepted = [s for s in found if accept(s)]
        if not accepted:
            orbits = sorted({s.orbit_sizes for s in found}, key=lambda sizes: (sum(sizes), sizes))
            some = "; ".join("+".join(map(str, sorted(sizes))) for sizes in orbits[:8])
            where = "" if space_group is None else f" of space group {space_group}"
            raise ValueError(
                f"none of the {len(orbits)} known ways to share out {_numbers(sizes)} atoms over sites{where} can hold "
                f"what was asked for (such as {some}): ask for other numbers of atoms or another group"
            )
        return accepted


class _Lazy(Sequence[SiteSymmetry]):
    """Site symmetries of some rows; in place of one that cannot be found stands the next."""

    def __init__(self, rows: list[int], find: Callable[[int], SiteSymmetry | None]):
        self.rows, self.find = rows, find

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> SiteSymmetry: ...
    @overload
    def __getitem__(self, index: slice) -> "_Lazy": ...
    def __getitem__(self, index):
        if isinstance(index, slice):
            return _Lazy(self.rows[index], self.find)
        for row in (*self.rows[index:], *self.rows[:index]):
            if (sites := self.find(row)) is not None:
                return sites
        raise IndexError("no crystal has a symmetry that can be found")


def _group_of(crystal: Crystal) -> int:
    """The space group of a crystal in its own cell; 0 where spglib finds nothing."""
    dataset = spglib_dataset(crystal)
    return 0 if dataset is None else int(dataset.number)


def _numbers(sizes: Sequence[int]) -> str:
    low, high = min(sizes), max(sizes)
    return f"{low}" if low == high else f"{low} to {high}"
