"""Bounds on numbers of atoms: what is possible is what an enumeration of all cases finds."""

from collections import Counter
from itertools import product

import pytest
from druse_guidance import ElementCounts
from hypothesis import given
from hypothesis import strategies as st

LI, OX, FE, KR = 3, 8, 26, 36
bounds = st.builds(
    lambda least, room, named, others: ElementCounts(
        least={z: n for z, n in least.items() if n},
        most={z: least.get(z, 0) + r for z, r in room.items() if z in named},
        others=others,
    ),
    st.dictionaries(st.sampled_from([LI, OX]), st.integers(0, 4)),
    st.dictionaries(st.sampled_from([LI, OX, FE]), st.integers(0, 3)),
    st.sets(st.sampled_from([LI, OX, FE])),
    st.booleans(),
)


def fillings(counts, orbits, have=()):
    """All ways to give each orbit an element so that the crystal complies; krypton stands for all other elements."""
    for elements in product([LI, OX, FE, KR], repeat=len(orbits)):
        atoms = [*have, *(z for z, size in zip(elements, orbits, strict=True) for _ in range(size))]
        if counts.comply(atoms):
            yield elements


@given(bounds, st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_possible_is_what_an_enumeration_finds(counts, orbits):
    assert counts.possible(orbits) == any(True for _ in fillings(counts, orbits))


@given(bounds, st.lists(st.integers(1, 3), min_size=1, max_size=4), st.lists(st.sampled_from([LI, OX, FE]), max_size=3))
def test_choices_are_those_that_leave_a_way(counts, orbits, have):
    named, others = counts.choices(Counter(have), orbits[0], orbits[1:])
    firsts = {elements[0] for elements in fillings(counts, orbits, have)}
    if all(Counter(have)[z] <= n for z, n in counts.most.items()) and (counts.others or set(have) <= set(counts.named)):
        assert set(named) == firsts & set(counts.named)
        assert others == any(z not in counts.named for z in firsts)


def test_only_some_elements_at_all():
    counts = ElementCounts(least={LI: 1}, others=True, among=frozenset({LI, OX}))
    assert counts.choices({}, 1, [1]) == ((LI,), True)
    assert counts.comply([LI, OX, OX])
    assert not counts.comply([LI, FE])
    only = ElementCounts(least={LI: 1}, most={LI: 2}, others=True, among=frozenset({LI}))
    assert only.possible([1, 1])
    assert not only.possible([1, 1, 1])
    assert not ElementCounts(least={FE: 1}, others=True, among=frozenset({LI})).possible([1, 1])
    assert ElementCounts(least={FE: 1}, others=True, among=frozenset({LI})).possible([1], {FE: 1})


def test_contradictions_are_named():
    with pytest.raises(ValueError, match="at least 3 and at most 2 atoms of O were asked for"):
        ElementCounts(least={OX: 3}, most={OX: 2})
    with pytest.raises(ValueError, match="-1 atoms of Li"):
        ElementCounts(least={LI: -1})


def test_twenty_orbits_and_six_elements_take_no_time():
    counts = ElementCounts(least=dict.fromkeys(range(3, 9), 6), most=dict.fromkeys(range(3, 9), 7))
    assert counts.possible([1] * 10 + [2] * 10 + [3] * 3)
    assert not counts.possible([4] * 9 + [1] * 2)
