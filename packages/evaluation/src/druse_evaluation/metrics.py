"""Metrics: each is one line over the facts of an assessment.

The denominator of every rate is the number of crystals that were asked for, so that whatever drops out on the way
counts against the generator.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from druse_evaluation.estimate import Average, Rate
from druse_evaluation.plausibility import TESTS
from druse_evaluation.statuses import exists
from druse_evaluation.table import CALIBRATED_BOUNDS, CALIBRATED_ON, Assessment

_CALIBRATED = "_calibrated_"
NEAR_HULL = tuple(name for name in CALIBRATED_BOUNDS if name.startswith("near_hull"))
"""Rates at bounds between metastable (0.1 eV/atom) and stable (0), by name."""


@dataclass(frozen=True)
class Metric:
    """A figure of merit.

    Attributes:
        name: in files.
        label: for people.
        meaning: what it means.
        compute: how it follows from the facts.
        against: the calibration that it needs, None if it needs none.
    """

    name: str
    label: str
    meaning: str
    compute: Callable[[Assessment], Rate | Average]
    against: str | None = None

    @property
    def judged(self) -> str:
        """Name of the metric without calibration: its own, or that of the one whose calibrated value it is."""
        return self.name.partition(_CALIBRATED)[0]


@dataclass(frozen=True)
class Measured:
    """A metric and its value for one assessment."""

    metric: Metric
    value: Rate | Average


def rate(assessment: Assessment, *flags: str) -> Rate:
    """Share of all crystals asked for whose flags are all True."""
    return Rate(int(_all(assessment, flags).sum()), len(assessment))


def expected_rate(assessment: Assessment, probability: str, *flags: str) -> Rate:
    """Expected share whose flags are all True, each counted with its probability; without a probability as nothing."""
    chances = np.nan_to_num(assessment.values(probability))
    return Rate(float(chances[_all(assessment, flags)].sum()), len(assessment))


def _all(assessment: Assessment, flags: Sequence[str]) -> np.ndarray:
    return np.logical_and.reduce([assessment.flags(name) for name in flags], initial=True) & np.ones(
        len(assessment), bool
    )


def read_rate(a: Assessment) -> Rate:
    """Crystals that exist at all."""
    return Rate(int(exists(a).sum()), len(a))


def structure_validity(a: Assessment) -> Rate:
    """Structures without atoms closer than 0.5 Å, with a volume."""
    return rate(a, "structure_valid")


def composition_validity(a: Assessment) -> Rate:
    """Compositions that oxidation states explain, or metals."""
    return rate(a, "composition_valid")


def validity(a: Assessment) -> Rate:
    """Both kinds of validity."""
    return rate(a, "structure_valid", "composition_valid")


def convergence(a: Assessment) -> Rate:
    """Relaxations that converged."""
    return rate(a, "converged")


def uniqueness(a: Assessment) -> Rate:
    """First of their kind in the set."""
    return rate(a, "unique")


def novelty(a: Assessment) -> Rate:
    """Not among the reference's crystals."""
    return rate(a, "novel")


def unique_novelty(a: Assessment) -> Rate:
    """Unique and novel."""
    return rate(a, "unique", "novel")


def new_formula_rate(a: Assessment) -> Rate:
    """Unique, and of a formula that the reference does not know in any structure."""
    new = a.flags("unique") & a.flags("novel") & ~a.flags("known_formula")
    return Rate(int(new.sum()), len(a))


def order_disorder_novelty(a: Assessment) -> Rate:
    """Unique and novel to the order-disorder matcher: two orderings of one alloy are the same."""
    return rate(a, "unique_order_disorder", "novel_order_disorder")


def training_novelty(a: Assessment) -> Rate:
    """Unique and neither in the reference nor among the training crystals."""
    return rate(a, "unique", "novel", "novel_to_training")


def new_prototype_rate(a: Assessment) -> Rate:
    """Unique, and of a structure type that the reference does not have with any elements."""
    return rate(a, "unique", "new_prototype")


def metastable_rate(a: Assessment) -> Rate:
    """At most 0.1 eV/atom above the hull, as judged (MatterGen's "stable")."""
    return rate(a, "metastable")


def near_hull_rate(a: Assessment, *, name: str) -> Rate:
    """At most so many eV/atom above the hull, as judged, doubtful ones left out; ``name`` is one of ``NEAR_HULL``."""
    return Rate(int((a.trusted_distances() <= CALIBRATED_BOUNDS[name]).sum()), len(a))


def stable_rate(a: Assessment) -> Rate:
    """On the hull or below, as judged."""
    return rate(a, "stable")


