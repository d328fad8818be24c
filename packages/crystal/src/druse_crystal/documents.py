"""Files as a stream of documents, each the text of one structure (or of a few), before anything is parsed.

Splitting first and parsing later lets many processes parse, and lets one bad document cost one row.
"""

import csv
import io
import json
import lzma
import os
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from druse_crystal.cache_directory import CachedSplit, is_cache, read_splits
from druse_crystal.crystal import Crystal
from druse_crystal.dataset import CrystalDataset

FORMATS = (
    "CIF, POSCAR/CONTCAR/.vasp, .extxyz/.xyz, pymatgen .json, .csv with a cif column, dataset .parquet, .zip, folder"
)
_KIND_OF_SUFFIX = {
    ".cif": "cif",
    ".vasp": "poscar",
    ".poscar": "poscar",
    ".xyz": "extxyz",
    ".extxyz": "extxyz",
    ".json": "json",
    ".csv": "csv",
    ".parquet": "parquet",
    ".zip": "zip",
}
_OWN_CRYSTALS = ("crystals.extxyz", "relaxed.extxyz")
_UNCLEAR = f"holds results of Druse, but neither {' nor '.join(_OWN_CRYSTALS)}: name the file to read, or move it away"
_PACKED = {"zip": "an archive", "parquet": "a dataset"}
_UNPACKING_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    RuntimeError,
    NotImplementedError,
    OSError,
    ValueError,
)
_ID_COLUMNS = ("id", "material_id", "entry_id", "name")


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """Something that holds a structure.

    Attributes:
        source: file name, with member, frame or row.
        kind: ``cif``, ``poscar``, ``extxyz``, ``json``, ``crystal`` (built already) or ``error``.
        content: text; decoded JSON; a ``Crystal``; or what is wrong.
        info: what else is known, e.g. the other columns of a table.
    """

    source: str
    kind: str
    content: Any
    info: dict[str, Any] = field(default_factory=dict)


def documents(path: str | os.PathLike) -> Iterator[Document]:
    """The documents of a file, an archive or a folder (all of its sub-folders, in natural order).

    A folder that a Druse command wrote, at any depth, holds the same crystals in several formats: only its extxyz file
    is read. The same goes for such a folder inside an archive. A cache directory is a dataset
    (``druse_crystal.cache_directory``).

    Raises:
        ValueError: at once, if the path does not exist, is of no known format, is a folder without any such file, or a
            cache directory with files that are damaged or do not fit together.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path} does not exist: check the path")
    if path.is_dir() and is_cache(path):
        splits = read_splits(path)
        return (document for name, split in splits.items() for document in _of_split(split, name, path.name))
    if path.is_dir():
        found, unclear = _of_folder(path)
        if PurePosixPath() in unclear:
            raise ValueError(f"{path} {_UNCLEAR}")
        if not found and not unclear:
            raise ValueError(f"{path} holds no structure files: it needs one of {FORMATS}")
        return (
            document
            for name in sorted([*found, *unclear], key=lambda name: natural_key(str(name)))
            for document in ([_unclear(name, str(name))] if name in unclear else _of_file(path / name, str(name)))
        )
    if kind_of(path) is None:
        raise ValueError(f"{path} is of no known format: name it by its content, one of {FORMATS}")
    return _of_file(path, path.name)


def holds_nothing(path: str | os.PathLike) -> bool:
    """Whether a folder or a zip archive is there and holds no structure file at all, not even one that is broken."""
    path = Path(path)
    if path.is_dir():
        return not is_cache(path) and not any(_of_folder(path))
    if not path.is_file() or kind_of(path) != "zip":
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return not any(_of_archive(archive))
    except _UNPACKING_ERRORS:
        return False


def _of_folder(path: Path) -> tuple[list[PurePosixPath], set[PurePosixPath]]:
    names = (PurePosixPath(file.relative_to(path).as_posix()) for file in path.rglob("*") if file.is_file())
    return _chosen(names, lambda name: _is_own((path / name).read_bytes))


def _of_archive(archive: zipfile.ZipFile) -> tuple[list[PurePosixPath], set[PurePosixPath]]:
    by_name = {PurePosixPath(m.filename): m for m in archive.infolist() if not m.is_dir()}
    return _chosen(by_name, lambda name: _is_own(lambda: archive.read(by_name[name])))


def _chosen(
    names: Iterable[PurePosixPath], is_own: Callable[[PurePosixPath], bool]
) -> tuple[list[PurePosixPath], set[PurePosixPath]]:
    """The files to read, and the folders of Druse's results without a file of crystals.

    Args:
        names: of all files, relative to the folder or archive that was given.
        is_own: whether a ``manifest.json`` is one of a Druse command.
    """
    names = [name for name in names if is_visible(name)]
    own = {name.parent for name in names if name.name == "manifest.json" and is_own(name)}
    own = {folder for folder in own if own.isdisjoint(folder.parents)}  # results inside of results are part of them
    found = [name for name in names if kind_of(name) and own.isdisjoint(name.parents)]
    there, unclear = set(names), set()
    for folder in own:
        crystals = next((folder / name for name in _OWN_CRYSTALS if folder / name in there), None)
        if crystals is None:
            unclear.add(folder)
        else:
            found.append(crystals)
    return found, unclear


def _is_own(read: Callable[[], bytes]) -> bool:
    """Whether these are the bytes of the manifest of a Druse command."""
    try:
        content = json.loads(read())
    except _UNPACKING_ERRORS:  # those of a plain file and of JSON nested too deeply are among them
        return False
    return isinstance(content, dict) and {"command", "versions", "timings"} <= content.keys()


def _unclear(folder: PurePosixPath, source: str) -> Document:
    return Document(source=source, kind="error", content=f"the folder {folder.name} {_UNCLEAR}")


def kind_of(path: PurePath) -> str | None:
    """The format that a file name promises, None for another."""
    if re.match("(POSCAR|CONTCAR)", path.name, re.IGNORECASE) and path.suffix.lower() not in _KIND_OF_SUFFIX:
        return "poscar"
    return _KIND_OF_SUFFIX.get(path.suffix.lower())


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """A sort key under which ``2.cif`` comes before ``10.cif``."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"([0-9]+)", name) if part]


