"""Cache directories of the published code: written as it writes them, read as it reads them, refused in a sentence."""

import io
import json

import numpy as np
import pytest
from druse_crystal.cache_directory import ARRAYS, is_cache, read_cache, write_cache
from druse_crystal.crystal import Crystal
from druse_crystal.dataset import CrystalDataset, PackedCrystals, load_embedded
from druse_crystal.group_symbols import group_number, group_symbol
from druse_crystal.io import read_crystals
from pymatgen.symmetry.groups import SpaceGroup


@pytest.fixture(scope="module")
def some():
    """Twelve crystals, four to a split, sorted by split; with labels, of which some are unknown."""
    embedded = load_embedded()
    chosen = embedded.select(np.arange(0, 6000, 500))
    groups = np.array([225, 14, np.nan, 166, 1, 230, 64, 2, 62, 139, np.nan, 194])
    return CrystalDataset(
        ids=chosen.ids,
        crystals=chosen.crystals,
        labels={**chosen.labels, "space_group": groups},
        split=["train"] * 4 + ["val"] * 4 + ["test"] * 4,
    )


def hand_made(folder, *, pos=((0.0, 0.5, -0.25), (1.5, 0.0, -1e-18), (0.1, 0.2, 0.3)), num_atoms=(2, 1), **properties):
    """A split as the published code saves it, from plain numpy."""
    folder.mkdir(parents=True)
    np.save(folder / "pos.npy", np.array(pos))
    np.save(folder / "cell.npy", np.array([np.eye(3) * 4, [[3, 0, 0], [1, 3, 0], [0, 0, 5]]], dtype=np.float64))
    np.save(folder / "atomic_numbers.npy", np.array([11, 17, 26]))
    np.save(folder / "num_atoms.npy", np.array(num_atoms))
    np.save(folder / "structure_id.npy", np.array([f"{folder.name}-1", f"{folder.name}-2"]))
    for name, values in properties.items():
        content = {"values": values, "property_source_doc_id": name, "origins": None}
        (folder / f"{name}.json").write_text(json.dumps(content))


def equal(one: Crystal, other: Crystal) -> bool:
    fields = ("lattice", "frac_coords", "atomic_numbers")
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in fields)


def test_round_trip_is_bit_for_bit(tmp_path, some):
    write_cache(some, tmp_path / "cache")
    back = read_cache(tmp_path / "cache")
    assert back.ids.tolist() == some.ids.tolist()
    assert back.split.tolist() == some.split.tolist()
    assert set(back.labels) == set(some.labels)
    for name, values in some.labels.items():
        np.testing.assert_array_equal(back.labels[name], values)
    assert all(equal(one, other) for one, other in zip(back.crystals, some.crystals, strict=True))


def test_what_is_written_is_what_the_published_code_reads(tmp_path, some):
    write_cache(some, tmp_path / "cache")
    val, part = tmp_path / "cache" / "val", some.subset("val")
    arrays = {name: np.load(val / f"{name}.npy", allow_pickle=False) for name in ARRAYS}
    atoms = int(part.num_atoms.sum())
    assert {name: (values.shape, values.dtype.kind, values.itemsize) for name, values in arrays.items()} == {
        "pos": ((atoms, 3), "f", 8),
        "cell": ((4, 3, 3), "f", 8),
        "atomic_numbers": ((atoms,), "i", 8),
        "num_atoms": ((4,), "i", 8),
        "structure_id": ((4,), "U", arrays["structure_id"].itemsize),
    }
    first = arrays["num_atoms"][0]
    np.testing.assert_array_equal(arrays["pos"][first : first + arrays["num_atoms"][1]], part.crystals[1].frac_coords)
    content = json.loads((val / "space_group.json").read_text())
    assert content == {
        "values": ["P1", "Ia-3d", "Cmce", "P-1"],
        "property_source_doc_id": "space_group",
        "origins": None,
    }
    assert [SpaceGroup(symbol).int_number for symbol in content["values"]] == [1, 230, 64, 2]
    assert "NaN" in (tmp_path / "cache" / "train" / "space_group.json").read_text()