def sun_rate(a: Assessment) -> Rate:
    """Metastable, unique and novel, as judged (MatterGen's S.U.N.)."""
    return rate(a, "metastable", "unique", "novel")


def order_disorder_sun_rate(a: Assessment) -> Rate:
    """Metastable, and unique and novel to the order-disorder matcher: MatterGen's published S.U.N."""
    return rate(a, "metastable", "unique_order_disorder", "novel_order_disorder")


def training_sun_rate(a: Assessment) -> Rate:
    """Metastable, unique, and neither in the reference nor among the training crystals."""
    return rate(a, "metastable", "unique", "novel", "novel_to_training")


def new_prototype_sun_rate(a: Assessment) -> Rate:
    """Metastable, unique, and of a structure type that the reference does not have with any elements."""
    return rate(a, "metastable", "unique", "new_prototype")


def agreed_sun_rate(a: Assessment) -> Rate:
    """Unique, novel, and at most 0.1 eV/atom above the own hull of every judge.

    It has no calibrated value: a calibration gives the chance by one judge on the hull of DFT, and there is none of
    several judges on hulls of their own. The product of their chances would take their errors for independent.
    """
    return rate(a, "metastable_to_all", "unique", "novel")


def disagreement(a: Assessment) -> Average:
    """Largest difference between the judges' distances to their own hulls."""
    return Average.of(a.values("disagreement"), "eV/atom")


def strict_sun_rate(a: Assessment) -> Rate:
    """On the hull or below, unique and novel, as judged."""
    return rate(a, "stable", "unique", "novel")


def calibrated_metastable_rate(a: Assessment, *, against: str = "generated") -> Rate:
    """At most 0.1 eV/atom above the hull, as DFT is expected to find."""
    return expected_rate(a, f"probability_metastable_{against}")


def calibrated_near_hull_rate(a: Assessment, *, name: str, against: str = "generated") -> Rate:
    """At most so many eV/atom above the hull, as DFT is expected to find; ``name`` is one of ``NEAR_HULL``."""
    return expected_rate(a, f"probability_{name}_{against}")


def calibrated_stable_rate(a: Assessment, *, against: str = "generated") -> Rate:
    """On the hull or below, as DFT is expected to find."""
    return expected_rate(a, f"probability_stable_{against}")


def calibrated_sun_rate(a: Assessment, *, against: str = "generated") -> Rate:
    """Metastable, unique and novel, as DFT is expected to find."""
    return expected_rate(a, f"probability_metastable_{against}", "unique", "novel")


def calibrated_order_disorder_sun_rate(a: Assessment, *, against: str = "generated") -> Rate:
    """Metastable, and unique and novel to the order-disorder matcher, as DFT is expected to find."""
    return expected_rate(a, f"probability_metastable_{against}", "unique_order_disorder", "novel_order_disorder")


def calibrated_training_sun_rate(a: Assessment, *, against: str = "generated") -> Rate:
    """Metastable, unique, neither in the reference nor among the training crystals, as DFT is expected to find."""
    return expected_rate(a, f"probability_metastable_{against}", "unique", "novel", "novel_to_training")


def calibrated_new_prototype_sun_rate(a: Assessment, *, against: str = "generated") -> Rate:
    """Metastable, unique, and of a structure type that the reference does not have, as DFT is expected to find."""
    return expected_rate(a, f"probability_metastable_{against}", "unique", "new_prototype")


def calibrated_strict_sun_rate(a: Assessment, *, against: str = "generated") -> Rate:
    """On the hull or below, unique and novel, as DFT is expected to find."""
    return expected_rate(a, f"probability_stable_{against}", "unique", "novel")


def left_basin_rate(a: Assessment) -> Rate:
    """Crystals that a shake and a second relaxation led to a lower place."""
    return Rate(int((a.values("rattled_energy_drop") > 0).sum()), len(a))


def dynamics_checked_rate(a: Assessment) -> Rate:
    """Crystals whose harmonic modes were looked at."""
    return Rate(int((~a.table["dynamically_stable"].is_null().to_numpy()).sum()), len(a))


def dynamically_stable_rate(a: Assessment) -> Rate:
    """Crystals without imaginary modes at Gamma and the zone boundary; those not checked do not count."""
    return rate(a, "dynamically_stable")


def match_rate(a: Assessment) -> Rate:
    """Crystals that are still the same structure after relaxation."""
    return rate(a, "matches_relaxed")


def plausibility_rate(a: Assessment) -> Rate:
    """Crystals that fail no test of chemistry; those with untested ones count, those that do not exist do not."""
    tested = ~a.table["failed_tests"].is_null().to_numpy()
    failed = np.array([bool(found) for found in a.sentences("failed_tests")], dtype=bool)
    return Rate(int((tested & ~failed).sum()), len(a))


