"""Datasets as the published CSV files, one for each split."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
from druse_crystal import Crystal
from druse_crystal.cache_directory import SPACE_GROUP
from druse_crystal.cif import cif_text
from druse_crystal.dataset import CrystalDataset
from druse_crystal.files import new_folder
from druse_crystal.group_symbols import group_symbols

from druse_train.dataset_build import NO_LABELS
from druse_train.standard_form import in_parallel


def write_csv(
    dataset: CrystalDataset, folder: Path, *, workers: int = 1, on_progress: Callable[[int], None] | None = None
) -> None:
    """Write ``train.csv``, ``val.csv`` and ``test.csv``, those that have crystals.

    Columns: ``material_id``, ``cif`` (every atom of the cell as it is, in P1; lengths in Å, angles in degrees and
    fractional coordinates with 8 decimals), and the labels, to the last bit. Space groups are symbols; what is unknown
    is an empty cell, so that a label of no crystal is an empty column.

    Args:
        dataset: of which every crystal is in a split.
        folder: new or empty.
        workers: processes that write CIF texts.
        on_progress: called with the number of crystals finished since the last call.

    Raises:
        ValueError: if a crystal is in no split, a label has the name of another column, ``space_group`` is no number of
            a space group, or the folder holds something already.
    """
    for name in dataset.labels:
        if name.lower() in NO_LABELS | {"cif"}:
            raise ValueError(f"the label {name!r} would not be read as one from a CSV: rename it")
    parts = dataset.by_split()
    crystals = (part.crystals[i] for part in parts.values() for i in range(len(part)))
    with new_folder(folder) as temporary:
        texts = in_parallel(_cif_texts, crystals, workers=workers, on_progress=on_progress)
        for split, part in parts.items():
            columns = [group_symbols(v) if n == SPACE_GROUP else v.tolist() for n, v in part.labels.items()]
            with (temporary / f"{split}.csv").open("w", newline="", encoding="utf-8") as file:
                table = csv.writer(file)
                table.writerow(["material_id", "cif", *part.labels])
                for i, name in enumerate(part.ids.tolist()):
                    table.writerow([name, next(texts), *(_cell(column[i]) for column in columns)])


def _cif_texts(crystals: tuple[Crystal, ...]) -> list[str]:
    return [cif_text(crystal, symprec=None) for crystal in crystals]


def _cell(value: float | str) -> float | str:
    return "" if isinstance(value, float) and np.isnan(value) else value
