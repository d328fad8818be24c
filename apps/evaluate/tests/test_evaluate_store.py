import json
import math

import numpy as np
import pytest
from druse_crystal.journal import crystal_key
from druse_evaluate.store import RelaxationStore
from druse_evaluation.testing import lost, relaxed, salt

SETTINGS = {"potential": "answers", "fmax": 0.05, "max_steps": 500}


def test_what_is_kept_comes_back_to_the_last_bit(tmp_path):
    store = RelaxationStore(tmp_path / "r.jsonl", SETTINGS)
    given = [salt(5.5), salt(5.5 + 1e-13)]
    assert crystal_key(given[0]) != crystal_key(given[1])
    answer = relaxed(salt(5.64 / 3), -1.9)
    store.keep(given[0], answer)
    store.keep(given[1], lost("exploded", "the cell has 3e4 Å³ per atom"))
    again = RelaxationStore(tmp_path / "r.jsonl", SETTINGS)
    assert len(again) == 2
    found = again.get(given[0])
    assert found is not None
    assert found.crystal is not None
    assert answer.crystal is not None
    np.testing.assert_array_equal(found.crystal.lattice, answer.crystal.lattice)
    np.testing.assert_array_equal(found.crystal.frac_coords, answer.crystal.frac_coords)
    assert (found.energy, found.status, found.n_steps) == (answer.energy, "converged", 20)
    missing = again.get(given[1])
    assert missing is not None
    assert missing.crystal is None
    assert math.isnan(missing.energy)
    assert missing.message == "the cell has 3e4 Å³ per atom"
    assert again.get(salt(6.0)) is None


def test_a_line_cut_off_by_an_interruption_is_dropped(tmp_path):
    path = tmp_path / "r.jsonl"
    store = RelaxationStore(path, SETTINGS)
    store.keep(salt(5.5), relaxed(salt(5.6), -1.9))
    store.keep(salt(5.6), relaxed(salt(5.6), -1.9))
    path.write_bytes(path.read_bytes()[:-40])
    again = RelaxationStore(path, SETTINGS)
    assert len(again) == 1
    again.keep(salt(5.6), relaxed(salt(5.6), -1.9))
    assert len(RelaxationStore(path, SETTINGS)) == 2
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_other_settings_are_not_mixed(tmp_path):
    RelaxationStore(tmp_path / "r.jsonl", SETTINGS).keep(salt(5.5), relaxed(salt(5.6), -1.9))
    with pytest.raises(ValueError, match=r"other settings \(fmax 0\.05, now 0\.01\)"):
        RelaxationStore(tmp_path / "r.jsonl", SETTINGS | {"fmax": 0.01})


@pytest.mark.parametrize(
    "content",
    [
        "no json\n",
        '{"a": 1}\n',
        "[1]\n",
        '{"druse": "generated crystals", "settings": {}}\n',
        '{"druse": "relaxations"}\n{}\n',
        '{"druse": "relaxations"}\n[1]\n',
        '{"druse": "relaxations"}\n{"key": "a", "crystal": {"lattice": 1}}\n',
    ],
)
def test_foreign_files_are_refused(tmp_path, content):
    path = tmp_path / "r.jsonl"
    path.write_text(content)
    with pytest.raises(ValueError, match="does not hold relaxations"):
        RelaxationStore(path, SETTINGS)