def failed_tests(a: Assessment) -> dict[str, Rate]:
    """How many crystals fail each test of chemistry."""
    return {test: Rate(n, len(a)) for test, n in _counts(a, "failed_tests", TESTS).items()}


def element_flags(a: Assessment) -> dict[str, Rate]:
    """How many crystals have each flag against their elements, the commonest flag first."""
    return {flag: Rate(n, len(a)) for flag, n in _counts(a, "element_flags").items()}


def untested(a: Assessment) -> dict[str, Rate]:
    """How many crystals could not be put to each test, the commonest first."""
    return {test: Rate(n, len(a)) for test, n in _counts(a, "untested").items()}


def _counts(a: Assessment, column: str, always: Sequence[str] = ()) -> dict[str, int]:
    """Rows by the names that stand before the colons, each name once a row."""
    names = [{sentence.partition(":")[0] for sentence in found} for found in a.sentences(column)]
    counts = Counter(name for found in names for name in sorted(found))
    return {name: counts[name] for name in always} | dict(counts.most_common())


def p1_rate(a: Assessment) -> Rate:
    """Relaxed crystals without any symmetry."""
    return Rate(int((a.values("space_group_number") == 1).sum()), len(a))


def rmsd(a: Assessment) -> Average:
    """Displacement of the atoms on relaxation, upper bound where nothing matches."""
    return Average.of(a.values("rmsd"), "Å")


def relaxation_energy_drop(a: Assessment) -> Average:
    """By how much relaxation lowers the energy, a shake and a second relaxation included where there was one."""
    return Average.of(-a.values("relaxation_energy_per_atom"), "eV/atom")


def energy_above_hull(a: Assessment) -> Average:
    """Distance to the hull, as judged, doubtful ones left out."""
    return Average.of(a.trusted_distances(), "eV/atom")


def calibrated_energy_above_hull(a: Assessment, *, against: str = "generated") -> Average:
    """Distance to the hull, as DFT is expected to find: of each crystal the median of what it may be."""
    return Average.of(a.values(f"energy_above_hull_calibrated_{against}"), "eV/atom")


def _as_judged_and_calibrated(
    name: str,
    label: str,
    meaning: str,
    judged: Callable[..., Rate | Average],
    calibrated: Callable[..., Rate | Average],
) -> tuple[Metric, ...]:
    """A metric about the hull as judged, and its value expected from DFT by each calibration."""
    return (
        Metric(name, f"{label} (as judged)", meaning, judged),
        *(
            Metric(
                f"{name}{_CALIBRATED}{against}",
                f"{label} (calibrated on {crystals})",
                f"the same, expected from DFT: {'cautious' if against == 'generated' else 'hopeful'}; of converged "
                "relaxations",
                partial(calibrated, against=against),
                against,
            )
            for against, crystals in CALIBRATED_ON.items()
        ),
    )


