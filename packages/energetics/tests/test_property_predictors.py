"""Predicted properties: analytic equations of state, textbook moduli and moments, and what cannot be predicted."""

import numpy as np
import pytest
from ase.units import GPa
from druse_crystal import Crystal
from druse_energetics.bulk_modulus import bulk_moduli, fit_bulk_modulus
from druse_energetics.chgnet import CHGNetPotential
from druse_energetics.magnetic_density import magnetic_densities
from druse_energetics.potential import load_potential

FCC, BCC = np.array([[0.0, 1, 1], [1, 0, 1], [1, 1, 0]]), np.array([[-1.0, 1, 1], [1, -1, 1], [1, 1, -1]])
TWO = np.array([[0, 0, 0], [0.5, 0.5, 0.5]])
BCC_IRON = Crystal(lattice=2.83 / 2 * BCC, frac_coords=np.zeros((1, 3)), atomic_numbers=np.array([26]))
SALT = Crystal(lattice=2.82 * FCC, frac_coords=TWO, atomic_numbers=np.array([11, 17]))
DIAMOND = Crystal(lattice=3.567 / 2 * FCC, frac_coords=TWO / 2, atomic_numbers=np.array([6, 6]))
HELIUM = SALT.replace(atomic_numbers=np.array([2, 95]))


def test_the_modulus_of_an_exact_equation_of_state():
    modulus, slope, volume = 150 * GPa, 4.5, 40.0
    volumes = volume * np.linspace(0.92, 1.08, 7)
    eta = (volume / volumes) ** (2 / 3)  # Birch 1947
    energies = -10 + 9 * volume * modulus / 16 * ((eta - 1) ** 3 * slope + (eta - 1) ** 2 * (6 - 4 * eta))
    assert fit_bulk_modulus(volumes, energies) == pytest.approx(150, rel=1e-3)


def test_no_minimum_is_no_modulus():
    volumes = np.linspace(30, 40, 7)
    assert np.isnan(fit_bulk_modulus(volumes, -volumes))
    assert np.isnan(fit_bulk_modulus(volumes, np.full(7, np.nan)))


def test_textbook_moduli():
    """PBE: diamond 432 to 443 GPa, rock salt 23 to 25."""
    found = bulk_moduli(load_potential(), [DIAMOND, SALT, HELIUM])
    assert found[0] == pytest.approx(440, rel=0.15)
    assert found[1] == pytest.approx(24, rel=0.25)
    assert np.isnan(found[2])


def test_iron_is_magnetic_and_salt_is_not():
    chgnet = load_potential("chgnet")
    assert isinstance(chgnet, CHGNetPotential)
    iron, salt, unknown = magnetic_densities(chgnet, [BCC_IRON, SALT, HELIUM])
    assert iron == pytest.approx(2.2 / BCC_IRON.volume, rel=0.15)
    assert salt < 0.002
    assert np.isnan(unknown)
    assert magnetic_densities(chgnet, []).shape == (0,)
