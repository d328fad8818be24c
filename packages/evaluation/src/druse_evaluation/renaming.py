"""Ways to rename the elements of a crystal so that it could be another one of the same anonymous formula."""

import math
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool
from pymatgen.core import Element, Lattice
from pymatgen.util.coord import pbc_shortest_vectors

from druse_evaluation.matching import Comparable, FormulaKey, OrderedMatcher, comparable_cells

type Names = tuple[int, ...]
"""New atomic numbers, one for each element of a crystal's ``key``, in its order."""

MAX_PLAIN = 24
"""Renamings up to which all of them are tried: those of four elements with equal counts."""
MAX_RENAMINGS = 720
"""Renamings of one crystal that are tried at most: about a second of work."""
MAX_STEPS = 100_000
"""Choices of one element's new name, at one position of the two crystals, that are looked at at most."""
SLACK = 1e-6


class Undecided(ValueError):
    """Too many renamings would have to be tried to know the answer."""


def rename(crystal: Comparable, names: Names, key: FormulaKey) -> Comparable:
    """The crystal with its elements renamed, which gives it the formula ``key``."""
    structure = crystal.structure.copy()
    new = {Element.from_Z(z): Element.from_Z(name) for (z, _), name in zip(crystal.key, names, strict=True)}
    structure.replace_species({**new}, in_place=True)
    structure.sort(key=lambda site: site.specie.Z)
    return Comparable(key, structure)


def renamed_match(crystal: Comparable, known: Comparable, matcher: OrderedMatcher) -> Comparable | None:
    """``known`` with new names of its elements under which ``matcher`` finds it the same as ``crystal``.

    Args:
        crystal: as it is.
        known: of the same anonymous formula; its elements are renamed.
        matcher: its tolerances decide.

    Returns:
        The first one found, None if there is none.

    Raises:
        Undecided: if none of ``MAX_RENAMINGS`` renamings matches and there are more that could.
    """
    for tried, names in enumerate(renamings(crystal, known, matcher)):
        if tried == MAX_RENAMINGS:
            raise Undecided(f"more than {MAX_RENAMINGS} ways to rename its elements would have to be compared")
        renamed = rename(known, names, crystal.key)
        if matcher.fit(crystal, renamed):
            return renamed
    return None


def renamings(crystal: Comparable, known: Comparable, matcher: OrderedMatcher) -> Iterator[Names]:
    """New names of the elements of ``known`` with which it could be ``crystal``, each once.

    They are all that give the right formula, if these are few. Of many only those are left that fit the places of the
    atoms: with the cells mapped as the matcher maps them, and one atom laid upon another, every atom has one of the
    right element within twice the matcher's tolerance. A match has no atom farther than that tolerance from its
    partner after the best shift, and laying one pair together moves the others by no more than that again, so that
    nothing is left out which could match.

    Raises:
        Undecided: if the names that fit the places cannot be found in ``MAX_STEPS`` steps.
    """
    counts = [count for _, count in crystal.key]
    same = np.equal.outer([count for _, count in known.key], counts)
    if math.prod(math.factorial(n) for n in Counter(counts).values()) <= MAX_PLAIN:
        yield from _choices(same, crystal.key)
        return
    seen: set[Names] = set()
    for near in _overlays(crystal, known, matcher):
        for names in _choices(same & near, crystal.key):
            if names not in seen:
                seen.add(names)
                yield names


def _overlays(
    crystal: Comparable, known: Comparable, matcher: OrderedMatcher
) -> Iterator[Bool[np.ndarray, "known_elements elements"]]:
    """For every way to lay ``known`` upon ``crystal``, elements all one: which element could be which.

    One could be the other if every atom of it has one of the other within twice the matcher's tolerance.
    """
    a, b = crystal.structure, known.structure
    if not comparable_cells(a, b, ltol=matcher.ltol, scale=matcher.scale):
        return
    ratio = (b.volume / a.volume) ** (1 / 6) if matcher.scale else 1.0
    searched, target = Lattice(a.lattice.matrix * ratio), Lattice(b.lattice.matrix / ratio)
    cart_coords, frac_b = searched.get_cartesian_coords(a.frac_coords), np.asarray(b.frac_coords)
    of_a = _memberships(crystal)
    of_b = _memberships(known)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for cell, _, mapping in searched.find_all_mappings(
                target, ltol=matcher.ltol, atol=matcher.angle_tol, skip_rotation_matrix=True
            ):
                if abs(abs(np.linalg.det(mapping)) - 1) > 0.5 + SLACK:
                    continue
                frac_a = cell.get_fractional_coords(cart_coords)
                mean = Lattice.from_parameters(*(np.array(cell.parameters) + np.array(target.parameters)) / 2)
                radius = 2 * matcher.stol * (mean.volume / len(a)) ** (1 / 3) * (1 + SLACK)
                for position in frac_a:
                    shifted = frac_b + (position - frac_b[0])
                    _, squares = pbc_shortest_vectors(mean, shifted, frac_a, return_d2=True)
                    has_near = (squares <= radius**2) @ of_a > 0  # atoms of known, elements of crystal
                    if has_near.any(axis=1).all():
                        yield ~(of_b.T @ ~has_near > 0)
        except (ValueError, ArithmeticError, np.linalg.LinAlgError):
            return


def _memberships(crystal: Comparable) -> Bool[np.ndarray, "atoms elements"]:
    """Which atom is of which element of the formula."""
    numbers = np.array([site.specie.Z for site in crystal.structure])
    return np.equal.outer(numbers, [z for z, _ in crystal.key])


def _choices(allowed: Bool[np.ndarray, "m m"], key: FormulaKey) -> Iterator[Names]:
    """All ways to give every row a column of its own among those allowed, as the elements of the columns.

    Raises:
        Undecided: if there are so many dead ends that they are not found in ``MAX_STEPS`` steps.
    """
    names = [z for z, _ in key]
    order = np.argsort(allowed.sum(axis=1), kind="stable").tolist()
    options = [np.flatnonzero(allowed[row]).tolist() for row in order]
    steps = 0

    def choose(chosen: Sequence[int]) -> Iterator[Names]:
        nonlocal steps
        if len(chosen) == len(order):
            of_row = dict(zip(order, chosen, strict=True))
            yield tuple(names[of_row[row]] for row in range(len(order)))
            return
        for column in options[len(chosen)]:
            if column in chosen:
                continue
            steps += 1
            if steps > MAX_STEPS:
                raise Undecided(f"there are more than {MAX_STEPS:,} ways to begin to rename its elements")
            yield from choose([*chosen, column])

    return choose([])
