"""Facts about a set of crystals, computed once: a row for every crystal that was asked for, a column for every fact."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from druse_crystal.composition import chemical_system, reduced_formula
from druse_crystal.crystal import Crystal
from druse_crystal.io import ReadResult
from druse_crystal.neighbors import min_distance
from druse_crystal.refusal import refusal_status
from druse_crystal.symmetry import space_group
from druse_energetics.calibration import Calibration
from druse_energetics.phonons import DynamicalStability
from druse_energetics.reference import Reference, load_known_formulas
from druse_energetics.relaxation import Relaxation, Relaxer
from druse_energetics.weights import weights_digests

from druse_evaluation.matching import Matcher, OrderDisorderMatcher, OrderedMatcher, displacement
from druse_evaluation.novelty import KnownStructures, first_occurrences
from druse_evaluation.novelty_levels import NoveltyLevels
from druse_evaluation.opinion import Opinion, opinion_facts
from druse_evaluation.plausibility import plausibility
from druse_evaluation.table import CALIBRATED_BOUNDS, CALIBRATED_ON, Assessment
from druse_evaluation.validity import composition_valid, structure_valid

METASTABLE = CALIBRATED_BOUNDS["metastable"]
"""eV/atom above the hull; MatterGen's bound for "stable", called metastable here."""
STABLE = CALIBRATED_BOUNDS["stable"]
"""eV/atom; on the hull or below it."""
DOUBTFUL = -0.3
"""eV/atom; deeper below the hull, an error of the judge is likelier than a discovery: of 10,664 substituted compounds
(WBM) DFT places 2,153 below the hull and 37 so deep."""
JUDGED = ("converged", "not_converged")
"""Relaxations with these endings are judged; no other leaves a crystal that means anything, whatever energy it had."""
SYMPREC = 0.1
"""Å; tolerance of reported space groups."""

type OnProgress = Callable[[str, int, int], None]


