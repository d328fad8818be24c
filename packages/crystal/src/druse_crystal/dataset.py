"""Datasets of crystals: identifiers, structures, labels and a split, kept in one Parquet file.

A file holds one row per crystal with the columns ``id``, ``formula`` (reduced, for the reader's eye), ``lattice`` (9
numbers, row by row, Å), ``frac_coords`` (3 n numbers), ``atomic_numbers`` (n numbers), ``split`` (``train``, ``val``,
``test`` or empty), and one floating-point column per label, in which NaN means unknown. What the data are (source,
licence, level of theory, filters, counts) is JSON under the key ``druse`` of the file's own metadata.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float64, Int64
from numpy.typing import ArrayLike

from druse_crystal.composition import reduced_formula
from druse_crystal.crystal import Crystal
from druse_crystal.files import replacing

SPLITS = ("train", "val", "test")
_STRUCTURE_COLUMNS = ("id", "formula", "num_atoms", "lattice", "frac_coords", "atomic_numbers", "split")
_METADATA_KEY = b"druse"


@dataclass(frozen=True, kw_only=True, eq=False)
class PackedCrystals(Sequence[Crystal]):
    """Many crystals in four flat arrays; each ``Crystal`` is built when it is asked for.

    Attributes:
        lattice: (b, 3, 3) in Å, rows are lattice vectors.
        frac_coords: (n, 3) fractional coordinates of all atoms.
        atomic_numbers: (n,) of all atoms.
        num_atoms: (b,) how many atoms belong to each crystal.
    """

    lattice: Float64[np.ndarray, "b 3 3"]
    frac_coords: Float64[np.ndarray, "n 3"]
    atomic_numbers: Int64[np.ndarray, " n"]
    num_atoms: Int64[np.ndarray, " b"]

    @classmethod
    def from_crystals(cls, crystals: Sequence[Crystal]) -> "PackedCrystals":
        """Pack crystals; an empty sequence is allowed."""
        return cls(
            lattice=np.array([c.lattice for c in crystals], dtype=np.float64).reshape(-1, 3, 3),
            frac_coords=np.concatenate([np.empty((0, 3)), *(c.frac_coords for c in crystals)]),
            atomic_numbers=np.concatenate([np.empty(0, np.int64), *(c.atomic_numbers for c in crystals)]),
            num_atoms=np.array([c.num_atoms for c in crystals], dtype=np.int64),
        )

    @cached_property
    def ends(self) -> Int64[np.ndarray, " b"]:
        """For every crystal, the position after its last atom."""
        return np.cumsum(self.num_atoms)

    def __len__(self) -> int:
        return len(self.num_atoms)

    @overload
    def __getitem__(self, index: int) -> Crystal: ...
    @overload
    def __getitem__(self, index: slice) -> "PackedCrystals": ...
    def __getitem__(self, index):
        if isinstance(index, slice):
            return self.select(np.arange(len(self))[index])
        end = self.ends[index]  # raises IndexError past the end, as a sequence must
        atoms = slice(end - self.num_atoms[index], end)
        return Crystal(
            lattice=self.lattice[index],
            frac_coords=self.frac_coords[atoms],
            atomic_numbers=self.atomic_numbers[atoms],
        )

    def select(self, index: Int64[np.ndarray, " k"]) -> "PackedCrystals":
        """The crystals at these positions, in this order."""
        counts = self.num_atoms[index]
        starts = np.repeat(self.ends[index] - counts - (np.cumsum(counts) - counts), counts)
        atoms = starts + np.arange(counts.sum())
        return PackedCrystals(
            lattice=self.lattice[index],
            frac_coords=self.frac_coords[atoms],
            atomic_numbers=self.atomic_numbers[atoms],
            num_atoms=counts,
        )


class CrystalDataset:
    """Crystals with names, labels and a split.

    Attributes:
        ids: (b,) one name per crystal, e.g. ``mp-149``; unique.
        crystals: the structures.
        labels: name -> (b,) array of floats; NaN = unknown. Names carry the convention, e.g.
            ``formation_energy_per_atom`` in eV/atom.
        split: (b,) one of ``train``, ``val``, ``test`` or ``""`` (in none of them).
        metadata: source, licence, level of theory, filters and counts; anything that JSON can hold.
    """

    def __init__(
        self,
        *,
        ids: Iterable[str],
        crystals: Sequence[Crystal],
        labels: Mapping[str, ArrayLike] | None = None,
        split: Iterable[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ):
        """Check that the columns fit together; without ``split`` all crystals are in none.

        Raises:
            ValueError: if lengths disagree, a name occurs twice or a split is unknown.
        """
        count = len(crystals)
        self.crystals = crystals
        self.ids: np.ndarray = np.array(list(ids), dtype=np.str_)
        self.split: np.ndarray = np.array([""] * count if split is None else list(split), dtype=np.str_)
        self.labels = {name: np.asarray(values, dtype=np.float64) for name, values in (labels or {}).items()}
        self.metadata = dict(metadata or {})
        for name, values in {"ids": self.ids, "split": self.split, **self.labels}.items():
            if values.shape != (count,):
                raise ValueError(f"the dataset has {count} crystals, {name} has shape {values.shape}")
        names, counts = np.unique(self.ids, return_counts=True)
        if (counts > 1).any():
            raise ValueError(f"the id {str(names[counts > 1][0])!r} occurs more than once, ids must be unique")
        unknown = sorted(set(self.split.tolist()) - {"", *SPLITS})
        if unknown:
            raise ValueError(f"unknown split {unknown[0]!r}, it must be one of {', '.join(SPLITS)} or empty")
        reserved = sorted(set(self.labels) & set(_STRUCTURE_COLUMNS))
        if reserved:
            raise ValueError(f"a label cannot be called {reserved[0]!r}, that column describes the structures")

    def __len__(self) -> int:
        return len(self.crystals)

    @cached_property
    def num_atoms(self) -> Int64[np.ndarray, " b"]:
        """Number of atoms of each crystal."""
        if isinstance(self.crystals, PackedCrystals):
            return self.crystals.num_atoms
        return np.array([c.num_atoms for c in self.crystals], dtype=np.int64)

    @cached_property
    def formulas(self) -> np.ndarray:
        """Reduced formula of each crystal, as pymatgen writes it."""
        return np.array([reduced_formula(c) for c in self.crystals], dtype=np.str_)

    def select(self, index: Sequence[int] | np.ndarray) -> "CrystalDataset":
        """The rows at these positions (or where a boolean mask is true), in this order."""
        index = np.asarray(index)
        index = np.flatnonzero(index) if index.dtype == bool else index.astype(np.int64)
        crystals = self.crystals
        return CrystalDataset(
            ids=self.ids[index],
            crystals=crystals.select(index)
            if isinstance(crystals, PackedCrystals)
            else [crystals[i] for i in index.tolist()],
            labels={name: values[index] for name, values in self.labels.items()},
            split=self.split[index],
            metadata=self.metadata,
        )

    def subset(self, split: str) -> "CrystalDataset":
        """The rows of ``train``, ``val`` or ``test``."""
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}, it must be one of {', '.join(SPLITS)}")
        return self.select(np.equal(self.split, split))

    def by_split(self) -> dict[str, "CrystalDataset"]:
        """The rows of each split that has any, in the order train, val, test.

        Raises:
            ValueError: if some crystals are in none.
        """
        outside = np.flatnonzero(np.equal(self.split, ""))
        if len(outside):
            raise ValueError(
                f"{len(outside)} crystals are in none of {', '.join(SPLITS)}, {str(self.ids[outside[0]])!r} is the "
                "first: make a dataset with a split by `druse-train data build`"
            )
        return {split: self.subset(split) for split in SPLITS if (self.split == split).any()}

    def write(self, path: str | os.PathLike) -> None:
        """Write the Parquet file (zstd); the same content gives the same bytes.

        Raises:
            ValueError: if the file cannot be written.
        """
        packed = self.crystals
        if not isinstance(packed, PackedCrystals):
            packed = PackedCrystals.from_crystals(packed)
        columns = {
            "id": pa.array(self.ids.tolist(), pa.string()),
            "formula": pa.array(self.formulas.tolist(), pa.string()),
            "lattice": _lists(packed.lattice.reshape(-1), np.full(len(packed), 9), pa.float64()),
            "frac_coords": _lists(packed.frac_coords.reshape(-1), 3 * packed.num_atoms, pa.float64()),
            "atomic_numbers": _lists(packed.atomic_numbers, packed.num_atoms, pa.uint8()),
            "split": pa.array(self.split.tolist(), pa.string()),
            **{name: pa.array(values, pa.float64()) for name, values in self.labels.items()},
        }
        metadata = json.dumps(self.metadata, ensure_ascii=False, sort_keys=True)
        table = pa.table(columns).replace_schema_metadata({_METADATA_KEY: metadata.encode()})
        with replacing(path) as temporary:
            pq.write_table(table, temporary, compression="zstd", compression_level=19)

    @classmethod
    def read(cls, path: str | os.PathLike) -> "CrystalDataset":
        """Read a Parquet file written by ``write``.

        Columns with numbers that are not part of the structure become labels.

        Raises:
            ValueError: if there is no such file, or it is not a dataset of crystals.
        """
        path = Path(path)
        if path.is_dir():
            raise ValueError(
                f"{path} is a folder: make a dataset of what is in it with `druse-train data build --from {path} --out "
                "FILE.parquet`, and give that file"
            )
        if not path.is_file():
            raise ValueError(f"{path} does not exist or is not a file")
        try:
            table = pq.read_table(path)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{path} is not a Parquet file or is damaged: fetch or build it again") from error
        missing = [
            name for name in ("id", "lattice", "frac_coords", "atomic_numbers") if name not in table.column_names
        ]
        if missing:
            raise ValueError(f"{path} has no column {missing[0]!r}: make a dataset of it with `druse-train data build`")
        try:
            crystals = _packed(table)
            metadata = json.loads((table.schema.metadata or {}).get(_METADATA_KEY, b"{}"))
            labels = {
                name: table[name].to_numpy().astype(np.float64)
                for name in table.column_names
                if name not in _STRUCTURE_COLUMNS and _is_number(table.schema.field(name).type)
            }
            split = table["split"].to_pylist() if "split" in table.column_names else None
            return cls(ids=table["id"].to_pylist(), crystals=crystals, labels=labels, split=split, metadata=metadata)
        except (ValueError, pa.ArrowException) as error:
            raise ValueError(f"{path} is not a sound dataset of crystals: {error}") from error


def split_by_formula(
    formulas: Sequence[str], *, val: float = 0.1, test: float = 0.1, held_out: frozenset[str] = frozenset()
) -> np.ndarray:
    """Assign every crystal to a split by its reduced formula, so that no formula is in two splits.

    The SHA-256 of the formula, read as a number in [0, 1), decides: below ``test`` is ``test``, the next ``val`` is
    ``val``, the rest ``train``. The same formula lands in the same split in every dataset.

    Args:
        formulas: reduced formulas.
        val: share of the formulas for validation.
        test: share of the formulas for testing.
        held_out: formulas that belong to ``test`` whatever their hash.

    Raises:
        ValueError: if the shares are negative or leave nothing to train on.
    """
    if val < 0 or test < 0 or val + test >= 1:
        raise ValueError(f"val = {val} and test = {test} must not be negative and must leave something to train on")

    def split(formula: str) -> str:
        position = int.from_bytes(hashlib.sha256(formula.encode()).digest()[:8]) / 2**64
        if formula in held_out or position < test:
            return "test"
        return "val" if position < test + val else "train"

    known = {formula: split(formula) for formula in set(formulas)}
    return np.array([known[formula] for formula in formulas], dtype=np.str_)


def load_embedded() -> CrystalDataset:
    """The Materials Project structures inside this package: at most 20 atoms, with DFT labels.

    What is in it, from where, at which level of theory: ``CARD.md`` beside the file, and ``metadata`` of the result.
    """
    with as_file(files("druse_crystal") / "data" / "embedded.parquet") as path:
        return CrystalDataset.read(path)


def _lists(values: np.ndarray, counts: np.ndarray, kind: pa.DataType) -> pa.ListArray:
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.array(values).cast(kind))


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)


def _flat(table: pa.Table, name: str) -> tuple[np.ndarray, np.ndarray]:
    """All numbers of a list column, and how many belong to each row."""
    column = table[name].combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        raise ValueError(f"the column {name!r} holds {column.type}, it must hold lists of numbers")
    if column.null_count or column.flatten().null_count:
        raise ValueError(f"the column {name!r} has empty cells")
    counts = column.value_lengths().to_numpy(zero_copy_only=False) if len(column) else np.empty(0, np.int64)
    return column.flatten().to_numpy(zero_copy_only=False), counts.astype(np.int64)


def _packed(table: pa.Table) -> PackedCrystals:
    lattice, lattice_counts = _flat(table, "lattice")
    frac_coords, coords_counts = _flat(table, "frac_coords")
    atomic_numbers, num_atoms = _flat(table, "atomic_numbers")
    for name, counts, expected in (("lattice", lattice_counts, 9), ("frac_coords", coords_counts, 3 * num_atoms)):
        wrong = np.flatnonzero(counts != expected)
        if len(wrong):
            row = int(wrong[0])
            raise ValueError(f"row {row} has {counts[row]} numbers in {name!r} and {num_atoms[row]} atoms")
    return PackedCrystals(
        lattice=lattice.astype(np.float64).reshape(-1, 3, 3),
        frac_coords=frac_coords.astype(np.float64).reshape(-1, 3),
        atomic_numbers=atomic_numbers.astype(np.int64),
        num_atoms=num_atoms,
    )
