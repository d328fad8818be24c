"""Where the entries of a reference come from: the embedded set, the Materials Project, published and own files."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from druse_crystal.dataset import load_embedded
from druse_crystal.io import ReadResult, read_crystals
from druse_crystal.manifest import file_hash
from druse_crystal.refusal import refusal_status

from druse_energetics.correction_scheme import FORMATION, number_or_nan, run_parameters
from druse_energetics.materials_project import query_entries
from druse_energetics.published_reference import SCHEME_OF_NAME, PublishedReference
from druse_energetics.reference_entry import ReferenceEntry

TOTAL_ENERGY = "energy_per_atom"
FORMATION_ENERGY = "formation_energy_per_atom"
EMBEDDED = "embedded"
MATERIALS_PROJECT = "materials-project"


@dataclass(frozen=True, kw_only=True)
class ReferenceSource:
    """Something that was opened.

    Attributes:
        name: for the record.
        scheme: of its corrections; None: that which is asked for.
        digest: SHA-256 of the file; None for what is none.
        entries: gives them, for a scheme and whether the energies of files hold it already.
    """

    name: str
    scheme: str | None
    digest: str | None
    entries: Callable[[str, bool], Iterator[ReferenceEntry]]

    def __str__(self) -> str:
        return self.name


def open_source(
    source: str | os.PathLike | ReferenceSource, chemical_systems: Sequence[str], stack: ExitStack
) -> ReferenceSource:
    """Open a source; ``stack`` closes it.

    Args:
        source: ``embedded``, ``materials-project``, or the path of a published ``.gz`` or of structures; one that is
            open already stays as it is.
        chemical_systems: what to ask the Materials Project for.
        stack: keeps what is open.

    Raises:
        ValueError: if there is no such source or it cannot be opened.
    """
    if isinstance(source, ReferenceSource):
        return source
    if str(source) == EMBEDDED:
        return ReferenceSource(name=EMBEDDED, scheme=FORMATION, digest=None, entries=lambda *_: _embedded_entries())
    if str(source) == MATERIALS_PROJECT:
        if not chemical_systems:
            raise ValueError(f"{MATERIALS_PROJECT} needs a chemical system to ask for: add --chemical-system Li-Fe-O")
        found = [query_entries(system) for system in chemical_systems]
        return ReferenceSource(
            name=f"{MATERIALS_PROJECT} {' '.join(chemical_systems)}",
            scheme="MP2020",
            digest=None,
            entries=lambda *_: (entry for part in found for entry in part),
        )
    path = Path(source)
    if not path.exists():
        raise ValueError(
            f"there is no source {str(source)!r}: it is neither {EMBEDDED}, {MATERIALS_PROJECT} nor a file that exists"
        )
    if path.suffix == ".gz":
        published = stack.enter_context(PublishedReference(path))
        return ReferenceSource(
            name=path.name,
            scheme=SCHEME_OF_NAME.get(published.name),
            digest=file_hash(path),
            entries=lambda scheme, _: published.entries(scheme),
        )
    return of_structures(path, lambda: read_crystals(path))


def of_structures(path: Path, structures: Callable[[], Iterable[ReadResult]]) -> ReferenceSource:
    """A source of structures with energies.

    Args:
        path: of the file or folder that holds them.
        structures: gives them.
    """
    return ReferenceSource(
        name=path.name,
        scheme=None,
        digest=file_hash(path) if path.is_file() else None,
        entries=lambda scheme, corrected: (entry_of(found, scheme, corrected=corrected) for found in structures()),
    )


def entry_of(result: ReadResult, scheme: str, *, corrected: bool = False) -> ReferenceEntry:
    """What a structure of a file says, as an entry; it has a status where it says no energy.

    Args:
        result: structure and what stands beside it.
        scheme: ``MP2018`` takes its formation energy, any other one its total energy.
        corrected: the energy holds the corrections of the scheme already.
    """
    name = str(result.info.get("id") or result.info.get("material_id") or result.source)
    known = ReferenceEntry(id=name, source=result.source, crystal=result.crystal)
    if result.crystal is None:
        reason = result.error or "it cannot be read"
        return replace(known, status=refusal_status(reason), message=reason)
    known = replace(known, parameters=run_parameters(_said_of_run(result.info), result.crystal))
    n = result.crystal.num_atoms
    if scheme == FORMATION:
        energy = number_or_nan(result.info.get(FORMATION_ENERGY)) * n
    else:
        energy = _total_energy(result.info, n, corrected=corrected)
    if not np.isfinite(energy):
        message = f"it has no {FORMATION_ENERGY if scheme == FORMATION else TOTAL_ENERGY}"
        return replace(known, status="no_energy", message=message)
    return replace(known, energy=energy, correction=0.0 if corrected or scheme == FORMATION else None)


def _said_of_run(info: Mapping[str, Any]) -> Mapping[str, Any]:
    """Where an entry tells its run type: among its ``parameters``, as pymatgen writes it, or beside its energy."""
    parameters = info.get("parameters")
    return {**info, **parameters} if isinstance(parameters, Mapping) else info


def _total_energy(info: Mapping[str, Any], num_atoms: int, *, corrected: bool) -> float:
    """eV per cell. ``energy`` of a pymatgen entry is without the ``correction`` beside it."""
    for key in (TOTAL_ENERGY, "total_energy_per_atom"):
        if np.isfinite(number_or_nan(info.get(key))):
            return number_or_nan(info[key]) * num_atoms
    own = number_or_nan(info.get("correction"))
    energy = number_or_nan(info.get("energy", info.get("total_energy")))
    return energy + own if corrected and np.isfinite(own) else energy


def _embedded_entries() -> Iterator[ReferenceEntry]:
    dataset = load_embedded()
    for i, name in enumerate(dataset.ids.tolist()):
        crystal, value = dataset.crystals[i], float(dataset.labels[FORMATION_ENERGY][i])
        known = ReferenceEntry(id=name, source=f"{EMBEDDED} {name}", crystal=crystal)
        if np.isfinite(value):
            yield replace(known, energy=value * crystal.num_atoms, correction=0.0)
        else:
            yield replace(known, status="no_energy", message=f"it has no {FORMATION_ENERGY}")
