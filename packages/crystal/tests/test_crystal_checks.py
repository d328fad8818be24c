import druse_crystal
import numpy as np
import pytest
import torch
from druse_crystal.batch import CrystalBatch
from druse_crystal.cif import cif_text
from druse_crystal.crystal import Crystal
from druse_crystal.io import read_crystals
from druse_crystal.lattice import from_parameters

CUBE = 4.0 * np.eye(3)


def one_atom(number) -> Crystal:
    return Crystal(lattice=CUBE, frac_coords=np.zeros((1, 3)), atomic_numbers=np.array([number]))


@pytest.mark.parametrize("number", [1.7, np.nan, np.inf, "Na", None])
def test_atomic_numbers_are_integers(number):
    with pytest.raises(ValueError, match=f"the atomic number {number!r} is no integer"):
        one_atom(number)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("number", [0, -4, 119, 1e300, 119.0])
def test_atomic_numbers_exist(number):
    with pytest.raises(ValueError, match="no element has atomic number"):
        one_atom(number)


@pytest.mark.parametrize("number", [11, 11.0, np.uint8(11), np.float32(11)])
def test_whole_numbers_of_any_type_do(number):
    crystal = one_atom(number)
    assert crystal.atomic_numbers.dtype == np.int64
    assert crystal.atomic_numbers.tolist() == [11]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("length", [2e9, 1e308, -1e308])
def test_cells_longer_than_any_crystal(length):
    with pytest.raises(ValueError, match="it must be at most 1,000,000,000 Å"):
        Crystal(lattice=np.diag([length, 4.0, 4.0]), frac_coords=np.zeros((1, 3)), atomic_numbers=np.array([11]))


def test_a_batch_with_numbers_that_are_not_finite_gives_no_crystals():
    batch = CrystalBatch.from_crystals([one_atom(11), one_atom(17)])
    for field in ("lattice", "frac_coords"):
        wrong = getattr(batch, field).clone()
        wrong[1] = torch.nan
        with pytest.raises(ValueError, match=f"crystal 1 of the batch: {field} holds a number that is not finite"):
            batch.replace(**{field: wrong}).to_crystals()


def test_the_package_gives_its_classes_when_asked():
    assert druse_crystal.Crystal is Crystal
    assert druse_crystal.CrystalBatch is CrystalBatch
    with pytest.raises(AttributeError, match="has no attribute 'Cristal'"):
        druse_crystal.Cristal  # noqa: B018


@pytest.mark.filterwarnings("error")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # ASE, not shown to users
def test_odd_numbers_in_files_warn_of_nothing(tmp_path):
    """One sentence for each, and nothing from numpy or pymatgen beside it."""
    frame = '1\nLattice="{} 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3\nNa 0 0 0\n'
    poscar = "Na\n1.0\n{} 0 0\n0 4 0\n0 0 4\nNa\n1\ndirect\n0 0 0\n"
    cif = cif_text(one_atom(11), symprec=None)
    for number in ("1e308", "-1e308", "inf", "nan", "1e-300"):
        (tmp_path / f"{number}.extxyz").write_text(frame.format(number))
        (tmp_path / f"{number}.vasp").write_text(poscar.format(number))
        (tmp_path / f"{number}-length.cif").write_text(cif.replace("_length_a   4.", f"_length_a   {number} #"))
        (tmp_path / f"{number}-angle.cif").write_text(cif.replace("_alpha   90.", f"_alpha   {number} #"))
    results = list(read_crystals(tmp_path))
    helium = cif_text(one_atom(2), symprec=None)
    assert len(results) == 20
    assert all(result.error is not None for result in results)
    assert "He" in helium


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("angle", [0.0, 180.0, -90.0, np.inf, np.nan])
def test_angles_of_no_cell(angle):
    with pytest.raises(ValueError, match="no cell has lengths"):
        from_parameters(4.0, 4.0, 4.0, angle, 90.0, 90.0)


def test_what_is_no_crystal_in_a_batch_is_none():
    batch = CrystalBatch.from_crystals([one_atom(3), one_atom(11), one_atom(19)])
    flat = batch.replace(lattice=batch.lattice * torch.tensor([1.0, 0.0, 1.0])[:, None, None])
    crystals = flat.crystals_or_none()
    assert [c and c.atomic_numbers.tolist() for c in crystals] == [[3], None, [19]]
    with pytest.raises(ValueError, match="crystal 1 of the batch"):
        flat.to_crystals()


def test_a_masked_atom_is_no_crystal():
    batch = CrystalBatch(
        lattice=5 * torch.eye(3).expand(2, 3, 3),
        frac_coords=torch.rand(3, 3),
        atomic_numbers=torch.tensor([100, 8, 101]),
        num_atoms=torch.tensor([1, 2]),
    )
    assert batch.select([0]).to_crystals()[0].atomic_numbers.tolist() == [100]
    with pytest.raises(ValueError, match="crystal 1 of the batch: an atom has the number 101, which stands for no"):
        batch.to_crystals()
    assert batch.crystals_or_none()[1] is None
