from dataclasses import replace

import numpy as np
import pytest
from druse_crystal.crystal import Crystal
from druse_energetics.rattling import RattledRelaxer, lower, rattled
from druse_energetics.relaxation import Relaxation, Relaxer, Status, make_relaxer, unusable

DEPTH = 0.2  # eV, of the wells beside the saddle


def chain(x: float) -> Crystal:
    """Two atoms in a cell of 4 Å, the second at the height x (in cells) that the double well is about."""
    return Crystal(
        lattice=4 * np.eye(3), frac_coords=np.array([[0, 0, 0], [0.5, 0.5, x]]), atomic_numbers=np.array([11, 17])
    )


class DoubleWell:
    """E(x) = -DEPTH * sin²(2πx): a saddle at x = 0.5, wells at 0.25 and 0.75."""

    name = "double well"

    def __init__(self, status: Status = "converged"):
        self.seen: list[Crystal] = []
        self.status = status

    def __call__(self, crystals, *, on_result=None):
        results = []
        for i, crystal in enumerate(crystals):
            self.seen.append(crystal)
            x = crystal.frac_coords[1, 2] - crystal.frac_coords[0, 2]
            end = 0.5 if abs(x - 0.5) < 1e-9 else 0.25 if x < 0.5 else 0.75
            energy = [-DEPTH * np.sin(2 * np.pi * z) ** 2 for z in (x, end)]
            status: Status = "converged" if len(self.seen) <= 1 else self.status
            results.append(
                Relaxation(
                    crystal=chain(end),
                    energy=energy[1],
                    initial_energy=energy[0],
                    max_force=0.0,
                    n_steps=3,
                    status=status,
                )
            )
            if on_result is not None:
                on_result(i, results[-1])
        return results


def test_a_crystal_on_a_saddle_falls_and_one_in_a_well_stays():
    reported = {}
    relaxer = RattledRelaxer(DoubleWell())
    assert isinstance(relaxer, Relaxer)
    saddle, well = relaxer([chain(0.5), chain(0.3)], on_result=reported.__setitem__)
    assert saddle.energy == pytest.approx(-DEPTH)
    assert saddle.rattled_energy_drop == pytest.approx(DEPTH / 2)  # per atom
    assert saddle.n_steps == 6
    assert saddle.initial_energy == pytest.approx(0.0)
    assert well.rattled_energy_drop == 0.0
    assert well.n_steps == 3
    assert reported == {0: saddle, 1: well}


def test_less_than_the_tolerance_is_the_same_basin():
    first = DoubleWell()([chain(0.3)])[0]
    for gain, left in ((0.0015, False), (0.0025, True), (-1.0, False)):  # eV for two atoms
        kept = lower(first, replace(first, energy=first.energy - gain), min_drop=1e-3)
        assert (kept.energy < first.energy) == left
        assert kept.rattled_energy_drop == pytest.approx(gain / 2 if left else 0.0)


@pytest.mark.parametrize("status", ["not_converged", "overlap"])
def test_a_second_relaxation_that_does_not_converge_leaves_the_first(status):
    (result,) = RattledRelaxer(DoubleWell(status))([chain(0.5)])
    assert (result.status, result.rattled_energy_drop) == ("converged", None)
    assert result.energy == pytest.approx(0.0)


def test_what_did_not_relax_is_not_shaken():
    class Failing(DoubleWell):
        def __call__(self, crystals, *, on_result=None):
            self.seen += crystals
            return [unusable("exploded", "the cell grew") for _ in crystals]

    relaxer, reported = Failing(), {}
    (result,) = RattledRelaxer(relaxer)([chain(0.5)], on_result=reported.__setitem__)
    assert len(relaxer.seen) == 1
    assert result.status == "exploded"
    assert result.rattled_energy_drop is None
    assert reported == {0: result}


def test_the_shake_belongs_to_the_crystal():
    def shakes(crystals, **options):
        relaxer = DoubleWell()
        RattledRelaxer(relaxer, **options)(crystals)
        return [crystal.frac_coords for crystal in relaxer.seen[len(crystals) :]]

    alone = shakes([chain(0.5)])[0]
    assert np.array_equal(shakes([chain(0.3), chain(0.5)])[1], alone)
    assert not np.array_equal(shakes([chain(0.5)], seed=1)[0], alone)
    assert not np.allclose(shakes([chain(0.5 + 1e-12)])[0], alone)


def test_displacements_are_gaussian_in_cartesian_space():
    lattice = np.array([[9.0, 0, 0], [4, 6, 0], [-2, 1, 5]])
    coords = np.random.default_rng(1).uniform(0.3, 0.7, (4000, 3))
    crystal = Crystal(lattice=lattice, frac_coords=coords, atomic_numbers=np.full(4000, 6))
    moved = rattled(crystal, displacement=0.05, generator=np.random.default_rng(0))
    moves = moved.cart_coords - crystal.cart_coords
    assert np.allclose(np.cov(moves.T), 0.05**2 * np.eye(3), atol=0.05**2 * 0.08)  # 5 standard errors are 0.08
    assert np.array_equal(moved.lattice, lattice)


@pytest.mark.parametrize(("options", "words"), [({"displacement": 0}, "above 0 Å"), ({"min_drop": -1}, "below 0 eV")])
def test_numbers_that_make_no_sense(options, words):
    with pytest.raises(ValueError, match=words):
        RattledRelaxer(DoubleWell(), **options)


@pytest.mark.slow
def test_cubic_barium_titanate_falls_and_salt_stays(sevennet):
    """BaTiO3 is ferroelectric: its cubic form is a saddle of the energy, its rhombohedral form the ground state."""
    perovskite = Crystal(
        lattice=4.0 * np.eye(3),
        frac_coords=np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]),
        atomic_numbers=np.array([56, 22, 8, 8, 8]),
    )
    salt = Crystal(
        lattice=2.82 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]),
        frac_coords=np.array([[0, 0, 0], [0.5, 0.5, 0.5]]),
        atomic_numbers=np.array([11, 17]),
    )
    relaxer = make_relaxer("sevennet-0", potential=sevennet, fmax=0.01)
    fallen, stayed = RattledRelaxer(relaxer)([perovskite, salt])
    assert fallen.rattled_energy_drop is not None
    assert fallen.rattled_energy_drop > 1e-3
    assert stayed.rattled_energy_drop == 0.0
