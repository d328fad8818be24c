"""Random arrangements of sites of a space group: which of its Wyckoff positions are occupied, and how often."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from druse_crystal.site_symmetry import SiteSymmetry

from druse_generate.wyckoff_sites import HigherSymmetryError, WyckoffPosition, occupy, positions_of

_ARRANGEMENTS = 32  # that the crystals of a run share
_REFUSED = 48  # choices with more symmetry, after which no more are tried
_TRIES = 1000  # choices, of which most are known to be refused in groups with few that are not
_LISTED = 200  # atoms, up to which cells are looked for that the positions can fill


def random_sites(
    space_group: int,
    weights: Mapping[int, float],
    *,
    accept: Callable[[Sequence[int]], bool],
    seed: int,
) -> Sequence[SiteSymmetry]:
    """Random arrangements of sites in the primitive cell, each of exactly this group.

    The number of atoms is drawn first, then how it is shared out over orbits, then their Wyckoff positions. Positions
    without a free coordinate are occupied once at most.

    Args:
        space_group: number, 1 to 230.
        weights: how often each number of atoms shall come.
        accept: whether orbits of these sizes can hold what is asked for.
        seed: same seed, same arrangements.

    Raises:
        ValueError: if there is no such arrangement, or none was found; says what the group's positions allow. If PyXtal
            is not installed.
    """
    positions = positions_of(space_group)
    shared = {n: list(orbit_sizes(positions, n)) for n in sorted(weights)}
    if not any(shared.values()):
        raise ValueError(
            f"the Wyckoff positions of space group {space_group} add up to {_sums(positions)}, ... atoms in the "
            f"primitive cell, and cells of {_range(weights)} are to be drawn: ask for other numbers or another group"
        )
    held = {n: kept for n, ways in shared.items() if (kept := [sizes for sizes in ways if accept(sizes)])}
    if not held:
        some = "; ".join(["+".join(map(str, sizes)) for ways in shared.values() for sizes in ways[:2]][:8])
        raise ValueError(
            f"the Wyckoff positions of space group {space_group} share out {_range(weights)} over orbits that cannot "
            f"hold what was asked for (such as {some}): ask for other numbers of atoms or another group"
        )
    rng = np.random.default_rng([seed, space_group])
    shares = np.array([weights[n] for n in held]) / sum(weights[n] for n in held)
    found: list[SiteSymmetry] = []
    refused: list[Counter[str]] = []
    for _ in range(_TRIES):
        if len(found) == _ARRANGEMENTS or len(refused) == _REFUSED:
            break
        ways = held[int(rng.choice(list(held), p=shares))]
        chosen = _positions(positions, ways[rng.integers(len(ways))], rng)
        occupied = _occupied(chosen)
        if any(occupied <= other for other in refused):
            continue
        try:
            found.append(occupy(space_group, chosen, rng=rng))
        except HigherSymmetryError:
            refused.append(occupied)
    if not found:
        raise ValueError(
            f"all choices of {_range(held)} on Wyckoff positions of space group {space_group} that were tried have "
            f"more symmetry: ask for another group, or for more atoms (its general position has "
            f"{positions[-1].num_atoms})"
        )
    return found


def orbit_sizes(positions: Sequence[WyckoffPosition], num_atoms: int) -> Iterator[tuple[int, ...]]:
    """All ways to share out the atoms of a primitive cell over these Wyckoff positions, sizes rising."""
    sizes = sorted({position.num_atoms for position in positions})

    def share_out(left: int, among: Sequence[int]) -> Iterator[tuple[int, ...]]:
        if not left:
            yield ()
        elif among:
            size, *larger = among
            alike = [position for position in positions if position.num_atoms == size]
            most = left // size if any(position.free for position in alike) else min(left // size, len(alike))
            for times in range(most + 1):
                for rest in share_out(left - times * size, larger):
                    yield (size,) * times + rest

    return share_out(num_atoms, sizes)


def _positions(
    positions: Sequence[WyckoffPosition], sizes: Sequence[int], rng: np.random.Generator
) -> list[WyckoffPosition]:
    """Random positions with orbits of these sizes, in the order of their letters."""
    chosen = []
    for size in sorted(set(sizes)):
        times = sizes.count(size)
        alike = [p for p, known in enumerate(positions) if known.num_atoms == size]
        tickets = [p for p in alike for _ in range(times if positions[p].free else 1)]
        chosen += rng.choice(tickets, times, replace=False).tolist()
    return [positions[p] for p in sorted(chosen)]


def _occupied(positions: Sequence[WyckoffPosition]) -> Counter[str]:
    """How often each position is occupied, at most twice.

    What leaves atoms in their places does so if there are fewer of them. More than two sites on one position leave
    nothing that two do not.
    """
    return Counter({letter: min(times, 2) for letter, times in Counter(p.letter for p in positions).items()})


def _sums(positions: Sequence[WyckoffPosition]) -> str:
    sums = (n for n in range(1, _LISTED) if next(orbit_sizes(positions, n), None) is not None)
    return ", ".join(str(n) for n, _ in zip(sums, range(6), strict=False))


def _range(numbers: Mapping[int, object]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low} atoms" if low == high else f"{low} to {high} atoms"
