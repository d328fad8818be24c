"""Structures whose DFT energy above hull is known, from a Parquet table, and what a potential relaxes them to."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase.geometry import cellpar_to_cell
from druse_crystal.crystal import Crystal
from druse_crystal.journal import Journal, crystal_as_json, crystal_from_json
from druse_crystal.manifest import file_hash

from druse_energetics.reference import Reference
from druse_energetics.relaxation import Relaxation, make_relaxer

_STRUCTURE = ("lattice", "cell_abc_angles", "frac_coords", "atomic_numbers")


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledStructures:
    """A table in memory, column by column.

    Attributes:
        columns: ``lattice`` (9 numbers) or ``cell_abc_angles`` (6, Å and degrees), ``frac_coords`` (3 an atom),
            ``atomic_numbers``, and labels.
        digest: SHA-256 of the file.
    """

    columns: Mapping[str, Sequence[Any]]
    digest: str

    @classmethod
    def read(cls, path: str | os.PathLike) -> "LabelledStructures":
        """Read a Parquet table.

        Raises:
            ValueError: if it cannot be read or has no structures.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            columns = pq.read_table(path).to_pydict()
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{path} is no readable Parquet file ({error})") from error
        missing = [name for name in ("frac_coords", "atomic_numbers") if name not in columns]
        if missing or not {"lattice", "cell_abc_angles"} & columns.keys():
            raise ValueError(
                f"{path} lacks {' and '.join(missing) or 'lattice'}: it needs lattice or cell_abc_angles, frac_coords "
                "and atomic_numbers"
            )
        return cls(columns=columns, digest=file_hash(path))

    def __len__(self) -> int:
        return len(self.columns["atomic_numbers"])

    def column(self, name: str) -> Sequence[Any]:
        """One column.

        Raises:
            ValueError: if there is none of that name.
        """
        if name not in self.columns:
            raise ValueError(f"the table has no column {name!r}: it has {', '.join(self.columns)}")
        return self.columns[name]

    def rows(self, where: str | None = None) -> list[int]:
        """Positions for which ``column=value`` holds; all without it.

        Raises:
            ValueError: if there is no such column.
        """
        if where is None:
            return list(range(len(self)))
        column, _, value = where.partition("=")
        return [row for row, found in enumerate(self.column(column)) if str(found) == value]

    def crystals(self, rows: Sequence[int]) -> dict[int, Crystal]:
        """The crystals of some rows; a row that holds none is left out and named on stderr."""
        found = {}
        for row in rows:
            try:
                found[row] = _crystal({key: self.columns[key][row] for key in _STRUCTURE if key in self.columns})
            except ValueError as error:
                print(f"row {row} is left out: {error}", file=sys.stderr)
        return found


@dataclass(frozen=True, kw_only=True)
class RelaxedRow:
    """What became of one row.

    Attributes:
        status: of the relaxation.
        energy: eV per cell.
        crystal: relaxed; None where nothing is left of it.
    """

    status: str
    energy: float
    crystal: Crystal | None


def relax_rows(potential: str, crystals: Mapping[int, Crystal], journal: Journal) -> dict[int, RelaxedRow]:
    """The relaxation of every row, from the journal or now; the journal grows, so that a stopped run continues."""
    known = {line["row"] for line in journal.lines}
    waiting = [row for row in crystals if row not in known]

    def keep(k: int, result: Relaxation) -> None:
        journal.keep(
            {
                "row": waiting[k],
                "status": result.status,
                "energy": result.energy,
                "n_steps": result.n_steps,
                "crystal": crystal_as_json(result.crystal),
            }
        )

    if waiting:
        make_relaxer(potential)([crystals[row] for row in waiting], on_result=keep)
    return {
        line["row"]: RelaxedRow(
            status=line["status"], energy=line["energy"], crystal=crystal_from_json(line["crystal"])
        )
        for line in journal.lines
        if line["row"] in crystals
    }


def judge_rows(rows: Mapping[int, RelaxedRow], reference: Reference) -> dict[int, float]:
    """Energies above hull (eV/atom) of the rows that converged and whose elements the reference and its hull know."""
    found = {}
    for row, result in rows.items():
        if result.status == "converged" and result.crystal is not None:
            try:
                found[row] = reference.energy_above_hull(result.crystal, result.energy)
            except ValueError:
                continue  # an element without a reference energy or phase
    return found


def _crystal(row: Mapping[str, Any]) -> Crystal:
    if "lattice" in row:
        lattice = np.asarray(row["lattice"], dtype=np.float64).reshape(3, 3)
    else:
        try:
            lattice = cellpar_to_cell(row["cell_abc_angles"])
        except AssertionError:
            raise ValueError(f"no cell has the lengths and angles {row['cell_abc_angles']}") from None
    return Crystal(
        lattice=lattice,
        frac_coords=np.asarray(row["frac_coords"], dtype=np.float64).reshape(-1, 3),
        atomic_numbers=np.asarray(row["atomic_numbers"], dtype=np.int64),
    )