def is_visible(path: PurePath) -> bool:
    """Whether a file is meant to be read: neither hidden nor an addition of macOS."""
    return not any(part.startswith(".") or part == "__MACOSX" for part in path.parts)


def _of_file(file: Path, source: str) -> Iterator[Document]:
    kind = kind_of(file)
    try:
        if kind == "zip":
            yield from _of_zip(file, source)
        elif kind == "parquet":
            yield from _of_dataset(file, source)
        elif kind == "csv":
            with file.open(encoding="utf-8-sig", errors="replace", newline="") as lines:
                yield from _rows(lines, source)
        else:
            yield from _of_text(str(kind), file.read_bytes(), source)
    except ValueError as error:
        yield Document(source=source, kind="error", content=str(error))
    except OSError as error:
        yield Document(source=source, kind="error", content=f"it cannot be read ({error.strerror}): check the file")


def _of_zip(file: Path, source: str) -> Iterator[Document]:
    try:
        archive = zipfile.ZipFile(file)
    except zipfile.BadZipFile as error:
        raise ValueError("it is not a zip archive or is damaged: fetch or pack it again") from error
    with archive:
        members = [(PurePosixPath(m.filename), m) for m in archive.infolist() if not m.is_dir()]
        found, unclear = _of_archive(archive)
        if not found and not unclear:
            raise ValueError("it holds no structure files: pack CIF, POSCAR, extxyz, JSON or CSV files")
        if PurePosixPath() in unclear:
            raise ValueError(f"it {_UNCLEAR}")
        for folder in sorted(unclear):
            yield _unclear(folder, f"{source}/{folder}")
        wanted = set(found)
        for path, member in sorted(members, key=lambda pair: natural_key(pair[1].filename)):
            if path in wanted:
                yield from _of_member(archive, member, f"{source}/{member.filename}")


def _of_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, source: str) -> Iterator[Document]:
    kind = str(kind_of(PurePosixPath(member.filename)))
    if kind in _PACKED:
        message = f"it is {_PACKED[kind]} inside an archive, which is not opened: unpack it first"
        yield Document(source=source, kind="error", content=message)
        return
    try:
        data = archive.read(member)
    except _UNPACKING_ERRORS as error:
        yield Document(source=source, kind="error", content=f"it cannot be unpacked ({error}): pack the archive again")
        return
    try:
        yield from _of_text(kind, data, source)
    except ValueError as error:
        yield Document(source=source, kind="error", content=str(error))


def _of_text(kind: str, data: bytes, source: str) -> Iterator[Document]:
    if kind == "csv":
        yield from _rows(io.TextIOWrapper(io.BytesIO(data), "utf-8-sig", errors="replace", newline=""), source)
        return
    text = data.decode("utf-8-sig", errors="replace")
    if not text.strip():
        yield Document(source=source, kind="error", content="it is empty: export it again")
        return
    split: dict[str, Callable[[str, str], Iterator[Document]]] = {"extxyz": _frames, "json": _entries}
    if kind in split:
        yield from split[kind](text, source)
    else:
        yield Document(source=source, kind=kind, content=text)


def _frames(text: str, source: str) -> Iterator[Document]:
    """The frames of an extended XYZ file: a line with the number of atoms, a comment line, a line per atom."""
    lines = text.splitlines()
    begin, frame = 0, 0
    while begin < len(lines):
        if not lines[begin].strip():
            begin += 1
            continue
        frame += 1
        name = f"{source}#{frame}"
        count = lines[begin].strip()
        if not count.isdigit() or int(count) == 0:
            message = f"line {begin + 1} must be a number of atoms, not {count[:40]!r}: correct that frame"
            yield Document(source=name, kind="error", content=message)
            return  # without it nobody knows where the next frame begins
        end = begin + 2 + int(count)
        if end > len(lines):
            message = f"frame {frame} is cut off (line {begin + 1} promises {count} atoms): write the file again"
            yield Document(source=name, kind="error", content=message)
            return
        yield Document(source=name, kind="extxyz", content="\n".join(lines[begin:end]) + "\n")
        begin = end


