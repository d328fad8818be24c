"""Entries of the Materials Project, asked for with the user's own key through ``mp-api``."""

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from druse_crystal.convert import from_pymatgen
from druse_crystal.refusal import refusal_status

from druse_energetics.reference_entry import ReferenceEntry

KEY = "MP_API_KEY"
"""Environment variable with the user's key."""
THERMO_TYPE = "GGA_GGA+U"
"""PBE and PBE+U, mixed by MP2020."""


def query_entries(chemical_system: str, *, client: Any = None) -> Iterator[ReferenceEntry]:
    """All entries of a chemical system and its sub-systems, PBE and PBE+U with MP2020 corrections.

    Args:
        chemical_system: e.g. ``Li-Fe-O``.
        client: an ``mp_api.client.MPRester``; made with the key in ``MP_API_KEY`` by default.

    Raises:
        ValueError: without ``mp-api`` or key, for a system that is none, or if the query fails; the sentence says what
            to do.
    """
    symbols = _symbols(chemical_system)
    client = client or _client()
    try:
        found = client.get_entries_in_chemsys(symbols, additional_criteria={"thermo_types": [THERMO_TYPE]})
    except Exception as error:  # of the network, the service and the client's own checks
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(
            f"the Materials Project gave no entries of {chemical_system} ({reason}): check the connection and {KEY}"
        ) from error
    if not found:
        raise ValueError(f"the Materials Project has no entries of {chemical_system}: check the symbols")
    return (_entry(entry) for entry in found)


def _symbols(chemical_system: str) -> list[str]:
    from pymatgen.core import Element

    symbols = sorted(set(chemical_system.split("-")))
    wrong = [symbol for symbol in symbols if not Element.is_valid_symbol(symbol)]
    if wrong:
        raise ValueError(f"{chemical_system!r} is no chemical system ({wrong[0]!r}): write it like Li-Fe-O")
    return symbols


def _client() -> Any:
    key = os.environ.get(KEY)
    if not key:
        raise ValueError(f"a query of the Materials Project needs your key: set the environment variable {KEY}")
    try:
        from mp_api.client import MPRester  # ty: ignore[import-not-found]
    except ImportError as error:
        raise ValueError("a query of the Materials Project needs mp-api: pip install mp-api") from error
    return MPRester(key, mute_progress_bars=True)


def _entry(entry: Any) -> ReferenceEntry:
    name = str(entry.data.get("material_id") or entry.entry_id)
    source = f"Materials Project {entry.entry_id}"
    try:
        crystal = from_pymatgen(entry.structure)
    except (ValueError, AttributeError) as error:
        reason = str(error)
        return ReferenceEntry(id=name, source=source, crystal=None, status=refusal_status(reason), message=reason)
    known = ReferenceEntry(id=name, source=source, crystal=crystal)
    foreign = [term.name for term in entry.energy_adjustments if "MP2020" not in term.name]
    if foreign:
        message = f"its energy is corrected by {foreign[0]!r}, not MP2020"
        return replace(known, status="incompatible", message=message)
    return replace(known, energy=float(entry.uncorrected_energy), correction=float(entry.correction))
