"""Numbers and pictures of finished sets."""

import json

import pytest
from druse_benchmarks.analysis import analysis, densities, facts
from druse_crystal.console import Display
from druse_crystal.manifest import Manifest
from druse_evaluation.assessment import assess
from druse_evaluation.table import Assessment
from druse_evaluation.testing import lost, relaxed, salt, simple_cubic_salt, small_reference


@pytest.fixture
def found() -> Assessment:
    given = [salt(5.5), salt(5.5), simple_cubic_salt(3.4), salt(5.6, anion=35, cation=19)]
    answers = [
        relaxed(salt(5.64), -2.0),
        relaxed(salt(5.64), -2.0),
        relaxed(simple_cubic_salt(3.5), -1.95),
        lost("exploded", "the cell grew"),
    ]
    return assess(given, reference=small_reference(), relaxations=answers, judge="answers")


def test_facts(found):
    numbers = facts(found)
    assert numbers["crystals"] == 4
    assert numbers["force_calls"] == 3 * 21 + 4  # steps, and one call more for each crystal as given
    assert numbers["unique_after"] == {"4": 0.5}  # rock salt twice, and a cell that is lost
    assert numbers["space_groups"] == {225: 2, 221: 1}
    assert numbers["elements"] == {"Na": 3, "Cl": 3, "K": 1, "Br": 1}
    assert numbers["num_atoms"] == {2: 4}
    rock_salt, caesium_chloride = (n * 58.44 / 6.02214076e23 / (a * 1e-8) ** 3 for n, a in ((4, 5.64), (1, 3.5)))
    assert densities(found) == pytest.approx([rock_salt, rock_salt, caesium_chloride], rel=1e-3)


def test_record_of_two_sets(found, tmp_path):
    found.write(tmp_path / "one" / "crystals.parquet")
    nothing = assess([], reference=small_reference(), relaxations=[], judge="answers")
    nothing.write(tmp_path / "none.parquet")
    tables = {"one": tmp_path / "one", "none": tmp_path / "none.parquet"}
    folder = analysis(tables, out=tmp_path / "out", display=Display(quiet=True), manifest=Manifest())
    assert "| P1 | 0.0 % |" in (folder / "table.md").read_text()
    assert (folder / "picture.png").stat().st_size > 10_000
    content = json.loads((folder / "analysis.json").read_text())
    assert set(content["inputs"]) == {"one", "none"}
    assert set(content["timings"]) == {"reading", "facts", "picture"}
    assert content["settings"]["sets"]["one"]["matcher"] == "ordered"
    assert content["settings"]["sets"]["one"]["reference"] == "small world"
    assert content["settings"]["sets"]["one"].keys() >= {"judge", "weights", "reference_files"}
    assert content["results"]["none"]["crystals"] == 0


def test_what_cannot_be_analysed(tmp_path):
    with pytest.raises(ValueError, match="nothing to analyse"):
        analysis({}, out=tmp_path, display=Display(quiet=True), manifest=Manifest())
    with pytest.raises(ValueError, match=r"missing\.parquet"):
        analysis({"a": tmp_path / "missing.parquet"}, out=tmp_path, display=Display(quiet=True), manifest=Manifest())
