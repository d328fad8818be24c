"""Space groups of the embedded crystals, which stand in a file so that nobody waits for them."""

import numpy as np
import pytest
from druse_crystal.dataset import load_embedded
from druse_generate.known_sites import space_groups_of
from druse_generate.site_choice import embedded_sites


@pytest.mark.parametrize("stride", [29, pytest.param(1, marks=pytest.mark.slow)])
def test_groups_in_the_file_are_those_of_the_crystals(stride):
    crystals, sites = load_embedded().crystals, embedded_sites()
    assert len(sites.groups) == len(crystals)
    rows = range(0, len(crystals), stride)
    assert np.array_equal(sites.groups[rows], space_groups_of([crystals[row] for row in rows]))


def test_arrangements_of_a_group_and_their_sizes():
    sites = embedded_sites()
    sizes = sites.sizes(31)
    assert sizes.total() == (sites.groups == 31).sum() > 5
    found = sites.of_group(31, [*sizes], accept=lambda orbits: True)
    assert len(found) == sizes.total()
    assert {one.space_group for one in found} == {31}
    assert not sites.of_group(31, [*sizes], accept=lambda orbits: False)