def _entries(text: str, source: str) -> Iterator[Document]:
    """The structures of a JSON file: one, a list, or an object of them by name; bare or inside entries."""
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON (line {error.lineno}: {error.msg}): export it again") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply for a structure: write `Structure.as_dict()`") from error
    if isinstance(data, dict) and not _is_structure(data) and "structure" not in data:
        named = {f"{source}#{key}": value for key, value in data.items() if isinstance(value, dict)}
    elif isinstance(data, list):
        named = {f"{source}#{i}": value for i, value in enumerate(data, 1)}
    else:
        named = {source: data}
    if not named:
        raise ValueError("it holds no structures: write pymatgen structures to it (`Structure.as_dict`)")
    for name, value in named.items():
        info: dict[str, Any] = {}
        if isinstance(value, dict) and "structure" in value:
            info = _scalars({**(value.get("data") or {}), **value} if isinstance(value.get("data"), dict) else value)
            value = value["structure"]
        yield Document(source=name, kind="json", content=value, info=_with_id(info))


def _is_structure(value: Any) -> bool:
    return isinstance(value, dict) and "lattice" in value and "sites" in value


def _rows(lines: Iterable[str], source: str) -> Iterator[Document]:
    """The rows of a table with a column ``cif``; its other columns become info, numbers where they are numbers.

    Lines are read as they are needed, since published tables have gigabytes. Names of structures stay as written;
    the columns ``cif`` and of names are found in capitals, too.
    """
    csv.field_size_limit(2**31 - 1)
    try:
        table = csv.DictReader(lines)
        if table.fieldnames is None:
            raise ValueError("it is empty: export it again")
        columns = {str(name).strip().lower(): name for name in table.fieldnames or []}
        twice = [name for name, count in Counter(table.fieldnames).items() if count > 1 and name]
        if twice:
            raise ValueError(f"it has the column {twice[0]!r} more than once: rename or remove one of them")
        named = {name: column for column, name in columns.items() if column in _ID_COLUMNS}
        if "cif" not in columns:
            raise ValueError("it has no column 'cif': put the text of one CIF per row into a column of that name")
        for number, row in enumerate(table, 1):
            name = f"{source}#{number}"
            info = {
                named.get(k, str(k)): v if k in named else _value(v)
                for k, v in row.items()
                if k not in (None, "", columns["cif"]) and isinstance(v, str)
            }
            content = row[columns["cif"]]
            if not content or not content.strip():
                yield Document(
                    source=name,
                    kind="error",
                    content="its column 'cif' is empty: fill or remove the row",
                    info=_with_id(info),
                )
            else:
                yield Document(source=name, kind="cif", content=content, info=_with_id(info))
    except csv.Error as error:
        raise ValueError(f"it is not a table ({error}): export it again as CSV") from error


def _of_dataset(file: Path, source: str) -> Iterator[Document]:
    dataset = CrystalDataset.read(file)
    for i, name in enumerate(dataset.ids.tolist()):
        info = {"id": name, "split": str(dataset.split[i])}
        info.update((label, float(values[i])) for label, values in dataset.labels.items())
        try:
            crystal: Crystal = dataset.crystals[i]
        except ValueError as error:
            yield Document(source=f"{source}#{name}", kind="error", content=str(error), info=info)
        else:
            yield Document(source=f"{source}#{name}", kind="crystal", content=crystal, info=info)


def _of_split(split: CachedSplit, name: str, source: str) -> Iterator[Document]:
    properties = {**split.numbers, **split.texts}
    for i, structure in enumerate(split.ids.tolist()):
        info = {"id": structure, "split": name} | {key: values[i].item() for key, values in properties.items()}
        try:
            crystal: Crystal = split.crystals[i]
        except ValueError as error:
            yield Document(source=f"{source}/{name}#{structure}", kind="error", content=str(error), info=info)
        else:
            yield Document(source=f"{source}/{name}#{structure}", kind="crystal", content=crystal, info=info)


def _value(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _scalars(values: dict[str, Any]) -> dict[str, Any]:
    """What an entry says in numbers and words; also the ``parameters`` of its calculation, as they are."""
    known = {k: v for k, v in values.items() if isinstance(v, str | int | float) and not k.startswith("@")}
    parameters = values.get("parameters")
    return {**known, "parameters": parameters} if isinstance(parameters, dict) else known


def _with_id(info: dict[str, Any]) -> dict[str, Any]:
    """Info with the key ``id`` when one of the columns that name a structure is there."""
    for column in _ID_COLUMNS:
        if column in info and info[column] not in ("", None):
            value = info[column]
            named = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
            return {**info, "id": named}
    return info
