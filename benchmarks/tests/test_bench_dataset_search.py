"""Cases of properties can be obtained, and a dataset is searched for what meets them."""

import numpy as np
from druse.obtained import met
from druse_benchmarks.dataset_search import DatasetSearch
from druse_benchmarks.properties import CASES
from druse_benchmarks.properties_table import SEVEN
from druse_crystal.dataset import CrystalDataset
from druse_evaluation.testing import salt, simple_cubic_salt


def test_every_property_is_asked_for_alone_twice():
    alone = [targets[0].split("=")[0] for targets in CASES.values() if len(targets) == 1]
    assert alone == [name for name in SEVEN for _ in range(2)]
    for targets in CASES.values():
        for target in targets:
            met(target, [])  # can be read


def test_a_dataset_is_searched_by_labels_and_by_what_follows():
    dataset = CrystalDataset(
        ids=list("abcd"),
        crystals=[salt(5.6), salt(6.6, cation=19, anion=35), simple_cubic_salt(3.5), salt(5.7)],
        labels={"dft_bulk_modulus": [24.0, np.nan, 60.0, 200.0], "energy_above_hull": [0.0, 0.0, 0.04, 0.2]},
    )
    search = DatasetSearch(dataset)
    assert search(["ml_bulk_modulus=50"]) == {"hits": 1, "predictor_calls": 3}
    assert search(["space_group=225"]) == {"hits": 3, "predictor_calls": 4}
    assert search(["chemical_system=Na-Cl", "energy_above_hull=0"]) == {"hits": 2, "predictor_calls": 4}
    assert search(["ml_bulk_modulus<=100", "space_group=225"]) == {"hits": 1, "predictor_calls": 3}
    assert search(["dft_band_gap=1"]) is None
