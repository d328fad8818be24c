"""Harmonic modes at Gamma and the zone boundary: is a crystal in a minimum against displacements of its atoms?

Finite differences through phonopy (Togo, Chaput, Tadano, Tanaka, J. Phys.: Condens. Matter 35, 353001 (2023)). The
forces of a potential on 2 x 2 x 2 supercells of the primitive cell, one atom displaced in each, give the dynamical
matrix at the eight wave vectors that fit into the supercell exactly, whatever the range of the potential.
"""

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from druse_crystal.crystal import Crystal
from druse_crystal.symmetry import symmetrized
from jaxtyping import Complex, Float64

from druse_energetics.potential import Potential, silence
from druse_energetics.rattling import MIN_DROP
from druse_energetics.relaxation import Relaxer, make_relaxer

if TYPE_CHECKING:
    from phonopy import Phonopy

Q_POINTS = np.array(list(product((0.0, 0.5), repeat=3)))  # (8, 3) in units of the reciprocal cell; Gamma first
SUPERCELL = 2  # cells along each axis
DISPLACEMENT = 0.02  # Å
FMAX = 0.005  # eV/Å, to which a crystal is relaxed before
MAX_STEPS = 500  # of that relaxation
MAX_RESIDUAL = 0.02  # eV/Å; with larger forces left the modes would be those of a place that is no stationary point
MAX_ATOMS = 192  # in the supercell
MAX_EVALUATIONS = 96  # supercells with a displaced atom
TOLERANCE = 0.1  # THz; an imaginary frequency smaller than this is numerical noise, see README.md
SYMMETRY_TOLERANCE = 0.01  # Å; the symmetry that a relaxation in single precision keeps


@dataclass(frozen=True, kw_only=True, slots=True)
class DynamicalStability:
    """What the harmonic modes of one crystal say.

    Attributes:
        lowest_frequency: THz, of all modes at Gamma and the zone boundary but the three translations; an imaginary one
            is negative. None where it was not checked.
        reason: one sentence that starts with ``not checked:``, empty where it was.
    """

    lowest_frequency: float | None
    reason: str = ""

    @property
    def stable(self) -> bool | None:
        """Whether no mode is imaginary beyond ``TOLERANCE``; None where it was not checked."""
        return None if self.lowest_frequency is None else self.lowest_frequency >= -TOLERANCE


class PhononCheck:
    """Relaxes a crystal further, and looks for imaginary modes.

    The modes are those of the crystal relaxed until no force is above ``FMAX``, in the symmetry it then has; a crystal
    that falls by more than ``MIN_DROP`` on this way was on a slope, and is not checked.
    Instabilities at other wave vectors, and those of the cell's shape, are not seen: that no mode is imaginary is
    necessary for stability, not sufficient.

    Args:
        potential: gives the forces.
        relaxer: relaxes first; that of the potential, to ``FMAX``, by default.
        max_atoms: supercells with more atoms are not evaluated.
        max_evaluations: neither are crystals that need more supercells.

    Raises:
        ValueError: if phonopy is not installed.
    """

    def __init__(
        self,
        potential: Potential,
        *,
        relaxer: Relaxer | None = None,
        max_atoms: int = MAX_ATOMS,
        max_evaluations: int = MAX_EVALUATIONS,
    ):
        require_phonopy()
        self.potential = potential
        self.relaxer = relaxer or make_relaxer(potential.name, fmax=FMAX, max_steps=MAX_STEPS, potential=potential)
        self.max_atoms = max_atoms
        self.max_evaluations = max_evaluations

    def __call__(self, crystal: Crystal) -> DynamicalStability:
        """The lowest frequency of a relaxed crystal, or why it was not checked."""
        try:
            displaced_supercells(crystal, max_atoms=self.max_atoms)  # before the relaxation: too large is too large
            (relaxation,) = self.relaxer([crystal])
            if relaxation.crystal is None or relaxation.status not in ("converged", "not_converged"):
                raise NotCheckedError(relaxation.message)
            if relaxation.max_force > MAX_RESIDUAL:
                left = f"a force of {relaxation.max_force:.3f} eV/Å is left, more than {MAX_RESIDUAL:g}"
                raise NotCheckedError(f"after {relaxation.n_steps} further steps {left}")
            drop = (relaxation.initial_energy - relaxation.energy) / relaxation.crystal.num_atoms
            if drop > MIN_DROP:
                fell = f"relaxed further it fell by {1000 * drop:.1f} meV/atom, to another place"
                raise NotCheckedError(f"{fell}; rattle it first, or relax it to a smaller fmax")
            modes = harmonic_modes(
                relaxation.crystal, self.potential, max_atoms=self.max_atoms, max_evaluations=self.max_evaluations
            )
        except NotCheckedError as error:
            return DynamicalStability(lowest_frequency=None, reason=f"not checked: {error}")
        except Exception as error:  # whatever phonopy or the potential raised is this crystal's
            text = " ".join(str(error).split())[:200]
            return DynamicalStability(lowest_frequency=None, reason=f"not checked: {type(error).__name__}: {text}")
        return DynamicalStability(lowest_frequency=float(min(modes.optical.min(initial=np.inf), modes.boundary.min())))


