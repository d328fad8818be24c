"""A dataset out of somebody's own structures: read, standardised and split in parallel, nothing dropped silently."""

import csv
import functools
import math
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from druse_crystal.composition import reduced_formula
from druse_crystal.dataset import CrystalDataset, split_by_formula
from druse_crystal.documents import Document, documents
from druse_crystal.files import replacing
from druse_crystal.io import ReadResult, parse

from druse_train.standard_form import MAX_ATOMS, MIN_DISTANCE, Candidate, in_parallel, standardize_candidate

NO_LABELS = frozenset({"id", "material_id", "entry_id", "name", "split", "formula", "num_atoms", ""})


def build_dataset(
    path: Path,
    *,
    max_atoms: int = MAX_ATOMS,
    val: float = 0.1,
    test: float = 0.1,
    workers: int = 1,
    metadata: dict[str, Any] | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> tuple[CrystalDataset, list[Candidate]]:
    """Make a dataset of every structure in a file, an archive or a folder.

    Numbers beside a structure (columns of a table, the comment line of an extxyz frame, entries of a JSON object)
    become its labels. Every structure is reduced to its primitive Niggli cell in the form that the models learn.

    Args:
        path: whatever ``druse_crystal.io.read_crystals`` reads.
        max_atoms: larger primitive cells are refused.
        val: share of the reduced formulas for validation.
        test: share of the reduced formulas for testing.
        workers: processes that parse and standardise.
        metadata: source, licence, level of theory: what the owner of the data knows.
        on_progress: called with the number of structures finished since the last call.

    Returns:
        The dataset, and what was refused with the reasons.

    Raises:
        ValueError: if the path cannot be read, an option is out of range, or no structure is left.
    """
    if max_atoms < 1:
        raise ValueError(f"max_atoms must be at least 1, not {max_atoms}")
    split_by_formula([], val=val, test=test)  # refuses bad shares before the work, not after it
    work = functools.partial(_candidates, max_atoms=max_atoms)
    found = _with_unique_ids(in_parallel(work, documents(path), workers=workers, on_progress=on_progress))
    kept: list[Candidate] = []
    refused: list[Candidate] = []
    for candidate in found:
        (refused if candidate.crystal is None else kept).append(candidate)
    if not kept:
        first = f", the first because {refused[0].refusal}" if refused else ""
        raise ValueError(f"{path}: no structure is left, {len(refused)} were refused{first}")

    crystals = [candidate.crystal for candidate in kept if candidate.crystal is not None]
    formulas = [reduced_formula(crystal) for crystal in crystals]
    split = split_by_formula(formulas, val=val, test=test)
    names = sorted({name for candidate in kept for name in candidate.labels})
    metadata = {
        "source": path.name,
        **(metadata or {}),
        "recipe": "druse-train data build",
        "filters": f"at most {max_atoms} atoms in the primitive cell; no two atoms closer than {MIN_DISTANCE} Å",
        "split": f"by reduced formula, {val:g} val, {test:g} test",
        "counts": {"structures": len(kept), "refused": len(refused), **Counter(split.tolist())},
    }
    dataset = CrystalDataset(
        ids=[candidate.id for candidate in kept],
        crystals=crystals,
        labels={name: np.array([candidate.labels.get(name, np.nan) for candidate in kept]) for name in names},
        split=split,
        metadata=metadata,
    )
    return dataset, refused


def write_refused(path: Path, refused: list[Candidate]) -> None:
    """Write what was refused as a table with the columns source, id and reason."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["source", "id", "reason"])
        table.writerows([candidate.source, candidate.id, candidate.refusal] for candidate in refused)


def summary(dataset: CrystalDataset) -> dict[str, Any]:
    """What a dataset holds, in numbers that JSON can carry."""
    elements = Counter(int(z) for crystal in dataset.crystals for z in np.unique(crystal.atomic_numbers))
    return {
        "structures": len(dataset),
        "reduced_formulas": len(set(dataset.formulas.tolist())),
        "elements": len(elements),
        "num_atoms": {"min": int(dataset.num_atoms.min()), "max": int(dataset.num_atoms.max())} if len(dataset) else {},
        "split": {name or "none": count for name, count in sorted(Counter(dataset.split.tolist()).items())},
        "labels": {name: _label_summary(values) for name, values in dataset.labels.items()},
        "metadata": {key: value for key, value in dataset.metadata.items() if key != "refused"},
        "refused": len(dataset.metadata.get("refused", {})) or dataset.metadata.get("counts", {}).get("refused", 0),
    }


def _label_summary(values: np.ndarray) -> dict[str, float | int]:
    known = values[np.isfinite(values)]
    if not len(known):
        return {"known": 0}
    low, median, high = np.quantile(known, [0, 0.5, 1]).tolist()
    return {"known": len(known), "min": low, "median": median, "max": high}


def _candidates(some: tuple[Document, ...], *, max_atoms: int) -> list[Candidate]:
    results = (result for document in some for result in parse(document))
    return [standardize_candidate(_candidate(result), max_atoms=max_atoms) for result in results]


def _candidate(result: ReadResult) -> Candidate:
    labels = {
        str(name): float(value)
        for name, value in result.info.items()
        if name.lower() not in NO_LABELS and isinstance(value, int | float) and not math.isnan(value)
    }
    return Candidate(
        id=str(result.info.get("id", result.source)),
        source=result.source,
        crystal=result.crystal,
        refusal=result.error or "",
        labels=labels,
    )


def _with_unique_ids(candidates: Iterator[Candidate]) -> Iterator[Candidate]:
    """Refuse a structure whose id another one has already."""
    first: dict[str, str] = {}
    for candidate in candidates:
        if candidate.crystal is not None and candidate.id in first:
            reason = (
                f"the id {candidate.id!r} belongs to {first[candidate.id]} already: give every structure its own id"
            )
            yield Candidate(id=candidate.id, source=candidate.source, crystal=None, refusal=reason)
            continue
        if candidate.crystal is not None:
            first[candidate.id] = candidate.source
        yield candidate
