"""From all crystals asked for to those worth making, test by test."""

from dataclasses import dataclass

import numpy as np

from druse_evaluation.statuses import exists
from druse_evaluation.table import Assessment


@dataclass(frozen=True)
class Stage:
    """One stage of the funnel: how many crystals are left after a test."""

    label: str
    count: int
    meaning: str


def funnel(assessment: Assessment) -> list[Stage]:
    """From all crystals asked for to those worth making; each test is applied to what passed the one before.

    The count of the metastable stage is that of ``sun_rate``, the last one that of ``strict_sun_rate``. Both are as
    judged.
    """
    left = np.ones(len(assessment), bool)
    tests = [
        ("asked for", left, "all crystals requested"),
        ("read", exists(assessment), "made by the generator, or read from a file"),
        ("relaxed", ~np.isnan(assessment.values("energy")), "has a relaxed structure and an energy"),
        ("unique", assessment.flags("unique"), "first of its kind in the set"),
    ]
    if assessment.metadata.get("n_known_structures", 0):
        tests.append(("novel", assessment.flags("novel"), "not in the reference"))
    tests.append(("metastable", assessment.flags("metastable"), "at most 0.1 eV/atom above the hull, as judged"))
    tests.append(("on the hull", assessment.flags("stable"), "at most 0 eV/atom above the hull, as judged"))
    stages = []
    for label, passed, meaning in tests:
        left = left & passed
        stages.append(Stage(label, int(left.sum()), meaning))
    return stages
