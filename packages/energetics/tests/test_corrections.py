import json
from dataclasses import replace

import numpy as np
import pytest
from druse_crystal.crystal import Crystal
from druse_energetics.corrections import Corrections, correction_terms, fit_corrections, load_corrections
from druse_energetics.derivation import refit_corrections
from pymatgen.core import Element, Structure

TRUE = {"Li": -1.9, "Na": -1.3, "Fe": -8.4, "Mn": -9.0, "O": -4.9, "F": -1.8, "S": -4.1}
HUBBARD = {"Fe in oxide": 2.2, "Fe in fluoride": 2.0, "Mn in oxide": 1.6}


def random_crystal(symbols, rng) -> Crystal:
    numbers = np.repeat([Element(s).Z for s in symbols], rng.integers(1, 4, len(symbols)))
    return Crystal(lattice=np.eye(3) * 9.0, frac_coords=rng.random((len(numbers), 3)), atomic_numbers=numbers)


def sample(n, rng):
    """Crystals, energies and formation energies that follow the linear scheme exactly."""
    crystals, energies, formation = [], [], []
    while len(crystals) < n:
        symbols = rng.choice(list(TRUE), rng.integers(2, 4), replace=False).tolist()
        crystal = random_crystal(symbols, rng)
        terms = correction_terms(crystal)
        if any(t.startswith("O in") for t in terms) or "Mn in fluoride" in terms:
            continue
        energy_per_atom = rng.normal(-1, 1)
        crystals.append(crystal)
        formation.append(energy_per_atom)
        reference = sum(n * (TRUE | HUBBARD)[t] for t, n in terms.items())
        energies.append(energy_per_atom * crystal.num_atoms + reference)
    return crystals, np.array(energies), np.array(formation)


def test_terms():
    rng = np.random.default_rng(0)
    terms = correction_terms(random_crystal(["Fe", "O"], rng))
    assert terms["Fe in oxide"] == terms["Fe"]
    assert "Fe in fluoride" in correction_terms(random_crystal(["Fe", "O", "F"], rng))
    assert set(correction_terms(random_crystal(["Fe", "S"], rng))) == {"Fe", "S"}
    assert set(correction_terms(random_crystal(["Li", "O"], rng))) >= {"Li", "O"}


def test_peroxides_are_told_apart():
    def barium(bond):  # BaO2: O-O pairs along c in a tetragonal cell
        structure = Structure(
            np.diag([3.84, 3.84, 6.9]),
            ["Ba", "Ba", "O", "O", "O", "O"],
            [
                [0, 0, 0],
                [0.5, 0.5, 0.5],
                *([x, x, z + s * bond / 2 / 6.9] for x, z in ((0, 0.5), (0.5, 0)) for s in (1, -1)),
            ],
        )
        from druse_crystal.convert import from_pymatgen

        return correction_terms(from_pymatgen(structure))

    assert barium(1.53)["O in peroxide"] == 4
    assert barium(1.33)["O in superoxide"] == 4
    assert not any("peroxide" in t or "superoxide" in t for t in barium(2.6))


def test_fit_recovers_the_scheme_and_withstands_wrong_labels():
    rng = np.random.default_rng(1)
    crystals, energies, formation = sample(400, rng)
    wrong = rng.choice(400, 12, replace=False)
    formation[wrong] += rng.choice([-1, 1], 12) * 1.5
    fitted = fit_corrections(crystals, energies, formation, potential="made-up")
    for term, value in (TRUE | HUBBARD).items():
        assert fitted.coefficients[term] == pytest.approx(value, abs=0.05), term
    assert fitted.residual.median < 0.01
    assert fitted.residual.n == 400
    new, new_energies, new_formation = sample(50, rng)
    for crystal, energy, expected in zip(new, new_energies, new_formation, strict=True):
        assert fitted.formation_energy(crystal, energy) == pytest.approx(expected, abs=0.05)


def test_unknown_labels_are_left_out():
    rng = np.random.default_rng(2)
    crystals, energies, formation = sample(100, rng)
    formation[:30] = np.nan
    energies[30:40] = np.nan
    assert fit_corrections(crystals, energies, formation, potential="x").residual.n == 60
    with pytest.raises(ValueError, match="at least"):
        fit_corrections(crystals[:5], energies[:5], formation[5:10], potential="x")
    with pytest.raises(ValueError, match="100 crystals"):
        fit_corrections(crystals, energies[:9], formation, potential="x")


