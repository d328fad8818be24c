import csv
import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from druse_crystal import Crystal
from druse_crystal.alex_mp_20 import ELEMENTS
from druse_crystal.cif import cif_text
from druse_crystal.convert import to_pymatgen
from druse_crystal.dataset import CrystalDataset, load_embedded
from druse_crystal.io import ReadResult, write_cif, write_extxyz
from druse_crystal.testing import random_crystal
from druse_train.data_cli import data_app
from druse_train.dataset_build import NothingLeft, build_dataset
from druse_train.selection import Condition, Selection
from druse_train.standard_form import Candidate, in_parallel, standardize_candidate
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Element
from typer.testing import CliRunner

runner = CliRunner()


@pytest.fixture(scope="module")
def some():
    embedded = load_embedded()
    return embedded.select(np.arange(0, 6000, 500))


def squares(numbers):
    return [number**2 for number in numbers]


@pytest.fixture
def table(tmp_path, some):
    """A table with twelve good rows and five bad ones."""
    path = tmp_path / "mine.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["material_id", "cif", "dft_band_gap", "comment"])
        for i, name in enumerate(some.ids.tolist()):
            structure = to_pymatgen(some.crystals[i])
            gap = some.labels["dft_band_gap"][i]
            writer.writerow([name, (structure * (2, 1, 1)).to(fmt="cif"), "" if np.isnan(gap) else gap, "fine"])
        good = to_pymatgen(some.crystals[0]).to(fmt="cif")
        writer.writerow(["broken", good[:150], "1", ""])
        writer.writerow([some.ids[0], good, "1", "again"])
        writer.writerow(["empty", "", "1", ""])
        big = random_crystal(np.random.default_rng(0), num_atoms=31, volume_per_atom=40)
        writer.writerow(["big", to_pymatgen(big).to(fmt="cif"), "1", ""])
        close = big.replace(frac_coords=np.array([[0.0] * 3, [0.001] * 3]), atomic_numbers=[3, 8])
        writer.writerow(["close", to_pymatgen(close).to(fmt="cif"), "1", ""])
    return path


def test_supercells_come_back_as_the_structures_they_are_made_of(table, some):
    dataset, refused = build_dataset(table, val=0.2, test=0.2)
    assert sorted(dataset.ids.tolist()) == sorted(some.ids.tolist())
    assert dataset.num_atoms.tolist() == some.num_atoms.tolist()
    np.testing.assert_array_equal(dataset.labels["dft_band_gap"], some.labels["dft_band_gap"])
    assert list(dataset.labels) == ["dft_band_gap"]
    matcher = StructureMatcher(primitive_cell=False, scale=False)
    for one, other in zip(dataset.crystals, some.crystals, strict=True):
        assert matcher.fit(to_pymatgen(one), to_pymatgen(other))
    assert {candidate.id for candidate in refused} == {"broken", some.ids[0], "empty", "big", "close"}
    reasons = {candidate.id: candidate.refusal for candidate in refused}
    assert "31 atoms" in reasons["big"]
    assert "apart" in reasons["close"]
    assert "belongs to mine.csv#1 already" in reasons[some.ids[0]]
    assert dataset.metadata["counts"]["refused"] == 5


def test_two_processes_make_the_same_dataset(table, tmp_path):
    counted = []
    one, _ = build_dataset(table, workers=1)
    two, _ = build_dataset(table, workers=2, on_progress=counted.append)
    one.write(tmp_path / "one.parquet")
    two.write(tmp_path / "two.parquet")
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    assert sum(counted) == 17


def test_in_parallel_keeps_the_order():
    assert list(in_parallel(squares, range(100), workers=1, chunk=7)) == [i**2 for i in range(100)]
    assert list(in_parallel(squares, [])) == []


def test_refusals_are_kept_as_they_are():
    refused = Candidate(id="a", source="b", crystal=None, refusal="because")
    assert standardize_candidate(refused) is refused


