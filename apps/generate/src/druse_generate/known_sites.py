"""Arrangements of sites to start from: the space groups and Wyckoff positions of known crystals."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from typing import overload

import numpy as np
from druse_crystal import Crystal
from druse_crystal.site_symmetry import SiteSymmetry, find_site_symmetry
from druse_crystal.symmetry import spglib_dataset
from jaxtyping import Int64


class KnownSites:
    """The site symmetries of known crystals, found when they are needed.

    Attributes:
        num_atoms: (b,) of each crystal.
        groups: (b,) their space groups.
    """

    def __init__(self, crystals: Sequence[Crystal], groups: Int64[np.ndarray, " b"]):
        """Choose the crystals.

        Args:
            crystals: in cells without long edges (``druse_crystal.symmetry.standardize``).
            groups: (b,) their space groups (``space_groups_of``).
        """
        self.num_atoms, self.groups = np.array([crystal.num_atoms for crystal in crystals]), groups
        self._find = cache(lambda row: find_site_symmetry(crystals[row]))

    def sizes(self, space_group: int) -> Counter[int]:
        """How many crystals of a space group there are of each number of atoms."""
        return Counter(self.num_atoms[self.groups == space_group].tolist())

    def of_sizes(self, sizes: Sequence[int]) -> Sequence[SiteSymmetry]:
        """All arrangements with these numbers of atoms, each found when it is asked for."""
        return _Lazy(self._rows(sizes), self._find)

    def of_group(
        self, space_group: int, sizes: Sequence[int], *, accept: Callable[[Sequence[int]], bool]
    ) -> Sequence[SiteSymmetry]:
        """All arrangements of a space group with these numbers of atoms whose orbit sizes are accepted."""
        rows = [row for row in self._rows(sizes) if self.groups[row] == space_group]
        found = [sites for row in rows if (sites := self._find(row)) is not None]
        return [sites for sites in found if sites.space_group == space_group and accept(sites.orbit_sizes)]

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


def space_groups_of(crystals: Sequence[Crystal]) -> Int64[np.ndarray, " b"]:
    """The space group of each crystal in its own cell; 0 where spglib finds nothing."""
    found = (spglib_dataset(crystal) for crystal in crystals)
    return np.array([0 if dataset is None else int(dataset.number) for dataset in found])


def _numbers(sizes: Sequence[int]) -> str:
    low, high = min(sizes), max(sizes)
    return f"{low}" if low == high else f"{low} to {high}"
