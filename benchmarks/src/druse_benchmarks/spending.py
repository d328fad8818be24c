"""Spend a budget of force calls on the proposals of a method, in the order in which they come."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from druse_baselines import Proposer
from druse_crystal import Crystal
from druse_crystal.journal import Journal, crystal_as_json, crystal_from_json
from druse_energetics.relaxation import Relaxation, force_calls

ENDLESS = 10**9  # crystals that nobody ever takes
CHUNK = 24  # crystals that relax together
USUAL = 50  # force calls of a relaxation, before any has been seen


class KeptProposals:
    """The crystals of a proposer one after the other, each kept as soon as it is there.

    Attributes:
        ended: why there are no more, in a sentence; empty while there are.
        seconds: wall time that the proposals so far took, also in earlier runs.
    """

    def __init__(self, proposer: Proposer, *, target: str | None, seed: int, journal: Journal):
        """Choose method and target.

        Args:
            proposer: the method; started when the journal has no more.
            target: chemical system or formula.
            seed: of the method.
            journal: proposals of earlier runs; the same proposer, asked in the same way, made them.
        """
        self.ended = ""
        self.seconds = sum(line["seconds"] for line in journal.lines)
        self._journal = journal
        self._taken = 0
        self._fresh: Iterator[Crystal] | None = None
        self._proposer, self._target, self._seed = proposer, target, seed

    def take(self, n: int) -> list[Crystal]:
        """The next ``n`` crystals, fewer if the method has no more."""
        crystals = []
        while len(crystals) < n and not self.ended:
            if self._taken == len(self._journal):
                self._propose()
            if self._taken < len(self._journal):
                crystal = crystal_from_json(self._journal.lines[self._taken]["crystal"])
                assert crystal is not None
                crystals.append(crystal)
                self._taken += 1
        return crystals

    def _propose(self) -> None:
        try:
            if self._fresh is None:
                self._fresh = self._proposer(ENDLESS, target=self._target, seed=self._seed)
                for _ in islice(self._fresh, len(self._journal)):  # it starts from its seed: these are there already
                    pass
            start = time.perf_counter()
            crystal = next(self._fresh)
        except StopIteration:
            self.ended = "the method has no more proposals"
            return
        except (ValueError, RuntimeError) as error:  # what a proposer raises for a target out of its reach
            self.ended = str(error)
            return
        seconds = time.perf_counter() - start
        self.seconds += seconds
        self._journal.keep({"crystal": crystal_as_json(crystal), "seconds": seconds})


def spend(
    budget: int,
    proposals: KeptProposals,
    relax: Callable[[Sequence[Crystal]], Sequence[Relaxation | None]],
    *,
    on_spent: Callable[[int], None] | None = None,
) -> list[Relaxation | None]:
    """Relax proposals in order until the next one would exceed the budget.

    The crystal that exceeds it does not count, and nothing after it; which crystals relax together makes no difference
    to that.

    Args:
        budget: force calls.
        proposals: what is relaxed.
        relax: relaxes some crystals.
        on_spent: called with the force calls so far.

    Returns:
        the relaxations that the budget paid for.
    """
    paid: list[Relaxation | None] = []
    spent = 0
    while spent < budget and len(paid) < budget:  # the second for crystals that cost nothing
        usual = spent / len(paid) if spent else USUAL
        chunk = proposals.take(min(CHUNK, max(1, math.ceil((budget - spent) / usual))))
        if not chunk:
            break
        for relaxation in relax(chunk):
            calls = force_calls(relaxation)
            if spent + calls > budget:
                return paid
            spent += calls
            paid.append(relaxation)
        if on_spent is not None:
            on_spent(spent)
    return paid
