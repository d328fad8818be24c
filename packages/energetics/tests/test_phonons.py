import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from ase.build import bulk
from ase.data import atomic_masses
from ase.neighborlist import neighbor_list
from druse_crystal.convert import from_ase, to_ase
from druse_crystal.crystal import Crystal
from druse_energetics.phonons import (
    MAX_RESIDUAL,
    TOLERANCE,
    DynamicalStability,
    PhononCheck,
    harmonic_modes,
    require_phonopy,
)
from druse_energetics.potential import Evaluation
from druse_energetics.relaxation import Relaxation
from scipy.constants import angstrom, atomic_mass, electron_volt

THZ = np.sqrt(electron_volt / angstrom**2 / atomic_mass) / (2 * np.pi) / 1e12  # of 1 eV/Å² and 1 u
A = 3.0  # Å between neighbours


class Springs:
    """Springs that pull alike in all directions, between sites of a cubic lattice: each component moves on its own.

    Args:
        constants: eV/Å² by the squared distance of two sites in units of ``A`` squared.
    """

    name = "springs"
    elements = frozenset(range(1, 100))

    def __init__(self, constants: dict[int, float]):
        self.constants = constants
        self.n_evaluations = 0

    def energies(self, crystals):
        return np.array([evaluation.energy for evaluation in self.evaluate(crystals)])

    def evaluate(self, crystals):
        found = []
        for crystal in crystals:
            self.n_evaluations += 1
            first, _, vectors = neighbor_list("ijD", to_ase(crystal), A * (max(self.constants) ** 0.5 + 0.2))
            steps = np.rint(vectors / A)
            k = np.array([self.constants.get(int(square), 0.0) for square in (steps**2).sum(axis=1)])
            stretched = vectors - A * steps
            forces = np.zeros((crystal.num_atoms, 3))
            np.add.at(forces, first, k[:, None] * stretched)
            energy = 0.25 * float((k * (stretched**2).sum(axis=1)).sum())
            found.append(Evaluation(energy=energy, forces=forces, stress=np.zeros((3, 3))))
        return found


class Resting:
    """A relaxer that finds everything relaxed."""

    name = "springs"

    def __init__(self, **changes: Any):
        self.changes = changes

    def __call__(self, crystals, *, on_result=None):
        results = []
        for crystal in crystals:
            rested = Relaxation(
                crystal=crystal, energy=0.0, initial_energy=0.0, max_force=0.0, n_steps=7, status="converged"
            )
            results.append(replace(rested, **self.changes))
        return results


def simple_cubic(element: str = "Po") -> Crystal:
    return from_ase(bulk(element, "sc", a=A))


def rock_salt(cubic: bool = False) -> Crystal:
    return from_ase(bulk("NaCl", "rocksalt", a=2 * A, cubic=cubic))


def test_one_atom_and_springs_to_its_six_neighbours():
    """m ω² = 2k Σ (1 - cos q): 4k at X, 8k at M, 12k at R, for each of three directions."""
    modes = harmonic_modes(simple_cubic(), Springs({1: 2.0}))
    unit = THZ * np.sqrt(2.0 / atomic_masses[84])
    assert len(modes.optical) == 0
    expected = unit * np.sqrt([4, 4, 8, 4, 8, 8, 12])  # X, X, M, X, M, M, R
    assert np.allclose(modes.boundary, expected[:, None], rtol=1e-5)
    assert modes.n_evaluations == 1  # every displacement of the one atom follows from one by symmetry


@pytest.mark.parametrize("cubic", [False, True])
def test_two_atoms_and_springs_to_their_six_neighbours(cubic):
    """Rock salt: D = 6k/m on the diagonal, -2k Σ cos q / √(m M) beside it; Σ cos q is 3 at Gamma, 1 at X, 0 at L."""
    k, (light, heavy) = 3.0, atomic_masses[[11, 17]]
    modes = harmonic_modes(rock_salt(cubic), Springs({1: k}))
    assert np.allclose(modes.optical, THZ * np.sqrt(6 * k * (1 / light + 1 / heavy)), rtol=1e-5)
    at_l = THZ * np.sqrt(6 * k / np.array([heavy, light]))
    beside = -2 * k / np.sqrt(light * heavy)
    at_x = THZ * np.sqrt(np.linalg.eigvalsh([[6 * k / light, beside], [beside, 6 * k / heavy]]))
    expected = sorted([*np.repeat([at_l], 4, axis=0), *np.repeat([at_x], 3, axis=0)], key=lambda pair: pair[0])
    found = modes.boundary[np.argsort(modes.boundary[:, 0])]
    assert np.allclose(found, np.repeat(expected, 3, axis=1), rtol=1e-5)


def test_an_instability_at_one_point_of_the_zone_boundary_only():
    """With k' on the twelve face diagonals m ω² is 4k + 16k' at X, 8k + 16k' at M, 12k at R: k' = -0.3k ends X only."""
    springs = Springs({1: 1.0, 2: -0.3})
    found = PhononCheck(springs, relaxer=Resting())(simple_cubic())
    assert found.lowest_frequency == pytest.approx(-THZ * np.sqrt(0.8 / atomic_masses[84]), rel=1e-4)
    assert found.stable is False
    modes = harmonic_modes(simple_cubic(), springs)
    assert (modes.boundary[:, 0] < -TOLERANCE).sum() == 3
    unbent = PhononCheck(Springs({1: 1.0, 2: -0.2}), relaxer=Resting())(simple_cubic())  # 4k - 3.2k
    assert unbent.lowest_frequency == pytest.approx(THZ * np.sqrt(0.8 / atomic_masses[84]), rel=1e-4)
    assert unbent.stable is True


