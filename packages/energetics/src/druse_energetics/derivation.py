"""The recipes behind the coefficients in ``data``: run again when a potential, the embedded data or the hull changes.

    python -m druse_energetics.derivation corrections sevennet-0
    python -m druse_energetics.derivation corrections sevennet-0 --from-energies
    python -m druse_energetics.derivation calibration sevennet-0 generated.parquet --label dft_decomposition_energy \\
        --group generator --against generated --relaxations relaxed.jsonl
    python -m druse_energetics.derivation band-gap sevennet-0

The first computes the energy of every embedded structure (a single point at the DFT geometry: minutes on one core),
fits the corrections to those that are not of the split ``test`` and writes ``corrections-<potential>.json`` and
``energies-<potential>.parquet``. The second fits again to the shipped energies. The third
relaxes structures whose DFT energy above hull is known, judges them, and writes
``calibration-<potential>-<against>.json``. The last reads features of the embedded structures that have a band gap,
trains on those of the split ``train``, and writes ``band-gap-sevennet-0.safetensors`` (two minutes on one core; with
``OMP_NUM_THREADS=1`` the same bytes on the same machine).
"""

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
from druse_crystal.crystal import Crystal
from druse_crystal.dataset import CrystalDataset, load_embedded
from druse_crystal.files import replacing
from druse_crystal.journal import Journal
from druse_crystal.manifest import file_hash
from jaxtyping import Float64

from druse_energetics.band_gap import StoredReadout, atom_features, fit_readout, save_readout
from druse_energetics.calibration import Calibration, fit_calibration
from druse_energetics.corrections import Corrections, fit_corrections, load_corrections
from druse_energetics.labelled_structures import LabelledStructures, judge_rows, relax_rows
from druse_energetics.potential import POTENTIAL_NAMES, Potential, load_potential, unknown_elements

DATA = Path(__file__).parent / "data"
CRYSTALS_PER_STEP = 200
PACKAGES = {"sevennet-0": "sevenn", "sevennet-l3i5": "sevenn", "chgnet": "chgnet"}


def derive_corrections(potential: Potential, folder: Path = DATA) -> Corrections:
    """Energies of the embedded structures, and the corrections fitted to them; both are written into ``folder``."""
    dataset = load_embedded()
    energies = _energies(potential, dataset.crystals)
    _write_energies(folder / f"energies-{potential.name}.parquet", dataset.ids.tolist(), energies)
    package = PACKAGES[potential.name]
    return _fit(potential.name, dataset, energies, package=f"{package} {version(package)}", folder=folder)


def refit_corrections(name: str, folder: Path = DATA) -> Corrections:
    """The corrections fitted to the shipped energies of the embedded structures; written into ``folder``.

    Raises:
        ValueError: if no energies are shipped for the potential ``name``.
    """
    from druse_energetics.reference import load_embedded_energies

    dataset, shipped = load_embedded(), load_embedded_energies(name)
    energies = np.array([shipped.get(i, np.nan) for i in dataset.ids.tolist()])
    return _fit(name, dataset, energies, package=str(load_corrections(name).provenance["package"]), folder=folder)


def _fit(
    name: str, dataset: CrystalDataset, energies: Float64[np.ndarray, " b"], *, package: str, folder: Path
) -> Corrections:
    """Corrections from energies of the embedded structures; the split ``test`` is held out."""
    corrections = fit_corrections(
        dataset.crystals,
        energies,
        dataset.labels["formation_energy_per_atom"],
        potential=name,
        energies_above_hull=dataset.labels["energy_above_hull"],
        held_out=dataset.split == "test",
        provenance={
            "data": "embedded structures of the Materials Project, formation energies of 2018-19",
            "held_out": "split test",
            "energies": "single points at the DFT geometry",
            "package": package,
            "recipe": f"python -m druse_energetics.derivation corrections {name}",
        },
    )
    corrections.write(folder / f"corrections-{name}.json")
    return corrections


