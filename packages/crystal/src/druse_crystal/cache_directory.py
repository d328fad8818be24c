"""Cache directories: datasets as the published MatterGen keeps them, in plain numpy arrays and JSON.

A cache directory holds a folder for each of ``train``, ``val`` and ``test`` that there is, and each of these holds

* ``pos.npy``: (n, 3) float64, fractional coordinates of all atoms, crystal after crystal;
* ``cell.npy``: (b, 3, 3) float64, Å, rows are lattice vectors;
* ``atomic_numbers.npy``: (n,) int64;
* ``num_atoms.npy``: (b,) int64, atoms of each crystal;
* ``structure_id.npy``: (b,) text;
* ``<property>.json``: an object with ``values``, a list of b numbers (``NaN`` or null: unknown) or texts.

Space groups are symbols there and numbers here. Layout: ``mattergen/common/data/dataset.py`` of
github.com/microsoft/mattergen. Nothing is ever unpickled.
"""

import json
import os
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from druse_crystal.dataset import SPLITS, CrystalDataset, PackedCrystals
from druse_crystal.files import new_folder
from druse_crystal.group_symbols import group_number, group_symbols

ARRAYS = ("pos", "cell", "atomic_numbers", "num_atoms", "structure_id")
SPACE_GROUP = "space_group"

_SHAPES = {
    "pos": ("(n, 3) numbers", 2, (3,), "fiu"),
    "cell": ("(b, 3, 3) numbers", 3, (3, 3), "fiu"),
    "atomic_numbers": ("(n,) whole numbers", 1, (), "iu"),
    "num_atoms": ("(b,) whole numbers", 1, (), "iu"),
    "structure_id": ("(b,) texts", 1, (), "Uiu"),
}  # in words, number of axes, all axes but the first, kinds of numpy types


class CachedSplit(NamedTuple):
    """One of the folders ``train``, ``val`` and ``test``.

    Attributes:
        ids: (b,) names.
        crystals: (b,) structures.
        numbers: by property, (b,) floats; NaN = unknown.
        texts: by property, (b,) texts, which no label can hold; empty = unknown.
    """

    ids: np.ndarray
    crystals: PackedCrystals
    numbers: dict[str, np.ndarray]
    texts: dict[str, np.ndarray]


def is_cache(folder: str | os.PathLike) -> bool:
    """Whether a folder looks like a cache directory, one of its splits, or a folder of cache directories."""
    return any(True for _ in _split_folders(Path(folder)))


def read_cache(folder: str | os.PathLike) -> CrystalDataset:
    """Read a cache directory: cells and atoms bit for bit, but for coordinates, which are taken modulo 1.

    Properties that are numbers become labels, ``space_group`` too; those that are texts (``chemical_system``, which
    follows from the crystals) are named in the metadata under ``texts``. What is wrong with a single crystal is said
    when that crystal is asked for.

    Args:
        folder: the one that holds ``train``, ``val``, ``test``; one or two of them may be missing.

    Raises:
        ValueError: if a file is missing or cannot be read, files do not fit together, or an id comes twice.
    """
    folder = Path(folder)
    splits = read_splits(folder)
    sizes = {name: len(split.ids) for name, split in splits.items()}
    labels = {
        label: np.concatenate([s.numbers.get(label, np.full(len(s.ids), np.nan)) for s in splits.values()])
        for label in sorted({label for split in splits.values() for label in split.numbers})
    }
    crystals = [split.crystals for split in splits.values()]
    try:
        return CrystalDataset(
            ids=np.concatenate([split.ids for split in splits.values()]).tolist(),
            crystals=PackedCrystals(
                lattice=np.concatenate([c.lattice for c in crystals]),
                frac_coords=np.concatenate([c.frac_coords for c in crystals]),
                atomic_numbers=np.concatenate([c.atomic_numbers for c in crystals]),
                num_atoms=np.concatenate([c.num_atoms for c in crystals]),
            ),
            labels=labels,
            split=[name for name, size in sizes.items() for _ in range(size)],
            metadata={"source": folder.name, "texts": sorted({t for split in splits.values() for t in split.texts})},
        )
    except ValueError as error:
        raise ValueError(f"{folder} is not a sound dataset: {error}") from error


def read_splits(folder: Path) -> dict[str, CachedSplit]:
    """The splits of a cache directory by name, in the order train, val, test.

    Raises:
        ValueError: as of ``read_cache``, but for ids.
    """
    found = sorted(str(path.relative_to(folder)) for path in set(_split_folders(folder)))
    if not found:
        raise ValueError(f"{folder} is no cache directory, no folder in it has {ARRAYS[0]}.npy: correct the path")
    others = [name for name in found if name not in SPLITS]
    if others:
        place = "itself" if others[0] == "." else others[0]
        raise ValueError(
            f"{folder} has arrays in {place}, but a cache directory has them in {', '.join(SPLITS)}: name the folder "
            "that holds these, and rename or move away any other"
        )
    for name in SPLITS:
        if name not in found and (folder / name).is_dir():
            raise ValueError(
                f"{folder / name} has no {ARRAYS[0]}.npy: copy or write the whole folder again, or move it away"
            )
    return {name: _read_split(folder / name) for name in SPLITS if name in found}