METRICS: tuple[Metric, ...] = (
    Metric("read", "read", "crystals that exist: made, or read from a file", read_rate),
    Metric("structure_validity", "structure valid", "no distance under 0.5 Å, at least 0.1 Å³", structure_validity),
    Metric("composition_validity", "composition valid", "SMACT: charge neutral, or all metal", composition_validity),
    Metric("validity", "both valid", "structure and composition", validity),
    Metric("plausibility", "plausible", "fails no test of charge balance, bonds, coordination", plausibility_rate),
    Metric("convergence", "relaxed", "relaxation converged", convergence),
    Metric("left_basin", "left their basin", "a shake and a second relaxation ended lower", left_basin_rate),
    Metric("dynamics_checked", "modes looked at", "harmonic ones at Gamma and zone boundary", dynamics_checked_rate),
    Metric("dynamically_stable", "dynamically stable", "none of them is imaginary", dynamically_stable_rate),
    Metric("match", "match relaxed form", "same structure before and after relaxation", match_rate),
    Metric("uniqueness", "unique", "first of its kind in the set", uniqueness),
    Metric("novelty", "novel", "not in the reference", novelty),
    Metric("unique_novelty", "unique, novel", "both", unique_novelty),
    Metric("new_formula", "unique, of a new formula", "no known material has this formula", new_formula_rate),
    Metric(
        "novelty_order_disorder",
        "unique, novel (order-disorder)",
        "two orderings of one alloy are the same",
        order_disorder_novelty,
    ),
    Metric("novelty_training", "unique, novel, not in the training set", "nor in the reference", training_novelty),
    Metric(
        "new_prototype",
        "unique, of a new structure type",
        "not in the reference with any elements",
        new_prototype_rate,
    ),
    *_as_judged_and_calibrated(
        "metastable",
        "metastable",
        "at most 0.1 eV/atom above the hull",
        metastable_rate,
        calibrated_metastable_rate,
    ),
    *(
        metric
        for name in NEAR_HULL
        for metric in _as_judged_and_calibrated(
            name,
            f"≤ {CALIBRATED_BOUNDS[name]:g} eV/atom above hull",
            "closer than metastable",
            partial(near_hull_rate, name=name),
            partial(calibrated_near_hull_rate, name=name),
        )
    ),
    *_as_judged_and_calibrated(
        "stable", "stable", "at most 0 eV/atom above the hull", stable_rate, calibrated_stable_rate
    ),
    *_as_judged_and_calibrated(
        "sun", "metastable, unique, novel", "S.U.N. at 0.1 eV/atom", sun_rate, calibrated_sun_rate
    ),
    *_as_judged_and_calibrated(
        "sun_order_disorder",
        "metastable, unique, novel, order-disorder",
        "the published S.U.N.",
        order_disorder_sun_rate,
        calibrated_order_disorder_sun_rate,
    ),
    *_as_judged_and_calibrated(
        "sun_training",
        "metastable, unique, novel, not in the training set",
        "nor in the reference",
        training_sun_rate,
        calibrated_training_sun_rate,
    ),
    *_as_judged_and_calibrated(
        "sun_new_prototype",
        "metastable, unique, of a new structure type",
        "not in the reference with any elements",
        new_prototype_sun_rate,
        calibrated_new_prototype_sun_rate,
    ),
    Metric("sun_agreed", "metastable to every judge, unique, novel", "each on its own hull", agreed_sun_rate),
    *_as_judged_and_calibrated(
        "strict_sun", "stable, unique, novel", "S.U.N. at 0 eV/atom", strict_sun_rate, calibrated_strict_sun_rate
    ),
    Metric("disagreement", "disagreement of the judges", "largest difference of hull distances", disagreement),
    Metric("p1", "space group P1", "no symmetry after relaxation", p1_rate),
    Metric("rmsd", "RMSD to relaxed", "mean displacement on relaxation", rmsd),
    Metric(
        "relaxation_energy_drop",
        "energy drop on relaxation",
        "energy as given minus relaxed",
        relaxation_energy_drop,
    ),
    *_as_judged_and_calibrated(
        "energy_above_hull",
        "energy above hull",
        "mean over crystals with an energy",
        energy_above_hull,
        calibrated_energy_above_hull,
    ),
)
"""Every metric, in the order of the tables."""


def as_judged_and_calibrated(*names: str) -> list[Metric]:
    """Metrics by name, each followed by its calibrated values if it has any; in the order of the names."""
    return [metric for name in names for metric in METRICS if metric.judged == name]


def measure(assessment: Assessment) -> list[Measured]:
    """All metrics that the assessment has facts for.

    Calibrated ones need that calibration of the judge, the columns of its chances (older tables lack some) and, where
    crystals are judged at all, a converged one among them; those about novelty need known structures, those about
    relaxation that at least one crystal was moved, those about a shake that at least one crystal was shaken, and those
    about modes that somebody asked for them.
    """
    calibrations = assessment.calibrated_on()
    known = assessment.metadata.get("n_known_structures", 0) > 0
    needs_known = {
        metric.name
        for metric in METRICS
        if metric.name.startswith(("novelty", "unique_novelty", "new_", "sun", "strict_sun"))
    }
    needs_training = ("novelty_training", "sun_training")
    needs_judges = ("sun_agreed", "disagreement")
    judges = len(assessment.metadata.get("judges", [])) > 1
    trained = assessment.metadata.get("n_training_structures", 0) > 0
    steps = assessment.values("n_steps")
    moved = bool((steps > 0).any()) or not bool((steps == 0).any())
    needs_moved = ("convergence", "match", "rmsd", "relaxation_energy_drop")
    modes = not assessment.table["phonons_message"].is_null().to_numpy().all()
    rattled = not np.isnan(assessment.values("rattled_energy_drop")).all()
    return [
        Measured(metric, metric.compute(assessment))
        for metric in METRICS
        if (metric.against is None or metric.against in calibrations)
        and f"probability_{metric.judged}_{metric.against}" not in assessment.absent
        and (known or metric.judged not in needs_known)
        and (trained or metric.judged not in needs_training)
        and (judges or metric.name not in needs_judges)
        and (moved or metric.name not in needs_moved)
        and (modes or metric.name not in ("dynamics_checked", "dynamically_stable"))
        and (rattled or metric.name != "left_basin")
    ]
