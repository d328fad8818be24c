from importlib.resources import files
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from druse_crystal.dataset import CrystalDataset, PackedCrystals, load_embedded, split_by_formula
from druse_crystal.testing import crystals
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


def equal(one, other):
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("lattice", "frac_coords", "atomic_numbers")
    )


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(some=st.lists(crystals(), max_size=5), data=st.data())
def test_round_trip_is_exact(tmp_path, some, data):
    count = len(some)
    gaps = data.draw(st.lists(st.one_of(st.floats(0, 10), st.just(np.nan)), min_size=count, max_size=count))
    split = data.draw(st.lists(st.sampled_from(["train", "val", "test", ""]), min_size=count, max_size=count))
    dataset = CrystalDataset(
        ids=[f"c{i}" for i in range(count)],
        crystals=some,
        labels={"dft_band_gap": gaps},
        split=split,
        metadata={"source": "somewhere é", "counts": {"a": 1}},
    )
    dataset.write(tmp_path / "d.parquet")
    back = CrystalDataset.read(tmp_path / "d.parquet")
    assert back.ids.tolist() == dataset.ids.tolist()
    assert back.split.tolist() == split
    np.testing.assert_array_equal(back.labels["dft_band_gap"], np.array(gaps, dtype=float))
    assert back.metadata == dataset.metadata
    assert len(back.crystals) == count
    assert all(equal(one, other) for one, other in zip(back.crystals, some, strict=True))
    assert list(back.labels) == ["dft_band_gap"]


@settings(max_examples=25, deadline=None)
@given(some=st.lists(crystals(max_atoms=4), min_size=1, max_size=6), data=st.data())
def test_packed_crystals_behave_like_a_list(some, data):
    packed = PackedCrystals.from_crystals(some)
    index = data.draw(st.lists(st.integers(0, len(some) - 1), max_size=6))
    chosen = packed.select(np.array(index, dtype=np.int64))
    assert [equal(chosen[i], some[j]) for i, j in enumerate(index)] == [True] * len(index)
    assert equal(packed[-1], some[-1])
    assert [c.num_atoms for c in packed[::2]] == [c.num_atoms for c in some[::2]]
    with pytest.raises(IndexError):
        packed[len(some)]


def test_select_and_subset(tmp_path):
    embedded = load_embedded()
    train = embedded.subset("train")
    assert set(train.split.tolist()) == {"train"}
    few = embedded.select([5, 2, 5][:2])
    assert few.ids.tolist() == [embedded.ids[5], embedded.ids[2]]
    assert equal(few.crystals[1], embedded.crystals[2])
    with pytest.raises(ValueError, match="dev"):
        embedded.subset("dev")


def test_what_does_not_fit_together_is_refused():
    crystal = load_embedded().crystals[0]
    cases: list[tuple[dict[str, Any], str]] = [
        ({"ids": ["a"], "crystals": [crystal, crystal]}, "has 2 crystals, ids"),
        ({"ids": ["a", "a"], "crystals": [crystal, crystal]}, "'a' occurs more than once"),
        ({"ids": ["a"], "crystals": [crystal], "split": ["dev"]}, "unknown split 'dev'"),
        ({"ids": ["a"], "crystals": [crystal], "labels": {"gap": [1.0, 2.0]}}, "gap has shape"),
        ({"ids": ["a"], "crystals": [crystal], "labels": {"lattice": [1.0]}}, "cannot be called 'lattice'"),
    ]
    for arguments, words in cases:
        with pytest.raises(ValueError, match=words):
            CrystalDataset(**arguments)


def test_files_that_are_no_datasets(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        CrystalDataset.read(tmp_path / "gone.parquet")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(ValueError, match="no column 'id'"):
        CrystalDataset.read(tmp_path / "other.parquet")
    columns = {"id": ["a"], "lattice": [[1.0] * 9], "frac_coords": [[0.0] * 5], "atomic_numbers": [[3, 4]]}
    pq.write_table(pa.table(columns), tmp_path / "short.parquet")
    with pytest.raises(ValueError, match="row 0 has 5 numbers in 'frac_coords'"):
        CrystalDataset.read(tmp_path / "short.parquet")
    columns["frac_coords"] = None
    pq.write_table(
        pa.table({**columns, "frac_coords": pa.array([None], pa.list_(pa.float64()))}), tmp_path / "hole.parquet"
    )
    with pytest.raises(ValueError, match="empty cells"):
        CrystalDataset.read(tmp_path / "hole.parquet")
    load_embedded().select([0]).write(tmp_path / "cut.parquet")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "cut.parquet").read_bytes()[:-50])
    with pytest.raises(ValueError, match="damaged"):
        CrystalDataset.read(tmp_path / "cut.parquet")