def test_coordinates_are_taken_modulo_one_and_cells_as_they_are(tmp_path):
    hand_made(tmp_path / "cache" / "train")
    data = read_cache(tmp_path / "cache")
    np.testing.assert_array_equal(data.crystals[0].frac_coords, [[0, 0.5, 0.75], [0.5, 0, 0]])
    np.testing.assert_array_equal(data.crystals[1].lattice, [[3, 0, 0], [1, 3, 0], [0, 0, 5]])
    assert isinstance(data.crystals, PackedCrystals)
    assert data.crystals.frac_coords.max() < 1  # what is written to Parquet without building the crystals
    assert data.split.tolist() == ["train", "train"]


def test_properties_in_numbers_and_words(tmp_path):
    words = {"space_group": ["Fm-3m", None], "chemical_system": ["Cl-Na", "Fe"]}
    hand_made(tmp_path / "cache" / "train", dft_band_gap=[1.25, float("nan")], **words)
    hand_made(tmp_path / "cache" / "val", hhi_score=[1, None], space_group=["Cmca", "R-3m"])
    data = read_cache(tmp_path / "cache")
    nan = np.nan
    assert set(data.labels) == {"dft_band_gap", "hhi_score", "space_group"}
    np.testing.assert_array_equal(data.labels["dft_band_gap"], [1.25, nan, nan, nan])
    np.testing.assert_array_equal(data.labels["hhi_score"], [nan, nan, 1, nan])
    np.testing.assert_array_equal(data.labels["space_group"], [225, nan, 64, 166])
    assert data.metadata["texts"] == ["chemical_system"]
    rows = list(read_crystals(tmp_path / "cache"))
    assert [(row.source, row.info["split"]) for row in rows[1:3]] == [
        ("cache/train#train-2", "train"),
        ("cache/val#val-1", "val"),
    ]
    assert rows[0].info["chemical_system"] == "Cl-Na"


def test_a_crystal_that_is_none_costs_one_row(tmp_path):
    hand_made(tmp_path / "cache" / "train", pos=[(np.nan, 0, 0), (0, 0, 0), (0, 0, 0)])
    first, second = read_crystals(tmp_path / "cache")
    assert "frac_coords holds a number that is not finite" in str(first.error)
    assert second.crystal is not None


def save_pickled(file):
    np.save(file, np.array([{"a": 1}, None], dtype=object), allow_pickle=True)


def save_archive(file):
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros(2))
    file.write_bytes(buffer.getvalue())


def save_broken_archive(file):
    file.write_bytes(b"PK\x03\x04 and no more")


def cut(file):
    file.write_bytes(file.read_bytes()[:-8])


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("pos.npy", lambda file: file.unlink(), "does not exist: copy"),
        ("structure_id.npy", save_pickled, "it is pickled"),
        ("cell.npy", save_archive, "is an archive of arrays"),
        ("cell.npy", save_broken_archive, "cannot be read"),
        ("cell.npy", cut, "it is damaged or no .npy file"),
        ("cell.npy", lambda file: file.write_bytes(b""), "cannot be read"),
        ("cell.npy", lambda file: np.save(file, np.zeros((2, 9))), r"has the shape \(2, 9\)"),
        ("cell.npy", lambda file: np.save(file, np.zeros((3, 3, 3))), "has 3 rows, but by num_atoms.npy there are 2"),
        ("pos.npy", lambda file: np.save(file, np.zeros((4, 3))), "has 4 rows, but by num_atoms.npy"),
        ("atomic_numbers.npy", lambda file: np.save(file, np.ones(3)), "the type float64, it must hold"),
        ("atomic_numbers.npy", lambda file: np.save(file, np.ones(2, int)), "has 2 rows"),
        ("structure_id.npy", lambda file: np.save(file, np.array(["a"])), "has 1 rows"),
        ("num_atoms.npy", lambda file: np.save(file, np.array([3, 0])), "has a crystal of 0 atoms"),
        ("gap.json", lambda file: file.write_text('{"values": [1]}'), "has 1 values for 2 crystals"),
        ("gap.json", lambda file: file.write_text("[1, 2]"), "has no list 'values'"),
        ("gap.json", lambda file: file.write_text("{"), "is not JSON"),
        ("gap.json", lambda file: file.write_text('{"values": [1, [2]]}'), "neither number nor text"),
        ("space_group.json", lambda file: file.write_text('{"values": ["Fm-3m", "Xy"]}'), "'Xy' is no symbol"),
    ],
)
def test_what_does_not_fit_is_one_sentence_that_names_the_file(tmp_path, name, change, words):
    hand_made(tmp_path / "cache" / "train")
    change(tmp_path / "cache" / "train" / name)
    with pytest.raises(ValueError, match=words) as caught:
        read_cache(tmp_path / "cache")
    assert str(tmp_path / "cache" / "train" / name) in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=words):
        read_crystals(tmp_path / "cache")


