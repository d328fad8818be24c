"""A structure to start from: parts of it to keep, variations of it, other elements on some of its sites."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from druse_crystal import Crystal
from druse_crystal.io import read_crystals
from druse_crystal.neighbors import min_distance
from druse_crystal.symmetry import standardize
from druse_guidance import parse_elements
from jaxtyping import Bool, Int64

_OVERLAP = 0.5  # Å, below which two atoms cannot be meant
_ROOM = (4.0, 200.0)  # Å³ an atom; of the embedded crystals 98 % have 8 to 75, diamond 5.6
_LONGER = 1.2  # than in the reduced cell, from which on an edge is one of another cell


@dataclass(frozen=True, kw_only=True)
class Substitution:
    """Other elements on some sites of one element.

    Attributes:
        element: atomic number of what gives way.
        number: of sites.
        by: atomic numbers of what may take its place, rising.
    """

    element: int
    number: int
    by: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class SeedRequest:
    """What is asked of a structure. Nothing: crystals grow out of noise alone.

    Attributes:
        structure: a file with one crystal.
        keep: what of it stays, with commas: ``lattice``; ``coordinates`` or ``species`` of all atoms; both of some, as
            ``species:O`` or ``sites:0-3`` (counted from 0, as in the file).
        substitute: other elements on some sites, such as ``Fe:2:Mn-Co``: manganese or cobalt on two of the iron sites,
            which two is drawn anew for each crystal. Everything else is kept; with a strength, the other elements.
        strength: variations of the structure: it is noised up to this time, above 0 and at most 1, and grows back.
            Small ones stay near.

    Raises:
        ValueError: for a word that makes no sense, or wishes that exclude each other.
    """

    structure: Path | None = None
    keep: str | None = None
    substitute: str | None = None
    strength: float | None = None

    def __post_init__(self):
        given = any(value is not None for value in (self.keep, self.substitute, self.strength))
        if self.structure is None and given:
            raise ValueError("parts to keep, a substitution or a strength were given without a structure: give one")
        if self.structure is not None and not given:
            raise ValueError(
                f"{self.structure} was given as a structure to start from: say what to keep of it (such as lattice or "
                "species:O), what to substitute (such as Fe:2:Mn-Co), or how far variations may go (such as a strength "
                "of 0.3)"
            )
        if self.keep is not None and self.substitute is not None:
            raise ValueError("parts to keep and a substitution were given at once: all else is kept anyway")
        if self.strength is not None and not 0 < self.strength <= 1:
            raise ValueError(f"strength is {self.strength}, it is a time: it must be above 0 and at most 1")
        for part in self._parts:
            if not re.fullmatch(r"lattice|coordinates|species(:[A-Z][a-z]?)?|sites:\d+(-\d+)?", part):
                raise ValueError(
                    f"{part!r} is nothing that can be kept: write lattice, coordinates, species, species:O or "
                    "sites:0-3, with commas between them"
                )
        _ = self._substitution

    @property
    def restricts(self) -> bool:
        """Whether anything was asked for."""
        return self.structure is not None

    @cached_property
    def _parts(self) -> list[str]:
        return [] if self.keep is None else [part.strip() for part in self.keep.split(",")]

    @cached_property
    def _substitution(self) -> Substitution | None:
        if self.substitute is None:
            return None
        found = re.fullmatch(r"([A-Z][a-z]?):([1-9]\d*):([A-Za-z-]+)", self.substitute.replace(" ", ""))
        if not found or not atomic_numbers.get(found[1]):
            raise ValueError(
                f"{self.substitute!r} is no substitution: write Fe:2:Mn-Co for Mn or Co on two of the Fe sites"
            )
        by = parse_elements(found[3])
        if atomic_numbers[found[1]] in by:
            raise ValueError(f"{self.substitute!r} replaces {found[1]} by itself: leave it out of the new elements")
        return Substitution(element=atomic_numbers[found[1]], number=int(found[2]), by=by)

    def read(self) -> "Seed | None":
        """The structure and what is kept of it; None if nothing was asked for.

        Raises:
            ValueError: if the file has not just one crystal, its atoms overlap, or it has not what is to be kept or
                substituted.
        """
        if self.structure is None:
            return None
        results = list(read_crystals(self.structure))
        if len(results) != 1 or results[0].crystal is None:
            problem = results[0].error if len(results) == 1 else f"it has {len(results)} structures"
            raise ValueError(
                f"{self.structure} cannot be the structure to start from: {problem}; give a file with one crystal"
            )
        crystal = results[0].crystal
        if (nearest := min_distance(crystal)) < _OVERLAP:
            raise ValueError(
                f"{self.structure} cannot be the structure to start from: two of its atoms are {nearest:.2g} Å apart, "
                "correct its cell or its coordinates"
            )
        coordinates, species = self._kept(crystal)
        return Seed(
            crystal=crystal,
            lattice="lattice" in self._parts or (self._substitution is not None and self.strength is None),
            coordinates=coordinates,
            species=species,
            substitution=self._substitution,
            strength=self.strength,
        )

    def _kept(self, crystal: Crystal) -> tuple[Bool[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
        n, numbers = crystal.num_atoms, crystal.atomic_numbers
        if (substitution := self._substitution) is not None:
            there = int((numbers == substitution.element).sum())
            if there < substitution.number:
                raise ValueError(
                    f"{substitution.number} {chemical_symbols[substitution.element]} sites were to be substituted, "
                    f"{self.structure} has {there}"
                )
            return np.full(n, self.strength is None), np.full(n, True)
        coordinates, species = np.full(n, "coordinates" in self._parts), np.full(n, "species" in self._parts)
        for part in self._parts:
            kind, _, which = part.partition(":")
            if not which:
                continue
            if kind == "species":
                chosen = numbers == atomic_numbers.get(which, 0)
                if not chosen.any():
                    raise ValueError(f"{which} was to be kept, {self.structure} has none")
            else:
                first, _, last = which.partition("-")
                if int(last or first) >= n or int(first) > int(last or first):
                    raise ValueError(f"{part} were to be kept, {self.structure} has sites 0 to {n - 1}")
                chosen = np.isin(np.arange(n), range(int(first), int(last or first) + 1))
            coordinates |= chosen
            species |= chosen
        return coordinates, species


@dataclass(frozen=True, kw_only=True, eq=False)
class Seed:
    """A structure to start from, and what is kept of it.

    Attributes:
        crystal: the structure.
        lattice: whether the lattice is kept.
        coordinates: (n,) of which atoms the coordinates are kept.
        species: (n,) of which atoms the element is kept, substituted ones aside.
        substitution: other elements on some sites.
        strength: time up to which the structure is noised; None: crystals grow from noise, but for what is kept.
    """

    crystal: Crystal
    lattice: bool
    coordinates: Bool[np.ndarray, " n"]
    species: Bool[np.ndarray, " n"]
    substitution: Substitution | None
    strength: float | None

    @property
    def kept(self) -> Int64[np.ndarray, " k"]:
        """Positions of the atoms of which something is kept."""
        return np.flatnonzero(self.coordinates | self.species)

    @property
    def kept_counts(self) -> Counter[int]:
        """Atoms of each element that are kept."""
        counts = Counter(self.crystal.atomic_numbers[self.species].tolist())
        if self.substitution is not None:
            counts[self.substitution.element] -= self.substitution.number
        return +counts

    @property
    def elements(self) -> tuple[int, ...]:
        """Atomic numbers that are kept, rising."""
        return tuple(sorted(self.kept_counts))

    @property
    def warning(self) -> str:
        """A sentence if the cell is not what the model learnt, or what is kept will not keep its shape; else empty."""
        if not (self.lattice or self.coordinates.any() or self.strength is not None):
            return ""
        standard = standardize(self.crystal)
        if standard.num_atoms < self.crystal.num_atoms:
            return (
                f"the structure to start from has {self.crystal.num_atoms} atoms, its primitive cell has "
                f"{standard.num_atoms}, and the model learnt primitive cells: start from that one if crystals come out "
                "badly"
            )
        edge, reduced = (np.linalg.norm(c.lattice, axis=1).max() for c in (self.crystal, standard))
        if edge > _LONGER * reduced:
            return (
                f"the structure to start from has an edge of {edge:.1f} Å, its reduced cell has edges of up to "
                f"{reduced:.1f} Å, and the model learnt reduced cells: start from that one if crystals come out badly"
            )
        if self.coordinates.any() and not self.lattice and self.strength is None:
            return (
                "fractional coordinates are kept and the lattice is not: distances between the atoms that are kept "
                "will change; keep the lattice too if they shall stay"
            )
        return ""

    def sizes(self, num_atoms: tuple[int, int] | None, known: Sequence[int]) -> list[int]:
        """Numbers of atoms of the crystals to be drawn.

        Args:
            num_atoms: fewest and most that were asked for; None: as many as the structure has.
            known: numbers of atoms that the model knows.

        Raises:
            ValueError: if the structure has too many atoms, or what is kept of it does, or no such number fills the
                lattice that is kept or noised.
        """
        n, fixed = self.crystal.num_atoms, self.strength is not None or self.substitution is not None
        low, high = num_atoms or (n, n)
        if n not in known and (fixed or num_atoms is None):
            raise ValueError(
                f"the structure to start from has {n} atoms, the model knows cells of {min(known)} to {max(known)}: "
                "give its primitive cell, or " + ("a smaller structure" if fixed else "ask for a number of atoms")
            )
        if fixed and (low, high) != (n, n):
            raise ValueError(f"variations of a structure have as many atoms as it, {n}: leave out the number of atoms")
        sizes = [size for size in known if max(low, len(self.kept)) <= size <= high]
        if not sizes:
            raise ValueError(
                f"{len(self.kept)} atoms are kept, and cells of {low} to {high} atoms were asked for: ask for more, "
                f"the model knows cells of up to {max(known)} atoms"
            )
        if not self.lattice and (self.strength is None or self.strength == 1):
            return sizes
        least, most = (self.crystal.volume / room for room in reversed(_ROOM))
        fitting = [size for size in sizes if least <= size <= most]
        if not fitting:
            raise ValueError(
                f"the lattice {'that is kept' if self.lattice else 'to start from'} has {self.crystal.volume:.3g} Å³, "
                f"room for {math.ceil(least)} to {math.floor(most)} atoms, and cells of {sizes[0]} to {sizes[-1]} are "
                "to be drawn: ask for other numbers of atoms, or correct the lattice"
            )
        return fitting
