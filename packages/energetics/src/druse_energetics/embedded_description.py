"""What the references that ship hold, in the words of ``built_reference.summary``."""

from dataclasses import asdict
from typing import Any

import numpy as np
from druse_crystal.dataset import load_embedded
from pymatgen.core import Element

from druse_energetics.built_reference import Description, element_amounts
from druse_energetics.correction_scheme import FORMATION
from druse_energetics.reference import load_embedded_energies, load_reference
from druse_energetics.reference_source import EMBEDDED, FORMATION_ENERGY


def is_embedded(name: str) -> bool:
    """Whether a reference of this name ships, or would if its potential had one."""
    return name == EMBEDDED or name.startswith(f"{EMBEDDED}-")


def describe_embedded(name: str) -> tuple[Description, dict[str, Any]]:
    """What an embedded reference is, and the same facts as of a built one; ``phases``: how many make its hull.

    Args:
        name: ``embedded``, or ``embedded-<potential>``.

    Raises:
        ValueError: if none of this name ships.
    """
    dataset = load_embedded()
    if name == EMBEDDED:
        potential, reference = "", load_reference(EMBEDDED)
        files = {file: reference.files[file] for file in ("embedded.parquet", "hull.parquet", "known_formulas.parquet")}
        known = np.isfinite(dataset.labels[FORMATION_ENERGY])
    else:
        potential = name.removeprefix(f"{EMBEDDED}-")
        reference = load_reference(name, potential=potential)
        files, energies = reference.files, load_embedded_energies(potential)
        known = np.array([i in energies for i in dataset.ids.tolist()])
    on_hull = {Element.from_Z(z).symbol for z in reference.hull.elements}
    amounts = element_amounts(dataset.crystals)
    placed = np.array([part.keys() <= on_hull for part in amounts])
    counts = {"kept": known & placed, "no_reference": known & ~placed, "no_energy": ~known}
    description = Description(
        scheme=FORMATION,
        potential=potential,
        embedded_hull=name == EMBEDDED,
        sources=[{"name": file, "sha256": digest} for file, digest in files.items()],
        statuses={status: int(rows.sum()) for status, rows in counts.items() if rows.any()},
    )
    return description, asdict(description) | {
        "energy": description.energy,
        "structures": len(dataset),
        "with_energy": int(known.sum()),
        "off_hull": int((known & ~placed).sum()),
        "elements": sorted(on_hull),
        "elements_without_zero": sorted({symbol for part in amounts for symbol in part} - on_hull),
        "phases": len(reference.hull),
    }