def test_split_is_by_formula_and_the_same_everywhere():
    formulas = [f"Li{i}O" for i in range(4000)]
    split = split_by_formula(formulas, val=0.1, test=0.2)
    assert split_by_formula(formulas[::-1], val=0.1, test=0.2).tolist() == split[::-1].tolist()
    assert split_by_formula(["A", "B", "A"], val=0.4, test=0.4)[[0, 2]].tolist() in [
        [s, s] for s in ("train", "val", "test")
    ]
    shares = [(split == name).mean() for name in ("train", "val", "test")]
    assert shares == pytest.approx([0.7, 0.1, 0.2], abs=0.03)
    assert split_by_formula(formulas[:5], held_out=frozenset(formulas[:5])).tolist() == ["test"] * 5
    with pytest.raises(ValueError, match="something to train on"):
        split_by_formula(formulas, val=0.5, test=0.5)


@pytest.fixture(scope="module")
def embedded():
    return load_embedded()


def test_embedded_is_small_and_says_what_it_is(embedded):
    folder = files("druse_crystal") / "data"
    assert len((folder / "embedded.parquet").read_bytes()) <= 3_000_000
    assert {"source", "licence", "level_of_theory", "filters", "counts", "refused"} <= embedded.metadata.keys()
    assert embedded.metadata["counts"]["structures"] == len(embedded)
    card = (folder / "CARD.md").read_text()
    assert f"{len(embedded)} known structures" in card
    assert "CC-BY-4.0" in card
    for name, values in embedded.labels.items():
        assert f"| `{name}` |" in card
        assert f"| {np.isfinite(values).sum()} (" in card


def test_embedded_has_no_formula_in_two_splits(embedded):
    where: dict[str, set[str]] = {}
    for formula, split in zip(embedded.formulas.tolist(), embedded.split.tolist(), strict=True):
        if split:
            where.setdefault(formula, set()).add(split)
    assert max(len(splits) for splits in where.values()) == 1
    assert {name for splits in where.values() for name in splits} == {"train", "val", "test"}


def test_embedded_holds_sound_structures(embedded):
    assert embedded.num_atoms.min() >= 1
    assert embedded.num_atoms.max() <= 20
    volumes = np.abs(np.linalg.det(embedded.crystals.lattice)) / embedded.num_atoms
    assert volumes.min() > 2
    assert np.median(volumes) == pytest.approx(18, abs=4)
    np.testing.assert_allclose(embedded.crystals.lattice, embedded.crystals.lattice.transpose(0, 2, 1), atol=2e-6)


def test_embedded_knows_textbook_values(embedded):
    """Diamond, silicon and halite against numbers from textbooks, within the known errors of PBE."""
    rows = {name: i for i, name in enumerate(embedded.ids.tolist())}
    silicon = rows["mp-149"]
    assert embedded.formulas[silicon] == "Si"
    assert embedded.crystals[silicon].volume == pytest.approx(5.431**3 / 4, rel=0.03)
    assert embedded.labels["energy_above_hull"][silicon] == pytest.approx(0, abs=1e-3)
    assert 0.4 < embedded.labels["dft_band_gap"][silicon] < 1.17
    halite = [i for i in range(len(embedded)) if embedded.formulas[i] == "NaCl"]
    assert min(embedded.labels["formation_energy_per_atom"][halite]) == pytest.approx(-411.2 / 96.485 / 2, abs=0.15)
    stiffness = embedded.labels["dft_bulk_modulus"]
    stiffest = embedded.formulas[np.nanargmax(stiffness)]
    assert stiffest in {"C", "Os", "Re", "Ir"}
