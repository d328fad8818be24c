"""What crystals are judged against: a hull, the known structures, and the way from a potential's energy to the hull."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
from druse_crystal.composition import composition
from druse_crystal.crystal import Crystal

from druse_energetics.built_reference import BuiltReference, element_amounts, is_built, lowest_elements
from druse_energetics.calibration import CALIBRATED_AGAINST, Calibration, load_calibration
from druse_energetics.correction_scheme import (
    FORMATION,
    LEVEL_OF_POTENTIAL,
    SchemeCorrections,
    scheme_of,
    scheme_to_apply,
)
from druse_energetics.corrections import Corrections, Residual, load_corrections
from druse_energetics.digests import digests
from druse_energetics.hull import ConvexHull
from druse_energetics.unbuilt_reference import build_unbuilt

FORMATION_ENERGY = "formation_energy_per_atom"


@dataclass(frozen=True, kw_only=True, eq=False)
class Reference:
    """Known materials, and how to place a crystal among them.

    Attributes:
        name: where it comes from, for reports.
        potential: the potential whose total energies it converts.
        hull: formation energies of the known phases.
        corrections: from total energies to the scale of the hull.
        crystals: known structures, for novelty; may be empty.
        ids: a name for each of them.
        calibrations: error of the judged hull distance against DFT, by what it was measured on; empty if it was never
            measured for this pair of hull and potential.
        standard_form: the known structures are primitive and Niggli-reduced already, as datasets of Druse are.
        scheme: of the corrections in the hull's energies, if it comes from a built reference.
        files: SHA-256 of the files that it was read from, by their names.
        remark: a sentence on what was taken for granted and what is off the hull, for whoever gave a file that was not
            built; empty otherwise.
    """

    name: str
    potential: str
    hull: ConvexHull
    corrections: Corrections | SchemeCorrections
    crystals: Sequence[Crystal]
    ids: Sequence[str]
    calibrations: Mapping[str, Calibration] = field(default_factory=dict)
    standard_form: bool = False
    scheme: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    remark: str = ""

    def refuse_other_judge(self, judge: str | None) -> None:
        """Refuse energies for which this reference was not loaded, where its scheme of corrections is known.

        Args:
            judge: the potential whose energies are to be judged; None: that of the reference.

        Raises:
            ValueError: if it is another one: nothing says that its energies hold the same corrections.
        """
        if self.scheme is not None and judge not in (None, self.potential):
            raise ValueError(
                f"the reference {self.name} was loaded for energies of {self.potential} and not of {judge}, and "
                f"corrected and uncorrected energies do not mix: load it with potential={judge!r}"
            )

    @property
    def residual(self) -> Residual:
        """Error of the conversion on known crystals: mean, median, 90th percentile in eV/atom, and their number."""
        return self.corrections.residual

    def formation_energy(self, crystal: Crystal, total_energy: float) -> float:
        """Formation energy in eV/atom on the scale of the hull.

        Args:
            crystal: the crystal, relaxed with the reference's potential.
            total_energy: eV per cell from that potential.

        Raises:
            ValueError: if an element has no reference energy; the sentence names it.
        """
        return self.corrections.formation_energy(crystal, total_energy)

    def energy_above_hull(self, crystal: Crystal, total_energy: float) -> float:
        """Judged energy above the hull in eV/atom; negative below it. Arguments and errors as ``formation_energy``."""
        formation_energy = self.formation_energy(crystal, total_energy)
        return self.hull.energy_above_hull(composition(crystal), formation_energy)

    def calibrated_probability(
        self, energy_above_hull: float, threshold: float = 0.1, *, against: str = "generated"
    ) -> float:
        """Probability that DFT would put a crystal judged at ``energy_above_hull`` at or below ``threshold`` (eV/atom).

        Args:
            energy_above_hull: as judged, in eV/atom.
            threshold: eV/atom.
            against: ``generated``: crystals of other generators (cautious), or ``wbm``: substituted crystals computed
                exactly as the hull was (hopeful); the README says what is known of either.

        Returns:
            A probability, or NaN if the judge was never calibrated on this reference.
        """
        calibration = self.calibrations.get(against)
        return float("nan") if calibration is None else float(calibration.probability(energy_above_hull, threshold))


def load_reference(
    name: str | os.PathLike = "embedded", *, potential: str = "sevennet-0", energies: str | None = None
) -> Reference:
    """Load a reference.

    Args:
        name: ``embedded``: the Materials Project's DFT hull by composition (34,082 vertices out of 85,014 ground
            states, corrections of 2018-19). ``embedded-<potential>``, e.g. ``embedded-sevennet-0``: a hull of that
            potential's own energies of the embedded structures, on the same scale; its errors cancel in part, but it
            knows only those compositions and so is kinder. Or a path: what ``druse reference build`` wrote, or
            structures with energies (Parquet dataset, JSON of pymatgen entries, extxyz, CSV), of which a reference is
            built in memory.
        potential: the potential that will judge.
        energies: scheme of the corrections in its energies (``none`` or ``MP2020``), for a potential of which that is
            not known.

    A built reference says what its energies are; the potential's are corrected by its scheme if they hold no correction
    yet. Structures that were not built have ``formation_energy_per_atom``, which is taken to be on the Materials
    Project's scale of 2018 (``MP2018``, that of the embedded hull), to which the potential's energies are brought by
    the shipped corrections; or total energies and the ``run_type`` of a PBE calculation (GGA or GGA+U), which are
    corrected by MP2020. Total energies that do not say what they are are refused. What has no place on the hull costs
    only itself; ``Reference.remark`` counts it.

    Raises:
        ValueError: for a name that is neither known nor a file, a file without energies or without a word on whose they
            are, or a reference of another potential or of a scheme that does not mix with the potential's energies.
    """
    text = str(name)
    if text == "embedded":
        return _embedded(potential)
    if text.startswith("embedded-"):
        return _own_hull(text, potential)
    path = Path(name)
    if not path.exists():
        raise ValueError(
            f"there is no reference {text!r}: it is neither 'embedded', 'embedded-{potential}' nor a file that exists"
        )
    if path.suffix == ".gz":
        raise ValueError(
            f"{path} is packed: build a reference of it first, with `druse reference build {path} --out mine.parquet`"
        )
    if is_built(path):
        return _of_built(BuiltReference.read(path), path, potential, energies)
    built, remark = build_unbuilt(path, potential)
    return _of_built(built, path, potential, energies, remark=remark)


def load_hull() -> ConvexHull:
    """The embedded DFT hull by composition."""
    import pyarrow.parquet as pq

    with as_file(files("druse_energetics") / "data" / "hull.parquet") as path:
        table = pq.read_table(path)
    return ConvexHull(table["formula"].to_pylist(), table[FORMATION_ENERGY].to_numpy())


def load_known_formulas() -> frozenset[str]:
    """Reduced formulas of all 85,014 ground states from which the embedded hull was taken."""
    import pyarrow.parquet as pq

    with as_file(files("druse_energetics") / "data" / "known_formulas.parquet") as path:
        return frozenset(pq.read_table(path)["formula"].to_pylist())


def load_embedded_energies(potential: str) -> dict[str, float]:
    """Total energies of the embedded structures with a potential: id -> eV per cell.

    Raises:
        ValueError: if they are not shipped for this potential.
    """
    import pyarrow.parquet as pq

    resource = files("druse_energetics") / "data" / f"energies-{potential}.parquet"
    if not resource.is_file():
        raise ValueError(f"there are no energies of the embedded structures for the potential {potential!r}")
    with as_file(resource) as path:
        table = pq.read_table(path)
    return dict(zip(table["id"].to_pylist(), table["energy"].to_numpy().astype(float).tolist(), strict=True))


def _embedded(potential: str) -> Reference:
    from druse_crystal.dataset import load_embedded

    dataset = load_embedded()
    corrections = load_corrections(potential)
    calibrations = {c.against: c for a in CALIBRATED_AGAINST if (c := load_calibration(potential, a)) is not None}
    return Reference(
        name="embedded",
        potential=potential,
        hull=load_hull(),
        corrections=corrections,
        crystals=dataset.crystals,
        ids=dataset.ids.tolist(),
        calibrations=calibrations,
        standard_form=True,
        files=digests(
            "embedded.parquet",
            "hull.parquet",
            "known_formulas.parquet",
            f"corrections-{potential}.json",
            *(f"calibration-{potential}-{against}.json" for against in calibrations),
        ),
    )


def _own_hull(name: str, potential: str) -> Reference:
    from druse_crystal.dataset import load_embedded

    if name != f"embedded-{potential}":
        raise ValueError(
            f"the reference {name!r} holds energies of another potential than {potential!r}: "
            f"use 'embedded-{potential}', or relax with {name.removeprefix('embedded-')!r}"
        )
    energies = load_embedded_energies(potential)
    corrections = load_corrections(potential)
    dataset = load_embedded()
    compositions, formation, ids = [], [], []
    for i, crystal in zip(dataset.ids.tolist(), dataset.crystals, strict=True):
        if i in energies:
            compositions.append(composition(crystal))
            formation.append(corrections.formation_energy(crystal, energies[i]))
            ids.append(i)
    elements = sorted({element.symbol for c in compositions for element in c})
    return Reference(
        name=name,
        potential=potential,
        hull=ConvexHull([*compositions, *elements], [*formation, *[0.0] * len(elements)], [*ids, *elements]),
        corrections=corrections,
        crystals=dataset.crystals,
        ids=dataset.ids.tolist(),
        standard_form=True,
        files=digests(
            "embedded.parquet",
            "known_formulas.parquet",
            f"corrections-{potential}.json",
            f"energies-{potential}.parquet",
        ),
    )


def _of_built(
    built: BuiltReference, path: Path, potential: str, energies: str | None, *, remark: str = ""
) -> Reference:
    said = built.description
    _refuse_other_origin(path, said.potential, said.level_of_theory, potential)
    values = built.dataset.labels[said.energy]
    crystals, ids = built.dataset.crystals, built.dataset.ids.tolist()
    amounts = element_amounts(crystals)
    if said.scheme == FORMATION:
        corrections = load_corrections(potential)
        zeros = dict.fromkeys({symbol for c in amounts for symbol in c}, 0.0)
    else:
        held = scheme_of(potential) if energies is None else energies
        applied = scheme_to_apply(said.scheme, held, reference=path.name, potential=potential)
        zeros = lowest_elements(amounts, values)
        corrections = SchemeCorrections(potential=potential, scheme=applied, elements=zeros)
    placed = [i for i in np.flatnonzero(np.isfinite(values)).tolist() if amounts[i].keys() <= zeros.keys()]
    if not placed:
        raise ValueError(
            f"{path} has no energy of a pure element, so nothing can be placed on its hull: merge it with a reference "
            "that has one of each"
        )
    phases: list[Mapping[str, float]] = [amounts[i] for i in placed]
    names = [ids[i] for i in placed]
    formation = [
        float(values[i]) - sum(n * zeros[symbol] for symbol, n in amounts[i].items()) / sum(amounts[i].values())
        for i in placed
    ]
    if said.scheme == FORMATION:
        phases += [{symbol: 1.0} for symbol in sorted(zeros)]
        names += sorted(zeros)
        formation += [0.0] * len(zeros)
    hull = ConvexHull(phases, formation, names)
    if said.embedded_hull:
        hull = hull.joined(load_hull())
    return Reference(
        name=f"{path.name} ({said.words})",
        potential=potential,
        hull=hull,
        corrections=corrections,
        crystals=crystals,
        ids=ids,
        scheme=said.scheme,
        remark=remark,
        files=digests(
            path,
            *([f"corrections-{potential}.json"] if said.scheme == FORMATION else []),
            *(["hull.parquet"] if said.embedded_hull else []),
        ),
    )


def _refuse_other_origin(path: Path, origin: str, level: str, potential: str) -> None:
    if origin and origin != potential:
        raise ValueError(
            f"{path} holds energies of {origin}, which do not mix with those of {potential}: relax with "
            f"--potential {origin}, or use a reference of DFT"
        )
    imitated = LEVEL_OF_POTENTIAL.get(potential, level)
    if not origin and level != imitated:
        raise ValueError(
            f"{path} holds energies of {level}, {potential} imitates {imitated}, and the two do not mix: use a "
            f"reference of {imitated}"
        )
