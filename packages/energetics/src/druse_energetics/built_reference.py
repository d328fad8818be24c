"""References as files: built of entries from anywhere, described, merged, and opened for a potential.

The file is a Parquet dataset of crystals with the label ``energy_per_atom`` (total, corrections included) and
``correction_per_atom`` (what of it is correction), or ``formation_energy_per_atom`` for the scheme of the embedded
hull; NaN where a structure is known and its energy is not, for which the key ``reasons`` of the file's metadata has
status and message. The key ``reference`` of its metadata names the scheme of
the corrections, the level of theory or the potential of the energies, the sources with their hashes, and how many
entries had which status.
"""

import csv
import io
import os
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from druse_crystal.crystal import Crystal
from druse_crystal.dataset import CrystalDataset, PackedCrystals
from druse_crystal.files import write_text
from pymatgen.core import Element

from druse_energetics.correction_scheme import (
    APPLICABLE,
    FORMATION,
    SCHEME_OF_POTENTIAL,
    SCHEMES,
    correct,
    of_level,
)
from druse_energetics.reference_entry import ReferenceEntry
from druse_energetics.reference_source import EMBEDDED, FORMATION_ENERGY, TOTAL_ENERGY, ReferenceSource, open_source

CORRECTION = "correction_per_atom"
_KEY = "reference"
_REASONS = "reasons"
_SYMBOLS = {element.Z: element.symbol for element in Element}


@dataclass(frozen=True, kw_only=True)
class Description:
    """What the energies of a reference are.

    Attributes:
        scheme: of their corrections: ``none``, ``MP2020``, ``TRI2024`` or ``MP2018``.
        level_of_theory: ``PBE`` for PBE with +U by the Materials Project's settings; free text otherwise.
        potential: whose energies they are; empty for those of DFT.
        embedded_hull: whether the hull of the embedded reference, which is known by composition, belongs to it.
        sources: name, SHA-256 and number of entries of each source.
        statuses: status -> number of entries.
    """

    scheme: str
    level_of_theory: str = "PBE"
    potential: str = ""
    embedded_hull: bool = False
    sources: Sequence[Mapping[str, Any]] = ()
    statuses: Mapping[str, int] = field(default_factory=dict)

    @property
    def energy(self) -> str:
        """The label that holds the energies."""
        return FORMATION_ENERGY if self.scheme == FORMATION else TOTAL_ENERGY

    @property
    def words(self) -> str:
        """Origin and scheme of the energies in a few words."""
        origin = f"energies of {self.potential}" if self.potential else self.level_of_theory
        return f"{origin}, {'not corrected' if self.scheme == 'none' else self.scheme}"


@dataclass(frozen=True, kw_only=True, eq=False)
class BuiltReference:
    """A reference as it stands in a file.

    Attributes:
        dataset: structures with their energies.
        description: what the energies are.
        left: entries that are not on the hull, each with its status and the reason.
    """

    dataset: CrystalDataset
    description: Description
    left: Sequence[ReferenceEntry] = ()

    def write(self, path: str | os.PathLike) -> Path:
        """Write the file, and beside it a table of all entries off its hull; gives the path of that table.

        Raises:
            ValueError: if the path does not end with .parquet or cannot be written.
        """
        path = checked_path(path)
        beside = path.with_suffix(".statuses.csv")
        table = io.StringIO(newline="")
        rows = csv.writer(table, lineterminator="\n")
        rows.writerow(("id", "source", "status", "message"))
        rows.writerows((entry.id, entry.source, entry.status, entry.message) for entry in self.left)
        self.dataset.write(path)
        write_text(beside, table.getvalue())
        return beside

    @classmethod
    def read(cls, path: str | os.PathLike) -> "BuiltReference":
        """Read what ``write`` wrote.

        Raises:
            ValueError: if there is no such file, it is damaged or no built reference.
        """
        dataset = CrystalDataset.read(path)
        stored: Any = dataset.metadata.get(_KEY)
        try:
            description = Description(**stored)
        except TypeError as error:
            raise ValueError(f"{path} is no built reference: make one with `druse reference build {path}`") from error
        if description.scheme not in SCHEMES or description.energy not in dataset.labels:
            raise ValueError(f"{path} names no known scheme or lacks its energies: build it again")
        return cls(dataset=dataset, description=description)


def is_built(path: str | os.PathLike) -> bool:
    """Whether a file says that it is a built reference; False for whatever else it is."""
    import json

    import pyarrow as pa
    import pyarrow.parquet as pq

    if Path(path).suffix != ".parquet":
        return False
    try:
        return _KEY in json.loads((pq.read_schema(path).metadata or {}).get(b"druse", b"{}"))
    except (pa.ArrowException, OSError, ValueError, TypeError):
        return False