def test_the_folder_above_and_below_are_not_taken_for_a_cache_directory(tmp_path):
    hand_made(tmp_path / "all" / "mine" / "train")
    assert is_cache(tmp_path / "all")
    for folder, place in ((tmp_path / "all", "mine/train"), (tmp_path / "all" / "mine" / "train", "itself")):
        with pytest.raises(ValueError, match=f"has arrays in {place}, but a cache directory has them in train"):
            read_cache(folder)
    hand_made(tmp_path / "all" / "mine" / "extra")
    with pytest.raises(ValueError, match="has arrays in extra"):
        read_cache(tmp_path / "all" / "mine")
    with pytest.raises(ValueError, match="is no cache directory"):
        read_cache(tmp_path / "gone")
    assert not is_cache(tmp_path / "gone")


def test_an_id_that_comes_twice(tmp_path):
    hand_made(tmp_path / "cache" / "train")
    hand_made(tmp_path / "cache" / "val")
    np.save(tmp_path / "cache" / "val" / "structure_id.npy", np.array(["train-1", "b"]))
    with pytest.raises(ValueError, match=r"cache is not a sound dataset: the id 'train-1' occurs more than once"):
        read_cache(tmp_path / "cache")


@pytest.mark.parametrize(
    ("labels", "split", "words"),
    [
        ({}, ["train", ""], "1 crystals are in none of train, val, test, 'b' is the first"),
        ({"a/b": [1, 2]}, ["train", "val"], "the label 'a/b' cannot be the name of a file"),
        ({"space_group": [225, 14.5]}, ["train", "train"], "there is no space group 14.5"),
    ],
)
def test_what_cannot_be_written_leaves_nothing(tmp_path, some, labels, split, words):
    data = CrystalDataset(ids=["a", "b"], crystals=some.crystals[:2], labels=labels, split=split)
    with pytest.raises(ValueError, match=words):
        write_cache(data, tmp_path / "new" / "cache")
    assert not [path for path in tmp_path.rglob("*") if path.name != "new"]


def test_nothing_is_written_over(tmp_path, some):
    (tmp_path / "cache").mkdir()
    write_cache(some, tmp_path / "cache")
    before = (tmp_path / "cache" / "val" / "pos.npy").read_bytes()
    with pytest.raises(ValueError, match="exists already and is no empty folder"):
        write_cache(some.select([0]), tmp_path / "cache")
    assert (tmp_path / "cache" / "val" / "pos.npy").read_bytes() == before


@pytest.mark.parametrize(
    ("symbol", "number"),
    [("P12_1/c1", 14), ("P 21 3", None), ("R-3m:H", 166), ("Cmca", 64), ("", None), ("B2/m", 12)],
)
def test_symbols_in_other_settings(symbol, number):
    if number is not None:
        assert group_number(symbol) == number
    else:
        with pytest.raises(ValueError, match="is no symbol of a space group"):
            group_number(symbol)


def test_symbols_are_those_of_pymatgen():
    for number in range(1, 231):
        assert group_number(group_symbol(number)) == number
    for number in (1, 2, 5, 14, 15, 39, 41, 62, 64, 67, 68, 146, 166, 194, 205, 227, 230):
        assert SpaceGroup(group_symbol(number)).int_number == number
    with pytest.raises(ValueError, match="there is no space group 0"):
        group_symbol(0)
