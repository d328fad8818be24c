"""A process of its own for PyXtal, so that a draw that never ends can be ended."""

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from druse_crystal import Crystal

START_LIMIT = 120.0  # s; imports on a busy machine
PROGRAM = (sys.executable, "-m", "druse_baselines.placement")


class PlacementWorker:
    """Runs ``place_atoms`` in another process, each draw under a time limit.

    The process starts with the first draw, is killed and started again after a draw that took too long, and ends with
    the ``with`` block.
    """

    def __init__(self, *, time_limit: float, program: Sequence[str] = PROGRAM):
        """Choose the limit.

        Args:
            time_limit: seconds that one draw may take.
            program: command that answers requests as ``druse_baselines.placement`` does.
        """
        self.time_limit = time_limit
        self.program = program
        self._process: subprocess.Popen | None = None
        self._answers: queue.Queue[str | None] = queue.Queue()

    def __enter__(self) -> "PlacementWorker":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def place(
        self, counts: Mapping[int, int], *, volume: float, tolerance: float, seed: Sequence[int]
    ) -> Crystal | None:
        """One random crystal (see ``place_atoms``); None if there was no room, an error, or no time left.

        Raises:
            RuntimeError: if the process does not start.
        """
        starting = self._process is None
        if starting:
            self._start()
        request = {"counts": list(counts.items()), "volume": volume, "tolerance": tolerance, "seed": list(seed)}
        try:
            self._send(request)
            answer = self._answers.get(timeout=self.time_limit + starting * START_LIMIT)
        except (queue.Empty, OSError):  # too slow; or it ended before it had read the request
            self.stop()
            return None
        if answer is None:
            code = self._process.wait() if self._process else None
            self.stop()
            if starting:
                raise RuntimeError(f"{' '.join(self.program)} ended with exit code {code} before its first answer")
            return None
        found = json.loads(answer)
        if found is None or "error" in found:
            return None
        return Crystal(**{field: np.array(value) for field, value in found.items()})

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream:
                    stream.close()

    def _start(self) -> None:
        self._answers = queue.Queue()
        self._process = subprocess.Popen(
            self.program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, bufsize=1
        )
        assert self._process.stdout is not None
        threading.Thread(target=_forward, args=(self._process.stdout, self._answers), daemon=True).start()

    def _send(self, request: dict) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()


def _forward(lines: Iterable[str], answers: "queue.Queue[str | None]") -> None:
    """Move lines into a queue, which can be waited for with a time limit on every system; None at the end."""
    try:
        for line in lines:
            answers.put(line)
    except ValueError:  # the stream was closed
        pass
    answers.put(None)
