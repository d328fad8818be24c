import numpy as np
import pytest
from druse_crystal.composition import composition
from druse_energetics.reference import load_embedded_energies, load_known_formulas, load_reference


@pytest.fixture(scope="module")
def embedded():
    return load_reference("embedded")


def test_embedded_reference_reproduces_dft(embedded):
    from druse_crystal.dataset import load_embedded

    dataset = load_embedded()
    energies = load_embedded_energies("sevennet-0")
    labels = dataset.labels["energy_above_hull"]
    rng = np.random.default_rng(0)
    judged, truth = [], []
    for i in rng.choice(np.flatnonzero(np.isfinite(labels)), 150, replace=False):
        energy = energies.get(str(dataset.ids[i]))
        if energy is not None:
            judged.append(embedded.energy_above_hull(dataset.crystals[i], energy))
            truth.append(labels[i])
    error = np.abs(np.array(judged) - np.array(truth))
    assert len(error) > 140
    assert np.median(error) < 2 * embedded.residual.median
    assert np.percentile(error, 90) < 3 * embedded.residual.p90


def test_shipped_energies_are_the_potentials(sevennet):
    from druse_crystal.dataset import load_embedded

    dataset = load_embedded()
    energies = load_embedded_energies("sevennet-0")
    some = [i for i in range(0, 6000, 1000) if str(dataset.ids[i]) in energies]
    computed = sevennet.energies([dataset.crystals[i] for i in some])
    assert computed == pytest.approx([energies[str(dataset.ids[i])] for i in some], abs=1e-3)


def test_calibrated_probability(embedded):
    assert 0.0 <= embedded.calibrated_probability(0.1, 0.1) < embedded.calibrated_probability(0.0, 0.1) <= 1.0
    own = load_reference("embedded-sevennet-0")
    assert np.isnan(own.calibrated_probability(0.0, 0.1))


def test_own_hull_is_consistent(embedded):
    own = load_reference("embedded-sevennet-0")
    energies = load_embedded_energies("sevennet-0")
    above = [
        own.energy_above_hull(own.crystals[k], energies[own.ids[k]])
        for k in range(0, len(own.ids), 60)
        if own.ids[k] in energies
    ]
    assert min(above) > -1e-6  # nothing known lies below the hull it makes
    assert np.mean(np.array(above) < 0.05) > 0.7
    assert len(own.hull) < len(embedded.hull)


def test_unknown_references():
    with pytest.raises(ValueError, match=r"nowhere\.parquet"):
        load_reference("nowhere.parquet")
    with pytest.raises(ValueError, match="embedded-sevennet-0"):
        load_reference("embedded-chgnet", potential="sevennet-0")
    with pytest.raises(ValueError, match="mace"):
        load_reference("embedded", potential="mace")


def test_known_formulas_hold_the_vertices(embedded):
    formulas = load_known_formulas()
    assert len(formulas) == 85014
    compounds = [f for f in embedded.hull.ids if len(f) > 2 or not f.isalpha()]
    assert sum(f in formulas for f in compounds) > 0.99 * len(compounds)


def test_users_formation_energies(tmp_path, embedded):
    from druse_crystal.dataset import CrystalDataset, load_embedded

    dataset = load_embedded()
    pick = [i for i in range(len(dataset)) if {e.symbol for e in composition(dataset.crystals[i])} <= {"Mg", "O", "Si"}]
    some = dataset.select(pick)
    path = tmp_path / "mine.parquet"
    CrystalDataset(
        ids=some.ids,
        crystals=some.crystals,
        labels={"formation_energy_per_atom": some.labels["formation_energy_per_atom"]},
    ).write(path)
    mine = load_reference(path)
    assert len(mine.crystals) == len(pick)
    energies = load_embedded_energies("sevennet-0")
    crystal, energy = some.crystals[0], energies[str(some.ids[0])]
    assert mine.formation_energy(crystal, energy) == embedded.formation_energy(crystal, energy)
    assert mine.energy_above_hull(crystal, energy) == pytest.approx(
        embedded.energy_above_hull(crystal, energy), abs=0.05
    )
    assert mine.residual == embedded.residual
    assert "mine.parquet are taken to be on the Materials Project's scale of 2018 (MP2018)" in mine.remark
    assert mine.scheme == "MP2018"


