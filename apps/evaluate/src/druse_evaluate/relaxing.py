"""The work behind `relax`: relax, and write structures and a table."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from druse_crystal.console import Display
from druse_crystal.files import replacing, writable_folder
from druse_crystal.io import ReadResult, write_cif_zip, write_extxyz
from druse_crystal.manifest import Manifest
from druse_crystal.refusal import refusal_status
from druse_energetics.relaxation import Relaxation, Relaxer

from druse_evaluate.config import RelaxationConfig
from druse_evaluate.judging import check_relaxation, relax_all, relaxation_settings
from druse_evaluate.store import RelaxationStore


def relax_and_write(
    candidates: Sequence[ReadResult],
    *,
    out: Path,
    config: RelaxationConfig,
    display: Display,
    manifest: Manifest,
    relaxer: Relaxer | None = None,
) -> list[Relaxation | None]:
    """Relax, and write ``relaxed.extxyz``, ``relaxed.zip`` (CIF), ``relaxations.parquet`` and ``manifest.json``.

    Raises:
        ValueError: for settings that make no sense, or a folder that cannot be written to.
    """
    check_relaxation(config)
    out = writable_folder(out)
    store = RelaxationStore(out / "relaxations.jsonl", relaxation_settings(config))
    with manifest.stage("relaxation"):
        relaxations = relax_all(
            [c.crystal for c in candidates], config=config, store=store, display=display, relaxer=relaxer
        )
    rows = [_relaxation_row(c, r) for c, r in zip(candidates, relaxations, strict=True)]
    with replacing(out / "relaxations.parquet") as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=_RELAXATION_SCHEMA), temporary, compression="zstd")
    crystals, sources, info = [], [], []
    for candidate, relaxation in zip(candidates, relaxations, strict=True):
        if relaxation is not None and relaxation.crystal is not None:
            crystals.append(relaxation.crystal)
            sources.append(candidate.source)
            facts = {"source": candidate.source, "energy": relaxation.energy, "relaxation_status": relaxation.status}
            info.append(facts)
    if crystals:
        write_extxyz(out / "relaxed.extxyz", crystals, info=info)
        write_cif_zip(out / "relaxed.zip", crystals, names=unique_names(sources))
    manifest.settings |= relaxation_settings(config) | {"rattle": config.rattle}
    manifest.results["status"] = dict(Counter(row["status"] for row in rows))
    manifest.write(out / "manifest.json")
    return relaxations


_RELAXATION_SCHEMA = pa.schema(
    [
        ("source", pa.string()),
        ("status", pa.string()),
        ("message", pa.string()),
        ("energy", pa.float64()),
        ("initial_energy", pa.float64()),
        ("max_force", pa.float64()),
        ("n_steps", pa.int32()),
        ("rattled_energy_drop", pa.float64()),
    ],
    metadata={"units": "energies eV per cell, forces eV/Å, rattled_energy_drop eV/atom"},
)


def _relaxation_row(candidate: ReadResult, relaxation: Relaxation | None) -> dict[str, object]:
    if relaxation is None:
        status = refusal_status(candidate.error)
        return {"source": candidate.source, "status": status, "message": candidate.error}
    return {
        "source": candidate.source,
        "status": relaxation.status,
        "message": relaxation.message,
        "energy": relaxation.energy,
        "initial_energy": relaxation.initial_energy,
        "max_force": relaxation.max_force,
        "n_steps": relaxation.n_steps,
        "rattled_energy_drop": relaxation.rattled_energy_drop,
    }


def unique_names(sources: Sequence[str]) -> list[str]:
    """File names made of sources: no folders, no odd characters, none twice."""
    names: dict[str, None] = {}
    for source in sources:
        stem = "".join(ch if ch.isalnum() or ch in "-_." else "-" for ch in source.removesuffix(".cif"))
        stem = name = stem.strip("-.") or "crystal"
        number = 1
        while name in names:
            number += 1
            name = f"{stem}-{number}"
        names[name] = None
    return list(names)
