"""What became of each crystal that was asked for, counted and in words."""

from collections import Counter

import numpy as np
from jaxtyping import Bool

from druse_evaluation.table import Assessment

NO_CRYSTAL: dict[str, str] = {
    "missing": "never made",
    "unreadable": "in no state to be read",
    "disordered": "of sites that are shared or partly empty, which cannot be judged before they are ordered",
}
"""Statuses of what is no crystal to begin with, in words."""


def exists(assessment: Assessment) -> Bool[np.ndarray, " rows"]:
    """Whether there is a crystal: made, or read from a file, with one atom on every site."""
    return np.array([status not in NO_CRYSTAL for status in assessment.strings("status")], dtype=bool)


def status_counts(assessment: Assessment) -> dict[str, int]:
    """How many crystals have each status, the commonest first."""
    return {str(status): n for status, n in Counter(assessment.strings("status")).most_common()}


def no_crystal_sentence(assessment: Assessment) -> str:
    """How many of the crystals asked for are none to begin with, and why; empty if all are."""
    counts = status_counts(assessment)
    found = [f"{counts[status]:,} {status} ({words})" for status, words in NO_CRYSTAL.items() if status in counts]
    return f"No crystals: {', '.join(found)}." if found else ""