def assess(
    crystals: Sequence[Crystal | ReadResult | None],
    *,
    reference: Reference,
    relaxer: Relaxer | None = None,
    relaxations: Sequence[Relaxation | None] | None = None,
    judge: str | None = None,
    matcher: Matcher | None = None,
    known: KnownStructures | None = None,
    training: KnownStructures | None = None,
    opinions: Mapping[str, Opinion] | None = None,
    dynamics: Sequence[DynamicalStability] | None = None,
    on_progress: OnProgress | None = None,
) -> Assessment:
    """Compute every fact about every crystal that was asked for.

    A crystal that is missing, cannot be read, has sites that are shared or partly empty, does not relax or has an
    element that the reference lacks keeps its row: ``status`` and ``message`` say where and why it dropped out, and
    facts that could not be established are null.

    Energies, hull distances, space groups, uniqueness and novelty are those of the relaxed crystal, validity is that of
    the crystal as given. Chemistry (``plausibility``) is that of the relaxed crystal, or of the crystal as given where
    there is none. A crystal whose relaxation stopped before convergence is judged with the energy it had
    reached, an upper bound, and has no calibrated facts: the calibrations were measured on converged relaxations.

    Args:
        crystals: as generated or read; None or a ``ReadResult`` with an error for one that does not exist.
        reference: hull, known crystals and error of the judge.
        relaxer: relaxes the crystals, unless ``relaxations`` are given.
        relaxations: results of a relaxation done before, one for each of ``crystals`` (None where there was none).
        judge: name of what gave the energies; the relaxer's name by default.
        matcher: decides which crystals are the same; MatterGen's ordered matcher by default.
        known: known crystals prepared before, instead of the reference's (saves their preparation on repeated calls).
        training: crystals that the generator has learnt from, for novelty against them.
        opinions: further judges of the relaxed crystals by the names of their potentials, the first judge among them.
        dynamics: what the harmonic modes of each of the relaxed crystals say, if they were looked at.
        on_progress: called with the stage, the number of crystals done and the number in all.

    Returns:
        The table of facts.

    Raises:
        ValueError: if neither or both of ``relaxer`` and ``relaxations`` are given, their number is wrong, or the
            reference was built with another scheme of corrections than the energies have.
    """
    candidates = [_candidate(i, crystal) for i, crystal in enumerate(crystals)]
    progress = on_progress or (lambda stage, done, total: None)
    if relaxer is not None and relaxations is None:
        relaxations = _relax(candidates, relaxer, progress)
        judge = judge or relaxer.name
    elif relaxer is not None or relaxations is None:
        raise ValueError("assess needs either a relaxer or finished relaxations")
    reference.refuse_other_judge(judge)
    if len(relaxations) != len(candidates):
        raise ValueError(f"{len(relaxations)} relaxations for {len(candidates)} crystals")
    if matcher is None:
        matcher = OrderedMatcher() if known is None else known.matcher
    if known is None:
        known = KnownStructures(reference.crystals, reference.ids, matcher=matcher)

    formulas = _further_known_formulas(reference)
    total = len(candidates)
    rows = []
    for i, (candidate, relaxation) in enumerate(zip(candidates, relaxations, strict=True)):
        rows.append(_single_facts(candidate, relaxation, reference))
        progress("energies and symmetry", i + 1, total)
    if dynamics is not None:
        if len(dynamics) != total:
            raise ValueError(f"modes of {len(dynamics)} crystals were looked at, and {total} are given")
        for row, modes in zip(rows, dynamics, strict=True):
            row["lowest_frequency"] = modes.lowest_frequency
            row["dynamically_stable"] = modes.stable
            row["phonons_message"] = modes.reason
    opinions = opinions or {}
    for i, row in enumerate(rows):
        if opinions and "energy_above_hull" in row:
            row.update(opinion_facts(i, opinions, bound=METASTABLE))
    calibrations = {name: reference.calibrations[name] for name in CALIBRATED_ON if name in reference.calibrations}
    _add_calibrated(rows, calibrations)
    relaxed: list[Crystal | None] = [row.get("relaxed") for row in rows]
    firsts = first_occurrences(relaxed, matcher=matcher, on_crystal=lambda n: progress("uniqueness", n, total))
    levels = NoveltyLevels(reference, training=training) if len(known) else None
    orderings = first_occurrences(relaxed, matcher=OrderDisorderMatcher()) if levels else [None] * total
    for i, row in enumerate(rows):
        row.update(_chemistry(row))
        progress("chemistry", i + 1, total)
    for i, (row, crystal, first) in enumerate(zip(rows, relaxed, firsts, strict=True)):
        row.update(_set_facts(i, row, crystal, first, known, formulas, candidates))
        if levels and crystal is not None:
            facts = levels.facts(crystal, novel=row["novel"], match_id=row["match_id"])
            said = [row["message"], facts.get("message", "")]
            row.update(facts | {"message": "; ".join(sentence for sentence in said if sentence)})
            row["unique_order_disorder"] = orderings[i] == i
        progress("novelty", i + 1, total)
    return Assessment.from_rows(
        rows,
        metadata={
            "reference": reference.name,
            "reference_files": _reference_files(reference, opinions),
            "n_known_structures": len(known),
            "n_training_structures": 0 if training is None else len(training),
            "judge": judge,
            "judges": list(opinions),
            "weights": weights_digests([judge, *opinions]),
            "matcher": matcher.name,
            "symprec": SYMPREC,
            "residual": {name: _finite(value) for name, value in asdict(reference.residual).items()},
            "calibrations": {name: _calibration_facts(calibration) for name, calibration in calibrations.items()},
        },
    )


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    source: str
    crystal: Crystal | None
    status: str = "judged"
    message: str = ""
    info: dict[str, Any] = field(default_factory=dict)


def _candidate(position: int, given: Crystal | ReadResult | None) -> _Candidate:
    if isinstance(given, Crystal):
        return _Candidate(source=str(position), crystal=given)
    if given is None:
        return _Candidate(source=str(position), crystal=None, status="missing", message="no crystal was made")
    if given.crystal is None:
        if given.error is None:
            return _Candidate(source=given.source, crystal=None, status="missing", message="no crystal was made")
        status = refusal_status(given.error)
        return _Candidate(source=given.source, crystal=None, status=status, message=given.error)
    return _Candidate(source=given.source, crystal=given.crystal, info=given.info)


