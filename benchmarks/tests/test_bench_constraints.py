"""What is kept of a structure is looked for atom by atom."""

import numpy as np
import pytest
from druse_benchmarks.constraints import CONSTRAINTS, compliance, keeps
from druse_evaluation.table import Assessment
from druse_generate.config import GenerateConfig


@pytest.fixture
def seeds(tmp_path):
    names = ("kept-oxygen", "doping")
    return {name: CONSTRAINTS[name].request(GenerateConfig(), tmp_path).seed_structure.read() for name in names}


def test_kept_sites_and_lattice(seeds):
    seed = seeds["kept-oxygen"]
    host = seed.crystal
    oxygen = host.atomic_numbers == 8
    assert oxygen.sum() == 8
    others = np.where(oxygen[:, None], host.frac_coords, 0.3 + host.frac_coords)
    numbers = np.where(oxygen, 8, 26)
    assert keeps(host.replace(frac_coords=others - 1.0, atomic_numbers=numbers), seed)
    assert not keeps(host.replace(lattice=1.001 * host.lattice), seed)
    assert not keeps(host.replace(frac_coords=host.frac_coords + 0.001), seed)
    assert not keeps(host.replace(atomic_numbers=np.where(oxygen, 16, host.atomic_numbers)), seed)
    assert keeps(host.replace(lattice=1.001 * host.lattice), None)


def test_as_many_sites_are_doped_as_were_asked(seeds):
    seed = seeds["doping"]
    host = seed.crystal
    aluminium, magnesium = (np.flatnonzero(host.atomic_numbers == z) for z in (13, 12))

    def doped(*sites, by=26):
        numbers = host.atomic_numbers.copy()
        numbers[[*sites]] = by
        return host.replace(atomic_numbers=numbers)

    assert keeps(doped(aluminium[0], aluminium[2]), seed)
    assert not keeps(doped(aluminium[0]), seed)
    assert not keeps(doped(*aluminium[:3]), seed)
    assert not keeps(doped(aluminium[0], magnesium[0]), seed)
    assert not keeps(doped(*aluminium[:2], by=22), seed)
    assert not keeps(host, seed)


def test_groups_that_relaxed_crystals_keep(seeds):
    """One keeps its group, one gains a larger, two lose it, one was not relaxed, and one was never drawn."""
    crystal = seeds["doping"].crystal
    groups = [(14, 14, True), (14, 62, False), (14, 4, True), (62, 1, False), (14, None, None), (None, None, None)]
    rows = [
        {
            "initial_space_group_number": before,
            "space_group_number": after,
            "metastable": stable,
            "relaxed": None if after is None else crystal,
        }
        for before, after, stable in groups
    ]
    assessment = Assessment.from_rows(rows, metadata={})
    known = sorted(set(crystal.atomic_numbers.tolist()))
    crystals = [crystal] * 5 + [None]
    assert compliance(CONSTRAINTS["space-group-14"], crystals, assessment, known) == {
        "kept_as_drawn": 5,
        "kept_relaxed": 2,
        "kept_relaxed_and_metastable": 1,
        "exactly_the_group": 1,
    }
    elements = compliance(CONSTRAINTS["counts"], crystals, assessment, known)
    assert elements["kept_relaxed"] == elements["kept_as_drawn"] == 0  # spinel has no iron
    symmetric = compliance(CONSTRAINTS["symmetric"], crystals, assessment, known)
    assert symmetric["kept_relaxed"] == 2
    host = compliance(CONSTRAINTS["kept-oxygen"], crystals, assessment, known, seeds["kept-oxygen"])
    assert (host["kept_as_drawn"], host["kept_relaxed"]) == (5, None)
