"""A dataset out of somebody's own structures: read, standardised and split in parallel, nothing dropped silently."""

import csv
import functools
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from druse_crystal.cache_directory import SPACE_GROUP, is_cache
from druse_crystal.composition import reduced_formula
from druse_crystal.dataset import SPLITS, CrystalDataset, split_by_formula
from druse_crystal.documents import Document
from druse_crystal.files import replacing
from druse_crystal.group_symbols import group_number
from druse_crystal.io import ReadResult, parse

from druse_train.parquet_table import structures
from druse_train.selection import Selection
from druse_train.source_split import has_split, split_of
from druse_train.standard_form import (
    MAX_ATOMS,
    MIN_DISTANCE,
    Candidate,
    check_candidate,
    in_parallel,
    standardize_candidate,
)

EVERYTHING = Selection()
NO_LABELS = frozenset({"id", "material_id", "entry_id", "name", "split", "formula", "num_atoms", "unnamed: 0", ""})


class NothingLeft(ValueError):
    """No structure of a source was taken.

    Attributes:
        refused: all that were refused, with the reasons.
    """

    def __init__(self, message: str, refused: list[Candidate]):
        super().__init__(message)
        self.refused = refused


def build_dataset(
    path: Path,
    *,
    max_atoms: int = MAX_ATOMS,
    selection: Selection = EVERYTHING,
    labels: tuple[str, ...] | None = None,
    val: float = 0.1,
    test: float = 0.1,
    held_out: frozenset[str] = frozenset(),
    keep_split: bool | None = None,
    as_is: bool | None = None,
    workers: int = 1,
    metadata: dict[str, Any] | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> tuple[CrystalDataset, list[Candidate]]:
    """Make a dataset of every structure in a file, an archive or a folder.

    Numbers beside a structure (columns of a table, the comment line of an extxyz frame, entries of a JSON object)
    become its labels, a symbol in ``space_group`` the number of that group. Other words do not: ``texts`` in the
    metadata says which there were and for how many structures; a label that a word stands in place of is unknown.

    Args:
        path: whatever ``druse_train.parquet_table.structures`` reads.
        max_atoms: larger cells are refused.
        selection: which structures are wanted; the others are counted and left out, they are not refused.
        labels: names of the labels to keep; None: all.
        val: share of the reduced formulas for validation, in a new split.
        test: share of the reduced formulas for testing, in a new split.
        held_out: reduced formulas that are for testing, before anything else is decided.
        keep_split: keep the split of the source (``druse_train.source_split``) instead of making a new one; None: if
            the source is a cache directory, or its files have the names of splits.
        as_is: keep every cell as it is in the source, bit for bit, instead of reducing it to the primitive Niggli cell
            in the form that the models learn; None: if the source is a cache directory.
        workers: processes that parse and standardise.
        metadata: source, licence, level of theory: what the owner of the data knows.
        on_progress: called with the number of structures finished since the last call.

    Returns:
        The dataset, and what was refused with the reasons.

    Raises:
        NothingLeft: if no structure is left.
        ValueError: if the path cannot be read, an option is out of range, no structure has one of the labels, or the
            split is to be kept and there is none.
    """
    if max_atoms < 1:
        raise ValueError(f"max_atoms must be at least 1, not {max_atoms}")
    split_by_formula([], val=val, test=test)  # refuses bad shares before the work, not after it
    keep_split = has_split(path) if keep_split is None else keep_split
    as_is = is_cache(path) if as_is is None else as_is
    work = functools.partial(_candidates, max_atoms=max_atoms, selection=selection, keep_split=keep_split, as_is=as_is)
    kept: list[Candidate] = []
    refused: list[Candidate] = []
    left_out: Counter[str] = Counter()
    first: dict[str, str] = {}  # source of every id
    for found in in_parallel(work, structures(path), workers=workers, on_progress=on_progress):
        if isinstance(found, str):
            left_out[found] += 1
            continue
        candidate = _unless_known(found, first)
        (refused if candidate.crystal is None else kept).append(candidate)
    if not kept:
        reasons = [f"{count} left out by {option}" for option, count in left_out.items()]
        if refused:
            reasons.append(f"{len(refused)} were refused, the first because {refused[0].refusal}")
        raise NothingLeft(f"{path}: no structure is left, {' and '.join(reasons) or 'it holds none'}", refused)

    crystals = [candidate.crystal for candidate in kept if candidate.crystal is not None]
    formulas = [reduced_formula(crystal) for crystal in crystals]
    split = split_by_formula(formulas, val=val, test=test, held_out=held_out)
    if keep_split:
        split = _kept_split(path, [candidate.split for candidate in kept], [f in held_out for f in formulas])
    names = _label_names(kept, labels)
    cell = "cell" if as_is else "primitive cell"
    filters = f"at most {max_atoms} atoms in the {cell}; no two atoms closer than {MIN_DISTANCE} Å"
    metadata = {
        "source": path.name,
        **(metadata or {}),
        "recipe": "druse-train data build",
        "filters": "; ".join([filters, *([str(selection)] if str(selection) else [])]),
        "cells": "as in the source" if as_is else "primitive, Niggli-reduced, symmetric lattices",
        "split": ("as in the source" if keep_split else f"by reduced formula, {val:g} val, {test:g} test")
        + (f", {len(held_out)} held-out formulas to test before" if held_out else ""),
        "texts": dict(sorted(Counter(name for candidate in kept for name in candidate.texts).items())),
        "counts": {
            "structures": len(kept),
            "refused": len(refused),
            "left_out": dict(left_out),
            **Counter(name or "none" for name in split.tolist()),
        },
    }
    dataset = CrystalDataset(
        ids=[candidate.id for candidate in kept],
        crystals=crystals,
        labels={name: np.array([candidate.labels.get(name, np.nan) for candidate in kept]) for name in names},
        split=split,
        metadata=metadata,
    )
    return dataset, refused


def _kept_split(path: Path, split: list[str], to_test: list[bool]) -> np.ndarray:
    """The split that the source says, but for what is held out."""
    if not any(split):
        raise ValueError(
            f"{path} says of no structure which split it is in: leave out --keep-split, or give a folder with "
            "train.csv, val.csv and test.csv, or a column 'split'"
        )
    return np.where(to_test, "test", np.array(split, dtype=np.str_))


def _label_names(kept: list[Candidate], asked: tuple[str, ...] | None) -> list[str]:
    there = {name for candidate in kept for name in candidate.labels}
    for name in asked or ():
        if name not in there:
            raise ValueError(f"no structure has the label {name!r}: choose among {', '.join(sorted(there)) or 'none'}")
    return sorted(there) if asked is None else list(asked)


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
    known, infinite = values[np.isfinite(values)], int(np.isinf(values).sum())
    strange = {"infinite": infinite} if infinite else {}
    if not len(known):
        return {"known": 0} | strange
    low, median, high = np.quantile(known, [0, 0.5, 1]).tolist()
    return {"known": len(known), "min": low, "median": median, "max": high} | strange


def _candidates(
    some: tuple[Document, ...], *, max_atoms: int, selection: Selection, keep_split: bool, as_is: bool
) -> list[Candidate | str]:
    """Candidates; for a structure that is not wanted, the option that says so."""
    finish = check_candidate if as_is else standardize_candidate
    results = (result for document in some for result in parse(document))
    return [
        selection.objection(result) or finish(_candidate(result, keep_split=keep_split), max_atoms=max_atoms)
        for result in results
    ]


def _candidate(result: ReadResult, *, keep_split: bool) -> Candidate:
    known = {str(name): value for name, value in result.info.items() if str(name).lower() not in NO_LABELS}
    labels, texts = {}, []
    for name, value in known.items():
        number = _group_number(value) if name == SPACE_GROUP and isinstance(value, str) else value
        if isinstance(number, int | float):
            if not math.isnan(number):
                labels[name] = float(number)
        elif isinstance(number, str) and number.strip():
            texts.append(name)
    split = split_of(result) if keep_split else ""
    refusal = result.error or ""
    if not refusal and split not in ("", *SPLITS):
        refusal = f"its split is {split!r}: write {', '.join(SPLITS)} or nothing there"
    return Candidate(
        id=str(result.info.get("id", result.source)),
        source=result.source,
        crystal=None if refusal else result.crystal,
        refusal=refusal,
        labels=labels,
        texts=tuple(texts),
        split=split,
    )


def _group_number(text: str) -> float | str:
    """The number of the space group with this symbol; the text itself when there is none."""
    try:
        return float(group_number(text))
    except ValueError:
        return text


def _unless_known(candidate: Candidate, first: dict[str, str]) -> Candidate:
    """The candidate, refused if its id is in ``first`` already, which then gets it."""
    if candidate.crystal is None:
        return candidate
    if candidate.id in first:
        reason = f"the id {candidate.id!r} belongs to {first[candidate.id]} already: give every structure its own id"
        return replace(candidate, crystal=None, refusal=reason)
    first[candidate.id] = candidate.source
    return candidate
