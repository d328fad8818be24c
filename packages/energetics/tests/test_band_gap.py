"""Band gaps: textbook insulators and metals, the symmetries of a crystal, training, and files that do not fit."""

import json

import numpy as np
import pytest
import torch
from ase.build import bulk
from druse_crystal import Crystal
from druse_crystal.convert import from_ase
from druse_crystal.dataset import load_embedded
from druse_energetics.band_gap import (
    WEIGHTS,
    BandGapReadout,
    StoredReadout,
    atom_features,
    band_gaps,
    fit_readout,
    load_readout,
    save_readout,
)
from druse_energetics.derivation import derive_band_gap
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from scipy.spatial.transform import Rotation

SALT = from_ase(bulk("NaCl", "rocksalt", a=5.69))
MAGNESIA = from_ase(bulk("MgO", "rocksalt", a=4.25))
SILICON = from_ase(bulk("Si", "diamond", a=5.47))
COPPER = from_ase(bulk("Cu", "fcc", a=3.62))
ALUMINIUM = from_ase(bulk("Al", "fcc", a=4.04))
HELIUM = SALT.replace(atomic_numbers=np.array([2, 95]))
LONELY = Crystal(lattice=30 * np.eye(3), frac_coords=np.zeros((1, 3)), atomic_numbers=np.array([11]))
TILTED = Crystal(
    lattice=np.array([[4.9, 0.1, 0.2], [0.3, 5.3, -0.2], [0.5, 0.4, 6.1]]),
    frac_coords=np.array([[0.02, 0.01, 0.0], [0.48, 0.03, 0.51], [0.1, 0.52, 0.47], [0.55, 0.5, 0.08]]),
    atomic_numbers=np.array([12, 8, 22, 16]),
)


def test_textbook_gaps(sevennet):
    """PBE: rock salt 5.0 eV, MgO 4.4 to 4.8, silicon 0.6."""
    salt, magnesia, silicon, copper, aluminium = band_gaps(sevennet, [SALT, MAGNESIA, SILICON, COPPER, ALUMINIUM])
    assert salt == pytest.approx(5.0, abs=0.6)
    assert magnesia == pytest.approx(4.6, abs=0.6)
    assert silicon < 1.2
    assert copper == aluminium == 0


def test_what_cannot_be_had_is_nan(sevennet):
    gaps = band_gaps(sevennet, [SALT, HELIUM, COPPER])
    assert np.isnan(gaps).tolist() == [False, True, False]
    assert band_gaps(sevennet, [HELIUM]).shape == (1,)
    assert band_gaps(sevennet, []).shape == (0,)


def test_a_crystal_on_which_the_network_fails_takes_no_other_along(sevennet, monkeypatch):
    features = sevennet.invariants

    def fails(crystals):
        if any(c.num_atoms == 1 for c in crystals):
            raise RuntimeError("no edges")
        return features(crystals)

    monkeypatch.setattr(sevennet, "invariants", fails)
    assert [x is None for x in atom_features(sevennet, [SALT, LONELY, MAGNESIA])] == [False, True, False]
    assert np.isnan(band_gaps(sevennet, [SALT, LONELY, MAGNESIA])).tolist() == [False, True, False]


def test_features_that_are_no_numbers_give_no_gap():
    readout = BandGapReadout(3, width=4).eval()
    wrong = np.array([[1, np.nan, 1], [0, 0, 0]], dtype=np.float32)
    assert np.isnan(readout.gaps([wrong, np.ones((1, 3), dtype=np.float32)])).tolist() == [True, False]


def test_two_in_a_batch_are_two_batches_of_one(sevennet):
    apart = np.concatenate([band_gaps(sevennet, [c]) for c in (SALT, TILTED, COPPER, SILICON)])
    np.testing.assert_allclose(band_gaps(sevennet, [SALT, TILTED, COPPER, SILICON]), apart, atol=1e-4)
    np.testing.assert_allclose(band_gaps(sevennet, [SILICON, COPPER, TILTED, SALT]), apart[::-1], atol=1e-4)


def raw(sevennet, readout, crystal):
    """Both outputs, which say more than a gap of zero."""
    (features,) = sevennet.invariants([crystal])
    with torch.no_grad():
        return torch.cat(readout(torch.from_numpy(features), torch.tensor([len(features)]))).numpy()


@pytest.mark.parametrize("crystal", [TILTED, SILICON], ids=["tilted", "silicon"])
def test_how_a_crystal_is_written_does_not_matter(sevennet, crystal):
    readout = load_readout(sevennet).readout
    expected = raw(sevennet, readout, crystal)
    order = np.random.default_rng(0).permutation(crystal.num_atoms)
    turn = Rotation.random(rng=np.random.default_rng(1)).as_matrix()
    doubled = Crystal(
        lattice=crystal.lattice * [[2], [1], [1]],
        frac_coords=np.concatenate([(crystal.frac_coords + np.array([k, 0, 0])) / [2, 1, 1] for k in (0, 1)]),
        atomic_numbers=np.tile(crystal.atomic_numbers, 2),
    )
    for same in (
        crystal.replace(lattice=crystal.lattice @ turn),
        crystal.replace(frac_coords=crystal.frac_coords[order], atomic_numbers=crystal.atomic_numbers[order]),
        crystal.replace(frac_coords=(crystal.frac_coords + np.array([0.3, 0.7, 0.2])) % 1),
        doubled,
    ):
        np.testing.assert_allclose(raw(sevennet, readout, same), expected, atol=1e-3)