def totals(path, **facts):
    """Frames with total energies, and what their comment lines say besides."""
    import ase
    from ase.io import write

    frames = []
    for symbols, energy in (("Mg", -1.6), ("O2", -9.9), ("MgO", -12.0), ("MgO2", -16.0)):
        atoms = ase.Atoms(symbols, cell=np.eye(3) * 6, pbc=True)
        atoms.positions = 1.9 * np.arange(len(atoms))[:, None] * [[1, 1, 0]]
        atoms.info |= facts | {"energy_per_atom": energy / len(atoms)}
        frames.append(atoms)
    write(path, frames)
    return path


@pytest.mark.parametrize(
    ("potential", "options"),
    [("sevennet-0", "--potential sevennet-0"), ("chgnet", "--potential chgnet --scheme MP2020")],
)
def test_total_energies_are_refused_until_somebody_says_whose_they_are(tmp_path, potential, options):
    path = totals(tmp_path / "my totals.extxyz")
    with pytest.raises(ValueError, match="4 total energies and does not say whose") as refused:
        load_reference(path, potential=potential)
    commands = [f"druse reference build '{path}' {o} --out 'my totals.parquet'" for o in (options, "--scheme MP2020")]
    assert str(refused.value).split("`")[1::2] == commands


def test_total_energies_of_a_dataset_are_refused_too(tmp_path, embedded):
    from druse_crystal.dataset import CrystalDataset

    path = tmp_path / "mine.parquet"
    labels = {"energy_per_atom": [-1.0]}
    CrystalDataset(ids=["a"], crystals=[embedded.crystals[0]], labels=labels).write(path)
    with pytest.raises(ValueError, match=r"--scheme MP2020 --out mine-reference\.parquet"):  # not onto itself
        load_reference(path)


def test_total_energies_that_say_what_they_are(tmp_path):
    reference = load_reference(totals(tmp_path / "x.extxyz", run_type="GGA"))
    oxide = reference.crystals[2]
    assert reference.formation_energy(oxide, -12.0) == pytest.approx((-12.0 - 0.687 + 1.6 + 4.95) / 2)
    assert reference.energy_above_hull(oxide, -12.0) == pytest.approx(0, abs=1e-6)
    assert np.isnan(reference.residual.mae)
    assert reference.remark.endswith("of PBE and PBE+U, as its entries say, and are corrected by MP2020")
    learned = load_reference(tmp_path / "x.extxyz", potential="chgnet")  # its energies are corrected already
    assert learned.formation_energy(oxide, -12.687) == pytest.approx(reference.formation_energy(oxide, -12.0))
    with pytest.raises(ValueError, match="run of the type r2SCAN"):
        load_reference(totals(tmp_path / "y.extxyz", run_type="r2SCAN"))


def test_what_is_off_the_hull_of_an_unbuilt_file_is_counted(tmp_path):
    path = totals(tmp_path / "x.extxyz", run_type="GGA")
    text = path.read_text()
    path.write_text(text.replace("Mg ", "Na ", 1) + "9\nLattice=")  # no magnesium alone, and a frame that is cut off
    reference = load_reference(path)
    assert "of 5 entries 3 are not on the hull (1 unreadable, 2 no reference)" in reference.remark
    assert f"`druse reference build {path} --scheme MP2020 --out x.parquet`" in reference.remark
    assert len(reference.crystals) == 4
    with pytest.raises(ValueError, match="no energy of the pure element Mg"):
        reference.energy_above_hull(reference.crystals[2], -12.0)


def test_files_without_energies_or_crystals(tmp_path):
    path = totals(tmp_path / "x.extxyz")
    path.write_text(path.read_text().replace("energy_per_atom", "something"))
    with pytest.raises(ValueError, match="has no energies: a reference needs formation_energy_per_atom or energy_per"):
        load_reference(path)
    path.write_text("4\n")
    with pytest.raises(ValueError, match=r"can be read; the first of 1: x\.extxyz#1: frame 1 is cut off"):
        load_reference(path)
