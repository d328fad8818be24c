"""Labels: few of them, or of another unit, are doubted; usual ones are not."""

import numpy as np
import pytest
from druse_crystal.derived import DERIVED
from druse_guidance import Property
from druse_guidance.label_doubts import doubts
from druse_guidance.units import UNITS, USUAL, other_unit, usual_spelling

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
        ("gpa", MODULI, None),
        ("gpa", 1e9 * MODULI, "check their unit"),
        ("MPa", 1000 * MODULI, None),
        ("MPa", MODULI, "check their unit"),
        ("uB/A^3", RNG.exponential(0.01, 2000), None),
        ("uB/A^3", 10 + RNG.exponential(0.01, 2000), "check their unit"),
        ("furlong", 1e9 * MODULI, "the unit 'furlong' of x is not known, so that nobody checked"),
        ("", MODULI, "x has no unit, so that nobody checked"),
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


def test_a_pure_number_needs_no_unit():
    assert doubts(Property(name="hhi_score").fitted(RNG.uniform(500, 9000, 2000))) == []
    (doubt,) = doubts(Property(name="hhi_score").fitted(RNG.uniform(0.05, 0.9, 2000)))
    assert "not between 100 and 10000 (their median is 0.4" in doubt
    assert "check their scale" in doubt


@pytest.mark.parametrize(
    ("unit", "usual"),
    [
        ("gpa", "GPa"),
        ("ev/Atom", "eV/atom"),
        ("uB/A^3", "µB/Å³"),
        ("mu_B/Ang^3", "µB/Å³"),
        ("\N{GREEK SMALL LETTER MU}B/\N{ANGSTROM SIGN}3", "µB/Å³"),
        ("µB/angstrom**3", "µB/Å³"),
        ("g/cm3", "g/cm³"),
        ("eV/Å", "eV/Å"),
        ("furlong", "furlong"),
        ("", ""),
    ],
)
def test_spellings_of_units(unit, usual):
    assert usual_spelling(unit) == usual


def test_units_that_are_known_to_differ():
    assert other_unit("gpa", "eV")
    assert other_unit("eV/atom", "eV")
    assert not other_unit("mu_B/A^3", "µB/Å³")
    assert not other_unit("furlong", "eV")
    assert not other_unit("", "eV")


def test_units_of_well_known_properties_are_known():
    assert {unit for unit in UNITS.values() if unit} <= USUAL.keys()
    assert all(UNITS[name] == unit for name, (unit, _) in DERIVED.items() if name in UNITS)