def derive_calibration(
    name: str,
    table: Path,
    *,
    label: str,
    against: str,
    group: str | None = None,
    where: str | None = None,
    relaxations: Path,
    limit: int | None = None,
    seed: int = 0,
    folder: Path = DATA,
) -> Calibration:
    """Relax and judge structures with known DFT energy above hull, and fit the error; writes into ``folder``.

    Args:
        name: the potential.
        table: Parquet with the columns ``lattice`` (9 numbers) or ``cell_abc_angles`` (6, Å and degrees),
            ``frac_coords``, ``atomic_numbers`` and the label.
        label: column with the DFT energy above (or decomposition energy against) the hull in eV/atom.
        against: a word for the data.
        group: column by which cross-validation leaves out, e.g. the generator; five arbitrary parts if left out.
        where: ``column=value``, the rows to take; all if left out.
        relaxations: journal of what is relaxed already; grows, so that a stopped run continues.
        limit: relax so many at most, in random order.
        seed: of that order.
        folder: where the result goes.

    Raises:
        ValueError: for a journal of other settings, or if too few structures are left.
    """
    from druse_energetics.reference import load_reference

    structures = LabelledStructures.read(table)
    rows = structures.rows(where)
    order = np.random.default_rng(seed).permutation(rows)[: limit or len(rows)].tolist()
    journal = Journal(relaxations, "relaxations", {"potential": name, "table": structures.digest})
    done = relax_rows(name, structures.crystals(order), journal)
    above = judge_rows(done, load_reference("embedded", potential=name))
    judged = np.array([above.get(row, np.nan) for row in order])
    statuses = [done[row].status for row in order if row in done]
    calibration = fit_calibration(
        judged,
        np.array([structures.column(label)[row] for row in order], dtype=np.float64),
        [structures.column(group)[row] if group else f"part {k % 5}" for k, row in enumerate(order)],
        potential=name,
        against=against,
        provenance={
            "table": table.name,
            "sha256": structures.digest,
            "label": label,
            "where": where,
            "rows": len(rows),
            "limit": limit,
            "seed": seed,
            "statuses": {status: statuses.count(status) for status in sorted(set(statuses))},
            "reference": "embedded",
            "corrections": file_hash(DATA / f"corrections-{name}.json"),
            "relaxation": "FIRE, Frechet cell filter, fmax 0.05 eV/Å, at most 500 steps",
            "package": f"{PACKAGES[name]} {version(PACKAGES[name])}",
        },
    )
    calibration.write(folder / f"calibration-{name}-{against}.json")
    return calibration


def derive_band_gap(potential: Potential, folder: Path = DATA) -> StoredReadout:
    """The band-gap readout trained on the embedded structures of the split ``train``; written into ``folder``.

    Its provenance has the error on the splits ``val``, on which its settings were chosen, and ``test``.

    Raises:
        ValueError: for a potential without features.
    """
    dataset = load_embedded()
    labels = dataset.labels["dft_band_gap"]
    labelled = np.flatnonzero(np.isfinite(labels)).tolist()
    found = dict(zip(labelled, _features(potential, [dataset.crystals[i] for i in labelled]), strict=True))
    of_split = {
        name: [(x, labels[i]) for i, x in found.items() if x is not None and dataset.split[i] == name]
        for name in ("train", "val", "test")
    }
    readout = fit_readout([x for x, _ in of_split["train"]], np.array([gap for _, gap in of_split["train"]]))
    for layers in (readout.of_atoms, readout.of_crystals):
        layers.half().float()  # as they are stored, and measured below
    errors = {}
    for name, pairs in of_split.items():
        off = np.abs(readout.gaps([x for x, _ in pairs]) - np.array([gap for _, gap in pairs]))
        errors[name] = {
            "n": len(pairs),
            "mean_absolute": round(float(off.mean()), 4),
            "median": round(float(np.median(off)), 4),
        }
    stored = StoredReadout(
        readout=readout,
        potential=str(getattr(potential, "digest", "")),
        provenance={
            "data": "embedded structures of the Materials Project, PBE band gaps of 2018",
            "licence": "CC-BY-4.0 (data of the Materials Project)",
            "trained_on": "split train",
            "errors": errors,
            "package": f"{PACKAGES[potential.name]} {version(PACKAGES[potential.name])}",
            "recipe": f"python -m druse_energetics.derivation band-gap {potential.name}",
        },
    )
    save_readout(folder / f"band-gap-{potential.name}.safetensors", stored)
    return stored


