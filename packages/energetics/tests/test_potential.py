import subprocess
import sys

import numpy as np
import pytest
import torch
from ase.build import bulk
from druse_crystal.convert import from_ase
from druse_crystal.crystal import Crystal
from druse_energetics.potential import POTENTIAL_NAMES, Evaluation, Potential, load_potential
from druse_energetics.testing import check_potential


class LennardJones:
    """A pair potential with few neighbours, slow and simple: the check itself is checked with it."""

    name = "lennard-jones"
    elements = frozenset(range(1, 119))

    def energies(self, crystals):
        return np.array([e.energy for e in self.evaluate(crystals)])

    def evaluate(self, crystals):
        return [self._one(c) for c in crystals]

    def _one(self, crystal: Crystal) -> Evaluation:
        from ase.neighborlist import neighbor_list
        from druse_crystal.convert import to_ase

        i, d, vectors = neighbor_list("idD", to_ase(crystal), 6.0)
        inside = 1 - (d / 6.0) ** 2
        x = (1.9 / d) ** 6
        energy = 0.5 * (0.2 * (x**2 - x) * inside**2).sum()
        slope = 0.2 * (-(12 * x**2 - 6 * x) / d * inside**2 + (x**2 - x) * 2 * inside * (-2 * d / 36.0))
        pull = (slope / d)[:, None] * vectors
        forces = np.zeros((crystal.num_atoms, 3))
        np.add.at(forces, i, pull)
        stress = 0.5 * vectors.T @ pull / crystal.volume
        return Evaluation(energy=float(energy), forces=forces, stress=stress)


class Broken(LennardJones):
    def __init__(self, **wrong):
        self.wrong = wrong

    def _one(self, crystal):
        good = super()._one(crystal)
        return Evaluation(
            energy=good.energy + self.wrong.get("energy", 0.0) * crystal.lattice[0, 0],
            forces=good.forces * self.wrong.get("forces", 1.0),
            stress=good.stress * self.wrong.get("stress", 1.0),
        )


def test_check_passes_a_true_potential():
    check_potential(LennardJones())


@pytest.mark.parametrize("wrong", [{"energy": 0.05}, {"forces": -1.0}, {"stress": -1.0}])
def test_check_finds_what_is_broken(wrong):
    with pytest.raises(AssertionError):
        check_potential(Broken(**wrong))


def test_sevennet_passes_the_check(sevennet):
    assert isinstance(sevennet, Potential)
    check_potential(sevennet)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sevennet-l3i5", "chgnet"])
def test_others_pass_the_check(name):
    check_potential(load_potential(name))


def test_sevennet_is_the_published_network(sevennet):
    from sevenn.calculator import SevenNetCalculator

    calculator = SevenNetCalculator("7net-0", device="cpu")
    rng = np.random.default_rng(0)
    for atoms in (bulk("NaCl", "rocksalt", a=5.7) * (2, 1, 1), bulk("Ti", "hcp", a=2.9), bulk("W", "bcc", a=3.2)):
        atoms.positions += 0.1 * rng.normal(size=atoms.positions.shape)
        ours = sevennet.evaluate([from_ase(atoms)])[0]
        atoms.calc = calculator
        assert ours.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-4)
        assert np.allclose(ours.forces, atoms.get_forces(), atol=1e-4)
        assert np.allclose(ours.stress, atoms.get_stress(voigt=False), atol=1e-5)


def test_sevennet_in_a_skewed_cell(sevennet):
    straight = from_ase(bulk("MgO", "rocksalt", a=4.3))
    turn = np.array([[1, 0, 0], [4, 1, 0], [-3, 2, 1]])  # same lattice, other cell vectors
    skewed = straight.replace(lattice=turn @ straight.lattice, frac_coords=straight.frac_coords @ np.linalg.inv(turn))
    energies = sevennet.energies([straight, skewed])
    assert energies[0] == pytest.approx(energies[1], abs=1e-4)


def test_an_atom_without_neighbours(sevennet):
    lonely = Crystal(lattice=np.eye(3) * 9.0, frac_coords=np.zeros((1, 3)), atomic_numbers=np.array([29]))
    evaluation = sevennet.evaluate([lonely])[0]
    assert np.isfinite(evaluation.energy)
    assert np.allclose(evaluation.forces, 0)
    assert np.allclose(evaluation.stress, 0)


def test_unknown_elements_are_named(sevennet):
    assert sevennet.elements == frozenset(range(1, 95)) - frozenset(range(84, 89))
    radium = Crystal(lattice=np.eye(3) * 5, frac_coords=np.zeros((1, 3)), atomic_numbers=np.array([88]))
    with pytest.raises(ValueError, match=r"crystal 0.*Ra"):
        sevennet.energies([radium])


def test_nothing_to_evaluate(sevennet):
    assert sevennet.energies([]).shape == (0,)


def test_wrong_choices():
    with pytest.raises(ValueError, match=POTENTIAL_NAMES[0]):
        load_potential("mace")
    with pytest.raises(ValueError, match="float32"):
        load_potential("sevennet-0", dtype=torch.float64)
    with pytest.raises(ValueError, match="gpu9"):
        load_potential("sevennet-0", device="gpu9")


def test_loads_offline_and_quietly():
    code = (
        "import socket\n"
        "def refuse(*a, **k): raise OSError('no network')\n"
        "socket.socket.connect = refuse\n"
        "from druse_energetics.potential import load_potential\n"
        "load_potential('sevennet-0')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert done.stderr == ""
