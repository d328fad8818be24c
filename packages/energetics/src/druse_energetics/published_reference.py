"""The published references of MatterGen: gzip of an LMDB file with pickled values, read as plain data and nothing else.

A pickle is a program, and whoever wrote it decides what it calls. The reader here lets it build dicts, lists, tuples,
numbers and strings, and refuses whatever else it asks for, so that nothing of the file's choosing is ever imported or
run. The database holds ``name``, ``chemical_systems``, and for each system ``A-B`` the keys ``A-B.reduced_formulas``,
``A-B.<formula>.length`` and ``A-B.<formula>.<i>``, the last being the dict form of a pymatgen
``ComputedStructureEntry`` (Zeni et al., Nature 2025, and its code).
"""

import gzip
import io
import math
import os
import pickle
import pickletools
import re
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from druse_crystal.crystal import Crystal
from druse_crystal.refusal import DISORDERED, refusal_status
from pymatgen.core import Element

from druse_energetics.lmdb_file import LmdbFile
from druse_energetics.reference_entry import ReferenceEntry

SCHEME_OF_NAME = {"MP2020correction": "MP2020", "TRI2024correction": "TRI2024"}
_WORD_IN_ADJUSTMENTS = {"MP2020": "MP2020", "TRI2024": "TRI"}
_HEADS = ("name", "chemical_systems")
_ATOMIC_NUMBERS = {element.symbol: element.Z for element in Element}
# what old versions of pymatgen leave in an entry: defaultdict(float). It becomes dict(()), an empty dict; nothing else
# can be called, and a built-in type cannot be changed by the pickle
_STAND_INS: dict[tuple[str, str], Any] = {
    ("collections", "defaultdict"): dict,
    ("builtins", "float"): (),
    ("__builtin__", "float"): (),
}


_ARGUMENT = {ord(op.code): 0 if op.arg is None else op.arg.n for op in pickletools.opcodes}
"""Bytes after each opcode of a pickle; below zero: a line, or a number of bytes that stands there."""
_LENGTH_BYTES = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
_PUT, _LONG_BINPUT, _STOP = b"pr."
_TWO_LINES = b"ci"
_HARMLESS = {
    size: b"".join(b"\\x%02x" % c for c, n in _ARGUMENT.items() if n == size and c not in (_LONG_BINPUT, _STOP))
    for size in set(_ARGUMENT.values())
    if size >= 0
}
_HARMLESS_RUN = re.compile(b"(?:%s)*+" % b"|".join(b"[%s].{%d}" % (c, n) for n, c in _HARMLESS.items()), re.DOTALL)
"""Opcodes one after the other of which each has an argument of known length."""


