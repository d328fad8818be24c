"""Force calls, what they buy, and in which order."""

import math
from typing import Any

import numpy as np
import pytest
from druse_benchmarks.findings import Finding, find, judge_facts, measure
from druse_benchmarks.spending import CHUNK, KeptProposals, spend
from druse_crystal.journal import Journal
from druse_energetics.relaxation import Relaxation, force_calls
from druse_evaluation.matching import OrderedMatcher
from druse_evaluation.novelty import KnownStructures
from druse_evaluation.testing import lost, relaxed, salt, simple_cubic_salt, small_reference


class Growing:
    """Proposes rock salt of ever larger cells; runs out where told."""

    name = "growing"

    def __init__(self, last=10**6, error=None):
        self.last, self.error, self.made = last, error, 0

    def __call__(self, n, *, target=None, seed=0):
        for i in range(min(n, self.last)):
            self.made += 1
            yield salt(5.0 + 0.001 * i + seed)
        if self.error and n > self.last:
            raise self.error


def steps(n_steps):
    """Relaxations by the position of the crystal, which its size tells."""

    def relax(crystals):
        return [
            Relaxation(
                crystal=crystal,
                energy=-1.0,
                initial_energy=-0.5,
                max_force=0.0,
                n_steps=n_steps[round((crystal.lattice[0, 1] * 2 - 5.0) * 1000) % len(n_steps)],
                status="converged",
            )
            for crystal in crystals
        ]

    return relax


def proposals(tmp_path, proposer, seed=0):
    journal = Journal(tmp_path / "proposed.jsonl", "proposed crystals", {"seed": seed})
    return KeptProposals(proposer, target=None, seed=seed, journal=journal)


def test_the_first_energy_is_a_force_call_and_a_refusal_is_none():
    assert force_calls(relaxed(salt(5.6), -2.0)) == 21  # 20 steps
    assert force_calls(lost("exploded", "it grew")) == 4  # 3 steps
    assert force_calls(None) == 0
    refused = Relaxation(
        crystal=None, energy=math.nan, initial_energy=math.nan, max_force=math.nan, n_steps=0, status="overlap"
    )
    assert force_calls(refused) == 0


@pytest.mark.parametrize("budget", [1, 7, 8, 100, 1234])
def test_the_budget_is_spent_in_order_and_never_exceeded(tmp_path, budget):
    n_steps = [6, 0, 30, 2, 99, 11]
    cost = np.cumsum([n + 1 for n in n_steps] * 400)
    expected = int((cost <= budget).sum())
    paid = spend(budget, proposals(tmp_path, Growing()), steps(n_steps))
    assert len(paid) == expected
    assert sum(map(force_calls, paid)) == (cost[expected - 1] if expected else 0)


def test_crystals_that_cost_nothing_do_not_go_on_for_ever(tmp_path):
    refused = Relaxation(
        crystal=None, energy=math.nan, initial_energy=math.nan, max_force=math.nan, n_steps=0, status="overlap"
    )
    paid = spend(50, proposals(tmp_path, Growing()), lambda crystals: [refused] * len(crystals))
    assert 50 <= len(paid) < 50 + CHUNK


def test_interrupted_proposals_continue(tmp_path):
    first = proposals(tmp_path, Growing()).take(5)
    proposer = Growing()
    again = proposals(tmp_path, proposer)
    assert [c.volume for c in again.take(5)] == [c.volume for c in first]
    assert proposer.made == 0  # what is there is not made again
    assert again.take(1)[0].volume == pytest.approx(salt(5.005).volume)
    assert proposer.made == 6
    assert again.seconds > 0
    with pytest.raises(ValueError, match="other settings"):
        proposals(tmp_path, Growing(), seed=1)


@pytest.mark.parametrize(
    ("proposer", "words"),
    [(Growing(3), "no more proposals"), (Growing(3, ValueError("no exchange leads there")), "no exchange leads there")],
)
def test_methods_that_end(tmp_path, proposer, words):
    kept = proposals(tmp_path, proposer)
    assert len(spend(10**4, kept, steps([9]))) == 3
    assert words in kept.ended


def test_findings():
    reference = small_reference()
    known = KnownStructures(reference.crystals, reference.ids, matcher=OrderedMatcher())
    cubic = relaxed(simple_cubic_salt(3.5), -1.95)
    found = find(
        [
            relaxed(salt(5.64), -2.0),
            cubic,
            lost("exploded", "it grew"),
            cubic,
            relaxed(salt(6.6, anion=35, cation=19), -2.5),
            relaxed(salt(6.6, anion=9, cation=3), -2.5),
            None,
        ],
        reference=reference,
        known=known,
        extra_calls=[4] * 7,
    )
    assert [f.calls for f in found] == [25, 25, 8, 25, 25, 25, 4]
    assert [f.unique for f in found] == [True, True, False, False, True, True, False]
    assert [f.novel for f in found] == [False, True, False, False, True, False, False]
    # the second is 0.05 above the hull; the fifth so far below it that it is an error; the sixth has no reference
    assert [f.near() for f in found] == [False, True, False, False, False, False, False]
    assert found[1].energy_above_hull == pytest.approx(0.05)
    assert [measure(f, "stable") for f in found] == [0.0] * 7
    assert found[4].energy_above_hull == pytest.approx(-0.6)
    assert found[5].energy_above_hull is None
    assert judge_facts(reference, known)["n_known_structures"] == 1


def test_expected_counts_are_probabilities_of_new_crystals():
    new: dict[str, Any] = {
        "calls": 1,
        "formula": "NaCl",
        "formation_energy": -2.0,
        "energy_above_hull": 0.05,
        "chances": {"wbm": 0.4},
    }
    assert measure(Finding(unique=True, novel=True, **new), "expected_wbm") == 0.4
    assert measure(Finding(unique=True, novel=False, **new), "expected_wbm") == 0
    assert measure(Finding(unique=True, novel=True, **new), "expected_generated") == 0
    new |= {"stable_chances": {"wbm": 0.1}}
    assert measure(Finding(unique=True, novel=True, **new), "expected_wbm") == 0.4
    assert measure(Finding(unique=True, novel=True, **new), "expected_stable_wbm") == 0.1
    assert measure(Finding(unique=True, novel=False, **new), "expected_stable_wbm") == 0
