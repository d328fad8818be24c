"""Published formats of datasets: CSV files by split, cache directories; there and back."""

import csv
import zipfile

import numpy as np
import pytest
from druse_crystal.cache_directory import read_cache, write_cache
from druse_crystal.cif import cif_text
from druse_crystal.dataset import CrystalDataset, load_embedded
from druse_crystal.lattice import parameters
from druse_train.cli import app
from druse_train.csv_export import write_csv
from druse_train.dataset_build import NothingLeft, build_dataset
from druse_train.source_split import has_split
from pymatgen.core import Structure
from typer.testing import CliRunner


@pytest.fixture(scope="module")
def some():
    """Twelve crystals with a split that is not that of their formulas, and labels of which some are unknown."""
    embedded = load_embedded()
    chosen = embedded.select(np.arange(0, 6000, 500))
    labels = {
        **chosen.labels,
        "my own label": np.where(np.arange(12) == 3, np.nan, np.arange(12) / 3),
        "space_group": np.array([225, 14, np.nan, 166, 1, 230, 64, 2, 62, 139, np.nan, 194]),
    }
    return CrystalDataset(
        ids=["007", "1e5", *chosen.ids[2:].tolist()],
        crystals=chosen.crystals,
        labels={name: values for name, values in labels.items() if np.isfinite(values).any()},
        split=["val", "train", "test"] * 4,
    )


@pytest.fixture
def parquet(tmp_path, some):
    some.write(tmp_path / "some.parquet")
    return tmp_path / "some.parquet"


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def by_id(dataset):
    """Split, labels and crystal of every row by its id."""
    return {
        name: (str(dataset.split[i]), {k: float(v[i]) for k, v in dataset.labels.items()}, dataset.crystals[i])
        for i, name in enumerate(dataset.ids.tolist())
    }


def assert_same_rows(back, some):
    one, other = by_id(back), by_id(some)
    assert list(one) == sorted(other, key=lambda name: ("train", "val", "test").index(other[name][0]))
    for name, (split, labels, _) in other.items():
        assert one[name][0] == split
        assert one[name][1] == pytest.approx(labels, rel=0, abs=0, nan_ok=True)


def test_a_cache_directory_comes_back_bit_for_bit(tmp_path, parquet, some):
    assert run("data", "export", parquet, "--to", "cache", "--out", tmp_path / "cache").exit_code == 0
    result = run("data", "build", "--from", tmp_path / "cache", "--out", tmp_path / "back.parquet", "--workers", 1)
    assert result.exit_code == 0, result.output
    back = CrystalDataset.read(tmp_path / "back.parquet")
    assert_same_rows(back, some)
    for name, (_, _, crystal) in by_id(some).items():
        found = by_id(back)[name][2]
        np.testing.assert_array_equal(found.lattice, crystal.lattice)
        np.testing.assert_array_equal(found.frac_coords, crystal.frac_coords)
        np.testing.assert_array_equal(found.atomic_numbers, crystal.atomic_numbers)
    assert back.metadata["cells"] == "as in the source"
    assert "split as in the source: test 4, train 4, val 4" in result.stdout


def test_csv_files_come_back_to_the_precision_of_their_cifs(tmp_path, parquet, some):
    assert run("data", "export", parquet, "--to", "csv", "--out", tmp_path / "csv", "--workers", 1).exit_code == 0
    assert sorted(file.name for file in (tmp_path / "csv").iterdir()) == ["test.csv", "train.csv", "val.csv"]
    back, refused = build_dataset(tmp_path / "csv", as_is=True)
    assert not refused
    assert set(back.split.tolist()) == {"train", "val", "test"}
    rows = by_id(back)
    assert set(rows) == set(some.ids.tolist())
    for name, (split, labels, crystal) in by_id(some).items():
        assert rows[name][0] == split
        assert rows[name][1] == pytest.approx(labels, rel=0, abs=0, nan_ok=True)
        found = rows[name][2]
        assert found.atomic_numbers.tolist() == crystal.atomic_numbers.tolist()
        np.testing.assert_allclose(parameters(found.lattice), parameters(crystal.lattice), rtol=0, atol=1e-8)
        apart = found.frac_coords - crystal.frac_coords
        assert np.abs(apart - np.rint(apart)).max() < 1e-8


