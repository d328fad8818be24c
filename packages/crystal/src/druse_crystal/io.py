"""Readers and writers of crystal structures. A bad structure becomes a row that says why, never an exception."""

import io
import json
import os
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from ase import Atoms
from pymatgen.core import Structure
from pymatgen.io.vasp import Poscar

from druse_crystal.cif import cif_text, parse_cif
from druse_crystal.convert import from_ase, from_pymatgen, to_ase, to_pymatgen
from druse_crystal.crystal import Crystal
from druse_crystal.documents import Document, documents
from druse_crystal.files import replacing
from druse_crystal.symmetry import SYMPREC

__all__ = [
    "ReadResult",
    "from_ase",
    "from_pymatgen",
    "parse",
    "read_crystals",
    "to_ase",
    "to_pymatgen",
    "write_cif",
    "write_cif_zip",
    "write_extxyz",
    "write_poscar",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadResult:
    """One structure that was read, or the reason why it could not be.

    Attributes:
        source: file name, with the member of an archive, the frame or the row: ``set.zip/3.cif``, ``run.extxyz#7``.
        crystal: the structure; None after an error.
        error: one sentence that names the source and the remedy; None when all is well.
        info: what else the source says: columns of a table, the comment line of an extxyz frame; ``id`` if it has one.
    """

    source: str
    crystal: Crystal | None
    error: str | None = None
    info: dict[str, Any] = field(default_factory=dict)


def read_crystals(path: str | os.PathLike) -> Iterator[ReadResult]:
    """Read every structure of a file, a zip archive or a folder.

    Formats: CIF, POSCAR/CONTCAR/.vasp, .extxyz/.xyz, pymatgen .json, .csv with a column ``cif``, dataset .parquet, zip
    archives and folders of them (members in natural order), cache directories (``druse_crystal.cache_directory``).

    Args:
        path: file or folder.

    Returns:
        One result per structure, in order, read one by one. A file that cannot be read is one result with its error.

    Raises:
        ValueError: at once, if the path does not exist, is of no known format, is a folder without such files, or a
            cache directory that is not sound.
    """
    return (result for document in documents(path) for result in parse(document))


def parse(document: Document) -> list[ReadResult]:
    """The structures of a document; more than one only for a CIF with several data blocks."""
    try:
        if document.kind == "error":
            raise ValueError(document.content)
        if document.kind == "cif":
            return _parse_cif(document)
        crystal, info = {"poscar": _poscar, "extxyz": _extxyz, "json": _json, "crystal": _crystal}[document.kind](
            document.content
        )
    except ValueError as error:
        return [_refused(document, error)]
    return [ReadResult(source=document.source, crystal=crystal, info={**info, **document.info})]


def write_extxyz(
    path: str | os.PathLike, crystals: Sequence[Crystal], *, info: Sequence[dict[str, Any]] | None = None
) -> None:
    """Write crystals as frames of an extended XYZ file.

    Args:
        path: of the file; replaced when it exists.
        crystals: at least one.
        info: per crystal, what its comment line says besides the lattice; None values are left out.

    Raises:
        ValueError: if there is no crystal, ``info`` has another length, or the file cannot be written.
    """
    from ase.io import write

    info = [{}] * len(crystals) if info is None else info
    if len(info) != len(crystals) or not crystals:
        raise ValueError(f"{path}: there are {len(crystals)} crystals and {len(info)} rows of info to write")
    frames = []
    for crystal, row in zip(crystals, info, strict=True):
        atoms = to_ase(crystal)
        atoms.info.update({key: value for key, value in row.items() if value is not None})
        frames.append(atoms)
    with replacing(path) as temporary:
        write(temporary, frames, format="extxyz")


def write_cif(path: str | os.PathLike, crystal: Crystal, *, symprec: float | None = SYMPREC) -> None:
    """Write one crystal as a CIF, with the symmetry found within ``symprec`` Å (None: P1, atoms as they are).

    Raises:
        ValueError: if the file cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(cif_text(crystal, symprec=symprec))


def write_cif_zip(
    path: str | os.PathLike, crystals: Sequence[Crystal], *, names: Sequence[str], symprec: float | None = SYMPREC
) -> None:
    """Write crystals as CIFs into one zip archive; the same crystals give the same bytes.

    Args:
        path: of the archive; replaced when it exists.
        crystals: to write.
        names: of the members, unique; ``.cif`` is added where it is missing.
        symprec: tolerance in Å of the symmetry that is written; None for P1.

    Raises:
        ValueError: if the names do not fit or the file cannot be written.
    """
    members = [name if name.endswith(".cif") else f"{name}.cif" for name in names]
    if len(members) != len(crystals):
        raise ValueError(f"{path}: there are {len(crystals)} crystals and {len(members)} names")
    if len(set(members)) != len(members):
        raise ValueError(f"{path}: the names of the crystals are not unique")
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, crystal in zip(members, crystals, strict=True):
            entry = zipfile.ZipInfo(member, date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, cif_text(crystal, symprec=symprec))


def write_poscar(path: str | os.PathLike, crystal: Crystal) -> None:
    """Write one crystal as a VASP 5 POSCAR; atoms of one element come one after the other.

    Raises:
        ValueError: if the file cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(Poscar(to_pymatgen(crystal), sort_structure=True).get_str(significant_figures=12))


def _refused(document: Document, error: ValueError, name: str = "") -> ReadResult:
    sentence = " ".join(str(error).split()).rstrip(".")
    if ": " not in sentence:  # says what is wrong, not yet what to do
        sentence += ": correct or remove that structure"
    source = f"{document.source}{name}"
    return ReadResult(source=source, crystal=None, error=f"{source}: {sentence}", info=document.info)


def _parse_cif(document: Document) -> list[ReadResult]:
    blocks = parse_cif(document.content)
    results = []
    for name, found in blocks:
        member = f"#{name}" if len(blocks) > 1 else ""
        if isinstance(found, Crystal):
            results.append(ReadResult(source=f"{document.source}{member}", crystal=found, info=document.info))
        else:
            results.append(_refused(document, found, member))
    return results


def _poscar(text: str) -> tuple[Crystal, dict[str, Any]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            poscar = Poscar.from_str(text)
        except Exception as error:  # every kind of broken text has its own exception
            raise ValueError("it is not a POSCAR: check that it is complete and names its elements") from error
    if any("cannot be determined" in str(warning.message) for warning in caught):
        raise ValueError("it does not name its elements: add their symbols in the line above the numbers of atoms")
    return from_pymatgen(poscar.structure), {}


def _extxyz(text: str) -> tuple[Crystal, dict[str, Any]]:
    from ase.io import read

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            atoms = cast(Atoms, read(io.StringIO(text), index=0, format="extxyz"))
    except Exception as error:  # every kind of broken text has its own exception
        reason = f"unknown symbol {error}" if isinstance(error, KeyError) else (str(error) or type(error).__name__)
        reason = reason.strip().splitlines()[0]
        raise ValueError(f"the frame cannot be read ({reason}): write it again") from error
    if "Lattice" not in text.split("\n", 2)[1]:
        raise ValueError("it has no Lattice in its comment line: a crystal needs a cell")
    info = {key: value for key, value in atoms.info.items() if np.isscalar(value)}
    if atoms.calc is not None:
        info.update((key, value) for key, value in atoms.calc.results.items() if np.isscalar(value))
    return from_ase(atoms), {key: getattr(value, "item", lambda value=value: value)() for key, value in info.items()}


def _json(data: Any) -> tuple[Crystal, dict[str, Any]]:
    if isinstance(data, str):
        try:
            data = json.loads(data)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError("it holds text where a structure must be: write `Structure.as_dict()`") from error
    try:
        structure = Structure.from_dict(data)
    except Exception as error:  # whatever is missing or of the wrong type
        raise ValueError("it is not a pymatgen structure: write `Structure.as_dict()`") from error
    return from_pymatgen(structure), {}


def _crystal(crystal: Crystal) -> tuple[Crystal, dict[str, Any]]:
    return crystal, {}