def test_command_writes_dataset_and_refusals(table, tmp_path):
    out = tmp_path / "new" / "mine.parquet"
    result = runner.invoke(
        data_app, ["build", "--from", str(table), "--out", str(out), "--workers", "1", "--licence", "CC0-1.0"]
    )
    assert result.exit_code == 0, result.output
    assert "12 structures" in result.stdout
    assert "5 refused" in result.stdout
    dataset = CrystalDataset.read(out)
    assert dataset.metadata["licence"] == "CC0-1.0"
    with (tmp_path / "new" / "mine.refused.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5
    assert all(row["source"].startswith("mine.csv#") and row["reason"] for row in rows)

    facts = json.loads(runner.invoke(data_app, ["info", str(out), "--json"]).stdout)
    assert facts["structures"] == 12
    assert facts["refused"] == 5
    assert facts["labels"]["dft_band_gap"]["known"] == np.isfinite(dataset.labels["dft_band_gap"]).sum()
    assert "12 structures" in runner.invoke(data_app, ["info", str(out)]).stdout


@pytest.fixture
def published(tmp_path, some):
    """A Parquet table as sources publish them: lengths and angles, labels, a mark, ids; one row of it is broken."""
    structures = [to_pymatgen(crystal) for crystal in some.crystals]
    rows = [
        {
            "id": some.ids[i],
            "source": "somewhere",
            "cell_abc_angles": [*s.lattice.abc, *s.lattice.angles],
            "frac_coords": (s.frac_coords - 1.0).flatten().tolist(),
            "atomic_numbers": list(s.atomic_numbers),
            "e_form": -0.1 * i,
            "band_gap": float("nan"),
            "near_hull": i != 3,
        }
        for i, s in enumerate(structures)
    ]
    rows.append(rows[0] | {"id": "broken", "cell_abc_angles": [1.0, 2.0]})
    path = tmp_path / "published.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_published_tables_with_lengths_and_angles(published, some):
    dataset, refused = build_dataset(published)
    assert dataset.ids.tolist() == some.ids.tolist()
    assert list(dataset.labels) == ["e_form", "near_hull"]
    assert dataset.labels["e_form"] == pytest.approx(-0.1 * np.arange(len(some)))
    matcher = StructureMatcher(primitive_cell=False, scale=False)
    for one, other in zip(dataset.crystals, some.crystals, strict=True):
        assert matcher.fit(to_pymatgen(one), to_pymatgen(other))
    assert [(candidate.id, candidate.source) for candidate in refused] == [("broken", "published.parquet#13")]
    assert "three lengths and three angles" in refused[0].refusal


def test_only_what_is_wanted(published, some, tmp_path):
    (tmp_path / "ids.txt").write_text(f"{some.ids[0]}\n{some.ids[5]}\n")
    (tmp_path / "formulas.txt").write_text("\n".join([some.formulas[7], str(to_pymatgen(some.crystals[8]).formula)]))
    unwanted = min(some.crystals[1].atomic_numbers.tolist())
    out = tmp_path / "mine.parquet"
    options = ["--where", "near_hull", "--leave-out", tmp_path / "ids.txt", "--labels", "e_form"]
    options += ["--without-elements", Element.from_Z(unwanted).symbol, "--held-out", tmp_path / "formulas.txt"]
    result = runner.invoke(
        data_app, [str(x) for x in ["build", "--from", published, "--out", out, "--workers", 1, *options]]
    )
    assert result.exit_code == 0, result.output
    dataset = CrystalDataset.read(out)
    expected = [i for i, c in enumerate(some.crystals) if i not in (0, 3, 5) and unwanted not in c.atomic_numbers]
    assert 1 not in expected
    assert dataset.ids.tolist() == some.ids[expected].tolist()
    assert list(dataset.labels) == ["e_form"]
    for formula, split in zip(dataset.formulas.tolist(), dataset.split.tolist(), strict=True):
        assert (split == "test") >= (formula in {some.formulas[7], some.formulas[8]})
    counts = dataset.metadata["counts"]
    assert counts["left_out"] == {"--where near_hull": 1, "--leave-out": 2, "--without-elements": 9 - len(expected)}
    assert counts["refused"] == 1
    assert "near_hull is true" in dataset.metadata["filters"]


def test_held_out_formulas_are_for_testing_before_validation_is_drawn(published, some):
    dataset, _ = build_dataset(published, val=0.99, test=0.0, held_out=frozenset(some.formulas[:6].tolist()))
    assert set(dataset.split[:6].tolist()) == {"test"}
    assert "val" in dataset.split[6:]


def test_when_nothing_is_left_all_refusals_are_written(tmp_path, published):
    (tmp_path / "bad.csv").write_text("id,cif\na,nonsense\nb,\nc,data_c\n")
    out = tmp_path / "mine.parquet"
    arguments = ["build", "--from", str(tmp_path / "bad.csv"), "--out", str(out), "--workers", "1"]
    result = runner.invoke(data_app, arguments)
    assert result.exit_code == 2
    assert "3 were refused" in result.stderr
    assert "mine.refused.csv" in "".join(result.stderr.split())
    with (tmp_path / "mine.refused.csv").open() as file:
        assert [row["id"] for row in csv.DictReader(file)] == ["a", "b", "c"]
    with pytest.raises(NothingLeft, match="12 left out by --where dull"):
        build_dataset(published, selection=Selection(where=(Condition("dull"),)))


@pytest.mark.parametrize(
    ("value", "wanted"), [(True, 1), (1.0, 1), ("True", 1), ("no", 0), (0.5, 0), (False, 0), (None, 0)]
)
def test_columns_that_are_true(some, value, wanted):
    result = ReadResult(source="a", crystal=some.crystals[0], info={"good": value})
    assert (Selection(where=(Condition("good"),)).objection(result) == "") == wanted


@pytest.mark.parametrize(
    ("text", "value", "wanted"),
    [
        ("gap<0.1", 0.05, True),
        ("gap<0.1", 0.1, False),
        ("gap <= 0.1", "0.1", True),
        ("gap>-1e-3", 0, True),
        ("gap>=2", 1.9, False),
        ("gap=2", 2.0, True),
        ("gap<0.1", None, False),
        ("gap<0.1", math.nan, False),
        ("gap<0.1", "metal", False),
    ],
)
def test_columns_that_compare_with_a_number(some, text, value, wanted):
    result = ReadResult(source="a", crystal=some.crystals[0], info={"gap": value})
    assert (Selection(where=(Condition.parse(text),)).objection(result) == "") == wanted


@pytest.mark.parametrize("text", ["<0.1", "gap<", "gap<small", "0<gap<1", "gap==1"])
def test_conditions_that_make_no_sense(text):
    with pytest.raises(ValueError, match="is no condition"):
        Condition.parse(text)


@pytest.mark.parametrize("column", ["energy_above_hull", "e_above_hull"])
def test_the_limits_of_the_published_dataset(tmp_path, column):
    """Of five structures one is too large, one too far above the hull, one not known to be near, one radioactive."""

    def cube(*numbers):
        frac_coords = np.stack(np.unravel_index(np.arange(len(numbers)), (3, 3, 3)), -1) / 3
        return Crystal(lattice=9 * np.eye(3), frac_coords=frac_coords, atomic_numbers=np.array(numbers))

    large = cube(*ELEMENTS[20:41])
    rows = [(cube(26), 0.0999), (cube(43), 0.0), (large, 0.0), (cube(27), 0.1), (cube(28), "")]
    with (tmp_path / "all.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["material_id", "cif", column])
        writer.writerows([f"x{i}", cif_text(crystal, symprec=None), value] for i, (crystal, value) in enumerate(rows))
    arguments = ["build", "--from", tmp_path / "all.csv", "--out", tmp_path / "a.parquet", "--limits", "alex-mp-20"]
    result = runner.invoke(data_app, [str(x) for x in [*arguments, "--max-atoms", 99, "--workers", 1]])
    assert result.exit_code == 0, result.output
    dataset = CrystalDataset.read(tmp_path / "a.parquet")
    assert dataset.ids.tolist() == ["x0"]
    assert dataset.metadata["counts"]["left_out"] == {
        "--without-elements": 1,
        "--limits alex-mp-20, energy_above_hull<0.1": 2,
    }
    assert dataset.metadata["counts"]["refused"] == 1
    assert "energy_above_hull<0.1; none of He, Ne" in dataset.metadata["filters"]


def test_limits_of_what_the_data_do_not_say(tmp_path, some):
    write_cif(tmp_path / "a.cif", some.crystals[0])
    arguments = ["build", "--from", tmp_path / "a.cif", "--out", tmp_path / "a.parquet", "--limits", "alex-mp-20"]
    result = runner.invoke(data_app, [str(x) for x in [*arguments, "--workers", 1]])
    assert result.exit_code == 2
    assert "--limits alex-mp-20, energy_above_hull<0.1 (there is no energy_above_hull)" in " ".join(
        result.stderr.split()
    )


def test_folders_and_trajectories(tmp_path, some):
    (tmp_path / "cifs").mkdir()
    for i in range(3):
        write_cif(tmp_path / "cifs" / f"{i}.cif", some.crystals[i])
    (tmp_path / "cifs" / "bad.cif").write_text("nonsense")
    write_extxyz(tmp_path / "run.extxyz", some.crystals[:4], info=[{"energy_above_hull": 0.1 * i} for i in range(4)])
    folder, refused = build_dataset(tmp_path / "cifs")
    assert folder.ids.tolist() == ["0.cif", "1.cif", "2.cif"]
    assert [candidate.source for candidate in refused] == ["bad.cif"]
    frames, _ = build_dataset(tmp_path / "run.extxyz")
    assert frames.labels["energy_above_hull"] == pytest.approx([0, 0.1, 0.2, 0.3])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--from", "gone.csv", "--out", "a.parquet"], "gone.csv does not exist"),
        (["--from", "bad.csv", "--out", "a.parquet"], "no structure is left"),
        (["--from", "bad.csv", "--out", "a.csv"], "must end with .parquet"),
        (["--from", "bad.csv", "--out", "a.parquet", "--val", "0.6", "--test", "0.6"], "something to train on"),
        (["--from", "note.txt", "--out", "a.parquet"], "no known format"),
        (["--from", "gone.csv", "--out", "new/a.parquet"], "gone.csv does not exist"),
        (["--from", "bad.csv", "--out", "new/a.parquet", "--without-elements", "He,Xx"], "'Xx' is no element"),
        (["--from", "bad.csv", "--out", "new/a.parquet", "--where", "a<b"], "'a<b' is no condition"),
        (["--from", "bad.csv", "--out", "new/a.parquet", "--leave-out", "gone.txt"], "one entry a line"),
        (["--from", "bad.csv", "--out", "new/a.parquet", "--held-out", "note.txt"], "'hello' is no formula"),
        (["--from", "some.parquet", "--out", "new/a.parquet"], "no column 'frac_coords'"),
    ],
)
def test_user_errors_are_one_sentence_and_code_2(tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.csv").write_text("cif\nnonsense\n")
    (tmp_path / "note.txt").write_text("hello")
    pq.write_table(pa.table({"cell_abc_angles": [[1.0] * 6], "atomic_numbers": [[1]]}), "some.parquet")
    result = runner.invoke(data_app, ["build", *arguments, "--workers", "1"])
    assert result.exit_code == 2
    assert words in result.stderr
    assert "Traceback" not in result.output
    assert not (tmp_path / "a.parquet").exists()
    assert not (tmp_path / "new").exists()


def test_info_of_no_dataset(tmp_path):
    (tmp_path / "a.parquet").write_text("nonsense")
    result = runner.invoke(data_app, ["info", str(tmp_path / "a.parquet")])
    assert result.exit_code == 2
    assert "not a Parquet file" in result.stderr