def test_csv_files_are_what_the_published_code_reads(tmp_path, some):
    write_csv(some, tmp_path / "csv")
    with (tmp_path / "csv" / "val.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["material_id", "cif", *some.labels]
    assert [row["material_id"] for row in rows] == some.ids[::3].tolist()
    assert [row["space_group"] for row in rows] == ["Fm-3m", "R-3m", "Cmce", "I4/mmm"]
    assert [row["my own label"] for row in rows] == ["0.0", "", "2.0", "3.0"]
    structure = Structure.from_str(rows[1]["cif"], fmt="cif")  # pymatgen's own parser
    assert structure.volume == pytest.approx(some.crystals[3].volume, rel=1e-6)


def published_csv(path, rows):
    """A table as the published ones are: an index without a name, ids, CIF texts, numbers, words."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["", "material_id", "my_energy", "dft_band_gap", "pretty_formula", "space_group", "cif"])
        table.writerows([i, *row] for i, row in enumerate(rows))


@pytest.fixture
def released(tmp_path, some):
    """A folder as Alex-MP-20 is: train.csv and val.csv, no test.csv."""
    texts = [cif_text(crystal) for crystal in some.crystals[:6]]
    rows: list[tuple[str | float, ...]] = [
        (f"agm{i:03d}", -i / 3, "" if i % 2 else i, "A", "Fm-3m", text) for i, text in enumerate(texts)
    ]
    rows[5] = ("agm005", "n/a", 5, "A", "nonsense", texts[5])
    published_csv(tmp_path / "released" / "train.csv", rows[:4])
    published_csv(tmp_path / "released" / "val.csv", rows[4:])
    return tmp_path / "released"


def test_a_folder_of_published_csv_files_keeps_its_split(tmp_path, released):
    result = run("data", "build", "--from", released, "--out", tmp_path / "a.parquet", "--workers", 1)
    assert result.exit_code == 0, result.output
    data = CrystalDataset.read(tmp_path / "a.parquet")
    assert data.ids.tolist() == [f"agm{i:03d}" for i in range(6)]
    assert data.split.tolist() == ["train"] * 4 + ["val"] * 2
    assert set(data.labels) == {"my_energy", "dft_band_gap", "space_group"}
    nan = np.nan
    np.testing.assert_array_equal(data.labels["my_energy"], [0, -1 / 3, -2 / 3, -1, -4 / 3, nan])
    np.testing.assert_array_equal(data.labels["dft_band_gap"], [0, nan, 2, nan, 4, 5])
    np.testing.assert_array_equal(data.labels["space_group"], [225] * 5 + [nan])
    assert data.metadata["texts"] == {"my_energy": 1, "pretty_formula": 6, "space_group": 1}
    assert data.metadata["split"] == "as in the source"
    assert "hold words (and of how many structures): my_energy 1, pretty_formula 6, space_group 1" in result.stdout


def test_names_of_files_say_nothing_where_others_are_beside_them(tmp_path, released):
    assert has_split(released)
    (released / "notes.txt").write_text("not a structure")
    (released / ".val.csv.swp").write_text("")
    with zipfile.ZipFile(tmp_path / "released.zip", "w") as archive:
        archive.write(released / "train.csv", "alex/train.csv")
        archive.writestr("__MACOSX/alex/._train.csv", "")
    assert has_split(released)
    assert has_split(tmp_path / "released.zip")
    assert not has_split(released / "train.csv")
    (released / "more.csv").write_text("cif\n")
    assert not has_split(released)


def test_a_split_is_kept_or_made_as_wanted(tmp_path, released, some, parquet):
    new, _ = build_dataset(released, keep_split=False, val=0.0, test=0.0)
    assert set(new.split.tolist()) == {"train"}
    held_out, _ = build_dataset(released, held_out=frozenset([some.formulas[0]]))
    assert held_out.split.tolist() == ["test", "train", "train", "train", "val", "val"]
    one_file, _ = build_dataset(released / "val.csv", keep_split=True)
    assert one_file.split.tolist() == ["val", "val"]
    column, _ = build_dataset(parquet, keep_split=True)
    assert column.split.tolist() == some.split.tolist()
    formulas, _ = build_dataset(parquet)
    assert formulas.metadata["split"].startswith("by reduced formula")


def test_a_column_that_is_no_split_is_a_refusal(tmp_path, some):
    texts = [cif_text(crystal) for crystal in some.crystals[:3]]
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["cif", "split"], [texts[0], "val"], [texts[1], "dev"], [texts[2], ""]])
    kept, refused = build_dataset(tmp_path / "a.csv", keep_split=True)
    assert kept.split.tolist() == ["val", ""]
    assert [candidate.refusal for candidate in refused] == [
        "its split is 'dev': write train, val, test or nothing there"
    ]


def test_cells_of_a_cache_directory_are_made_standard_when_asked(tmp_path, some):
    crystal = some.crystals[0]
    twice = crystal.replace(
        lattice=crystal.lattice * [[2], [1], [1]],
        frac_coords=np.concatenate([(crystal.frac_coords + np.array([i, 0, 0])) / [2, 1, 1] for i in range(2)]),
        atomic_numbers=np.tile(crystal.atomic_numbers, 2),
    )
    write_cache(CrystalDataset(ids=["a"], crystals=[twice], split=["train"]), tmp_path / "cache")
    as_is, _ = build_dataset(tmp_path / "cache")
    standard, _ = build_dataset(tmp_path / "cache", as_is=False)
    assert as_is.num_atoms.tolist() == [2 * crystal.num_atoms]
    assert standard.num_atoms.tolist() == [crystal.num_atoms]
    np.testing.assert_allclose(standard.crystals[0].lattice, standard.crystals[0].lattice.T, atol=1e-6)
    with pytest.raises(NothingLeft, match="atoms in the cell, more than"):
        build_dataset(tmp_path / "cache", max_atoms=2 * crystal.num_atoms - 1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["build", "--from", "cache", "--out", "a.parquet", "--val", "0.2"], "leave out --val and --test, or add"),
        (["build", "--from", "bad", "--out", "a.parquet"], "cell.npy has 3 rows, but by num_atoms.npy"),
        (["build", "--from", "one.csv", "--out", "a.parquet", "--keep-split"], "says of no structure which split"),
        (["export", "none.parquet", "--to", "cache", "--out", "new"], "12 crystals are in none of train, val, test"),
        (["export", "none.parquet", "--to", "csv", "--out", "new"], "12 crystals are in none of train, val, test"),
        (["export", "named.parquet", "--to", "csv", "--out", "new"], "the label 'Cif' would not be read as one"),
        (["export", "some.parquet", "--to", "csv", "--out", "cache"], "exists already and is no empty folder"),
        (["export", "some.parquet", "--to", "cache", "--out", "cache"], "exists already and is no empty folder"),
    ],
)
def test_user_errors_are_one_sentence_and_code_2(tmp_path, monkeypatch, some, parquet, arguments, words):
    monkeypatch.chdir(tmp_path)
    write_cache(some, "cache")
    write_cache(some, "bad")
    np.save("bad/train/cell.npy", np.zeros((3, 3, 3)))
    (tmp_path / "one.csv").write_text('cif\n"' + cif_text(some.crystals[0]) + '"\n')
    CrystalDataset(ids=some.ids, crystals=some.crystals).write("none.parquet")
    CrystalDataset(ids=["a"], crystals=some.crystals[:1], labels={"Cif": [1]}, split=["train"]).write("named.parquet")
    result = run("data", *arguments, "--workers", "1")
    assert result.exit_code == 2, result.output
    assert words in " ".join(result.stderr.split())
    assert "Traceback" not in result.output
    assert not (tmp_path / "a.parquet").exists()
    assert not (tmp_path / "new").exists()
    assert not list(tmp_path.glob(".*.part"))


def test_a_cache_directory_reads_back_without_a_command(tmp_path, some):
    write_cache(some, tmp_path / "cache")
    assert_same_rows(read_cache(tmp_path / "cache"), some)
