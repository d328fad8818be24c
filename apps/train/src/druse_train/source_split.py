"""Which split a source itself puts its structures in."""

import zipfile
from pathlib import Path, PurePath, PurePosixPath

from druse_crystal.cache_directory import is_cache
from druse_crystal.dataset import SPLITS
from druse_crystal.documents import is_visible, kind_of
from druse_crystal.io import ReadResult


def has_split(path: Path) -> bool:
    """Whether a source is split already: a cache directory, or a folder or archive of train.csv, val.csv, test.csv.

    One or two of these may be missing; any other file of structures beside them means that the names say nothing.
    """
    if path.is_dir():
        if is_cache(path):
            return True
        names: list[PurePath] = [file.relative_to(path) for file in path.rglob("*") if file.is_file()]
    elif path.suffix.lower() == ".zip" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = [PurePosixPath(member.filename) for member in archive.infolist() if not member.is_dir()]
    else:
        return False
    structures = [name for name in names if is_visible(name) and kind_of(name)]
    return bool(structures) and all(_named(name.name) for name in structures)


def split_of(result: ReadResult) -> str:
    """The split of one structure: what its column ``split`` says, else the name of its file; empty if neither does."""
    said = result.info.get("split", "")
    return str(said).strip() or _named(PurePosixPath(result.source.partition("#")[0]).name)


def _named(file: str) -> str:
    """``train`` for ``train.csv``, empty for a name that is no split's."""
    stem = file.partition(".")[0].lower()
    return stem if stem in SPLITS else ""
