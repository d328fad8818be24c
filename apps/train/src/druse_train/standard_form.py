"""Structures into the form that a model learns; every refusal has a reason. And the same for many, in parallel."""

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import batched, chain

import torch
from druse_crystal import Crystal
from druse_crystal.neighbors import min_distance
from druse_crystal.symmetry import standardize
from druse_diffusion import NUM_ELEMENTS

MAX_ATOMS = 20
MIN_DISTANCE = 0.5  # Å; closer atoms are a mistake in the source (MatterGen's structural validity uses the same bound)
CHUNK = 32  # structures a task


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A structure on its way into a dataset.

    Attributes:
        id: its name.
        source: where it comes from, for the reader of a refusal.
        crystal: the structure, None when it could not be read.
        refusal: why it is not taken; empty as long as nothing speaks against it.
        labels: what is known about it; a missing label becomes NaN.
        texts: names of what else is known about it, in words, which are no labels.
        split: what the source says: ``train``, ``val``, ``test``, or empty.
    """

    id: str
    source: str
    crystal: Crystal | None
    refusal: str = ""
    labels: dict[str, float] = field(default_factory=dict)
    texts: tuple[str, ...] = ()
    split: str = ""


def standardize_candidate(candidate: Candidate, *, max_atoms: int = MAX_ATOMS) -> Candidate:
    """The candidate in its standard form (primitive, Niggli, symmetric lattice), or with the reason for its refusal."""
    if candidate.crystal is None or candidate.refusal:
        return candidate
    try:
        crystal = standardize(candidate.crystal)
        crystal = crystal.replace(lattice=crystal.lattice.round(6), frac_coords=crystal.frac_coords.round(6))
    except ValueError as error:
        return replace(candidate, crystal=None, refusal=f"cannot be standardised: {error}")
    return check_candidate(replace(candidate, crystal=crystal), max_atoms=max_atoms, cell="primitive cell")


def check_candidate(candidate: Candidate, *, max_atoms: int = MAX_ATOMS, cell: str = "cell") -> Candidate:
    """The candidate as it is, or with the reason for its refusal: too many atoms, too close ones, or unknown ones."""
    crystal = candidate.crystal
    if crystal is None or candidate.refusal:
        return candidate
    if crystal.num_atoms > max_atoms:
        reason = f"{crystal.num_atoms} atoms in the {cell}, more than {max_atoms}"
        return replace(candidate, crystal=None, refusal=reason)
    if (largest := int(crystal.atomic_numbers.max())) > NUM_ELEMENTS:
        reason = f"an atom has the number {largest}, and models have classes for elements up to {NUM_ELEMENTS}"
        return replace(candidate, crystal=None, refusal=reason)
    if (distance := min_distance(crystal)) < MIN_DISTANCE:
        reason = f"two atoms are {distance:.2f} Å apart, less than {MIN_DISTANCE} Å"
        return replace(candidate, crystal=None, refusal=reason)
    return candidate


def in_parallel[T, R](
    work: Callable[[tuple[T, ...]], list[R]],
    items: Iterable[T],
    *,
    workers: int = 1,
    chunk: int = CHUNK,
    on_progress: Callable[[int], None] | None = None,
) -> Iterator[R]:
    """Apply ``work`` to chunks of items and give all results in the order of the items.

    Args:
        work: takes some items, gives a list of results; a module-level function when there are several workers.
        items: read ahead only a little, so that they may be many.
        workers: processes; 1 works in this one.
        chunk: items a task.
        on_progress: called with the number of items finished since the last call.
    """
    chunks = batched(items, chunk)
    if workers <= 1:
        for some in chunks:
            results = work(some)
            if on_progress:
                on_progress(len(some))
            yield from results
        return
    context = multiprocessing.get_context("spawn")  # forked processes may hang in the threads of torch
    with ProcessPoolExecutor(workers, mp_context=context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        waiting: deque[tuple[Future[list[R]], int]] = deque()
        for some in chain(chunks, [()] * 2 * workers):
            if some:
                waiting.append((pool.submit(work, some), len(some)))
            if waiting and (len(waiting) > 2 * workers or not some):
                future, count = waiting.popleft()
                yield from future.result()
                if on_progress:
                    on_progress(count)