def checked_path(path: str | os.PathLike) -> Path:
    """The path of a reference to write.

    Raises:
        ValueError: if it does not end with .parquet.
    """
    if Path(path).suffix != ".parquet":
        raise ValueError(f"a reference is a Parquet file: let {path} end with .parquet")
    return Path(path)


def build_reference(
    sources: Sequence[str | os.PathLike | ReferenceSource],
    *,
    scheme: str | None = None,
    corrected: bool = False,
    level_of_theory: str = "PBE",
    potential: str = "",
    chemical_systems: Sequence[str] = (),
    on_entry: Callable[[int], None] | None = None,
) -> BuiltReference:
    """Build a reference.

    Args:
        sources: ``embedded``: the embedded structures, and the hull to which they belong (scheme ``MP2018``);
            ``materials-project``: the entries of ``chemical_systems`` (scheme ``MP2020``); a published ``.gz`` (its own
            scheme); any file or folder of structures with ``energy_per_atom`` or ``energy`` (eV per cell), or, for
            ``MP2018``, ``formation_energy_per_atom``; or a source that is open.
        scheme: of the reference; by default that of the sources, or ``none``. Energies of files are corrected by it.
        corrected: the energies of files hold the corrections of ``scheme`` already.
        level_of_theory: of the energies of files. An entry that says that its run (``run_type``) is of another level
            is ``incompatible``: to ``PBE`` all but GGA and GGA+U.
        potential: whose energies the files hold; empty for DFT.
        chemical_systems: what to ask the Materials Project for, such as ``Li-Fe-O``.
        on_entry: called with the number of entries so far.

    Raises:
        ValueError: for a source that cannot be read or has no energies, or sources that do not mix.
    """
    if scheme is not None and scheme not in SCHEMES:
        raise ValueError(f"there is no scheme {scheme!r}: choose one of {', '.join(SCHEMES)}")
    if corrected and scheme in (None, "none"):
        raise ValueError("energies that are corrected need the name of their scheme: add --scheme")
    with ExitStack() as stack:
        opened = [open_source(source, chemical_systems, stack) for source in sources]
        scheme = _common_scheme(opened, scheme)
        if potential and any(source.scheme for source in opened):
            raise ValueError(f"energies of {potential} and of DFT do not mix: build a reference of each")
        if level_of_theory != "PBE" and any(source.scheme for source in opened):
            raise ValueError(f"energies of {level_of_theory} and of PBE do not mix: build a reference of each")
        corrected = corrected or _trained_on(potential, scheme)
        collected = _Collected(scheme)
        for source in opened:
            before = sum(collected.statuses.values())
            entries = source.entries(scheme, corrected)
            entries = map(_without_run, entries) if potential else of_level(entries, level_of_theory)
            for entry in correct(entries, "none" if scheme == FORMATION else scheme):
                collected.add(entry)
                if on_entry is not None:
                    on_entry(sum(collected.statuses.values()))
            collected.sources.append(
                {"name": source.name, "sha256": source.digest, "entries": sum(collected.statuses.values()) - before}
            )
    if not collected.statuses["kept"]:
        why = f"; the first of {len(collected.left)}: {collected.left[0].message}" if collected.left else ""
        label = "formation_energy_per_atom" if scheme == FORMATION else "energy_per_atom"
        raise ValueError(
            f"no structure in {', '.join(map(str, sources))} has an energy{why} (a reference of the scheme {scheme} "
            f"needs {label})"
        )
    return collected.reference(
        level_of_theory=level_of_theory,
        potential=potential,
        embedded_hull=any(source.name == EMBEDDED for source in opened),
    )


def merge_references(paths: Sequence[str | os.PathLike]) -> BuiltReference:
    """One reference of several: an entry that occurs in two is kept once, another with the same id gets a new one.

    Raises:
        ValueError: if one cannot be read, or their schemes, levels of theory or potentials differ.
    """
    if len(paths) < 2:
        raise ValueError("a merge needs two references or more")
    parts = [BuiltReference.read(path) for path in paths]
    first = parts[0].description
    for path, part in zip(paths, parts, strict=True):
        other = part.description
        if (other.scheme, other.level_of_theory, other.potential) != (
            first.scheme,
            first.level_of_theory,
            first.potential,
        ):
            raise ValueError(
                f"{paths[0]} ({first.words}) and {path} ({other.words}) do not mix: build both of the same energies "
                "with the same --scheme"
            )
    collected = _Collected(first.scheme)
    for path, part in zip(paths, parts, strict=True):
        for entry in _stored_entries(part):
            collected.add(entry)
        collected.sources += part.description.sources or [{"name": Path(path).name, "entries": len(part.dataset)}]
    return collected.reference(
        level_of_theory=first.level_of_theory,
        potential=first.potential,
        embedded_hull=any(part.description.embedded_hull for part in parts),
    )