def _relax(candidates: Sequence[_Candidate], relaxer: Relaxer, progress: OnProgress) -> list[Relaxation | None]:
    present = {i: c.crystal for i, c in enumerate(candidates) if c.crystal is not None}
    done = 0

    def on_result(_index: int, _relaxation: Relaxation) -> None:
        nonlocal done
        done += 1
        progress("relaxation", done, len(present))

    results: list[Relaxation | None] = [None] * len(candidates)
    relaxed = relaxer(list(present.values()), on_result=on_result) if present else []
    for i, relaxation in zip(present, relaxed, strict=True):
        results[i] = relaxation
    return results


def _single_facts(candidate: _Candidate, relaxation: Relaxation | None, reference: Reference) -> dict[str, Any]:
    """Facts about one crystal that need no other one."""
    row: dict[str, Any] = {"source": candidate.source, "status": candidate.status, "message": candidate.message}
    crystal = candidate.crystal
    if crystal is None:
        return row
    symmetry = space_group(crystal, symprec=SYMPREC)
    row |= {
        "formula": reduced_formula(crystal),
        "chemical_system": chemical_system(crystal),
        "num_elements": len(set(crystal.atomic_numbers.tolist())),
        "num_atoms": crystal.num_atoms,
        "initial": crystal,
        "initial_volume": crystal.volume,
        "initial_space_group_number": symmetry.number,
        "initial_space_group_symbol": symmetry.symbol,
        "min_distance": min_distance(crystal),
        "structure_valid": structure_valid(crystal),
        "composition_valid": composition_valid(crystal),
    }
    if relaxation is None:
        return row | {"status": "not_relaxed", "message": "was not relaxed"}
    row |= {
        "relaxation_status": relaxation.status,
        "n_steps": relaxation.n_steps,
        "max_force": relaxation.max_force,
        "rattled_energy_drop": relaxation.rattled_energy_drop,
        "initial_energy": relaxation.initial_energy,
        "converged": relaxation.status == "converged",
    }
    relaxed = relaxation.crystal
    if relaxation.status not in JUDGED or relaxed is None or not math.isfinite(relaxation.energy):
        return row | {"status": relaxation.status, "message": relaxation.message}
    if relaxation.status != "converged":
        row |= {"status": relaxation.status, "message": _why_not_converged(relaxation)}
    symmetry = space_group(relaxed, symprec=SYMPREC)
    moved = displacement(relaxed, crystal)
    row |= {
        "relaxed": relaxed,
        "volume": relaxed.volume,
        "volume_per_atom": relaxed.volume / relaxed.num_atoms,
        "space_group_number": symmetry.number,
        "space_group_symbol": symmetry.symbol,
        "crystal_system": symmetry.crystal_system,
        "energy": relaxation.energy,
        "energy_per_atom": relaxation.energy / relaxed.num_atoms,
        "relaxation_energy_per_atom": (relaxation.energy - relaxation.initial_energy) / relaxed.num_atoms,
        "rmsd": moved.rmsd,
        "rmsd_matched": moved.matched,
    }
    try:
        above = reference.energy_above_hull(relaxed, relaxation.energy)
        row |= {
            "formation_energy_per_atom": reference.formation_energy(relaxed, relaxation.energy),
            "energy_above_hull": above,
            "metastable": DOUBTFUL <= above <= METASTABLE,
            "stable": DOUBTFUL <= above <= STABLE,
        }
    except ValueError as error:
        return row | {"status": "no_reference", "message": str(error)}
    if above < DOUBTFUL:
        message = f"judged {-above:.2f} eV/atom below the hull: an error of the judge is likelier than a discovery"
        return row | {"status": "doubtful", "message": message}
    return row


def _why_not_converged(relaxation: Relaxation) -> str:
    """In one sentence; a crystal without a step was not relaxed, and nobody meant it to be."""
    if relaxation.n_steps > 0 or not math.isfinite(relaxation.max_force):
        return relaxation.message
    return f"judged as it is (--no-relax), a force of {relaxation.max_force:.2f} eV/Å is left"


