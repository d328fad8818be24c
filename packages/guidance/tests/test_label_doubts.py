"""Labels: few of them, or of another unit, are doubted; usual ones are not."""

import numpy as np
import pytest
from druse_guidance import Property
from druse_guidance.label_doubts import doubts

RNG = np.random.default_rng(0)
MODULI = RNG.lognormal(4.5, 0.6, 2000)


@pytest.mark.parametrize(
    ("unit", "labels", "words"),
    [
        ("GPa", MODULI, None),
        ("GPa", 1e9 * MODULI, "check their unit"),
        ("GPa", MODULI / 160.2, "check their unit"),
        ("GPa", np.concatenate([MODULI, [1e6]]), None),
        ("eV", RNG.exponential(1.0, 2000), None),
        ("eV", 1000 * RNG.exponential(1.0, 2000), "check their unit"),
        ("eV/atom", RNG.exponential(0.05, 2000), None),
        ("eV/atom", 1000 * RNG.exponential(0.05, 2000), "check their unit"),
        ("furlong", 1e9 * MODULI, None),
        ("GPa", [100.0, 120.0, 140.0], "3 labels: expect little"),
    ],
)
def test_what_is_doubted(unit, labels, words):
    found = doubts(Property(name="x", unit=unit).fitted(labels))
    assert bool(found) == (words is not None)
    assert words is None or words in found[0]


def test_groups_are_counted_and_not_measured():
    assert doubts(Property(name="space_group", kind="space_group").fitted(np.tile([1.0, 225], 600))) == []
    assert len(doubts(Property(name="space_group", kind="space_group").fitted([1.0, 225, 62]))) == 1