class NotCheckedError(Exception):
    """Says why a crystal is not worth or not fit for a check."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class HarmonicModes:
    """Frequencies in THz, imaginary ones negative, in rising order at each wave vector.

    Attributes:
        optical: (3n - 3,) at Gamma, with the translations of the whole crystal projected out.
        boundary: (7, 3n) at the other wave vectors of ``Q_POINTS``.
        n_evaluations: supercells whose forces were computed.
    """

    optical: Float64[np.ndarray, " m"]
    boundary: Float64[np.ndarray, "7 k"]
    n_evaluations: int


def harmonic_modes(
    crystal: Crystal, potential: Potential, *, max_atoms: int = MAX_ATOMS, max_evaluations: int = MAX_EVALUATIONS
) -> HarmonicModes:
    """Modes of a crystal that is relaxed already: any force that is left counts as the pull of a displacement.

    Args:
        crystal: any cell; the modes are those of its primitive cell.
        potential: gives the forces.
        max_atoms: in a supercell.
        max_evaluations: supercells.

    Raises:
        NotCheckedError: if one of the two is exceeded.
        ValueError: if phonopy is not installed, or the potential does not know an element.
    """
    phonons = displaced_supercells(crystal, max_atoms=max_atoms)
    displaced: Any = phonons.supercells_with_displacements
    if len(displaced) > max_evaluations:
        raise NotCheckedError(f"{len(displaced)} displaced supercells are needed, more than {max_evaluations}")
    supercells = [
        Crystal(lattice=cell.cell, frac_coords=cell.scaled_positions, atomic_numbers=np.asarray(cell.numbers, np.int64))
        for cell in displaced
    ]
    forces = [evaluation.forces for evaluation in potential.evaluate(supercells)]
    if not all(np.isfinite(force).all() for force in forces):
        raise NotCheckedError("a force is not finite")
    with silence():
        phonons.produce_force_constants(forces=forces, show_drift=False)
        phonons.symmetrize_force_constants(show_drift=False)
        matrices: Any = phonons.run_qpoints(Q_POINTS, with_dynamical_matrices=True).dynamical_matrices
    unit = phonons.unit_conversion_factor
    gamma, *boundary = [np.asarray(matrix) for matrix in matrices]
    return HarmonicModes(
        optical=_frequencies(_without_translations(gamma, np.asarray(phonons.primitive.masses)), unit),
        boundary=np.stack([_frequencies(matrix, unit) for matrix in boundary]),
        n_evaluations=len(supercells),
    )


def displaced_supercells(crystal: Crystal, *, max_atoms: int = MAX_ATOMS) -> "Phonopy":
    """phonopy's description of the primitive cell, its supercell and the displacements that symmetry leaves.

    Raises:
        NotCheckedError: if the supercell has more than ``max_atoms``.
    """
    with silence():
        primitive = _described(symmetrized(crystal, symprec=SYMMETRY_TOLERANCE, angle_tolerance=-1.0), 1).primitive
        if (n := len(primitive) * SUPERCELL**3) > max_atoms:
            raise NotCheckedError(f"the 2 x 2 x 2 supercell has {n} atoms, more than {max_atoms}")
        phonons = _described(
            Crystal(
                lattice=primitive.cell,
                frac_coords=primitive.scaled_positions,
                atomic_numbers=np.asarray(primitive.numbers, np.int64),
            ),
            SUPERCELL,
        )
        phonons.generate_displacements(distance=DISPLACEMENT)
    return phonons


def require_phonopy() -> None:
    """Refuse to go on without phonopy.

    Raises:
        ValueError: says how to install it.
    """
    try:
        import phonopy  # noqa: F401
    except ImportError as error:
        raise ValueError("phonons need phonopy: pip install 'druse-energetics[phonons]'") from error


def _described(crystal: Crystal, multiple: int) -> "Phonopy":
    from ase.data import atomic_masses
    from phonopy import Phonopy
    from phonopy.structure.atoms import PhonopyAtoms

    cell = PhonopyAtoms(
        cell=crystal.lattice,
        scaled_positions=crystal.frac_coords,
        numbers=crystal.atomic_numbers,
        masses=atomic_masses[crystal.atomic_numbers],  # phonopy has none of some radioactive elements
    )
    return Phonopy(cell, multiple * np.eye(3, dtype=int), primitive_matrix="auto" if multiple == 1 else np.eye(3))


def _without_translations(gamma: Complex[np.ndarray, "k k"], masses: Float64[np.ndarray, " n"]) -> np.ndarray:
    """The dynamical matrix at Gamma in the space at right angles to the three translations of the whole crystal."""
    from scipy.linalg import null_space

    translations = np.kron(np.sqrt(masses)[:, None], np.eye(3))
    others = null_space(translations.T)
    return others.T @ gamma @ others


def _frequencies(matrix: np.ndarray, unit: float) -> Float64[np.ndarray, " k"]:
    squares = np.linalg.eigvalsh(matrix) if len(matrix) else np.zeros(0)
    return np.sign(squares) * np.sqrt(np.abs(squares)) * unit
