"""Site symmetry: textbook cases, and crystals that move within their sites keep their group."""

import numpy as np
import pytest
import torch
from druse_crystal import Crystal
from druse_crystal.dataset import load_embedded
from druse_crystal.lattice import from_parameters, metric_root
from druse_crystal.site_symmetry import find_site_symmetry
from druse_crystal.symmetry import space_group

RUTILE = Crystal(
    lattice=from_parameters(4.594, 4.594, 2.959, 90, 90, 90),
    frac_coords=np.array(
        [[0, 0, 0], [0.5, 0.5, 0.5], [0.305, 0.305, 0], [0.695, 0.695, 0], [0.195, 0.805, 0.5], [0.805, 0.195, 0.5]]
    ),
    atomic_numbers=np.array([22, 22, 8, 8, 8, 8]),
)


def sites_of(crystal):
    sites = find_site_symmetry(crystal)
    assert sites is not None
    return sites


def test_rutile_has_one_fixed_site_and_one_that_moves_along_a_diagonal():
    sites = sites_of(RUTILE)
    assert (sites.space_group, sites.orbit_sizes, len(sites.rotations)) == (136, (2, 4), 16)
    assert sites.orbit.tolist() == [0, 0, 2, 2, 2, 2]
    assert np.allclose(sites.free[0], 0)
    assert np.allclose(sites.free[2], [[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 0]])


def test_an_atom_out_of_place_is_put_back():
    moved = RUTILE.replace(frac_coords=RUTILE.frac_coords + np.array([[0.004, -0.003, 0.002]] + 5 * [[0, 0, 0]]))
    sites = sites_of(moved)
    assert sites.space_group == 136
    apart = sites.origin - RUTILE.frac_coords
    assert np.abs(apart - np.rint(apart) - (apart - np.rint(apart))[0]).max() < 2e-3


def test_overlapping_atoms_have_no_sites():
    on_top = Crystal(lattice=4 * np.eye(3), frac_coords=np.zeros((2, 3)), atomic_numbers=np.array([3, 3]))
    assert find_site_symmetry(on_top) is None


@pytest.mark.parametrize("row", range(0, 3800, 200))
def test_crystals_that_move_within_their_sites_keep_their_group(row):
    crystal = load_embedded().subset("train").crystals[row]
    sites = sites_of(crystal)
    apart = sites.origin - crystal.frac_coords
    assert np.linalg.norm((apart - np.rint(apart)) @ crystal.lattice, axis=-1).max() < 0.1
    metric = np.einsum("gji,jk,gkl->il", sites.rotations, crystal.lattice @ crystal.lattice.T, sites.rotations)
    lattice = metric_root(torch.tensor(metric / len(sites.rotations))).numpy()
    assert np.allclose(lattice, crystal.lattice, atol=0.05)
    free = np.random.default_rng(row).normal(0, 0.02, (sites.num_atoms, 3))[sites.orbit]
    moved = np.einsum("nij,njk,nk->ni", sites.operations, sites.free, free)
    symmetric = Crystal(lattice=lattice, frac_coords=sites.origin + moved, atomic_numbers=crystal.atomic_numbers)
    assert space_group(symmetric, symprec=1e-3).number == sites.space_group
