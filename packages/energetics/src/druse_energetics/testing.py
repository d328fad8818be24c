"""Checks that anything calling itself a potential must pass."""

from collections.abc import Sequence

import numpy as np
from druse_crystal.crystal import Crystal
from jaxtyping import Float64
from scipy.spatial.transform import Rotation

from druse_energetics.potential import Potential

DISPLACEMENT = 0.01  # Å
STRAIN = 0.002


def check_potential(
    potential: Potential,
    crystals: Sequence[Crystal] | None = None,
    *,
    energy_tolerance: float = 1e-4,
    force_tolerance: float = 5e-3,
    stress_tolerance: float = 5e-4,
    seed: int = 0,
) -> None:
    """Check symmetries and derivatives of a potential on distorted crystals.

    Energies do not change when the crystal turns, its atoms are renumbered or its origin moves, and are proportional to
    the size of a supercell; forces turn with the crystal; forces and stress are the derivatives of the energy (central
    differences); a crystal has the same energy alone and among others.

    Args:
        potential: what to check.
        crystals: crystals to check it on, of elements it knows; distorted rock salt and a distorted hexagonal cell by
            default.
        energy_tolerance: eV/atom.
        force_tolerance: eV/Å.
        stress_tolerance: eV/Å³.
        seed: of the random rotations, permutations and displaced atoms.

    Raises:
        AssertionError: with a sentence that says which property fails and by how much.
    """
    rng = np.random.default_rng(seed)
    crystals = list(crystals) if crystals is not None else _distorted_crystals()
    together = potential.evaluate(crystals)
    energies = potential.energies(crystals)
    for crystal, evaluation, energy in zip(crystals, together, energies, strict=True):
        n = crystal.num_atoms
        rotation = Rotation.random(rng=rng).as_matrix()
        order = rng.permutation(n)
        turned = crystal.replace(lattice=crystal.lattice @ rotation.T)
        permuted = crystal.replace(frac_coords=crystal.frac_coords[order], atomic_numbers=crystal.atomic_numbers[order])
        moved = crystal.replace(frac_coords=crystal.frac_coords + rng.random(3))
        alone, turned, permuted, moved = (potential.evaluate([c])[0] for c in (crystal, turned, permuted, moved))
        doubled = potential.evaluate([_doubled(crystal)])[0]
        force, stress = evaluation.forces, evaluation.stress
        per_atom = energy_tolerance * n
        _close(energy, evaluation.energy, per_atom, "energies() and evaluate() disagree (eV)")
        _close(alone.energy, evaluation.energy, per_atom, "energy alone and in a batch disagree (eV)")
        _close(alone.forces, force, force_tolerance, "forces alone and in a batch disagree (eV/Å)")
        _close(turned.energy, evaluation.energy, per_atom, "energy changes when the crystal turns (eV)")
        _close(turned.forces, force @ rotation.T, force_tolerance, "forces do not turn with the crystal (eV/Å)")
        _close(turned.stress, rotation @ stress @ rotation.T, stress_tolerance, "stress does not turn with it (eV/Å³)")
        _close(permuted.energy, evaluation.energy, per_atom, "energy depends on the order of the atoms (eV)")
        _close(permuted.forces, force[order], force_tolerance, "forces do not follow the order of the atoms (eV/Å)")
        _close(moved.energy, evaluation.energy, per_atom, "energy depends on the origin (eV)")
        _close(doubled.energy, 2 * evaluation.energy, 2 * per_atom, "energy is not proportional to the cell (eV)")
        atom = int(rng.integers(n))
        _close(_force(potential, crystal, atom), force[atom], force_tolerance, "forces are no derivative (eV/Å)")
        _close(_stress(potential, crystal), stress, stress_tolerance, "stress is no derivative (eV/Å³)")


def _close(value, expected, tolerance: float, sentence: str) -> None:
    error = float(np.abs(np.asarray(value) - np.asarray(expected)).max())
    assert error <= tolerance, f"{sentence}: by {error:.3g}, allowed {tolerance:.3g}"


def _force(potential: Potential, crystal: Crystal, atom: int) -> Float64[np.ndarray, "3"]:
    moved = []
    for axis in range(3):
        for sign in (1, -1):
            coords = crystal.cart_coords.copy()
            coords[atom, axis] += sign * DISPLACEMENT
            moved.append(crystal.replace(frac_coords=np.linalg.solve(crystal.lattice.T, coords.T).T))
    energies = potential.energies(moved).reshape(3, 2)
    return -(energies[:, 0] - energies[:, 1]) / (2 * DISPLACEMENT)


def _stress(potential: Potential, crystal: Crystal) -> Float64[np.ndarray, "3 3"]:
    strained = []
    pairs = [(i, j) for i in range(3) for j in range(i, 3)]
    for i, j in pairs:
        for sign in (1, -1):
            strain = np.zeros((3, 3))
            strain[i, j] += sign * STRAIN / 2
            strain[j, i] += sign * STRAIN / 2
            strained.append(crystal.replace(lattice=crystal.lattice @ (np.eye(3) + strain)))
    energies = potential.energies(strained).reshape(-1, 2)
    slopes = (energies[:, 0] - energies[:, 1]) / (2 * STRAIN) / crystal.volume
    stress = np.zeros((3, 3))
    for (i, j), slope in zip(pairs, slopes, strict=True):
        stress[i, j] = stress[j, i] = slope
    return stress


def _doubled(crystal: Crystal) -> Crystal:
    half = crystal.frac_coords * np.array([0.5, 1.0, 1.0])
    return Crystal(
        lattice=crystal.lattice * np.array([[2.0], [1.0], [1.0]]),
        frac_coords=np.concatenate([half, half + np.array([0.5, 0.0, 0.0])]),
        atomic_numbers=np.concatenate([crystal.atomic_numbers, crystal.atomic_numbers]),
    )


def _distorted_crystals() -> list[Crystal]:
    rock_salt = Crystal(
        lattice=np.array([[0.1, 2.2, 2.1], [2.0, 0.0, 2.3], [2.15, 2.05, 0.0]]),
        frac_coords=np.array([[0.0, 0.0, 0.0], [0.47, 0.53, 0.5]]),
        atomic_numbers=np.array([12, 8]),
    )
    hexagonal = Crystal(
        lattice=np.array([[3.3, 0.0, 0.0], [-1.6, 2.8, 0.0], [0.2, 0.1, 5.3]]),
        frac_coords=np.array([[0.33, 0.66, 0.02], [0.67, 0.34, 0.5], [0.33, 0.67, 0.39], [0.66, 0.32, 0.87]]),
        atomic_numbers=np.array([30, 30, 16, 16]),
    )
    return [rock_salt, hexagonal]
