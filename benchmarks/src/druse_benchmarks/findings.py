"""What became of relaxed crystals, as far as a comparison at equal cost needs it: force calls, hull, unique, novel."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from druse_crystal.composition import reduced_formula
from druse_energetics.reference import Reference
from druse_energetics.relaxation import Relaxation, force_calls
from druse_evaluation.assessment import DOUBTFUL, JUDGED, METASTABLE, STABLE, assess
from druse_evaluation.novelty import DistinctStructures, KnownStructures
from druse_evaluation.table import CALIBRATED_ON


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One crystal that was asked for.

    Attributes:
        calls: force calls that it took, see ``force_calls``.
        formula: reduced formula; None if there is nothing to judge.
        formation_energy: eV/atom on the scale of the hull, as judged.
        energy_above_hull: eV/atom above the reference's hull, as judged.
        unique: first of its kind among the crystals of its method.
        novel: not in the reference.
        chances: by calibration the probability that DFT puts it at most 0.1 eV/atom above the hull.
        stable_chances: the same at most 0 eV/atom above it.
    """

    calls: int
    formula: str | None = None
    formation_energy: float | None = None
    energy_above_hull: float | None = None
    unique: bool = False
    novel: bool = False
    chances: Mapping[str, float] = field(default_factory=dict)
    stable_chances: Mapping[str, float] = field(default_factory=dict)

    @property
    def believable(self) -> bool:
        """Whether there is a distance to the hull, and none that only an error of the judge explains."""
        return self.energy_above_hull is not None and self.energy_above_hull >= DOUBTFUL

    @property
    def new(self) -> bool:
        """Unique, novel and judged."""
        return self.believable and self.unique and self.novel

    def near(self, bound: float = METASTABLE) -> bool:
        """Unique, novel and at most ``bound`` (eV/atom) above the reference's hull, as judged."""
        return self.new and self.energy_above_hull is not None and self.energy_above_hull <= bound

    def expected(self, against: str, bound: float = METASTABLE) -> float:
        """Probability that it is metastable (or stable: ``bound`` 0), unique and novel, by a calibration."""
        chances = self.stable_chances if bound == STABLE else self.chances
        return chances.get(against, 0.0) if self.new else 0.0


def find(
    relaxations: Sequence[Relaxation | None],
    *,
    reference: Reference,
    known: KnownStructures,
    extra_calls: Sequence[int] | None = None,
) -> list[Finding]:
    """Judge relaxed crystals in the order in which they were proposed.

    Args:
        relaxations: one for each crystal asked for; None where there was none.
        reference: hull and calibrations.
        known: the reference's crystals.
        extra_calls: force calls spent on each crystal before its relaxation.
    """
    distinct = DistinctStructures(matcher=known.matcher)
    extra = extra_calls or [0] * len(relaxations)
    return [
        _finding(i, relaxation, reference, known, distinct, calls)
        for i, (relaxation, calls) in enumerate(zip(relaxations, extra, strict=True))
    ]


def _finding(
    position: int,
    relaxation: Relaxation | None,
    reference: Reference,
    known: KnownStructures,
    distinct: DistinctStructures,
    extra: int,
) -> Finding:
    calls = force_calls(relaxation) + extra
    if relaxation is None or relaxation.crystal is None or relaxation.status not in JUDGED:
        return Finding(calls=calls)
    crystal = relaxation.crystal
    unique = distinct.add(position, crystal) == position
    try:
        above = reference.energy_above_hull(crystal, relaxation.energy)
    except ValueError:  # an element that the reference lacks
        return Finding(calls=calls, formula=reduced_formula(crystal), unique=unique)
    calibrations = reference.calibrations if relaxation.converged and above >= DOUBTFUL else {}
    chances, stable_chances = (
        {n: float(calibrations[n].probability(above, bound)) for n in CALIBRATED_ON if n in calibrations}
        for bound in (METASTABLE, STABLE)
    )
    return Finding(
        calls=calls,
        formula=reduced_formula(crystal),
        formation_energy=reference.formation_energy(crystal, relaxation.energy),
        energy_above_hull=above,
        unique=unique,
        novel=unique and known.first_match(crystal) is None,
        chances=chances,
        stable_chances=stable_chances,
    )


def judge_facts(reference: Reference, known: KnownStructures) -> dict[str, Any]:
    """Judge, matcher and errors, as every assessment names them."""
    nothing = KnownStructures([], matcher=known.matcher)
    facts = assess([], reference=reference, relaxations=[], judge=reference.potential, known=nothing).metadata
    return dict(facts) | {"n_known_structures": len(known)}


MEASURES: dict[str, str] = {
    "near": "at most 0.1 eV/atom above the hull (as judged)",
    **{f"expected_{name}": f"the same, calibrated on {words}" for name, words in CALIBRATED_ON.items()},
    "stable": "at most 0 eV/atom (as judged)",
    **{f"expected_stable_{name}": f"this, calibrated on {words}" for name, words in CALIBRATED_ON.items()},
}
"""What is counted of unique, novel crystals, in words."""


def measure(finding: Finding, name: str) -> float:
    """How much a crystal counts: 0, 1, or a probability."""
    if name.startswith("expected_stable_"):
        return finding.expected(name.removeprefix("expected_stable_"), STABLE)
    if name.startswith("expected_"):
        return finding.expected(name.removeprefix("expected_"))
    return float(finding.near(STABLE if name == "stable" else METASTABLE))
