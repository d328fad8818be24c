"""Targets: what is read, what is drawn of a range, and what is refused."""

import numpy as np
import pytest
from druse_guidance import Property, parse_target
from druse_guidance.properties import ANY_NUMBER
from druse_guidance.targets import conditions_of

RNG = np.random.default_rng(0)
GAP = Property(name="gap", unit="eV").fitted(np.concatenate([np.zeros(500), RNG.exponential(1.0, 1500)]))
MODULUS = Property(name="modulus", kind="log_scalar", unit="GPa").fitted(RNG.lognormal(4, 0.7, 1000))
GROUP = Property(name="space_group", kind="space_group").fitted([225, 62, 1])
SYSTEM = Property(name="chemical_system", kind="chemical_system", num_labels=9)
KNOWN = {p.name: p for p in (GAP, MODULUS, GROUP, SYSTEM)}


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("gap=1.5", 1.5, 1.5),
        ("gap = 1.0..2.0", 1.0, 2.0),
        ("gap=1..2", 1.0, 2.0),
        ("gap=.5 .. 2e0", 0.5, 2.0),
        ("gap>=1", 1.0, np.inf),
        ("gap<=0.5", -np.inf, 0.5),
        ("space_group=62", 62, 62),
    ],
)
def test_values_ranges_and_inequalities(text, low, high):
    target = parse_target(text, KNOWN)
    assert (target.low, target.high) == pytest.approx((low, high))


def test_a_range_is_drawn_as_its_labels_are_distributed():
    labels = RNG.exponential(1.0, 20000)
    gap = Property(name="gap").fitted(labels)
    target = parse_target("gap=0.5..2", {"gap": gap})
    drawn = np.array([target.draw(u)[0] for u in np.linspace(0.0005, 0.9995, 1000)])
    inside = labels[(labels >= 0.5) & (labels <= 2)]
    for share in (0.1, 0.5, 0.9):
        assert np.quantile(drawn, share) == pytest.approx(np.quantile(inside, share), abs=0.05)
    assert drawn.min() >= 0.5
    assert drawn.max() <= 2


def test_labels_that_repeat_are_drawn_as_often_as_they_occur():
    """Six of ten labels are zero: of a range from zero, most draws are zero."""
    gap = Property(name="gap").fitted(np.concatenate([np.zeros(6000), np.linspace(0.001, 4, 4000)]))
    target = parse_target("gap=0..1", {"gap": gap})
    drawn = np.array([target.draw(u)[0] for u in np.linspace(0.0005, 0.9995, 1000)])
    assert (drawn < 1e-6).mean() == pytest.approx(6 / 7, abs=0.02)
    assert parse_target("gap=0", {"gap": gap}).warning == ""
    assert parse_target("gap=0.0..1.5e-1", {"gap": gap}).high == 0.15


def test_met_or_not():
    assert parse_target("gap=1..2", KNOWN).met(1.5)
    assert not parse_target("gap=1..2", KNOWN).met(2.1)
    assert parse_target("gap>=1", KNOWN).met(GAP.levels[-1] + 1)
    assert parse_target("modulus<=100", KNOWN).met(MODULUS.levels[0] / 2)
    assert parse_target("gap=1", KNOWN).met(1.05, tolerance=0.1)
    assert parse_target("chemical_system=O-Li", KNOWN).met([8, 3])
    assert not parse_target("chemical_system=O-Li", KNOWN).met([8, 3, 26])


def test_conditions_of_a_batch():
    targets = [parse_target(text, KNOWN) for text in ("gap=1", "modulus=50", "space_group=62", "chemical_system=Li-O")]
    conditions = conditions_of(targets, [[t.draw(0.5) for t in targets]] * 2)
    assert conditions.values["gap"].tolist() == pytest.approx([(1 - GAP.mean) / GAP.std] * 2)
    assert conditions.values["modulus"].tolist() == pytest.approx([(np.log10(50) - MODULUS.mean) / MODULUS.std] * 2)
    assert conditions.values["space_group"].tolist() == [62, 62]
    assert conditions.values["chemical_system"].nonzero().tolist() == [[0, 2], [0, 7], [1, 2], [1, 7]]
    assert all(given.all() for given in conditions.given.values())


def test_a_target_at_the_edge_is_told_so():
    assert parse_target("gap=1", KNOWN).warning == ""
    assert parse_target("gap>=1", KNOWN).warning == ""
    edge = GAP.levels[-1] - 0.01
    assert "lies where hardly any label is: 98 % of the 2,000 labels" in parse_target(f"gap>={edge}", KNOWN).warning
    assert parse_target(f"gap={edge}", KNOWN).warning
    assert parse_target("space_group=1", KNOWN).warning == ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gap", "is no target: write name=value"),
        ("gap>1", "is no target"),
        ("colour=red", r"knows no property 'colour': it knows gap \(0 to .* eV, 2,000 labels\); modulus"),
        ("gap=1eV", "gap is a number in eV, without the unit"),
        ("gap=2..1", "lower end first, ask for gap=1..2"),
        ("gap=100", "lie between 0 and"),
        ("gap>=100", "ask for something in between"),
        ("gap<=-1", "ask for something in between"),
        ("gap=nan", "gap is a number in eV"),
        ("space_group=100", "space groups 1, 62, 225"),
        ("space_group>=62", "is no number on a scale"),
        ("chemical_system=Li2O", "is no element"),
    ],
)
def test_what_cannot_be_asked_is_refused(text, words):
    with pytest.raises(ValueError, match=words):
        parse_target(text, KNOWN)


MODULUS_OF_A_PUBLISHED_MODEL = Property(
    name="ml_bulk_modulus", kind="log_scalar", unit="GPa", mean=2.0, std=0.3, levels=ANY_NUMBER
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ml_bulk_modulus=-5", "ask for a positive number"),
        ("ml_bulk_modulus=0..100", "ask for a positive number"),
        ("ml_bulk_modulus=1e30", r"is 93 standard deviations from the mean .* \(100 GPa, one more is 199.5\)"),
        ("ml_bulk_modulus=100..1e9", "23 standard deviations"),
    ],
)
def test_where_only_mean_and_spread_are_known_the_absurd_is_refused(text, words):
    with pytest.raises(ValueError, match=words):
        parse_target(text, {"ml_bulk_modulus": MODULUS_OF_A_PUBLISHED_MODEL})


def test_where_only_mean_and_spread_are_known_the_far_is_warned_of():
    known = {"ml_bulk_modulus": MODULUS_OF_A_PUBLISHED_MODEL}
    assert parse_target("ml_bulk_modulus=400", known).warning == ""
    assert "3.3 standard deviations from the mean" in parse_target("ml_bulk_modulus=1000", known).warning
    assert parse_target("ml_bulk_modulus=10..100", known).warning
