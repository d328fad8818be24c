"""How much processor time a method's crystals and their relaxations take, measured on a few of them."""

import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from druse_crystal.console import Display
from druse_crystal.journal import Journal
from druse_crystal.manifest import Manifest
from druse_energetics.relaxation import Relaxer, force_calls

from druse_benchmarks.record import processor
from druse_benchmarks.sources import Source


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Processor time of one method, all threads and child processes counted.

    Attributes:
        crystal_seconds: to make one crystal, screening included; starting the method is not counted.
        call_seconds: for one force call of a relaxation.
        crystals: how many were timed.
        calls: force calls that were timed.
        threads: of torch.
        processor: name.
    """

    crystal_seconds: float
    call_seconds: float
    crystals: int
    calls: int
    threads: int
    processor: str


def processor_seconds() -> float:
    """User and system time of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def time_source(source: Source, num: int, *, seed: int, relaxer: Relaxer, journal: Journal, display: Display) -> Timing:
    """Time a method, or take the timing from the journal.

    One crystal is made for whatever happens only once in a process, then one again, then ``num + 1``: the difference of
    the last two is what ``num`` take without the start. Then these are relaxed.
    Processor time instead of wall time, since other work on the machine changes it much less.

    Args:
        source: the method.
        num: crystals to time.
        seed: of the method.
        relaxer: that judges.
        journal: keeps the timing.
        display: shows progress.
    """
    if journal.lines:
        return Timing(**journal.lines[0])
    display.say(f"{source.name}: timing")
    quiet, seconds, results = Display(quiet=True), [], []
    for n in (1, 1, num + 1):
        with tempfile.TemporaryDirectory() as folder:
            start = processor_seconds()
            path = Path(folder) / source.name
            results = source(n, seed=seed, folder=path, display=quiet, manifest=Manifest())
            seconds.append(processor_seconds() - start)
    crystals = [result.crystal for result in results if result.crystal is not None]
    relaxer(crystals[:1])  # the first call of a potential is slower than all others
    start = processor_seconds()
    calls = sum(force_calls(relaxation) for relaxation in relaxer(crystals))
    spent = processor_seconds() - start
    timing = Timing(
        crystal_seconds=max(0.0, seconds[2] - seconds[1]) / num,
        call_seconds=spent / max(1, calls),
        crystals=num,
        calls=calls,
        threads=torch.get_num_threads(),
        processor=processor(),
    )
    content: dict[str, Any] = asdict(timing)
    journal.keep(content)
    return timing
