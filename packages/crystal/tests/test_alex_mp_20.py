"""Published numbers of Alex-MP-20."""

import numpy as np
import pytest
from druse_crystal import alex_mp_20
from pymatgen.core import Element

# shares in num_atoms_distribution.py of the published code, with the digits it has
PUBLISHED = {
    1: 0.0002303828963737732,
    4: 0.1636343889258233,
    8: 0.1150400537121267,
    13: 0.0060031200426537475,
    17: 0.0013033089566287742,
    20: 0.04345679662456145,
}


def test_the_counts_are_those_of_the_published_prior():
    sizes, counts = np.array(list(alex_mp_20.NUM_ATOMS.items())).T
    assert counts.sum() == 607_684
    assert (sizes * counts).sum() / counts.sum() == pytest.approx(9.598, abs=5e-4)
    assert sizes.tolist() == list(range(1, alex_mp_20.MAX_ATOMS + 1))
    assert {n: alex_mp_20.NUM_ATOMS[n] / 607_684 for n in PUBLISHED} == pytest.approx(PUBLISHED, rel=1e-14)


def test_the_elements_are_those_of_the_published_filter():
    assert len(alex_mp_20.ELEMENTS) == 76
    allowed = {
        e.Z for e in Element if e.Z <= 83 and not e.is_noble_gas and e.symbol not in ("Tc", "Pm") and not e.is_actinoid
    }
    assert set(alex_mp_20.ELEMENTS) == allowed
    assert list(alex_mp_20.ELEMENTS) == sorted(allowed)
