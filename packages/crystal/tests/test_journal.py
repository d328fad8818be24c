"""A journal survives interruptions and refuses what is not its own."""

import numpy as np
import pytest
from druse_crystal import Crystal
from druse_crystal.journal import Journal, crystal_as_json, crystal_from_json


def test_lines_come_back_and_a_cut_line_is_dropped(tmp_path):
    path = tmp_path / "new" / "draws.jsonl"
    journal = Journal(path, "draws", {"seed": 1})
    journal.keep({"index": 0})
    journal.keep({"index": 1})
    path.write_bytes(path.read_bytes()[:-4])
    again = Journal(path, "draws", {"seed": 1})
    assert again.lines == [{"index": 0}]
    again.keep({"index": 5})
    assert Journal(path, "draws", {"seed": 1}).lines == [{"index": 0}, {"index": 5}]


def test_a_cut_first_line_starts_anew(tmp_path):
    path = tmp_path / "draws.jsonl"
    path.write_text('{"druse": "dra')
    journal = Journal(path, "draws", {"seed": 1})
    journal.keep({"index": 3})
    assert Journal(path, "draws", {"seed": 1}).lines == [{"index": 3}]


def test_other_settings_are_named(tmp_path):
    path = tmp_path / "draws.jsonl"
    Journal(path, "draws", {"seed": 1, "steps": 5}).keep({"index": 0})
    with pytest.raises(ValueError, match="seed 1, now 2"):
        Journal(path, "draws", {"seed": 2, "steps": 5})


@pytest.mark.parametrize("text", ["hello\n", "[1]\n", '{"druse": "relaxations"}\n', "3\n"])
def test_other_files_are_refused(tmp_path, text):
    path = tmp_path / "draws.jsonl"
    path.write_text(text)
    with pytest.raises(ValueError, match="does not hold draws"):
        Journal(path, "draws", {})


def test_crystals_come_back_to_the_last_bit():
    rng = np.random.default_rng(0)
    crystal = Crystal(
        lattice=4 * np.eye(3) + rng.normal(size=(3, 3)),
        frac_coords=rng.random((3, 3)),
        atomic_numbers=np.array([1, 2, 3]),
    )
    back = crystal_from_json(crystal_as_json(crystal))
    assert back is not None
    assert np.array_equal(back.lattice, crystal.lattice)
    assert np.array_equal(back.frac_coords, crystal.frac_coords)
    assert crystal_from_json(crystal_as_json(None)) is None
