"""Relaxation: from crystals as somebody drew them to the nearest minimum of a potential, cell and atoms together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, cast, runtime_checkable

import numpy as np
from druse_crystal.crystal import Crystal
from druse_crystal.neighbors import min_distance

from druse_energetics.potential import Potential, load_potential, unknown_elements

if TYPE_CHECKING:
    import torch

Status = Literal["converged", "not_converged", "exploded", "overlap", "failed"]
OnResult = Callable[[int, "Relaxation"], None]

MIN_DISTANCE = 0.5  # Å between atoms, periodic images of the same atom included
VOLUME_PER_ATOM = (2.0, 500.0)  # Å³; solid hydrogen-rich phases reach 3, caesium 120
MAX_INITIAL_FORCE = 1e3  # eV/Å
ENERGY_PER_ATOM = (-30.0, 1e3)  # eV; no PBE total energy per atom of a solid is below -15


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Relaxation:
    """What became of one crystal.

    Attributes:
        crystal: the relaxed crystal (the last geometry if it did not converge), or None if there is no use in it.
        energy: eV per cell of that geometry, NaN if failed.
        initial_energy: eV per cell before the first step, NaN if it could not be computed.
        max_force: eV/Å, the largest force on an atom or, per atom, on the cell (the quantity compared with ``fmax``).
        n_steps: optimiser steps taken.
        status: ``converged``; ``not_converged`` within the allowed steps; ``exploded``: forces, energy or volume left
            what a solid can have; ``overlap``: two atoms closer than 0.5 Å; ``failed``: the potential could not be
            used.
        message: one sentence when not converged.
        rattled_energy_drop: eV/atom by which a second relaxation, after a shake, came out lower (``rattling``); 0 where
            the first one was kept, None where there was no second one or it did not converge.
    """

    crystal: Crystal | None
    energy: float
    initial_energy: float
    max_force: float
    n_steps: int
    status: Status
    message: str = ""
    rattled_energy_drop: float | None = None

    @property
    def converged(self) -> bool:
        """Whether the status is ``converged``."""
        return self.status == "converged"


def force_calls(relaxation: Relaxation | None) -> int:
    """Forces and energies that were asked of the potential: those as given, and one for every step.

    None for a crystal that was refused without asking: an element that the potential does not know, atoms on top of
    each other, a density that no solid has.
    """
    if relaxation is None or (relaxation.n_steps == 0 and np.isnan(relaxation.initial_energy)):
        return 0
    return relaxation.n_steps + 1


@runtime_checkable
class Relaxer(Protocol):
    """Something that relaxes crystals; one bad crystal never stops the others."""

    name: str

    def __call__(self, crystals: Sequence[Crystal], *, on_result: OnResult | None = None) -> list[Relaxation]:
        """Relax; ``on_result(index, relaxation)`` is called as soon as each one is finished, in any order."""
        ...


def make_relaxer(
    name: str = "sevennet-0",
    *,
    fmax: float = 0.05,
    max_steps: int = 500,
    device: "str | torch.device" = "cpu",
    atoms_per_batch: int | None = None,
    potential: Potential | None = None,
) -> Relaxer:
    """A relaxer of atoms and cell: FIRE (Bitzek et al., PRL 97, 170201 (2006)) on the Frechet cell filter.

    The SevenNets relax many crystals at once and fill the place of a finished one with the next. CHGNet relaxes one
    crystal after the other through ASE.

    Args:
        name: ``sevennet-0``, ``sevennet-l3i5`` or ``chgnet``.
        fmax: eV/Å; finished when no force on an atom, and no force per atom on the cell, is larger.
        max_steps: give up after so many steps.
        device: torch device.
        atoms_per_batch: how many atoms relax at the same time; chosen by the device if not given.
        potential: an already loaded potential of that name, to save loading it twice.

    Raises:
        ValueError: for an unknown name or numbers that make no sense.
    """
    if not fmax > 0:
        raise ValueError(f"fmax is {fmax}, it must be above 0 eV/Å")
    if max_steps < 0:
        raise ValueError(f"max_steps is {max_steps}, it cannot be negative")
    if atoms_per_batch is not None and atoms_per_batch < 1:
        raise ValueError(f"atoms_per_batch is {atoms_per_batch}, it must be at least 1")
    if potential is None:
        potential = load_potential(name, device=device)
    elif potential.name != name:
        raise ValueError(f"the potential given is {potential.name}, the relaxer asked for is {name}")
    if name == "chgnet":
        from druse_energetics.chgnet import CHGNetPotential
        from druse_energetics.serial_relaxer import SerialRelaxer

        return SerialRelaxer(cast(CHGNetPotential, potential), fmax=fmax, max_steps=max_steps)
    from druse_energetics.batch_relaxer import BatchRelaxer
    from druse_energetics.sevennet import SevenNetPotential

    return BatchRelaxer(
        cast(SevenNetPotential, potential), fmax=fmax, max_steps=max_steps, atoms_per_batch=atoms_per_batch
    )


def refusal(crystal: Crystal, potential: Potential) -> Relaxation | None:
    """Why a crystal is not worth a first step, or None if it is."""
    if message := unknown_elements(potential, crystal):
        return unusable("failed", message)
    per_atom = crystal.volume / crystal.num_atoms
    if message := implausible_volume(per_atom):
        return unusable("exploded", f"before relaxation, {message}")
    if (distance := min_distance(crystal)) < MIN_DISTANCE:
        return unusable("overlap", f"two atoms are {distance:.2f} Å apart")
    return None


def implausible_volume(per_atom: float) -> str:
    """A sentence about a volume per atom (Å³) that no solid has; empty if a solid may have it."""
    low, high = VOLUME_PER_ATOM
    return "" if low <= per_atom <= high else f"the cell has {per_atom:.3g} Å³ per atom, outside {low:g} to {high:g}"


def unusable(status: Status, message: str, *, initial_energy: float = np.nan, n_steps: int = 0) -> Relaxation:
    """The result of a crystal that yields no relaxed structure."""
    return Relaxation(
        crystal=None,
        energy=np.nan,
        initial_energy=initial_energy,
        max_force=np.nan,
        n_steps=n_steps,
        status=status,
        message=message,
    )


def finished(
    *,
    lattice: np.ndarray,
    cart_coords: np.ndarray,
    atomic_numbers: np.ndarray,
    energy: float,
    initial_energy: float,
    max_force: float,
    n_steps: int,
    fmax: float,
    max_steps: int,
) -> Relaxation | None:
    """The result of one crystal's present geometry if there is nothing left to do with it, else None.

    Args:
        lattice: (3, 3) rows in Å.
        cart_coords: (n, 3) in Å.
        atomic_numbers: (n,).
        energy: eV per cell.
        initial_energy: eV per cell.
        max_force: eV/Å.
        n_steps: steps taken so far.
        fmax: eV/Å.
        max_steps: steps allowed.
    """
    n = len(atomic_numbers)
    if message := _explosion(lattice, energy, max_force, n, n_steps):
        return unusable("exploded", message, initial_energy=initial_energy, n_steps=n_steps)
    if max_force > fmax and n_steps < max_steps:
        return None
    crystal = Crystal(
        lattice=lattice, frac_coords=np.linalg.solve(lattice.T, cart_coords.T).T, atomic_numbers=atomic_numbers
    )
    status, message = "converged", ""
    if (distance := min_distance(crystal)) < MIN_DISTANCE:
        status, message = "overlap", f"after {n_steps} steps two atoms are {distance:.2f} Å apart"
    elif max_force > fmax:
        status = "not_converged"
        message = f"after {n_steps} steps a force of {max_force:.2f} eV/Å is left, more than {fmax:g}"
    return Relaxation(
        crystal=crystal,
        energy=energy,
        initial_energy=initial_energy,
        max_force=max_force,
        n_steps=n_steps,
        status=status,
        message=message,
    )


def _explosion(lattice: np.ndarray, energy: float, max_force: float, n: int, n_steps: int) -> str:
    if not (np.isfinite(energy) and np.isfinite(max_force) and np.isfinite(lattice).all()):
        return f"energy or forces are not finite after {n_steps} steps"
    if n_steps == 0 and max_force > MAX_INITIAL_FORCE:
        return f"the first force is {max_force:.3g} eV/Å, more than {MAX_INITIAL_FORCE:g}"
    low, high = ENERGY_PER_ATOM
    if not low <= energy / n <= high:
        return f"the energy is {energy / n:.3g} eV/atom after {n_steps} steps, outside {low:g} to {high:g}"
    if message := implausible_volume(abs(float(np.linalg.det(lattice))) / n):
        return f"after {n_steps} steps {message}"
    return ""
