"""Parquet tables of structures that describe the cell by lengths and angles, as many sources publish them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from druse_crystal import Crystal
from druse_crystal.documents import Document, documents
from pymatgen.core import Lattice

CELL = "cell_abc_angles"
STRUCTURE = (CELL, "frac_coords", "atomic_numbers")


def structures(path: Path) -> Iterator[Document]:
    """The documents of whatever ``druse_crystal.documents`` reads, and of a Parquet table with the columns

    * ``cell_abc_angles``: a, b, c in Å and alpha, beta, gamma in degrees;
    * ``frac_coords``: 3 n numbers, and ``atomic_numbers``: n numbers;
    * ``id`` if there is one, and whatever else is known about a structure.

    Raises:
        ValueError: at once, if the path does not exist, is of no known format, or is a table without these columns.
    """
    if path.suffix.lower() != ".parquet" or not path.is_file():
        return documents(path)
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} is not a Parquet file or is damaged ({error}): fetch or export it again") from error
    if CELL not in schema.names:
        return documents(path)
    missing = [name for name in STRUCTURE if name not in schema.names]
    if missing:
        raise ValueError(f"{path} has no column {missing[0]!r}: export it again with {', '.join(STRUCTURE)}")
    columns = [field.name for field in schema if field.name in STRUCTURE or not pa.types.is_nested(field.type)]
    return _rows(path, columns)


def _rows(path: Path, columns: list[str]) -> Iterator[Document]:
    number = 0
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=1024, columns=columns):
            for row in batch.to_pylist():
                number += 1
                yield _document(row, f"{path.name}#{number}")


def _document(row: dict[str, Any], source: str) -> Document:
    cell, frac_coords, atomic_numbers = (row.pop(name) for name in STRUCTURE)
    info = {name: value for name, value in row.items() if value is not None}
    if "id" in info:
        info["id"] = str(info["id"])
    try:
        if not isinstance(cell, list) or len(cell) != 6 or not all(isinstance(x, int | float) and x > 0 for x in cell):
            raise ValueError(f"{CELL} must hold three lengths and three angles above 0: correct or remove the row")
        crystal = Crystal(
            lattice=Lattice.from_parameters(*cell).matrix,
            frac_coords=np.array(frac_coords, dtype=np.float64).reshape(-1, 3),
            atomic_numbers=np.array(atomic_numbers, dtype=np.int64),
        )
    except (ValueError, TypeError) as error:
        return Document(source=source, kind="error", content=str(error), info=info)
    return Document(source=source, kind="crystal", content=crystal, info=info)