def summary(reference: BuiltReference) -> dict[str, Any]:
    """Facts for people and programs: scheme, origin, counts, and the elements that cannot be judged."""
    dataset, description = reference.dataset, reference.description
    energies = dataset.labels[description.energy]
    amounts = element_amounts(dataset.crystals)
    zeros = elements_on_hull(amounts, energies, description.scheme)
    off = sum(bool(np.isfinite(energy)) and not c.keys() <= zeros for c, energy in zip(amounts, energies, strict=True))
    facts = asdict(description)
    return facts | {
        "energy": description.energy,
        "structures": len(dataset),
        "with_energy": int(np.isfinite(energies).sum()),
        "off_hull": off,
        "elements": sorted(zeros),
        "elements_without_zero": sorted({symbol for c in amounts for symbol in c} - zeros),
    }


def element_amounts(crystals: Sequence[Crystal]) -> list[dict[str, int]]:
    """Symbol -> number of atoms in the cell, of each crystal."""
    if isinstance(crystals, PackedCrystals):
        cells = np.split(crystals.atomic_numbers, crystals.ends[:-1]) if len(crystals) else []
    else:
        cells = [crystal.atomic_numbers for crystal in crystals]
    return [{_SYMBOLS[z]: n for z, n in sorted(Counter(cell.tolist()).items())} for cell in cells]


def lowest_elements(amounts: Sequence[Mapping[str, int]], energies: Iterable[float]) -> dict[str, float]:
    """Symbol -> lowest energy (eV/atom) among the structures of that element alone; NaN counts as absent."""
    lowest: dict[str, float] = {}
    for c, energy in zip(amounts, energies, strict=True):
        if len(c) == 1 and np.isfinite(energy):
            symbol = next(iter(c))
            lowest[symbol] = min(float(energy), lowest.get(symbol, np.inf))
    return lowest


def elements_on_hull(amounts: Sequence[Mapping[str, int]], energies: Iterable[float], scheme: str) -> set[str]:
    """Symbols of the elements that crystals on the hull may hold.

    Args:
        amounts: symbol -> number of atoms, of each structure.
        energies: of each, NaN if unknown: formation energies for ``MP2018``, otherwise total ones, which need an energy
            of the pure element.
        scheme: of the corrections in the energies.
    """
    if scheme == FORMATION:
        return {symbol for c, energy in zip(amounts, energies, strict=True) if np.isfinite(energy) for symbol in c}
    return set(lowest_elements(amounts, energies))


def _common_scheme(sources: Sequence[ReferenceSource], asked: str | None) -> str:
    named = {source.scheme: source.name for source in sources if source.scheme is not None}
    if asked is not None:
        named = {asked: "--scheme", **named}
    if len(named) > 1:
        (one, a), (other, b) = list(named.items())[:2]
        raise ValueError(f"the energies of {b} are corrected by {other}, {a} says {one}: they do not mix, choose one")
    return next(iter(named), "none")


def _trained_on(potential: str, scheme: str) -> bool:
    """Whether the energies of the potential hold the corrections of the scheme.

    Raises:
        ValueError: if they hold those of another one.
    """
    held = SCHEME_OF_POTENTIAL.get(potential, "none")
    if held not in ("none", scheme):
        raise ValueError(f"the energies of {potential} are corrected by {held}: add --scheme {held}")
    return held != "none"


def _without_run(entry: ReferenceEntry) -> ReferenceEntry:
    """The entry without the parameters of a run of DFT, whose energy is not the potential's."""
    return replace(entry, parameters=None)


def _stored_entries(part: BuiltReference) -> Iterator[ReferenceEntry]:
    labels = part.dataset.labels
    energies = labels[part.description.energy]
    corrections = labels.get(CORRECTION, np.zeros(len(energies)))
    reasons = _stored_reasons(part)
    for i, name in enumerate(part.dataset.ids.tolist()):
        crystal = part.dataset.crystals[i]
        known = ReferenceEntry(id=name, source=name, crystal=crystal)
        if np.isfinite(energies[i]):
            correction = float(np.nan_to_num(corrections[i]))
            energy = float(energies[i]) - correction
            n = crystal.num_atoms
            yield replace(known, energy=energy * n, correction=correction * n)
        else:
            status, message = reasons.get(name, ("no_energy", "it has no energy"))
            yield replace(known, status=status, message=message)


