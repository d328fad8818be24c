import time
from dataclasses import dataclass, field

import pytest
from druse_benchmarks.timing import time_source
from druse_crystal.console import Display
from druse_crystal.io import ReadResult
from druse_crystal.journal import Journal
from druse_evaluation.testing import AnsweringRelaxer, relaxed, salt

pytestmark = pytest.mark.slow  # the shipped model, or a real potential, works here


@dataclass
class Busy:
    """Takes a second of processor time once, 0.2 at each start, and 0.05 for each crystal."""

    name: str = "busy"
    asked: list = field(default_factory=list)

    def __call__(self, num, *, seed, folder, display, manifest):
        end = time.process_time() + (0 if self.asked else 1.0) + 0.2 + 0.05 * num
        while time.process_time() < end:
            pass
        self.asked.append(num)
        return [ReadResult(source=str(i), crystal=salt(5.6)) for i in range(num)]


def test_starting_does_not_count_and_the_timing_is_kept(tmp_path):
    source = Busy()

    def timed():
        journal = Journal(tmp_path / "timing.jsonl", "timings", {})
        relaxer = AnsweringRelaxer([relaxed(salt(5.6), -2.0)] * 20)
        return time_source(source, 10, seed=0, relaxer=relaxer, journal=journal, display=Display(quiet=True))

    timing = timed()
    assert timing.crystal_seconds == pytest.approx(0.05, abs=0.02)
    assert timing.calls == 11 * 21
    assert timed() == timing
    assert source.asked == [1, 1, 11]
