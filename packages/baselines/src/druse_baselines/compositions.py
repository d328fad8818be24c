"""What random structures take over from known crystals: compositions and volumes."""

import warnings
from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np
from druse_crystal import Crystal
from pymatgen.core import Element

from druse_baselines.proposer import Target, element_counts
from druse_baselines.volumes import AtomicVolumes


class KnownCompositions:
    """Draws cell contents that known crystals have, or that a target asks for.

    Without a target, a cell content is that of a known crystal, drawn at random. A formula is drawn with any number of
    formula units that ``max_atoms`` allows. For a chemical system, the stoichiometry of a known crystal with as many
    elements is taken and the elements are assigned in the order of their electronegativity.
    """

    def __init__(self, crystals: Sequence[Crystal], *, max_atoms: int):
        """Choose what is known.

        Args:
            crystals: known crystals; those of more than ``max_atoms`` are left out.
            max_atoms: most atoms in the primitive cell.

        Raises:
            ValueError: if no crystal is left.
        """
        self.crystals = [crystal for crystal in crystals if crystal.num_atoms <= max_atoms]
        if not self.crystals:
            raise ValueError(
                f"random structures need at least one known crystal of at most max_atoms={max_atoms} atoms"
            )
        self.max_atoms = max_atoms

    @cached_property
    def volumes(self) -> AtomicVolumes:
        """Volumes of the atoms in these crystals."""
        return AtomicVolumes(self.crystals)

    def check(self, target: str | None) -> Target | None:
        """Read a target.

        Raises:
            ValueError: if it cannot be read or does not fit into ``max_atoms``, or no crystal has its elements or as
                many.
        """
        if not target:
            return None
        wanted = Target.parse(target)
        for z in wanted.elements:
            self.volumes[z]  # raises for an element that no crystal holds
        if wanted.formula is None:
            if len(wanted.elements) not in self._stoichiometries:
                raise ValueError(f"no known crystal has as many elements as {target}: add one, or ask for a formula")
        elif (size := sum(count for _, count in wanted.formula)) > self.max_atoms:
            raise ValueError(f"one formula unit of {target} has {size} atoms: raise max_atoms ({self.max_atoms})")
        return wanted

    def draw(self, wanted: Target | None, rng: np.random.Generator) -> dict[int, int]:
        """Atoms in the primitive cell, by atomic number."""
        if wanted is not None and wanted.formula is not None:
            units = rng.integers(1, self.max_atoms // sum(count for _, count in wanted.formula) + 1)
            return {z: int(count * units) for z, count in wanted.formula}
        if wanted is None:
            return dict(element_counts(self.crystals[rng.integers(len(self.crystals))]))
        alike = self._stoichiometries[len(wanted.elements)]
        counts = alike[rng.integers(len(alike))]
        return dict(zip(_by_electronegativity(wanted.elements), counts, strict=True))

    @cached_property
    def _stoichiometries(self) -> dict[int, list[list[int]]]:
        """Numbers of atoms in the order of electronegativity, for each number of elements."""
        found: dict[int, list[list[int]]] = {}
        for crystal in self.crystals:
            counts = element_counts(crystal)
            found.setdefault(len(counts), []).append([counts[z] for z in _by_electronegativity(counts)])
        return found


def _by_electronegativity(atomic_numbers: Iterable[int]) -> list[int]:
    """Atomic numbers from the most electropositive to the most electronegative; without a value (noble gases) last."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "No Pauling electronegativity")  # pymatgen, of every noble gas
        return sorted(atomic_numbers, key=lambda z: (np.nan_to_num(Element.from_Z(z).X, nan=np.inf), z))