def _stored_reasons(part: BuiltReference) -> dict[str, tuple[Literal["no_energy", "incompatible"], str]]:
    """Id -> status and message of the structures without energy; what was built without them has none."""
    found: dict[str, tuple[Literal["no_energy", "incompatible"], str]] = {}
    for status, message, ids in part.dataset.metadata.get(_REASONS, ()):
        if status in ("no_energy", "incompatible"):
            found |= dict.fromkeys(ids, (status, message))
    return found


class _Collected:
    """Entries as they come, packed: a published reference has hundreds of thousands."""

    def __init__(self, scheme: str):
        self.scheme = scheme
        self.statuses: Counter[str] = Counter()
        self.left: list[ReferenceEntry] = []
        self.sources: list[Mapping[str, Any]] = []
        self._seen: dict[str, int] = {}
        self._lattice, self._coords = array("d"), array("d")
        self._numbers, self._counts = array("q"), array("q")
        self._energies, self._corrections = array("d"), array("d")
        self._places: list[str] = []
        self._reasons: dict[tuple[str, str], list[str]] = {}

    def add(self, entry: ReferenceEntry) -> None:
        """Take one entry, and count its status."""

        crystal = entry.crystal
        if crystal is None:
            self._leave(entry)
            return
        kept = entry.status == "kept" and entry.correction is not None
        n = crystal.num_atoms
        correction = (entry.correction or 0.0) / n if kept else float("nan")
        energy = entry.energy / n + correction if kept else float("nan")
        digest = _digest(crystal, energy)
        name, again = entry.id, 1
        while name in self._seen:
            if self._seen[name] == digest:
                self._leave(replace(entry, status="duplicate", message=f"it is the same as {name} before it"))
                return
            again += 1
            name = f"{entry.id} ({again})"
        self._seen[name] = digest
        self._lattice.extend(crystal.lattice.ravel().tolist())
        self._coords.extend(crystal.frac_coords.ravel().tolist())
        self._numbers.extend(crystal.atomic_numbers.tolist())
        self._counts.append(n)
        self._energies.append(energy)
        self._corrections.append(correction)
        self._places.append(entry.source)
        if kept:
            self.statuses["kept"] += 1
        else:
            self._reasons.setdefault((entry.status, entry.message), []).append(name)
            self._leave(entry)

    def reference(self, *, level_of_theory: str, potential: str, embedded_hull: bool) -> BuiltReference:
        """All of them as a reference; what lacks an element on the hull gets its status here, where all are known."""
        crystals = PackedCrystals(
            lattice=np.array(self._lattice).reshape(-1, 3, 3),
            frac_coords=np.array(self._coords).reshape(-1, 3),
            atomic_numbers=np.array(self._numbers, dtype=np.int64),
            num_atoms=np.array(self._counts, dtype=np.int64),
        )
        self._leave_what_lacks_an_element(crystals)
        description = Description(
            scheme=self.scheme,
            level_of_theory=level_of_theory,
            potential=potential,
            embedded_hull=embedded_hull,
            sources=self.sources,
            statuses=dict(self.statuses),
        )
        labels = {description.energy: np.array(self._energies)}
        if self.scheme in APPLICABLE:
            labels[CORRECTION] = np.array(self._corrections)
        dataset = CrystalDataset(
            ids=list(self._seen),
            crystals=crystals,
            labels=labels,
            metadata={
                _KEY: asdict(description),
                _REASONS: [[status, message, ids] for (status, message), ids in self._reasons.items()],
            },
        )
        return BuiltReference(dataset=dataset, description=description, left=self.left)

    def _leave_what_lacks_an_element(self, crystals: PackedCrystals) -> None:
        amounts, names = element_amounts(crystals), list(self._seen)
        zeros = elements_on_hull(amounts, self._energies, self.scheme)
        for i, (c, energy) in enumerate(zip(amounts, self._energies, strict=True)):
            lacking = sorted(c.keys() - zeros)
            if not np.isfinite(energy) or not lacking:
                continue
            self.statuses["kept"] -= 1
            self._leave(
                ReferenceEntry(
                    id=names[i],
                    source=self._places[i],
                    crystal=crystals[i],
                    energy=energy * crystals[i].num_atoms,
                    status="no_reference",
                    message=f"there is no energy of the pure element {', '.join(lacking)}",
                )
            )

    def _leave(self, entry: ReferenceEntry) -> None:
        self.statuses[entry.status] += 1
        self.left.append(entry)


def _digest(crystal: Crystal, energy: float) -> int:
    """Equal for the same structure with the same energy (eV/atom), to six digits."""
    arrays = (crystal.lattice, crystal.frac_coords)
    rounded = tuple((np.round(values, 6) + 0.0).tobytes() for values in arrays)
    return hash((*rounded, crystal.atomic_numbers.tobytes(), round(energy, 6) if np.isfinite(energy) else None))