def test_an_optical_instability():
    """Springs k < 0 between unlike atoms make 6k(1/m + 1/M) at Gamma negative; k' between like ones mends L, not Gamma.

    They add 2k' Σ (1 - cos 2q) / m, which is 0 at Gamma and 12k'/m at L.
    """
    modes = harmonic_modes(rock_salt(), Springs({1: -0.5, 4: 2.0}))
    light, heavy = atomic_masses[[11, 17]]
    assert np.allclose(modes.optical, -THZ * np.sqrt(3.0 * (1 / light + 1 / heavy)), rtol=1e-4)
    at_l = THZ * np.sqrt((6 * -0.5 + 12 * 2.0) / heavy)
    assert np.isclose(modes.boundary[:, 0], at_l, rtol=1e-4).sum() == 4


def test_noise_of_the_forces_is_no_instability():
    """Free atoms have all frequencies 0; forces off by the error of single precision stay within the tolerance."""

    class Noisy(Springs):
        def evaluate(self, crystals):
            rng = np.random.default_rng(0)
            return [
                replace(exact, forces=exact.forces + 2e-5 * rng.standard_normal(exact.forces.shape))
                for exact in super().evaluate(crystals)
            ]

    found = PhononCheck(Noisy({1: 0.0}), relaxer=Resting())(simple_cubic())
    assert found.lowest_frequency is not None
    assert found.stable is True


def test_tolerance():
    assert DynamicalStability(lowest_frequency=-0.9 * TOLERANCE).stable is True
    assert DynamicalStability(lowest_frequency=-1.1 * TOLERANCE).stable is False
    assert DynamicalStability(lowest_frequency=None, reason="not checked: why").stable is None


@pytest.mark.parametrize(
    ("relaxer", "options", "words"),
    [
        (Resting(), {"max_atoms": 15}, "not checked: the 2 x 2 x 2 supercell has 16 atoms, more than 15"),
        (Resting(), {"max_evaluations": 1}, "not checked: 2 displaced supercells are needed, more than 1"),
        (
            Resting(status="not_converged", max_force=2 * MAX_RESIDUAL),
            {},
            "not checked: after 7 further steps a force of 0.040 eV/Å is left, more than 0.02",
        ),
        (
            Resting(initial_energy=0.03),
            {},
            "not checked: relaxed further it fell by 15.0 meV/atom, to another place; rattle it first, or relax it "
            "to a smaller fmax",
        ),
        (
            Resting(crystal=None, status="exploded", max_force=np.nan, message="the cell grew"),
            {},
            "not checked: the cell grew",
        ),
    ],
)
def test_what_is_not_checked_says_why(relaxer, options, words):
    springs = Springs({1: 1.0})
    found = PhononCheck(springs, relaxer=relaxer, **options)(rock_salt())
    assert found == DynamicalStability(lowest_frequency=None, reason=words)
    assert springs.n_evaluations == 0


def test_small_forces_left_by_the_relaxation_are_no_reason():
    found = PhononCheck(Springs({1: 1.0}), relaxer=Resting(status="not_converged", max_force=0.5 * MAX_RESIDUAL))
    assert found(rock_salt()).stable is True


@pytest.mark.parametrize("fault", ["raises", "nan"])
def test_an_error_of_the_potential_is_this_crystals(fault):
    class Faulty(Springs):
        def evaluate(self, crystals):
            if fault == "raises":
                raise RuntimeError("no\nroom")
            return [
                Evaluation(energy=0.0, forces=np.full((c.num_atoms, 3), np.nan), stress=np.zeros((3, 3)))
                for c in crystals
            ]

    words = {"raises": "RuntimeError: no room", "nan": "a force is not finite"}[fault]
    found = PhononCheck(Faulty({1: 1.0}), relaxer=Resting())(rock_salt())
    assert found == DynamicalStability(lowest_frequency=None, reason=f"not checked: {words}")


def test_without_phonopy_one_sentence_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "phonopy", None)
    with pytest.raises(ValueError, match=r"pip install 'druse-energetics\[phonons\]'"):
        require_phonopy()


@pytest.mark.slow
def test_known_crystals(sevennet):
    """Silicon and rock salt are stable; cubic barium titanate is ferroelectric, unstable at Gamma, X and M, not at R.

    Measured: Si 15.5 THz at Gamma and 4.5 THz at X (Dolling, 1963), NaCl 4.9 THz at Gamma (transverse; Raunio, 1969).
    The potential is known to be too soft, by up to a third. BaTiO3: Ghosez et al., Phys. Rev. B 60, 836 (1999).
    """
    check = PhononCheck(sevennet)
    silicon, salt = from_ase(bulk("Si")), from_ase(bulk("NaCl", "rocksalt", a=5.64))
    perovskite = Crystal(
        lattice=4.0 * np.eye(3),
        frac_coords=np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]),
        atomic_numbers=np.array([56, 22, 8, 8, 8]),
    )
    for crystal, optical in ((silicon, 15.5), (salt, 4.9)):
        (rested,) = check.relaxer([crystal])  # at the edge of the textbook both are away from the potential's minimum
        assert rested.crystal is not None
        assert check(rested.crystal).stable is True
        modes = harmonic_modes(rested.crystal, sevennet)
        assert 0.67 * optical < modes.optical[0] < 1.05 * optical
        assert np.ptp(modes.optical) < 1e-3  # three directions of a cubic crystal
    (rested,) = check.relaxer([perovskite])
    assert rested.crystal is not None
    assert check(rested.crystal).stable is False
    modes = harmonic_modes(rested.crystal, sevennet)
    assert (modes.optical < -1).sum() == 3
    assert (modes.boundary[:, 0] < -1).sum() == 6
    assert modes.boundary[-1, 0] > 1  # R is the last of the wave vectors
