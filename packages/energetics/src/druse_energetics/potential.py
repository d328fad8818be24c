"""Potentials: total energies, forces and stresses of crystals from universal interatomic potentials."""

import contextlib
import io
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, get_args, runtime_checkable

import numpy as np
from druse_crystal.crystal import Crystal
from druse_crystal.device import find_device
from jaxtyping import Float64

if TYPE_CHECKING:
    import torch

PotentialName = Literal["sevennet-0", "sevennet-l3i5", "chgnet"]
POTENTIAL_NAMES: tuple[str, ...] = get_args(PotentialName)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Evaluation:
    """What a potential says of one crystal.

    Attributes:
        energy: eV per cell.
        forces: (n, 3) in eV/Å.
        stress: (3, 3) in eV/Å³, positive when the crystal wants to shrink: dE/d(strain) / volume.
    """

    energy: float
    forces: Float64[np.ndarray, "n 3"]
    stress: Float64[np.ndarray, "3 3"]


@runtime_checkable
class Potential(Protocol):
    """A model of the potential energy of crystals.

    Attributes:
        name: short name, the key of everything derived for this potential (references, calibrations).
        elements: the atomic numbers it knows.
    """

    name: str
    elements: frozenset[int]

    def energies(self, crystals: Sequence[Crystal]) -> Float64[np.ndarray, " b"]:
        """Total energies in eV per cell, one a crystal. Raises ValueError for an element it does not know."""
        ...

    def evaluate(self, crystals: Sequence[Crystal]) -> list[Evaluation]:
        """Energies, forces and stresses. Raises ValueError for an element it does not know."""
        ...


def load_potential(
    name: str = "sevennet-0", *, device: "str | torch.device" = "cpu", dtype: "torch.dtype | None" = None
) -> Potential:
    """Load a potential whose weights lie inside its installed package; nothing is downloaded.

    Args:
        name: ``sevennet-0`` (11 July 2024), ``sevennet-l3i5`` or ``chgnet`` (0.3.0).
        device: torch device to run on.
        dtype: floating-point type; all three are trained and run in ``torch.float32``, the default and only choice.

    Raises:
        ValueError: for a name, device or dtype that does not exist.

    Sources: SevenNet-0 and l3i5: Park et al., J. Chem. Theory Comput. 20, 4857 (2024); CHGNet: Deng et al., Nat. Mach.
    Intell. 5, 1031 (2023). All are trained on relaxations of the Materials Project (PBE, PBE+U).
    """
    import torch

    if name not in POTENTIAL_NAMES:
        raise ValueError(f"there is no potential named {name!r}; choose one of {', '.join(POTENTIAL_NAMES)}")
    if dtype not in (None, torch.float32):
        raise ValueError(f"{name} runs in torch.float32 only, not {dtype}")
    device = find_device(device)
    with silence():
        if name == "chgnet":
            from druse_energetics.chgnet import CHGNetPotential

            return CHGNetPotential(device=device)
        import_torch_sim()
        from druse_energetics.sevennet import SevenNetPotential

        return SevenNetPotential(name, device=device)


def refuse_unknown_elements(potential: Potential, crystals: Sequence[Crystal]) -> None:
    """Raise ValueError if a crystal holds an element that the potential was not trained on."""
    for i, crystal in enumerate(crystals):
        if message := unknown_elements(potential, crystal):
            raise ValueError(f"crystal {i}: {message}")


def unknown_elements(potential: Potential, crystal: Crystal) -> str:
    """One sentence that names the elements of a crystal which the potential does not know; empty if it knows all."""
    from pymatgen.core import Element

    unknown = sorted({int(z) for z in crystal.atomic_numbers} - potential.elements)
    if not unknown:
        return ""
    return f"{potential.name} was not trained on {', '.join(Element.from_Z(z).symbol for z in unknown)}"


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keep the warnings and prints of third parties out of our output."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def import_torch_sim() -> None:
    """Import torch-sim, without what NVIDIA's warp below it writes about the absence of a GPU.

    Warp writes from C, to the file descriptor, so that only pointing the descriptor elsewhere keeps it quiet.
    """
    if "torch_sim" in sys.modules:
        return
    sys.stderr.flush()
    saved = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        with silence():
            import torch_sim  # noqa: F401
    finally:
        os.dup2(saved, 2)
        os.close(saved)