class PublishedReference:
    """One published reference file. Use it as a context manager; it is unpacked into a temporary folder meanwhile.

    Args:
        path: the ``.gz`` file.

    Raises:
        ValueError: if it is damaged, cut off or no such file, or there is no room to unpack it.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self._folder = tempfile.TemporaryDirectory(prefix="druse-reference-")
        try:
            unpacked = _unpack(self.path, Path(self._folder.name) / "data.mdb")
            self._file = LmdbFile(unpacked)
        except ValueError as error:
            self._folder.cleanup()
            raise ValueError(f"{self.path}: {error}") from error

    def __enter__(self) -> "PublishedReference":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._folder.cleanup()

    @property
    def name(self) -> str:
        """The name inside the file, e.g. ``MP2020correction``.

        Raises:
            ValueError: if the file has none.
        """
        for key, value in self._items():
            if key == b"name":
                name = self._plain(key, value)
                if isinstance(name, str):
                    return name
                break
        raise ValueError(f"{self.path} has no name, so it is no published reference: fetch it again")

    def entries(self, scheme: str) -> Iterator[ReferenceEntry]:
        """The entries, one by one, with the corrections that the file gives them.

        An entry without crystal or energy, or with a correction that is not of ``scheme``, has a status.

        Args:
            scheme: ``MP2020`` or ``TRI2024``; ``none`` takes the energies without their corrections.

        Raises:
            ValueError: if the file is damaged, or holds anything but plain data.
        """
        promised = found = 0
        for key, value in self._items():
            text = key.decode("utf-8", errors="replace")
            if text in _HEADS or text.endswith(".reduced_formulas"):
                continue
            content = self._plain(key, value)
            if text.endswith(".length"):
                if not isinstance(content, int):
                    raise ValueError(f"{self.path}: {text} is no number but {type(content).__name__}: fetch it again")
                promised += content
                continue
            found += 1
            yield _entry(text, content, scheme)
        if promised != found:
            raise ValueError(f"{self.path} holds {found} of the {promised} entries that it promises: fetch it again")

    def _items(self) -> Iterator[tuple[bytes, bytes]]:
        try:
            yield from self._file.items()
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from error

    def _plain(self, key: bytes, value: bytes) -> Any:
        try:
            return load_plain(value)
        except ValueError as error:
            raise ValueError(f"{self.path}: the value of {key.decode(errors='replace')!r} {error}") from error


def load_plain(data: bytes) -> Any:
    """Read a pickle of plain data: dicts with text as keys, lists, tuples, numbers, text, None.

    Raises:
        ValueError: if the pickle asks for anything else, or is damaged.
    """
    try:
        _refuse_vast_memo(data)
        value = _PlainUnpickler(io.BytesIO(data)).load()
    except _NotPlain as error:
        raise ValueError(f"asks for {error}, which is no plain data: do not trust this file") from error
    except Exception as error:  # a broken pickle can raise anything
        raise ValueError(f"is no plain data ({type(error).__name__}): fetch the file again") from error
    waiting, seen = [value], set()
    while waiting:
        item = waiting.pop()
        if item is None or type(item) in (bool, int, float, str):
            continue
        if type(item) not in (dict, list, tuple):
            raise ValueError(f"holds {type(item).__name__}, which is no plain data: do not trust this file")
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, dict):
            if not all(type(key) in (str, int) for key in item):
                raise ValueError("holds a dict whose keys are no text: do not trust this file")
            waiting += item.values()
        else:
            waiting += item
    return value


class _NotPlain(Exception):
    """Something that only a program needs."""


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if (module_name, global_name) not in _STAND_INS:
            raise _NotPlain(f"{module_name}.{global_name}")
        return _STAND_INS[module_name, global_name]

    def persistent_load(self, pid: Any, /) -> Any:
        raise _NotPlain("an object outside of the file")


def _refuse_vast_memo(data: bytes) -> None:
    """Refuse to remember a value at a place beyond all that so many bytes can fill: the room up to it is taken at once.

    Raises:
        _NotPlain: names the place.
        ValueError: if a place is no number.
    """
    at, end = 0, len(data)
    while (found := _HARMLESS_RUN.match(data, at)) and (at := found.end() + 1) <= end:
        code = data[at - 1]
        size = _ARGUMENT.get(code)
        if code == _STOP or size is None:
            return
        if size >= 0:
            after = at + size
        elif size == pickletools.UP_TO_NEWLINE:
            after = data.find(b"\n", at) + 1 or end
            if code in _TWO_LINES:
                after = data.find(b"\n", after) + 1 or end
        else:
            width = _LENGTH_BYTES[size]
            after = at + width + int.from_bytes(data[at : at + width], "little")
        if code in (_LONG_BINPUT, _PUT):
            place = int.from_bytes(data[at:after], "little") if code == _LONG_BINPUT else int(data[at:after])
            if place > end:
                raise _NotPlain(f"place {place} of its memory")
        at = after


def _unpack(path: Path, target: Path) -> Path:
    try:
        with gzip.open(path, "rb") as packed, target.open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked, 1 << 20)
    except (EOFError, zlib.error) as error:
        raise ValueError("it is cut off or damaged: fetch it again") from error
    except gzip.BadGzipFile as error:
        raise ValueError("it is no gzip file: fetch the published reference again") from error
    except OSError as error:
        raise ValueError(
            f"it cannot be unpacked ({error.strerror or error}): check the file, and that the folder for temporary "
            "files (TMPDIR) has room for it"
        ) from error
    return target


def _entry(key: str, content: Any, scheme: str) -> ReferenceEntry:
    """One entry; whatever is wrong with it becomes its status."""
    if not isinstance(content, dict):
        return ReferenceEntry(id=key, source=key, crystal=None, status="unreadable", message="it is no entry")
    data = content.get("data")
    named = (data.get("material_id") if isinstance(data, dict) else None, content.get("entry_id"))
    name = next((found for found in named if isinstance(found, str) and found), key)
    try:
        crystal = _crystal(content.get("structure"))
    except ValueError as error:
        reason = str(error)
        return ReferenceEntry(id=name, source=key, crystal=None, status=refusal_status(reason), message=reason)
    energy = _number(content.get("energy"))
    if not math.isfinite(energy):
        return ReferenceEntry(id=name, source=key, crystal=crystal, status="no_energy", message="it has no energy")
    known = ReferenceEntry(
        id=name, source=key, crystal=crystal, energy=energy, correction=0.0 if scheme == "none" else None
    )
    return known if scheme == "none" else _with_own_correction(known, content, scheme)


def _with_own_correction(entry: ReferenceEntry, content: Mapping[str, Any], scheme: str) -> ReferenceEntry:
    value, terms = _number(content.get("correction")), content.get("energy_adjustments")
    assert entry.crystal is not None
    if not math.isfinite(value) or not isinstance(terms, list):
        return replace(entry, status="incompatible", message="it does not say how its energy is corrected")
    names = [term.get("name") if isinstance(term, dict) else None for term in terms]
    names = [name if isinstance(name, str) else "" for name in names]
    foreign = [name for name in names if _WORD_IN_ADJUSTMENTS[scheme] not in name]
    if foreign:
        return replace(entry, status="incompatible", message=f"its energy is corrected by {foreign[0]!r}, not {scheme}")
    elements = set(entry.crystal.atomic_numbers.tolist())
    if not names and (scheme == "TRI2024" or (8 in elements and len(elements) > 1)):  # both correct each of these
        return replace(entry, status="incompatible", message=f"its energy is not corrected by {scheme}")
    return replace(entry, correction=value)


def _number(value: Any) -> float:
    """NaN for what is no number, or one that no float can hold."""
    try:
        return float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:
        return math.nan


def _crystal(structure: Any) -> Crystal:
    """The crystal in the dict form of a pymatgen ``Structure``, of which only plain numbers and symbols are read."""
    try:
        sites = structure["sites"]
        species = [site["species"] for site in sites]
        if any(len(found) != 1 or abs(float(found[0].get("occu", 1)) - 1) > 1e-3 for found in species):
            raise ValueError(f"it is {DISORDERED}")
        return Crystal(
            lattice=np.array(structure["lattice"]["matrix"], dtype=np.float64),
            frac_coords=np.array([site["abc"] for site in sites], dtype=np.float64).reshape(-1, 3),
            atomic_numbers=np.array([_ATOMIC_NUMBERS[found[0]["element"]] for found in species], dtype=np.int64),
        )
    except (KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise ValueError(f"its structure cannot be read ({type(error).__name__}: {error})") from error
