"""The table of facts: one row for every crystal that was asked for, in Parquet with its provenance."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from druse_crystal.crystal import Crystal
from druse_crystal.files import replacing
from druse_energetics.potential import POTENTIAL_NAMES
from jaxtyping import Bool, Float64

_STRUCTURE = pa.struct(
    [
        pa.field("lattice", pa.list_(pa.float64())),
        pa.field("frac_coords", pa.list_(pa.float64())),
        pa.field("atomic_numbers", pa.list_(pa.int16())),
    ]
)

CALIBRATED_ON: dict[str, str] = {"generated": "generated crystals", "wbm": "substituted crystals, WBM"}
"""What a judge is calibrated on, in words: the cautious end first, the hopeful one after it."""

CALIBRATED_BOUNDS: dict[str, float] = {
    "metastable": 0.1,
    "near_hull_50_mev": 0.05,
    "near_hull_25_mev": 0.025,
    "stable": 0.0,
}
"""eV/atom above the hull; the rates about it, by the name of their metric, for which a calibration gives a chance."""

_SENTENCES = pa.list_(pa.string())

COLUMNS: dict[str, tuple[pa.DataType, str]] = {
    "source": (pa.string(), "file and member, or position, that the crystal comes from"),
    "status": (
        pa.string(),
        "judged, or where the crystal dropped out: missing, unreadable, disordered (sites that are shared or partly "
        "empty), overlap, exploded, failed, no_reference, "
        "doubtful (judged so far below the hull that the judge is likely wrong; never counts as stable); "
        "not_converged crystals are judged with the energy they had reached, unrelaxed ones as they are",
    ),
    "message": (pa.string(), "why, in one sentence; also why the structure type is undecided"),
    "formula": (pa.string(), "reduced formula"),
    "chemical_system": (pa.string(), "elements in alphabetical order"),
    "num_elements": (pa.int32(), "number of different elements"),
    "num_atoms": (pa.int32(), "atoms in the cell as given"),
    "space_group_number": (pa.int32(), "of the relaxed crystal, symprec 0.1 Å"),
    "space_group_symbol": (pa.string(), "of the relaxed crystal, symprec 0.1 Å"),
    "crystal_system": (pa.string(), "of the relaxed crystal, symprec 0.1 Å"),
    "initial_space_group_number": (pa.int32(), "of the crystal as given, symprec 0.1 Å"),
    "initial_space_group_symbol": (pa.string(), "of the crystal as given, symprec 0.1 Å"),
    "volume": (pa.float64(), "Å³, relaxed cell"),
    "volume_per_atom": (pa.float64(), "Å³ per atom, relaxed cell"),
    "initial_volume": (pa.float64(), "Å³, cell as given"),
    "min_distance": (pa.float64(), "Å, shortest distance in the crystal as given, own images included"),
    "structure_valid": (pa.bool_(), "no distance under 0.5 Å, at least 0.1 Å³"),
    "composition_valid": (pa.bool_(), "charge neutral by SMACT's oxidation states, or all metal"),
    "charge_balance": (
        pa.string(),
        "how oxidation states explain the composition: element, alloy, balanced, mixed valence, metallic, or not: "
        "unbalanced, unknown states, undecided",
    ),
    "coordination": (pa.string(), "numbers of bonds by element; of the relaxed crystal, or as given without one"),
    "dimensionality": (
        pa.int32(),
        "directions in which bonds go on for ever; of the relaxed crystal, or as given without one",
    ),
    "crustal_abundance": (pa.float64(), "mg/kg of the earth's crust, of the rarest element"),
    "hhi_production": (pa.float64(), "Herfindahl-Hirschman index of where the elements are produced, by weight"),
    "hhi_reserve": (pa.float64(), "Herfindahl-Hirschman index of where reserves of the elements are, by weight"),
    "price_per_kg": (pa.float64(), "USD of 2013, what the elements of a kilogram cost"),
    "failed_tests": (_SENTENCES, "tests of chemistry that the crystal fails, and how; none of them filters"),
    "untested": (_SENTENCES, "what could not be tested, and why"),
    "element_flags": (_SENTENCES, "what speaks against the elements: radioactive, toxic, scarce, dear, concentrated"),
    "relaxation_status": (pa.string(), "how the relaxation ended"),
    "converged": (pa.bool_(), "forces and stress under the bound"),
    "n_steps": (pa.int32(), "steps of the relaxation"),
    "max_force": (pa.float64(), "eV/Å, largest force left"),
    "rattled_energy_drop": (
        pa.float64(),
        "eV/atom by which a second relaxation, after a shake, came out lower; 0 where the first one was kept, null "
        "where there was no second one or it did not converge",
    ),
    "initial_energy": (pa.float64(), "eV per cell, as given"),
    "energy": (pa.float64(), "eV per cell, relaxed"),
    "energy_per_atom": (pa.float64(), "eV/atom, relaxed"),
    "relaxation_energy_per_atom": (pa.float64(), "eV/atom, relaxed minus as given"),
    "formation_energy_per_atom": (pa.float64(), "eV/atom on the scale of the reference's hull"),
    "energy_above_hull": (pa.float64(), "eV/atom as judged; negative below the hull"),
    **{
        name.format(against): (pa.float64(), f"{meaning}; calibrated on {crystals}; only of converged relaxations")
        for against, crystals in CALIBRATED_ON.items()
        for name, meaning in (
            ("energy_above_hull_calibrated_{}", "eV/atom, expected from DFT for such a judgement"),
            *(
                (f"probability_{metric}_{{}}", f"chance that DFT finds at most {bound:g} eV/atom")
                for metric, bound in CALIBRATED_BOUNDS.items()
            ),
        )
    },
    "metastable": (pa.bool_(), "at most 0.1 eV/atom above the hull, as judged"),
    "stable": (pa.bool_(), "on the hull or below it, as judged"),
    **{
        f"energy_above_own_hull_{potential}": (pa.float64(), f"eV/atom above the hull of the energies of {potential}")
        for potential in POTENTIAL_NAMES
    },
    "disagreement": (pa.float64(), "eV/atom, largest difference between the judges' distances to their own hulls"),
    "metastable_to_all": (pa.bool_(), "every judge places it at most 0.1 eV/atom above its own hull"),
    "lowest_frequency": (
        pa.float64(),
        "THz, of the harmonic modes at Gamma and the zone boundary, without translations; imaginary ones are negative",
    ),
    "dynamically_stable": (pa.bool_(), "no mode there is imaginary beyond 0.1 THz; null where it was not checked"),
    "phonons_message": (pa.string(), "why the modes were not checked; empty where they were, null if nobody asked"),
    "rmsd": (pa.float64(), "Å, atoms of the crystal as given to the relaxed one; upper bound if nothing matches"),
    "rmsd_matched": (pa.bool_(), "whether the atoms could be mapped for the rmsd"),
    "matches_relaxed": (pa.bool_(), "the crystal as given and the relaxed one are the same structure"),
    "unique": (pa.bool_(), "first crystal of its kind in this set"),
    "duplicate_of": (pa.string(), "source of that first one, for the others"),
    "known_formula": (
        pa.bool_(),
        "the reference knows a material of this reduced formula, perhaps without its structure",
    ),
    "known_chemical_system": (pa.bool_(), "the reference has a crystal of exactly these elements"),
    "novel": (pa.bool_(), "no crystal of the reference is the same structure"),
    "match_id": (pa.string(), "the reference's crystal that is the same structure"),
    "unique_order_disorder": (pa.bool_(), "unique, two orderings of one alloy being the same"),
    "novel_order_disorder": (pa.bool_(), "novel, two orderings of one alloy being the same"),
    "novel_to_training": (pa.bool_(), "no training crystal is the same structure; null if none were given"),
    "training_match_id": (pa.string(), "the training crystal that is the same structure"),
    "new_prototype": (
        pa.bool_(),
        "no crystal of the reference is the same structure, whatever its elements; null where it is undecided",
    ),
    "prototype_id": (pa.string(), "a crystal of the reference that is the same structure but for its elements"),
    "prototype_rms": (
        pa.float64(),
        "root mean square distance of the sites from those of that crystal, the elements renamed, in units of (volume "
        "per atom)^(1/3); null where it could not be had",
    ),
    "sun_metastable": (pa.bool_(), "metastable, unique and novel"),
    "sun_stable": (pa.bool_(), "stable, unique and novel"),
    "initial": (_STRUCTURE, "the crystal as given: lattice rows in Å, fractional coordinates, atomic numbers"),
    "relaxed": (_STRUCTURE, "the relaxed crystal"),
}
"""Name, type and meaning of every column, in order."""

SCHEMA = pa.schema([pa.field(name, kind, metadata={"meaning": text}) for name, (kind, text) in COLUMNS.items()])


_LATER = (
    *(f"probability_near_hull_{bound}_mev_{against}" for bound in (50, 25) for against in CALIBRATED_ON),
    "prototype_rms",
)
"""Columns that came after the others: a table without them is read all the same."""


@dataclass(frozen=True, eq=False)
class Assessment:
    """Facts about crystals: a row for every crystal that was asked for, also for those that never came to be.

    Attributes:
        table: columns as in ``COLUMNS``; null where a fact could not be established.
        metadata: judge, reference, hashes of both (not in old tables), matcher, error of the judge; plain JSON values.
        absent: columns that the file of an older version did not have; null in ``table``, and nobody asked for them.
    """

    table: pa.Table
    metadata: Mapping[str, Any] = field(default_factory=dict)
    absent: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return self.table.num_rows

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, Any]], *, metadata: Mapping[str, Any]) -> "Assessment":
        """Make the table of dictionaries; a missing key is null, crystals are stored as arrays."""
        rows = list(rows)
        columns = []
        for entry in SCHEMA:
            values = [row.get(entry.name) for row in rows]
            if entry.type == _STRUCTURE:
                values = [None if crystal is None else _as_lists(crystal) for crystal in values]
            elif pa.types.is_floating(entry.type):
                values = [None if v is None or np.isnan(v) else float(v) for v in values]
            elif pa.types.is_boolean(entry.type):
                values = [None if v is None else bool(v) for v in values]
            columns.append(pa.array(values, type=entry.type))
        return cls(pa.table(columns, schema=SCHEMA), dict(metadata))

    def flags(self, name: str) -> Bool[np.ndarray, " rows"]:
        """A yes-or-no column; False where the fact could not be established."""
        return self.table[name].fill_null(False).to_numpy().astype(bool)

    def values(self, name: str) -> Float64[np.ndarray, " rows"]:
        """A column of numbers; NaN where the fact could not be established."""
        return np.array([np.nan if v is None else v for v in self.table[name].to_pylist()], dtype=np.float64)

    def space_groups(self) -> tuple[list[int], list[int]]:
        """Numbers of the space groups of crystals as given and as relaxed; 1 where none could be found."""
        columns = (self.values(name) for name in ("initial_space_group_number", "space_group_number"))
        given, relaxed = ([int(v) if v > 0 else 1 for v in column] for column in columns)
        return given, relaxed

    def trusted_distances(self) -> Float64[np.ndarray, " rows"]:
        """Judged energies above hull in eV/atom; NaN where there is none or it is doubtful."""
        return np.where(self.doubtful(), np.nan, self.values("energy_above_hull"))

    def doubtful(self) -> Bool[np.ndarray, " rows"]:
        """Whether a crystal is judged so far below the hull that the judge is likely wrong."""
        return np.array([status == "doubtful" for status in self.strings("status")], dtype=bool)

    def uncalibrated(self) -> Bool[np.ndarray, " rows"]:
        """Whether a crystal is judged, not doubtful, and beyond any calibration, its relaxation not being converged."""
        return ~np.isnan(self.trusted_distances()) & ~self.flags("converged")

    def calibrated_on(self) -> list[str]:
        """The judge's calibrations that say something here: none of them where no judged crystal is converged."""
        judged = ~np.isnan(self.trusted_distances())
        if judged.any() and not (judged & self.flags("converged")).any():
            return []
        return list(self.metadata.get("calibrations", {}))

    def strings(self, name: str) -> list[str | None]:
        """A column of text."""
        return self.table[name].to_pylist()

    def sentences(self, name: str) -> list[list[str]]:
        """A column of lists of text; an empty list where there is none."""
        return [found or [] for found in self.table[name].to_pylist()]

    def initial(self, row: int) -> Crystal | None:
        """The crystal as given."""
        return _as_crystal(self.table["initial"][row].as_py())

    def relaxed(self, row: int) -> Crystal | None:
        """The relaxed crystal."""
        return _as_crystal(self.table["relaxed"][row].as_py())

    def ranking(self) -> list[int]:
        """Rows that have a hull distance, the best crystal first.

        Unique and novel ones first, of them those whose distance is not doubtful, then the converged ones, then by
        distance to the hull.
        """
        above = self.values("energy_above_hull")
        new = self.flags("unique") & self.flags("novel")
        keys = zip(~new, self.doubtful(), ~self.flags("converged"), above, range(len(self)), strict=True)
        return [row for *_, energy, row in sorted(keys) if not np.isnan(energy)]

    def write(self, path: str | os.PathLike) -> None:
        """Write Parquet (zstd), complete or not at all; the metadata goes into the file's schema.

        Raises:
            ValueError: if the folder cannot be written to.
        """
        table = self.table.replace_schema_metadata({"druse_assessment": json.dumps(dict(self.metadata))})
        with replacing(path) as temporary:
            pq.write_table(table, temporary, compression="zstd")

    @classmethod
    def read(cls, path: str | os.PathLike) -> "Assessment":
        """Read what ``write`` wrote; columns that were added since are null and listed as ``absent``.

        Raises:
            ValueError: if the file is no table of facts, or one of another version; the sentence names it.
        """
        try:
            table = pq.read_table(path)
        except (pa.ArrowInvalid, OSError) as error:
            raise ValueError(f"{path} is not a readable Parquet file ({error})") from error
        stored = (table.schema.metadata or {}).get(b"druse_assessment")
        if stored is None:
            raise ValueError(f"{path} is not a table of facts about crystals: make one with druse-evaluate evaluate")
        absent = frozenset(_LATER) - set(table.schema.names)
        if table.schema.names != [name for name in SCHEMA.names if name not in absent]:
            raise ValueError(
                f"{path} was written by another version of Druse, with other columns: run the same command again, "
                "which keeps finished relaxations"
            )
        for position, entry in enumerate(SCHEMA):
            if entry.name in absent:
                table = table.add_column(position, entry, pa.nulls(len(table), entry.type))
        return cls(table, json.loads(stored), absent)


def _as_lists(crystal: Crystal) -> dict[str, list]:
    return {
        "lattice": crystal.lattice.ravel().tolist(),
        "frac_coords": crystal.frac_coords.ravel().tolist(),
        "atomic_numbers": crystal.atomic_numbers.tolist(),
    }


def _as_crystal(stored: dict[str, list] | None) -> Crystal | None:
    if stored is None:
        return None
    return Crystal(
        lattice=np.reshape(stored["lattice"], (3, 3)),
        frac_coords=np.reshape(stored["frac_coords"], (-1, 3)),
        atomic_numbers=np.array(stored["atomic_numbers"]),
    )
