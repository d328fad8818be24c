"""Arrangements of sites to start from: the space groups and Wyckoff positions of known crystals."""

from collections import Counter
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

    def sizes(self, space_group: int) -> Counter[int]:
        """How many crystals of a space group there are of each number of atoms."""
        return Counter(int(n) for row, n in enumerate(self.num_atoms) if self._group(row) == space_group)

    def of_sizes(self, sizes: Sequence[int]) -> Sequence[SiteSymmetry]:
        """All arrangements with these numbers of atoms, each found when it is asked for."""
        return _Lazy(self._rows(sizes), self._find)

    def of_group(
        self, space_group: int, sizes: Sequence[int], *, accept: Callable[[Sequence[int]], bool]
    ) -> Sequence[SiteSymmetry]:
        """All arrangements of a space group with these numbers of atoms whose orbit sizes are accepted."""
        rows = [row for row in self._rows(sizes) if self._group(row) == space_group]
        found = [sites for row in rows if (sites := self._find(row)) is not None]
        return [sites for sites in found if accept(sites.orbit_sizes)]

    def select(self, sizes: Sequence[int], *, accept: Callable[[Sequence[int]], bool]) -> Sequence[SiteSymmetry]:
        """All arrangements with these numbers of atoms whose orbit sizes are accepted.

        Raises:
            ValueError: if there is none; says which orbits there are.
        """
        found = [sites for row in self._rows(sizes) if (sites := self._find(row)) is not None]
        accepted = [sites for sites in found if accept(sites.orbit_sizes)]
        if not accepted:
            orbits = sorted({s.orbit_sizes for s in found}, key=lambda sizes: (sum(sizes), sizes))
            some = "; ".join("+".join(map(str, sorted(sizes))) for sizes in orbits[:8])
            raise ValueError(
                f"none of the {len(orbits)} known ways to share out {_numbers(sizes)} atoms over sites can hold what "
                f"was asked for (such as {some}): ask for other numbers of atoms"
            )
        return accepted

    def _rows(self, sizes: Sequence[int]) -> list[int]:
        return np.flatnonzero(np.isin(self.num_atoms, sizes)).tolist()


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
