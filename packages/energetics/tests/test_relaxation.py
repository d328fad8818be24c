import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE
from druse_crystal.convert import from_ase
from druse_crystal.crystal import Crystal
from druse_energetics.potential import load_potential
from druse_energetics.relaxation import Relaxation, make_relaxer


def stretched(name, structure, a, seed, strain=0.04, shake=0.08) -> Crystal:
    rng = np.random.default_rng(seed)
    atoms = bulk(name, structure, a=a)
    atoms.set_cell(atoms.cell @ (np.eye(3) + strain * rng.normal(size=(3, 3))), scale_atoms=True)
    atoms.positions += shake * rng.normal(size=atoms.positions.shape)
    return from_ase(atoms)


def cubic(a, symbols, positions) -> Crystal:
    return from_ase(Atoms(symbols, cell=np.eye(3) * a, scaled_positions=positions, pbc=True))


def geometry(result: Relaxation) -> Crystal:
    assert result.crystal is not None, result.message
    return result.crystal


@pytest.fixture(scope="module")
def good():
    return [
        stretched("MgO", "rocksalt", 4.25, 0),
        stretched("ZnS", "zincblende", 5.4, 1),
        stretched("Cu", "fcc", 3.6, 2),
    ]


@pytest.fixture(scope="module")
def relaxer(sevennet):
    return make_relaxer("sevennet-0", potential=sevennet)


@pytest.fixture(scope="module")
def relaxed(relaxer, good):
    return relaxer(good)


def test_relaxes_to_where_ase_and_the_original_network_go(good, relaxed):
    from sevenn.calculator import SevenNetCalculator

    calculator = SevenNetCalculator("7net-0", device="cpu")
    for crystal, result in zip(good, relaxed, strict=True):
        atoms = Atoms(
            numbers=crystal.atomic_numbers, cell=crystal.lattice, scaled_positions=crystal.frac_coords, pbc=True
        )
        atoms.calc = calculator
        initial = atoms.get_potential_energy()
        FIRE(FrechetCellFilter(atoms), logfile=None).run(fmax=0.05, steps=500)
        assert result.status == "converged"
        assert result.message == ""
        assert result.max_force <= 0.05
        assert result.initial_energy == pytest.approx(initial, abs=1e-4)
        assert result.energy == pytest.approx(atoms.get_potential_energy(), abs=2e-3)
        assert geometry(result).volume == pytest.approx(atoms.get_volume(), rel=5e-3)


def test_known_lattice_constants(relaxed):
    # PBE: MgO 4.25 Å, ZnS 5.45 Å, Cu 3.63 Å (Materials Project); conventional cells hold 4 formula units
    for result, a in zip(relaxed, (4.25, 5.45, 3.63), strict=True):
        assert (4 * geometry(result).volume) ** (1 / 3) == pytest.approx(a, rel=0.02)


def test_same_result_alone_or_among_others(sevennet, good, relaxed):
    one_by_one = make_relaxer("sevennet-0", potential=sevennet, atoms_per_batch=1)
    for alone, among in zip(one_by_one(good), relaxed, strict=True):
        assert alone.n_steps == among.n_steps
        assert alone.energy == pytest.approx(among.energy, abs=1e-3)
        assert np.allclose(geometry(alone).lattice, geometry(among).lattice, atol=1e-3)


def test_deterministic(relaxer, good, relaxed):
    again = relaxer(good)
    assert [r.energy for r in again] == [r.energy for r in relaxed]
    assert all((geometry(a).frac_coords == geometry(b).frac_coords).all() for a, b in zip(again, relaxed, strict=True))


def test_bad_crystals_get_a_status_and_stop_nobody(relaxer, good, relaxed):
    overlapping = cubic(4.0, "MgO", [[0, 0, 0], [0.05, 0, 0]])
    thin = Crystal(lattice=np.diag([0.4, 8.0, 8.0]), frac_coords=np.zeros((1, 3)), atomic_numbers=np.array([29]))
    gas = cubic(12.0, "Cu", [[0, 0, 0]])
    dense = cubic(1.1, "Cu", [[0, 0, 0]])
    polonium = cubic(3.3, "Po", [[0, 0, 0]])
    violent = cubic(2.6, "CsCs", [[0, 0, 0], [0.21, 0, 0]])
    crystals = [overlapping, good[0], thin, gas, good[1], dense, polonium, good[2], violent]
    seen = []
    results = relaxer(crystals, on_result=lambda i, r: seen.append((i, r)))
    assert [r.status for r in results[:8]] == [
        *("overlap", "converged", "overlap", "exploded", "converged", "exploded", "failed", "converged")
    ]
    assert results[8].status != "converged"
    for i, expected in ((1, relaxed[0]), (4, relaxed[1]), (7, relaxed[2])):
        assert results[i].energy == pytest.approx(expected.energy, abs=1e-3)
    for i in (0, 2, 3, 5, 6):
        assert results[i].crystal is None
        assert np.isnan(results[i].energy)
        assert results[i].n_steps == 0
    assert "Po" in results[6].message
    assert all(r.message for r in results if r.status != "converged")
    assert sorted(i for i, _ in seen) == list(range(9))
    assert all(results[i] is r for i, r in seen)
    assert seen[-1][0] in (1, 4, 7, 8)  # the hopeless are reported at once


def test_too_few_steps(sevennet, good):
    result = make_relaxer("sevennet-0", potential=sevennet, max_steps=3)(good[:1])[0]
    assert result.status == "not_converged"
    assert result.n_steps == 3
    assert result.max_force > 0.05
    assert result.crystal is not None
    assert result.energy < result.initial_energy
    assert "3 steps" in result.message


def test_an_error_of_the_potential_costs_one_crystal(sevennet, good, relaxed, monkeypatch):
    original = sevennet.model.forward

    def fails_on_copper(state, **kwargs):
        if (state.atomic_numbers == 29).any():
            raise RuntimeError("no copper today")
        return original(state, **kwargs)

    monkeypatch.setattr(sevennet.model, "forward", fails_on_copper)
    results = make_relaxer("sevennet-0", potential=sevennet)(good)
    assert [r.status for r in results] == ["converged", "converged", "failed"]
    assert "no copper today" in results[2].message
    assert results[0].energy == pytest.approx(relaxed[0].energy, abs=1e-3)


def test_nothing_to_do(relaxer):
    assert relaxer([]) == []


@pytest.mark.parametrize("wrong", [{"fmax": 0.0}, {"max_steps": -1}, {"atoms_per_batch": 0}])
def test_senseless_numbers(sevennet, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        make_relaxer("sevennet-0", potential=sevennet, **wrong)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["chgnet", "sevennet-l3i5"])
def test_other_potentials_relax(name, good):
    results = make_relaxer(name, potential=load_potential(name))([*good, cubic(1.1, "Cu", [[0, 0, 0]])])
    assert [r.status for r in results] == ["converged", "converged", "converged", "exploded"]
    for result, a in zip(results, (4.25, 5.45, 3.63), strict=False):
        assert (4 * geometry(result).volume) ** (1 / 3) == pytest.approx(a, rel=0.02)
        assert result.energy < result.initial_energy