def test_invariants_are_scalars_and_lengths(sevennet):
    """128 scalars, 64 vectors and 32 tensors after each of four layers, and the scalars of the last."""
    one, two = sevennet.invariants([SALT, COPPER])
    assert one.shape == (2, 4 * (128 + 64 + 32) + 128)
    assert two.shape == (1, 1024)
    vectors_and_tensors = two[0, : 4 * 224].reshape(4, 224)[:, 128:]
    np.testing.assert_allclose(vectors_and_tensors, 0, atol=1e-4)  # an atom of copper has a cubic surrounding


@settings(max_examples=20, deadline=None)
@given(counts=st.lists(st.integers(1, 5), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_the_readout_against_a_loop_over_crystals(counts, seed):
    readout = BandGapReadout(6, width=5).eval()
    rng = np.random.default_rng(seed)
    features = [rng.normal(size=(n, 6)).astype(np.float32) for n in counts]
    with torch.no_grad():
        for gap, of_atoms in zip(readout.gaps(features), features, strict=True):
            hidden = readout.of_atoms(torch.from_numpy(of_atoms))
            logit, size = readout.of_crystals(torch.cat([hidden.mean(0), hidden.max(0).values]))
            assert gap == pytest.approx(np.log1p(np.exp(size.item())) if logit > 0 else 0.0, abs=1e-5)


def test_training_learns_and_repeats_itself():
    rng = np.random.default_rng(0)
    features = [rng.normal(size=(n, 4)).astype(np.float32) for n in rng.integers(1, 6, size=300)]
    gaps = np.array([max(0.0, 3 * x.mean(0)[0] + x.max(0)[1]) for x in features])
    before = torch.random.get_rng_state()
    readout = fit_readout(features, gaps, epochs=40, learning_rate=1e-2)
    assert torch.equal(before, torch.random.get_rng_state())
    assert np.abs(readout.gaps(features) - gaps).mean() < 0.25 * np.abs(gaps - np.median(gaps)).mean()
    again = fit_readout(features, gaps, epochs=40, learning_rate=1e-2)
    assert all(torch.equal(x, again.state_dict()[name]) for name, x in readout.state_dict().items())


def test_training_refuses_what_it_cannot_learn_from():
    features = [np.ones((1, 2), dtype=np.float32)] * 70
    with pytest.raises(ValueError, match="less than one batch of 64"):
        fit_readout(features[:3], np.zeros(3))
    with pytest.raises(ValueError, match="not negative"):
        fit_readout(features, np.full(70, np.nan))


def test_the_shipped_weights_say_where_they_come_from(sevennet):
    stored = load_readout(sevennet)
    assert stored.potential == sevennet.digest
    assert WEIGHTS.stat().st_size < 300_000
    assert stored.provenance["trained_on"] == "split train"
    assert stored.provenance["errors"]["train"]["n"] == 3843


def test_the_recipe_holds_out_what_it_says_and_measures_what_it_wrote(sevennet, tmp_path, monkeypatch):
    embedded = load_embedded()
    labelled = np.isfinite(embedded.labels["dft_band_gap"])
    wanted = {"train": 70, "val": 5, "test": 12}
    rows = [np.flatnonzero(labelled & (embedded.split == name))[:n] for name, n in wanted.items()]
    few = embedded.select(np.concatenate(rows))
    monkeypatch.setattr("druse_energetics.derivation.load_embedded", lambda: few)
    derive_band_gap(sevennet, tmp_path)
    stored = load_readout(sevennet, tmp_path / "band-gap-sevennet-0.safetensors")
    errors = stored.provenance["errors"]
    assert {name: row["n"] for name, row in errors.items()} == wanted
    test = few.subset("test")
    off = np.abs(band_gaps(sevennet, test.crystals, readout=stored.readout) - test.labels["dft_band_gap"])
    assert errors["test"]["mean_absolute"] == pytest.approx(off.mean(), abs=1e-3)
    assert errors["test"]["median"] == pytest.approx(np.median(off), abs=1e-3)


def test_written_and_read(sevennet, tmp_path):
    path = tmp_path / "readout.safetensors"
    stored = load_readout(sevennet)
    save_readout(path, stored)
    assert path.read_bytes() == WEIGHTS.read_bytes()


def test_another_potential_is_refused(sevennet, tmp_path):
    class Other:
        name, elements = "other", frozenset({11, 17})

        def energies(self, crystals):
            raise AssertionError

        evaluate = energies

    with pytest.raises(ValueError, match=r"features of sevennet-0, not of other: load"):
        band_gaps(Other(), [SALT])
    with pytest.raises(ValueError, match="other has no features to read"):
        band_gaps(Other(), [SALT], readout=load_readout(sevennet).readout)
    path = tmp_path / "readout.safetensors"
    save_readout(path, StoredReadout(readout=BandGapReadout(1024, width=4), potential="0" * 64))
    with pytest.raises(ValueError, match=r"other weights than the installed .*derivation band-gap"):
        load_readout(sevennet, path)


def test_damaged_files_are_refused(sevennet, tmp_path):
    path = tmp_path / "readout.safetensors"
    with pytest.raises(ValueError, match="does not exist: install"):
        load_readout(sevennet, path)
    path.write_bytes(WEIGHTS.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=r"truncated or no safetensors file .* rebuild it with"):
        load_readout(sevennet, path)
    tensors = load_file(WEIGHTS)
    save_file(tensors, path)
    with pytest.raises(ValueError, match="no band-gap readout that this version"):
        load_readout(sevennet, path)
    header = {"druse_band_gap": json.dumps({"format": 1, "potential": sevennet.digest, "provenance": {}})}
    save_file({name: x for name, x in tensors.items() if name != "mean"}, path, metadata=header)
    with pytest.raises(ValueError, match="is damaged"):
        load_readout(sevennet, path)