def _features(potential: Potential, crystals: Sequence[Crystal]) -> list[np.ndarray | None]:
    features: list[np.ndarray | None] = [None] * len(crystals)
    known = [i for i, crystal in enumerate(crystals) if not unknown_elements(potential, crystal)]
    for start in range(0, len(known), CRYSTALS_PER_STEP):
        part = known[start : start + CRYSTALS_PER_STEP]
        for i, of_atoms in zip(part, atom_features(potential, [crystals[i] for i in part]), strict=True):
            features[i] = of_atoms
        print(f"{min(start + CRYSTALS_PER_STEP, len(known))} of {len(known)}", file=sys.stderr)
    return features


def _energies(potential: Potential, crystals: Sequence[Crystal]) -> Float64[np.ndarray, " b"]:
    energies = np.full(len(crystals), np.nan)
    known = [i for i, crystal in enumerate(crystals) if not unknown_elements(potential, crystal)]
    for start in range(0, len(known), CRYSTALS_PER_STEP):
        part = known[start : start + CRYSTALS_PER_STEP]
        try:
            energies[part] = potential.energies([crystals[i] for i in part])
        except Exception:  # one crystal that a graph builder refuses (an isolated atom): find it
            for i in part:
                try:
                    energies[i] = potential.energies([crystals[i]])[0]
                except Exception as error:
                    print(f"{potential.name} left out structure {i}: {error}", file=sys.stderr)
        print(f"{min(start + CRYSTALS_PER_STEP, len(known))} of {len(known)}", file=sys.stderr)
    return energies


def _write_energies(path: Path, ids: list[str], energies: Float64[np.ndarray, " b"]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    known = np.flatnonzero(np.isfinite(energies))
    table = pa.table(
        {"id": [ids[i] for i in known], "energy": pa.array(energies[known].astype(np.float32), pa.float32())}
    )
    with replacing(path) as temporary:
        pq.write_table(
            table,
            temporary,
            compression="zstd",
            compression_level=19,
            use_dictionary=False,
            column_encoding={"id": "DELTA_BYTE_ARRAY", "energy": "BYTE_STREAM_SPLIT"},
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of the recipes."""
    parser = argparse.ArgumentParser(prog="python -m druse_energetics.derivation", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    corrections = commands.add_parser("corrections", help="fit the corrections of a potential")
    calibration = commands.add_parser("calibration", help="measure a judge against DFT")
    band_gap = commands.add_parser("band-gap", help="train the readout of band gaps")
    for command in (corrections, calibration, band_gap):
        command.add_argument("potential", choices=("sevennet-0",) if command is band_gap else POTENTIAL_NAMES)
        command.add_argument("--out", type=Path, default=DATA, help="folder for the result")
    corrections.add_argument("--from-energies", action="store_true", help="fit to the shipped energies; compute none")
    calibration.add_argument("table", type=Path)
    calibration.add_argument("--label", required=True)
    calibration.add_argument("--against", required=True)
    calibration.add_argument("--group")
    calibration.add_argument("--where", metavar="COLUMN=VALUE")
    calibration.add_argument("--relaxations", type=Path, required=True)
    calibration.add_argument("--limit", type=int)
    given = parser.parse_args(arguments)
    if given.command == "corrections":
        if given.from_energies:
            fitted = refit_corrections(given.potential, given.out)
        else:
            fitted = derive_corrections(load_potential(given.potential), given.out)
        print(fitted.residual)
        print(fitted.residual_held_out)
        return
    if given.command == "band-gap":
        print(derive_band_gap(load_potential(given.potential), given.out).provenance["errors"])
        return
    result = derive_calibration(
        given.potential,
        given.table,
        label=given.label,
        against=given.against,
        group=given.group,
        where=given.where,
        relaxations=given.relaxations,
        limit=given.limit,
        folder=given.out,
    )
    print(result.raw)
    print(result.calibrated)


if __name__ == "__main__":
    main()
