"""One line of a reference before it becomes one: a known crystal with the energy that somebody computed for it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from druse_crystal.crystal import Crystal

Status = Literal["kept", "no_energy", "incompatible", "no_reference", "duplicate", "unreadable", "disordered"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ReferenceEntry:
    """A known crystal and its energy.

    Attributes:
        id: its name, e.g. ``mp-149``.
        source: where it stands: file with frame, row or key.
        crystal: None if it cannot be read.
        energy: total energy in eV per cell without corrections, NaN if unknown. For energies whose scheme is one of
            formation energies (``MP2018``): the formation energy, likewise in eV per cell.
        correction: what a scheme adds, in eV per cell; None where no scheme has been applied.
        parameters: of the calculation: ``run_type`` (``GGA`` or ``GGA+U``) and ``hubbards`` (symbol -> U in eV); None:
            those of the Materials Project's settings.
        status: ``kept``: on the hull; ``no_energy``, ``incompatible`` (no energy on the scale of the scheme) and
            ``no_reference`` (an element that has no energy of its own): a known structure only, off the hull;
            ``duplicate``, ``unreadable`` and ``disordered`` (sites that are shared or partly empty): left out.
        message: why it is not ``kept``.
    """

    id: str
    source: str
    crystal: Crystal | None
    energy: float = float("nan")
    correction: float | None = None
    parameters: Mapping[str, Any] | None = None
    status: Status = "kept"
    message: str = ""
