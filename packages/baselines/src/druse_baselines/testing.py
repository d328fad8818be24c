"""Contract check for somebody's own proposer: one call in a test."""

from collections.abc import Sequence
from itertools import islice

import numpy as np
from druse_crystal import Crystal
from druse_crystal.neighbors import min_distance

from druse_baselines.proposer import Proposer, Target, element_counts

SHORTEST = 0.5  # Å; no two atoms of any material are as close
NO_TARGET = "Li--O"


def check_proposer(
    proposer: Proposer,
    *,
    targets: Sequence[str] = (),
    parents: Sequence[Crystal] = (),
    n: int = 4,
    seed: int = 0,
    endless: bool = True,
) -> None:
    """Check that a method proposes crystals as ``Proposer`` promises.

    It has a name and gives exactly ``n`` crystals, one by one, none of which holds atoms on top of each other; the same
    seed gives the same crystals, another one gives others; a larger ``n`` only adds; two streams do not disturb each
    other; a target is kept to, and nonsense refused; known crystals stay as they are.

    Args:
        proposer: the method.
        targets: chemical systems and formulas that it can reach.
        parents: the known crystals that it was given.
        n: how many crystals to ask for, at least two.
        seed: the first seed.
        endless: whether it never runs out of crystals, so that each target also gives ``n`` of them; if not, one is
            enough.

    Raises:
        AssertionError: names the broken promise.
        ValueError: if ``n`` is less than two.
    """
    if n < 2:
        raise ValueError(f"n is {n}, comparing streams takes at least 2 crystals")
    before = [[np.array(field) for field in _fields(parent)] for parent in parents]
    given = list(parents)
    assert isinstance(proposer.name, str), "name is no text"
    assert proposer.name, "name is empty"

    assert list(proposer(0, seed=seed)) == [], "asked for no crystal, it gives one"
    for target in (None, *targets):
        what = f"target {target}" if target else "no target"
        found = list(proposer(n, target=target, seed=seed))
        enough = len(found) == n if endless or target is None else 0 < len(found) <= n
        assert enough, f"{what}: asked for {n} crystals, it gives {len(found)}"
        for crystal in found:
            assert isinstance(crystal, Crystal), f"{what}: it gives a {type(crystal).__name__}, not a Crystal"
            shortest = min_distance(crystal)
            assert shortest > SHORTEST, f"{what}: two atoms are {shortest:.2g} Å apart"
            if target is not None:
                counts = element_counts(crystal)
                assert Target.parse(target).matches(counts), f"{what}: it gives {dict(counts)} (atomic numbers: atoms)"
        fewer = list(proposer(n - 1, target=target, seed=seed))
        assert len(fewer) == min(n - 1, len(found)), f"{what}: asked for {n - 1} crystals, it gives {len(fewer)}"
        for one, other in zip(found, fewer, strict=False):
            assert same_crystal(one, other), f"{what}: the first crystals change with n, or with each call"

    first, second = proposer(n, seed=seed), proposer(n, seed=seed + 1)
    interleaved = [(one, other) for one, other in islice(zip(first, second, strict=False), n)]
    alone = list(proposer(n, seed=seed + 1))
    for (_, other), expected in zip(interleaved, alone, strict=True):
        assert same_crystal(other, expected), "two streams at a time disturb each other"
    assert not all(same_crystal(one, other) for one, other in interleaved), "another seed gives the same crystals"

    try:
        next(iter(proposer(1, target=NO_TARGET, seed=seed)), None)
    except ValueError:
        pass
    else:
        raise AssertionError(f"target {NO_TARGET!r} is nonsense and was not refused with a ValueError")
    assert len(given) == len(parents), "the sequence of known crystals has another length than before"
    for old, fields, new in zip(given, before, parents, strict=True):
        assert old is new, "a known crystal was replaced"
        assert all(map(np.array_equal, fields, _fields(new))), "a known crystal was changed"


def same_crystal(one: Crystal, other: Crystal) -> bool:
    """Whether all numbers of two crystals are equal, to the last digit."""
    return all(np.array_equal(x, y) for x, y in zip(_fields(one), _fields(other), strict=True))


def _fields(crystal: Crystal) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return crystal.lattice, crystal.frac_coords, crystal.atomic_numbers
