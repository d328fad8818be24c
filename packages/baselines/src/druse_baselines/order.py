"""In which order proposals come."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
from jaxtyping import Int64


def random_order(weights: Sequence[float] | np.ndarray, rng: np.random.Generator) -> Int64[np.ndarray, " k"]:
    """Positions in the order of draws without replacement, each in proportion to its weight (Gumbel's trick).

    Args:
        weights: (k,) positive numbers.
        rng: source of randomness.

    Returns:
        (k,) all positions, the first drawn first.
    """
    keys = np.log(weights) + rng.gumbel(size=len(weights))
    return np.argsort(-keys, kind="stable")


def take_turns[T](streams: Iterable[Iterator[T]]) -> Iterator[T]:
    """One item of each stream in turn, until the last one has ended."""
    waiting = deque(streams)
    while waiting:
        stream = waiting.popleft()
        for item in islice(stream, 1):
            yield item
            waiting.append(stream)
