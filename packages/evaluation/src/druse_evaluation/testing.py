"""A small world to test judging in: two salts, a hull through them, and a relaxer that knows the answers."""

import math
from collections.abc import Sequence

import numpy as np
from ase.data import chemical_symbols
from druse_crystal.crystal import Crystal
from druse_energetics.corrections import Corrections, Residual
from druse_energetics.hull import ConvexHull
from druse_energetics.reference import Reference
from druse_energetics.relaxation import OnResult, Relaxation, Status

FCC = np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
ELEMENT_ENERGIES = {"Na": -1.3, "Cl": -1.8, "K": -1.0, "Br": -1.6}  # eV/atom


def salt(a: float, *, anion: int = 17, cation: int = 11, shift: float = 0.0) -> Crystal:
    """Primitive cell of rock salt with the cubic lattice constant ``a`` in Å, the anion moved by ``shift`` a/2."""
    return Crystal(
        lattice=a * FCC,
        frac_coords=np.array([[0, 0, 0], [0.5 + shift, 0.5, 0.5]]),
        atomic_numbers=np.array([cation, anion]),
    )


def simple_cubic_salt(a: float) -> Crystal:
    """Sodium chloride in the structure of caesium chloride."""
    return Crystal(
        lattice=a * np.eye(3), frac_coords=np.array([[0, 0, 0], [0.5, 0.5, 0.5]]), atomic_numbers=np.array([11, 17])
    )


class AnsweringRelaxer:
    """Gives prepared relaxations, in order."""

    name = "answers"

    def __init__(self, results: Sequence[Relaxation]):
        self.results = list(results)
        self.n_given = 0

    def __call__(self, crystals: Sequence[Crystal], *, on_result: OnResult | None = None) -> list[Relaxation]:
        """The next prepared relaxations, one for each crystal."""
        answers = self.results[self.n_given : self.n_given + len(crystals)]
        self.n_given += len(crystals)
        for i, answer in enumerate(answers):
            if on_result is not None:
                on_result(i, answer)
        return answers


def relaxed(
    crystal: Crystal, formation_energy: float, *, status: Status = "converged", message: str = ""
) -> Relaxation:
    """A relaxation to ``crystal`` whose energy is that formation energy (eV/atom) in the small world."""
    elements = [ELEMENT_ENERGIES.get(chemical_symbols[z], -1.0) for z in crystal.atomic_numbers]
    energy = sum(elements) + crystal.num_atoms * formation_energy
    return Relaxation(
        crystal=crystal,
        energy=energy,
        initial_energy=energy + 0.4,
        max_force=0.04,
        n_steps=20,
        status=status,
        message=message,
    )


def lost(status: Status, message: str) -> Relaxation:
    """A relaxation that came to nothing."""
    return Relaxation(
        crystal=None,
        energy=math.nan,
        initial_energy=math.nan,
        max_force=math.nan,
        n_steps=3,
        status=status,
        message=message,
    )


def small_reference() -> Reference:
    """Hulls Na-Cl and K-Br, with -2.0 and -1.9 eV/atom for the salts, and rock salt as the only known structure."""
    corrections = Corrections(
        potential="answers",
        coefficients=ELEMENT_ENERGIES,
        elements={},
        residual=Residual(mae=0.03, median=0.02, p90=0.07, n=100),
        residual_near_hull=Residual(mae=0.02, median=0.01, p90=0.05, n=80),
    )
    return Reference(
        name="small world",
        potential="answers",
        hull=ConvexHull(["Na", "Cl", "NaCl", "K", "Br", "KBr"], [0.0, 0.0, -2.0, 0.0, 0.0, -1.9]),
        corrections=corrections,
        crystals=[salt(5.64)],
        ids=["rock salt"],
    )