def _chemistry(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a chemist would ask about the crystal, the relaxed one if there is one."""
    relaxed = row.get("relaxed")
    crystal = row.get("initial") if relaxed is None else relaxed
    if crystal is None:
        return {}
    found = plausibility(crystal)
    facts: dict[str, Any] = {
        "charge_balance": found.charge_balance,
        "coordination": found.coordination,
        "dimensionality": found.dimensionality,
        "failed_tests": list(found.failed),
        "untested": list(found.untested),
        "element_flags": list(found.flags),
    }
    if found.elements is not None:
        facts |= {
            "crustal_abundance": found.elements.abundance,
            "hhi_production": found.elements.hhi_production,
            "hhi_reserve": found.elements.hhi_reserve,
            "price_per_kg": found.elements.price,
        }
    return facts


def _add_calibrated(rows: Sequence[dict[str, Any]], calibrations: Mapping[str, Calibration]) -> None:
    """What DFT is expected to find, by each calibration, for converged rows whose distance may be believed."""
    judged = [row for row in rows if "energy_above_hull" in row and row["status"] != "doubtful" and row["converged"]]
    if not judged:
        return
    above = np.array([row["energy_above_hull"] for row in judged])
    for name, calibration in calibrations.items():
        expected = np.asarray(calibration.predicted_dft(above))
        chances = {
            metric: np.asarray(calibration.probability(above, bound)) for metric, bound in CALIBRATED_BOUNDS.items()
        }
        for i, row in enumerate(judged):
            row[f"energy_above_hull_calibrated_{name}"] = expected[i]
            row.update({f"probability_{metric}_{name}": chance[i] for metric, chance in chances.items()})


def _set_facts(
    position: int,
    row: dict[str, Any],
    relaxed: Crystal | None,
    first: int | None,
    known: KnownStructures,
    formulas: frozenset[str],
    candidates: Sequence[_Candidate],
) -> dict[str, Any]:
    """Facts about one crystal among the others and among the known ones."""
    if relaxed is None or first is None:
        return {}
    prepared = known.matcher.prepare(relaxed)
    ordered = OrderedMatcher()  # neighbours that changed places are another structure here
    initial = candidates[position].crystal
    facts: dict[str, Any] = {
        "matches_relaxed": initial is not None and ordered.fit(ordered.prepare(initial), ordered.prepare(relaxed)),
        "unique": first == position,
        "duplicate_of": None if first == position else candidates[first].source,
    }
    if len(known):
        match = known.first_match(prepared)
        facts |= {
            "known_formula": known.has_formula(relaxed) or row["formula"] in formulas,
            "known_chemical_system": known.has_chemical_system(relaxed),
            "novel": match is None,
            "match_id": None if match is None else str(match),
        }
        new = facts["unique"] and facts["novel"]
        if row.get("energy_above_hull") is not None:
            facts |= {"sun_metastable": new and row["metastable"], "sun_stable": new and row["stable"]}
    return facts


def _reference_files(reference: Reference, opinions: Mapping[str, Opinion]) -> dict[str, str]:
    """SHA-256 of the files behind the judge's reference and those of further judges, by their names."""
    others = [opinion.reference.files for opinion in opinions.values()]
    return {name: digest for of in (*others, reference.files) for name, digest in of.items()}


def _further_known_formulas(reference: Reference) -> frozenset[str]:
    """Formulas of materials whose structures the embedded reference does not hold: all ground states of its hull."""
    return load_known_formulas() if reference.name in ("embedded", f"embedded-{reference.potential}") else frozenset()


def _calibration_facts(calibration: Calibration) -> dict[str, Any]:
    """Error of the judge against DFT, before and after calibration; eV/atom."""
    raw, calibrated = calibration.raw, calibration.calibrated
    return {
        "n": raw.n,
        "bias": _finite(raw.bias),
        "mean_absolute_error": _finite(raw.mae),
        "calibrated_mean_absolute_error": _finite(calibrated.mae),
        "spread": _finite(raw.spread),
        "precision_metastable": raw.precision.get(f"{METASTABLE:g}"),
        "recall_metastable": raw.recall.get(f"{METASTABLE:g}"),
    }


def _finite(value: float) -> float | None:
    """JSON knows no NaN."""
    return value if math.isfinite(value) else None