def write_cache(dataset: CrystalDataset, folder: str | os.PathLike) -> None:
    """Write a dataset as a cache directory, with all of its labels.

    ``read_cache`` gives back the same crystals, labels, names and splits, bit for bit, sorted by split.

    Args:
        dataset: of which every crystal is in a split.
        folder: new or empty.

    Raises:
        ValueError: if a crystal is in no split, a label cannot be the name of a file, ``space_group`` is no number of
            a space group, or the folder holds something already.
    """
    for name in dataset.labels:
        if name != Path(name).name or name.startswith("."):
            raise ValueError(f"the label {name!r} cannot be the name of a file: rename it")
    parts = dataset.by_split()
    with new_folder(folder) as temporary:
        for split, part in parts.items():
            _write_split(part, temporary / split)


def _split_folders(folder: Path) -> Iterable[Path]:
    """Folders with arrays: this one, those in it, those in these."""
    names = {f"{name}.npy" for name in ARRAYS}
    return (file.parent for depth in ("", "*/", "*/*/") for file in folder.glob(f"{depth}*.npy") if file.name in names)


def _read_split(folder: Path) -> CachedSplit:
    arrays = {name: _array(folder / f"{name}.npy") for name in ARRAYS}
    num_atoms = arrays["num_atoms"].astype(np.int64)
    if len(num_atoms) and num_atoms.min() < 1:
        raise ValueError(f"{folder / 'num_atoms.npy'} has a crystal of {num_atoms.min()} atoms: write the cache again")
    expected = {"pos": num_atoms.sum(), "atomic_numbers": num_atoms.sum(), "cell": len(num_atoms)}
    for name, count in {**expected, "structure_id": len(num_atoms)}.items():
        if len(arrays[name]) != count:
            raise ValueError(
                f"{folder / name}.npy has {len(arrays[name])} rows, but by num_atoms.npy there are {len(num_atoms)} "
                f"crystals with {num_atoms.sum()} atoms: copy or write the whole folder again"
            )
    frac_coords = arrays["pos"].astype(np.float64) % 1.0
    frac_coords[frac_coords >= 1.0] = 0.0  # -1e-18 % 1.0 rounds to 1.0
    numbers, texts = {}, {}
    for file in sorted(folder.glob("*.json")):
        if not file.name.startswith("."):
            values = _values(file, len(num_atoms))
            (texts if values.dtype.kind == "U" else numbers)[file.name.removesuffix(".json")] = values
    return CachedSplit(
        ids=arrays["structure_id"].astype(np.str_),
        crystals=PackedCrystals(
            lattice=arrays["cell"].astype(np.float64),
            frac_coords=frac_coords,
            atomic_numbers=arrays["atomic_numbers"].astype(np.int64),
            num_atoms=num_atoms,
        ),
        numbers=numbers,
        texts=texts,
    )


def _array(file: Path) -> np.ndarray:
    words, axes, rest, kinds = _SHAPES[file.stem]
    try:
        values = np.load(file, allow_pickle=False)
    except FileNotFoundError as error:
        raise ValueError(f"{file} does not exist: copy or write the whole folder again") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = "it is pickled" if "allow_pickle" in str(error) else "it is damaged or no .npy file"
        raise ValueError(f"{file} cannot be read ({reason}): save it again as a plain array of {words}") from error
    if not isinstance(values, np.ndarray):
        values.close()
        raise ValueError(f"{file} is an archive of arrays: save it again as a plain array of {words}")
    if values.ndim != axes or values.shape[1:] != rest or values.dtype.kind not in kinds:
        raise ValueError(
            f"{file} has the shape {values.shape} and the type {values.dtype}, it must hold {words}: save it again"
        )
    return values


def _values(file: Path, count: int) -> np.ndarray:
    """The (b,) values of a property: floats, or texts."""
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not JSON or cannot be read: copy or write it again") from error
    values = content.get("values") if isinstance(content, dict) else None
    if not isinstance(values, list):
        raise ValueError(f"{file} has no list 'values': write it as {{\"values\": [...]}} or move it away")
    if len(values) != count:
        raise ValueError(f"{file} has {len(values)} values for {count} crystals: copy or write the whole folder again")
    wrong = [value for value in values if not isinstance(value, str | int | float | None)]
    if wrong:
        raise ValueError(f"{file} has the value {str(wrong[0])[:40]!r}, neither number nor text: correct it")
    if not any(isinstance(value, str) for value in values):
        try:
            return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
        except OverflowError as error:
            raise ValueError(f"{file} has a number that is too large: correct it") from error
    texts = [value if isinstance(value, str) else "" for value in values]
    return _group_numbers(file, texts) if file.stem == SPACE_GROUP else np.array(texts, dtype=np.str_)


def _group_numbers(file: Path, symbols: list[str]) -> np.ndarray:
    try:
        known = {symbol: float(group_number(symbol)) for symbol in set(symbols) - {""}}
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    return np.array([known.get(symbol, np.nan) for symbol in symbols], dtype=np.float64)


def _write_split(part: CrystalDataset, folder: Path) -> None:
    packed = part.crystals if isinstance(part.crystals, PackedCrystals) else PackedCrystals.from_crystals(part.crystals)
    arrays = {
        "pos": packed.frac_coords,
        "cell": packed.lattice,
        "atomic_numbers": packed.atomic_numbers,
        "num_atoms": packed.num_atoms,
        "structure_id": part.ids,
    }
    folder.mkdir()
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", values, allow_pickle=False)
    for name, values in part.labels.items():
        content: dict[str, Any] = {
            "values": group_symbols(values) if name == SPACE_GROUP else values.tolist(),
            "property_source_doc_id": name,
            "origins": None,
        }
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