def test_residual_is_measured_on_other_systems():
    rng = np.random.default_rng(3)
    crystals, energies, formation = sample(300, rng)
    noisy = formation + rng.normal(0, 0.1, 300)
    residual = fit_corrections(crystals, energies, noisy, potential="x").residual
    assert residual.mae == pytest.approx(0.1 * np.sqrt(2 / np.pi), rel=0.2)
    assert residual.p90 == pytest.approx(0.1645, rel=0.2)


def test_held_out_crystals_take_no_part_in_the_fit():
    rng = np.random.default_rng(5)
    crystals, energies, formation = sample(300, rng)
    held_out = np.zeros(300, dtype=bool)
    held_out[::3] = True
    fitted = fit_corrections(crystals, energies, formation, potential="x", held_out=held_out)
    wrong = np.where(held_out, formation + 0.5, formation)
    other = fit_corrections(crystals, energies, wrong, potential="x", held_out=held_out)
    alone = [i for i in range(300) if not held_out[i]]
    without = fit_corrections([crystals[i] for i in alone], energies[alone], formation[alone], potential="x")
    assert other.coefficients == fitted.coefficients == without.coefficients
    assert other.residual == fitted.residual == without.residual
    assert without.residual_held_out is None
    assert fitted.residual.n == 200
    assert fitted.residual_held_out is not None
    assert other.residual_held_out is not None
    assert fitted.residual_held_out.n == 100
    assert fitted.residual_held_out.mae < 1e-3
    assert other.residual_held_out.mae == pytest.approx(0.5, abs=1e-3)
    with pytest.raises(ValueError, match="9 marks"):
        fit_corrections(crystals, energies, formation, potential="x", held_out=held_out[:9])
    with pytest.raises(ValueError, match="at least"):
        fit_corrections(crystals, energies, formation, potential="x", held_out=np.ones(300, dtype=bool))


def test_held_out_elements_and_terms_that_no_fit_saw():
    rng = np.random.default_rng(6)
    crystals, energies, formation = sample(200, rng)
    strange, iron = random_crystal(["Pu", "S"], rng), random_crystal(["Fe"], rng)
    fitted = fit_corrections(
        [*crystals, strange, iron, crystals[0]],
        [*energies, -50.0, -8.0 * iron.num_atoms, energies[0]],
        [*formation, 0.0, 0.0, np.nan],
        potential="x",
        held_out=np.arange(203) >= 200,
    )
    assert "Pu" not in fitted.coefficients
    assert fitted.residual_held_out is None  # an unknown term, an element, no label
    assert fitted.elements == {"Fe": -8.0}
    assert fitted.coefficients["Fe"] == pytest.approx(TRUE["Fe"], abs=1e-3)


def test_shipped_corrections_hold_out_the_test_split(tmp_path):
    refitted = refit_corrections("sevennet-0", tmp_path)
    shipped = load_corrections("sevennet-0")
    assert refitted.coefficients == pytest.approx(shipped.coefficients, abs=2e-5)  # rounded to 1e-5
    assert refitted.elements == shipped.elements
    assert refitted.provenance == shipped.provenance
    assert Corrections.read(tmp_path / "corrections-sevennet-0.json") == refitted


def test_errors_name_the_element(tmp_path):
    rng = np.random.default_rng(4)
    fitted = fit_corrections(*sample(100, rng), potential="x")
    with pytest.raises(ValueError, match="Pu"):
        fitted.formation_energy(random_crystal(["Pu", "O"], rng), -10.0)
    with pytest.raises(ValueError, match="finite"):
        fitted.formation_energy(random_crystal(["Li", "O"], rng), float("nan"))
    fitted.write(tmp_path / "c.json")
    assert Corrections.read(tmp_path / "c.json") == fitted
    held_out = replace(fitted, residual_held_out=fitted.residual)
    held_out.write(tmp_path / "c.json")
    assert Corrections.read(tmp_path / "c.json") == held_out
    assert json.loads((tmp_path / "c.json").read_text())["potential"] == "x"


@pytest.mark.parametrize(("name", "mae"), [("sevennet-0", 0.012), ("sevennet-l3i5", 0.012), ("chgnet", 0.03)])
def test_shipped_corrections(name, mae):
    corrections = load_corrections(name)
    assert corrections.potential == name
    assert corrections.residual.mae < mae
    assert corrections.residual.n == 4187
    assert corrections.residual_held_out is not None
    assert corrections.residual_held_out.n == 1427  # compounds of the split "test"
    assert corrections.residual_held_out.mae < mae
    assert corrections.provenance["held_out"] == "split test"
    assert corrections.residual_near_hull.mae <= corrections.residual.mae


def test_no_corrections_for_strangers():
    with pytest.raises(ValueError, match="mace"):
        load_corrections("mace")
