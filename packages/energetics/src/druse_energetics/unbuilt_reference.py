"""A reference in memory, of structures with energies of which nobody built one: what they say of themselves decides."""

import shlex
from collections import Counter
from pathlib import Path

from druse_crystal.io import ReadResult, read_crystals

from druse_energetics.built_reference import BuiltReference, build_reference
from druse_energetics.correction_scheme import FORMATION, SCHEME_OF_POTENTIAL
from druse_energetics.reference_source import FORMATION_ENERGY, TOTAL_ENERGY, entry_of, of_structures

DECLARED = "MP2020"
"""The scheme for entries that say that they are PBE runs with or without +U, which mix by it alone."""


def build_unbuilt(path: Path, potential: str) -> tuple[BuiltReference, str]:
    """What ``druse reference build`` would write; a sentence on what is taken for granted and what is off the hull.

    Formation energies, where no fewer structures have them than total energies, are taken to be on the scale of the
    embedded hull (``MP2018``). Total energies have to be declared: each by the ``run_type`` of its own entry.

    Args:
        path: of structures with energies.
        potential: the potential that will judge, for the sentences.

    Raises:
        ValueError: if nothing can be read or has an energy, or total energies do not say whose they are; the sentence
            has the command that says it.
    """
    structures = list(read_crystals(path))
    scheme = _scheme(structures, path, potential)
    built = build_reference([of_structures(path, lambda: structures)], scheme=scheme)
    return built, _remark(built, path, scheme)


def _scheme(structures: list[ReadResult], path: Path, potential: str) -> str:
    """``MP2018`` for formation energies, ``MP2020`` for total energies that are declared.

    Raises:
        ValueError: as ``build_unbuilt``.
    """
    if all(found.crystal is None for found in structures):
        first = f"; the first of {len(structures)}: {structures[0].error}" if structures else ""
        raise ValueError(f"{path} holds no crystal that can be read{first}")
    formation = sum(entry_of(found, FORMATION).status == "kept" for found in structures)
    totals = [entry for found in structures if (entry := entry_of(found, "none")).status == "kept"]
    if not formation and not totals:
        raise ValueError(
            f"{path} has no energies: a reference needs {FORMATION_ENERGY} or {TOTAL_ENERGY} (eV/atom) of structures"
        )
    if formation >= len(totals):
        return FORMATION
    silent = sum(entry.parameters is None for entry in totals)
    if silent:
        held = SCHEME_OF_POTENTIAL.get(potential, "none")
        own = f"--potential {potential}" + ("" if held == "none" else f" --scheme {held}")
        raise ValueError(
            f"{path} has {silent} total energies and does not say whose, and energies that are not alike do not mix: "
            f"build a reference of it first, with `{_command(path, own)}` if they are those of {potential}, or with "
            f"`{_command(path, f'--scheme {DECLARED}')}` if they are uncorrected ones of PBE and PBE+U"
        )
    return DECLARED


def _remark(built: BuiltReference, path: Path, scheme: str) -> str:
    if scheme == FORMATION:
        taken = (
            f"the formation energies of {path.name} are taken to be on the Materials Project's scale of 2018 (MP2018), "
            "that of the embedded hull"
        )
    else:
        taken = (
            f"the total energies of {path.name} are taken to be uncorrected ones of PBE and PBE+U, as its entries say, "
            f"and are corrected by {scheme}"
        )
    if not built.left:
        return taken
    counts = Counter(entry.status for entry in built.left)
    words = ", ".join(f"{number} {status.replace('_', ' ')}" for status, number in counts.items())
    entries = sum(built.description.statuses.values())
    return (
        f"{taken}; of {entries} entries {len(built.left)} are not on the hull ({words}), each listed with its reason "
        f"by `{_command(path, f'--scheme {scheme}')}`"
    )


def _command(path: Path, options: str) -> str:
    """The command that builds a reference of a file, as a shell takes it."""
    out = f"{path.stem}-reference.parquet" if path.suffix == ".parquet" else f"{path.stem}.parquet"
    return f"druse reference build {shlex.quote(str(path))} {options} --out {shlex.quote(out)}"
