import json
import tracemalloc
import zipfile

import numpy as np
import pytest
from ase.build import bulk
from druse_crystal import Crystal
from druse_crystal.cif import cif_text, parse_cif
from druse_crystal.convert import from_ase, from_pymatgen, to_ase, to_pymatgen
from druse_crystal.dataset import CrystalDataset, load_embedded
from druse_crystal.documents import documents, natural_key
from druse_crystal.io import ReadResult, read_crystals, write_cif, write_cif_zip, write_extxyz, write_poscar
from druse_crystal.lattice import parameters
from druse_crystal.manifest import Manifest
from druse_crystal.symmetry import space_group
from druse_crystal.testing import crystals, random_crystal
from hypothesis import given, settings
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

SALT = from_pymatgen(
    Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
)

CIF = """data_test
_cell_length_a 4.0(2)
_cell_length_b 4.0
_cell_length_c 4.0
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'P 1'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
{sites}
"""
GOOD_SITES = "Na1 Na1+ 0 0 0 1\nCl1 Cl 0.5 0.5 0.5(3) 1.0"


def same_structure(one, other):
    return StructureMatcher(ltol=0.01, stol=0.01, angle_tol=0.1).fit(to_pymatgen(one), to_pymatgen(other))


def read_one(path) -> ReadResult:
    (result,) = read_crystals(path)
    return result


def sound(result: ReadResult) -> Crystal:
    assert result.crystal is not None, result.error
    return result.crystal


def only_block(text: str) -> tuple[str, Crystal]:
    ((name, crystal),) = parse_cif(text)
    assert isinstance(crystal, Crystal), crystal
    return name, crystal


@settings(max_examples=40, deadline=None)
@given(crystal=crystals())
def test_pymatgen_and_ase_keep_everything(crystal):
    for same in (from_pymatgen(to_pymatgen(crystal)), from_ase(to_ase(crystal))):
        np.testing.assert_allclose(same.lattice, crystal.lattice, atol=1e-10)
        difference = same.frac_coords - crystal.frac_coords
        assert np.abs(difference - np.rint(difference)).max() < 1e-9
        assert same.atomic_numbers.tolist() == crystal.atomic_numbers.tolist()


def test_independent_structure_through_ase():
    crystal = from_ase(bulk("NaCl", "rocksalt", a=5.64))
    assert space_group(crystal).symbol == "Fm-3m"
    assert crystal.volume == pytest.approx(5.64**3 / 4)


def test_slabs_and_molecules_are_no_crystals():
    atoms = bulk("Cu")
    atoms.pbc = (True, True, False)
    with pytest.raises(ValueError, match="not periodic"):
        from_ase(atoms)


def test_cif_as_written():
    name, crystal = only_block(CIF.format(sites=GOOD_SITES))
    assert name == "test"
    assert crystal.atomic_numbers.tolist() == [11, 17]
    np.testing.assert_allclose(crystal.lattice, np.eye(3) * 4, atol=1e-12)
    np.testing.assert_allclose(crystal.frac_coords, [[0, 0, 0], [0.5, 0.5, 0.5]])


P_BAR_1 = "loop_\n_symmetry_equiv_pos_as_xyz\n'x, y, z'\n'-x, -y, -z'"
GROUP = "_symmetry_space_group_name_H-M 'P 1'"


@pytest.mark.parametrize("symmetry", [GROUP, P_BAR_1])
@pytest.mark.parametrize("open_occupancy", [".", "?", "1.0(1)", "1.0004"])
def test_an_occupancy_that_is_left_open_is_one(symmetry, open_occupancy):
    text = CIF.format(sites=f"Na1 Na 0 0 0 {open_occupancy}\nCl1 Cl 0.5 0.5 0.5 1").replace(GROUP, symmetry)
    _, crystal = only_block(text)
    assert sorted(crystal.atomic_numbers.tolist()) == [11, 17]


@pytest.mark.parametrize("symmetry", [GROUP, P_BAR_1])
@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("0.5(3) 1.0", "0.5 nan", "occupancy 'nan', it must be from 0 to 1: correct"),
        ("0.5(3) 1.0", "0.5 -1", "occupancy '-1', it must be"),
        ("0.5(3) 1.0", "0.5 1.2", "occupancy '1.2', it must be"),
        ("0.5(3) 1.0", "0.5 abc", "'abc' stands where a number must be: correct"),
        ("0.5(3) 1.0", "0.5 0.25", "disordered or partly occupied: order"),
        ("Na1+ 0 0 0 1\nCl1 Cl 0.5 0.5 0.5(3) 1.0", "Na1+ 0 0 0 0", "no site is occupied"),
        ("0.5(3)", "?", "'?' stands where a number must be: correct"),
        ("0.5(3)", "nan", "not finite: correct"),
        ("Cl1 Cl", "Q1 Qq", "'Qq'.* no chemical element"),
        ("_cell_length_b 4.0", "_cell_length_b -4.0", "no cell has lengths 4.0, -4.0, 4.0"),
        ("_cell_length_b 4.0", "_cell_length_b inf", "no cell has lengths 4.0, inf, 4.0"),
        ("_cell_length_b 4.0", "", "it has no _cell_length_b: export"),
        ("_cell_angle_beta 90", "_cell_angle_beta 270", "no cell has lengths 4.0, 4.0, 4.0 Å and angles 90.0, 270.0"),
        ("_atom_site_fract_z", "_atom_site_z", "it has no _atom_site_fract_z: export"),
    ],
)
def test_a_bad_cif_says_why_whatever_its_space_group(tmp_path, symmetry, old, new, words):
    text = CIF.format(sites=GOOD_SITES).replace(GROUP, symmetry)
    assert old in text
    (tmp_path / "a.cif").write_text(text.replace(old, new, 1))
    result = read_one(tmp_path / "a.cif")
    with pytest.raises(AssertionError, match=words.replace("?", "\\?")):
        raise AssertionError(result.error)


def test_sites_that_fall_on_each_other_by_symmetry():
    text = CIF.format(sites="Na1 Na 0.1 0.2 0.3 1\nK1 K 0.9 0.8 0.7 1").replace(GROUP, P_BAR_1)
    ((_, error),) = parse_cif(text)
    assert "fall on each other by symmetry have an occupancy of 2 together: correct" in str(error)


@pytest.mark.parametrize("symbol", ["P 21/n", "R -3 m :H", "Q 4"])
@pytest.mark.parametrize("number", ["", "_symmetry_Int_Tables_number 14"])
def test_a_setting_that_nobody_knows_is_not_taken_for_another(symbol, number):
    text = CIF.format(sites="Na1 Na 0.1 0.2 0.3 1").replace("'P 1'", f"'{symbol}'\n{number}")
    ((_, error),) = parse_cif(text)
    assert f"the setting {symbol!r} of its space group is not known: export it again with its operations" in str(error)
    ((_, known),) = parse_cif(text.replace(symbol, "P 1 21/n 1"))
    assert isinstance(known, Crystal)
    assert known.num_atoms == 4
    ((_, unsaid),) = parse_cif(text.replace(symbol, "?").replace(number, ""))
    assert isinstance(unsaid, Crystal)
    assert unsaid.num_atoms == 1


def test_a_magnetic_space_group_is_expanded():
    operations = (
        "_space_group_symop_magn_operation.id\n_space_group_symop_magn_operation.xyz\n1 x,y,z,+1\n2 -x,-y,-z,+1"
    )
    text = CIF.format(sites="Mn1 Mn 0.1 0.2 0.3 1").replace(
        GROUP, f"_space_group_magn.number_BNS 2.4\nloop_\n{operations}"
    )
    _, crystal = only_block(text)
    assert crystal.atomic_numbers.tolist() == [25, 25]


@pytest.mark.parametrize("operation", ["foo", "x,y", "2x,y,z", "x,x,z"])
def test_what_is_no_symmetry_operation(operation):
    text = CIF.format(sites="Na1 Na 0.1 0.2 0.3 1").replace(GROUP, P_BAR_1.replace("-x, -y, -z", operation))
    ((_, error),) = parse_cif(text)
    assert str(error) == f"{operation!r} is no symmetry operation: correct or remove it"


@pytest.mark.parametrize("symmetry", [GROUP, P_BAR_1])
def test_capital_keys_and_a_site_without_a_loop(symmetry):
    site = dict(
        zip(["label", "type_symbol", "fract_x", "fract_y", "fract_z"], ["Cl1", "Cl", *3 * ["0.1"]], strict=True)
    )
    text = CIF.split("loop_")[0].replace(GROUP, symmetry) + "".join(f"_atom_site_{k} {v}\n" for k, v in site.items())
    for one in (text, text.replace("_cell_length", "_Cell_Length").replace("_symmetry_equiv", "_Symmetry_Equiv")):
        _, crystal = only_block(one)
        assert crystal.atomic_numbers.tolist() == [17] * (1 if symmetry == GROUP else 2)


def test_cif_keeps_overlapping_atoms():
    _, crystal = only_block(CIF.format(sites="Na1 Na 0 0 0 1\nNa2 Na 0 0 0 1\nK K 0.00001 0 0 1"))
    assert crystal.atomic_numbers.tolist() == [11, 11, 19]


@settings(max_examples=25, deadline=None)
@given(crystal=crystals(max_atoms=5))
def test_any_crystal_survives_a_p1_cif(crystal):
    _, back = only_block(cif_text(crystal, symprec=None))
    assert sorted(back.atomic_numbers.tolist()) == sorted(crystal.atomic_numbers.tolist())
    np.testing.assert_allclose(parameters(back.lattice), parameters(crystal.lattice), rtol=1e-5, atol=1e-5)


def test_symmetrised_cif_of_known_structures():
    dataset = load_embedded()
    for i in range(3, len(dataset), 700):
        crystal = dataset.crystals[i]
        text = cif_text(crystal)
        _, back = only_block(text)
        independent = Structure.from_str(text, fmt="cif")  # pymatgen's own parser
        assert f"_symmetry_Int_Tables_number   {space_group(crystal).number}\n" in text
        assert same_structure(back, from_pymatgen(independent))
        assert StructureMatcher().fit(to_pymatgen(crystal), independent)


def test_symmetrised_cif_of_hopeless_structure_is_p1():
    crystal = Crystal(lattice=np.eye(3) * 4, frac_coords=np.zeros((3, 3)), atomic_numbers=np.array([11, 11, 17]))
    _, back = only_block(cif_text(crystal))
    assert sorted(back.atomic_numbers.tolist()) == [11, 11, 17]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("empty.cif", "", "empty"),
        ("blank.cif", " \n\n", "empty"),
        ("words.cif", "this is not a CIF at all", "not a CIF|no structure"),
        ("cut.cif", CIF.split("loop_")[0], "no structure"),
        ("element.cif", CIF.format(sites="A1 Qq 0 0 0 1"), "'Qq' is no chemical element"),
        ("nan.cif", CIF.format(sites="Na1 Na nan 0 0 1"), "not finite"),
        ("unknown.cif", CIF.format(sites="Na1 Na ? 0 0 1"), r"'\?' stands where a number"),
        ("partial.cif", CIF.format(sites="Na1 Na 0 0 0 0.5\nCl1 Cl 0.5 0.5 0.5 1"), "partly occupied"),
        ("shared.cif", CIF.format(sites="Na1 Na 0 0 0 0.5\nK1 K 0 0 0 0.5"), "disordered"),
        ("flat.cif", CIF.format(sites=GOOD_SITES).replace("_cell_length_c 4.0", "_cell_length_c 0"), "no cell|volume"),
        ("angles.cif", CIF.format(sites=GOOD_SITES).replace("gamma 90", "gamma 181"), "no cell"),
        ("POSCAR", "no poscar", "not a POSCAR"),
        (
            "POSCAR_old",
            "NaCl\n1.0\n4 0 0\n0 4 0\n0 0 4\n1 1\ndirect\n0 0 0\n0.5 0.5 0.5\n",
            "does not name its elements",
        ),
        ("flat.vasp", "Na\n1.0\n4 0 0\n0 4 0\n0 4 0\nNa\n1\ndirect\n0 0 0\n", "volume"),
        ("element.vasp", "Qq\n1.0\n4 0 0\n0 4 0\n0 0 4\nQq\n1\ndirect\n0 0 0\n", "POSCAR|element"),
        ("words.json", "{", "not JSON"),
        ("deep.json", '{"a":' * 100_000, "nested too deeply"),
        ("deep_text.json", json.dumps(["[" * 100_000]), "holds text"),
        ("other.json", '{"a": 1}', "no structures"),
        ("wrong.json", '[{"a": 1}]', "not a pymatgen structure"),
        ("no_cell.xyz", "1\nhello\nNa 0 0 0\n", "Lattice"),
        ("words.xyz", "hello\n", "number of atoms"),
        ("cut.xyz", '2\nLattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3\nNa 0 0 0\n', "cut off"),
        ("element.extxyz", '1\nLattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3\nQq 0 0 0\n', "Qq"),
        ("nan.extxyz", '1\nLattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3\nNa nan 0 0\n', "finite"),
        ("flat.extxyz", '1\nLattice="4 0 0 0 4 0 0 4 0" Properties=species:S:1:pos:R:3\nNa 0 0 0\n', "volume"),
        ("table.csv", "a,b\n1,2\n", "column 'cif'"),
        ("nothing.csv", "", "empty"),
        ("hole.csv", "cif,b\n,2\n", "'cif' is empty"),
        ("fake.zip", "PK nonsense", "not a zip"),
        ("fake.parquet", "PAR1 nonsense", "not a Parquet"),
    ],
)
def test_bad_file_is_one_row_that_names_it(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    result = read_one(tmp_path / name)
    assert result.crystal is None
    assert result.error is not None
    assert result.error.startswith(f"{name}")
    assert "\n" not in result.error
    assert ": " in result.error.removeprefix(f"{name}: ")  # what is wrong: what to do
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(result.error)


def test_paths_that_cannot_be_read_at_all(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "empty").mkdir()
    for path, words in ((tmp_path / "gone.cif", "does not exist"), (tmp_path / "notes.txt", "no known format")):
        with pytest.raises(ValueError, match=words):
            read_crystals(path)
    with pytest.raises(ValueError, match="holds no structure files"):
        read_crystals(tmp_path / "empty")


def test_folder_in_natural_order_with_one_bad_file(tmp_path):
    for i in range(1, 13):
        write_cif(tmp_path / f"{i}.cif", SALT.replace(lattice=SALT.lattice * (1 + i / 100)), symprec=None)
    (tmp_path / "5.cif").write_text("")
    (tmp_path / "README.txt").write_text("not a structure")
    (tmp_path / ".hidden.cif").write_text("")
    (tmp_path / "deep").mkdir()
    write_poscar(tmp_path / "deep" / "POSCAR", SALT)
    results = list(read_crystals(tmp_path))
    assert [r.source for r in results] == [*(f"{i}.cif" for i in range(1, 13)), "deep/POSCAR"]
    assert [r.source for r in results if r.error] == ["5.cif"]
    assert sound(results[2]).volume == pytest.approx((5.64 * 1.03) ** 3, rel=1e-5)


def test_a_table_is_read_row_by_row(tmp_path):
    """Published tables have a gigabyte and more."""
    (tmp_path / "a.csv").write_text("id,cif\n" + "007,data_\n" * 500_000)
    tracemalloc.start()
    first = next(documents(tmp_path / "a.csv"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert first.info["id"] == "007"
    assert peak < 1e6 < (tmp_path / "a.csv").stat().st_size


def test_zip_of_cifs_is_deterministic_and_complete(tmp_path):
    some = [SALT, random_crystal(np.random.default_rng(0), num_atoms=4)]
    for name in ("one.zip", "two.zip"):
        write_cif_zip(tmp_path / name, some, names=["10", "9"])
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    results = list(read_crystals(tmp_path / "one.zip"))
    assert [r.source for r in results] == ["one.zip/9.cif", "one.zip/10.cif"]
    assert same_structure(sound(results[1]), SALT)
    with pytest.raises(ValueError, match="not unique"):
        write_cif_zip(tmp_path / "one.zip", some, names=["a", "a.cif"])


def test_a_folder_of_our_own_results_is_read_once(tmp_path):
    write_extxyz(tmp_path / "crystals.extxyz", [SALT, SALT])
    write_cif_zip(tmp_path / "cifs.zip", [SALT, SALT], names=["a", "b"])
    assert len(list(read_crystals(tmp_path))) == 4
    Manifest().write(tmp_path / "manifest.json")
    assert len(list(read_crystals(tmp_path))) == 2
    (tmp_path / "crystals.extxyz").unlink()
    with pytest.raises(ValueError, match=r"neither crystals\.extxyz nor"):
        read_crystals(tmp_path)


@pytest.mark.parametrize("packed", [False, True])
def test_results_inside_of_a_folder_are_read_once(tmp_path, packed):
    """Two folders of results at different depths, results of a judgement without crystals, and plain files."""
    root = tmp_path / "root"
    for folder, name in (("b", "crystals"), ("c/deep", "relaxed"), ("d", None)):
        write_cif_zip(root / folder / "cifs.zip", [SALT, SALT], names=["a", "b"])
        write_cif(root / folder / "inner" / "x.cif", SALT)
        (root / folder / "crystals.parquet").write_bytes(b"PAR1")
        Manifest().write(root / folder / "manifest.json")
        if name is not None:
            write_extxyz(root / folder / f"{name}.extxyz", [SALT, SALT])
    write_cif(root / "a.cif", SALT)
    write_cif(root / "c" / "y.cif", SALT)
    (root / "c" / "manifest.json").write_text('{"command": "of somebody else"}')
    (root / "e").mkdir()
    (root / "e" / "manifest.json").write_text("[" * 100_000)
    path, before = root, ""
    if packed:
        path, before = tmp_path / "set.zip", "set.zip/"
        with zipfile.ZipFile(path, "w") as archive:
            for file in root.rglob("*"):
                archive.write(file, file.relative_to(root))
    results = list(read_crystals(path))
    assert sorted(r.source for r in results) == [
        f"{before}{name}"
        for name in (
            "a.cif",
            "b/crystals.extxyz#1",
            "b/crystals.extxyz#2",
            "c/deep/relaxed.extxyz#1",
            "c/deep/relaxed.extxyz#2",
            "c/manifest.json",
            "c/y.cif",
            "d",
            "e/manifest.json",
        )
    ]
    errors = {r.source.removeprefix(before): str(r.error) for r in results if r.crystal is None}
    assert set(errors) == {"c/manifest.json", "d", "e/manifest.json"}
    assert errors["d"] == (
        f"{before}d: the folder d holds results of Druse, but neither crystals.extxyz nor relaxed.extxyz: "
        "name the file to read, or move it away"
    )


def test_every_member_of_a_zip_is_a_crystal_or_a_reason(tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("1.json", "{")
        archive.writestr("2.csv", "a,b")
        archive.writestr("3.zip", b"")
        archive.writestr("4.parquet", b"")
        archive.writestr("5.cif", cif_text(SALT))
        archive.writestr("notes.txt", "hello")
    errors = [r.error for r in read_crystals(tmp_path / "set.zip")]
    assert errors[0] == (
        "set.zip/1.json: it is not JSON (line 1: Expecting property name enclosed in double quotes): export it again"
    )
    assert str(errors[1]).startswith("set.zip/2.csv: it has no column 'cif'")
    assert errors[2:] == [
        "set.zip/3.zip: it is an archive inside an archive, which is not opened: unpack it first",
        "set.zip/4.parquet: it is a dataset inside an archive, which is not opened: unpack it first",
        None,
    ]


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_damaged_member_of_a_zip(tmp_path, compression):
    with zipfile.ZipFile(tmp_path / "set.zip", "w", compression) as archive:
        archive.writestr("1.cif", cif_text(SALT))
        archive.writestr("2.cif", cif_text(SALT))
    data = bytearray((tmp_path / "set.zip").read_bytes())
    data[200:210] = b"X" * 10
    (tmp_path / "set.zip").write_bytes(data)
    results = list(read_crystals(tmp_path / "set.zip"))
    assert [r.crystal is None for r in results] == [True, False]
    assert "set.zip/1.cif" in str(results[0].error)


def test_extxyz_with_info(tmp_path):
    some = [random_crystal(np.random.default_rng(i), num_atoms=i + 1) for i in range(3)]
    rows = [{"id": f"c{i}", "energy_above_hull": 0.1 * i, "stable": i == 0, "missing": None} for i in range(3)]
    write_extxyz(tmp_path / "a.extxyz", some, info=rows)
    results = list(read_crystals(tmp_path / "a.extxyz"))
    assert [r.source for r in results] == ["a.extxyz#1", "a.extxyz#2", "a.extxyz#3"]
    for result, crystal, row in zip(results, some, rows, strict=True):
        np.testing.assert_allclose(sound(result).lattice, crystal.lattice, atol=1e-7)
        np.testing.assert_allclose(sound(result).cart_coords, crystal.cart_coords, atol=1e-6)
        assert result.info == {key: value for key, value in row.items() if value is not None}
    with pytest.raises(ValueError, match="rows of info"):
        write_extxyz(tmp_path / "a.extxyz", some, info=rows[:2])


def test_bad_frame_costs_one_row(tmp_path):
    write_extxyz(tmp_path / "a.extxyz", [SALT, SALT, SALT])
    lines = (tmp_path / "a.extxyz").read_text().splitlines()
    lines[12] = lines[12].replace("Na", "Qq").replace("Cl", "Qq")
    (tmp_path / "a.extxyz").write_text("\n".join(lines))
    assert [r.error is None for r in read_crystals(tmp_path / "a.extxyz")] == [True, False, True]


def test_poscar(tmp_path):
    crystal = random_crystal(np.random.default_rng(5), num_atoms=7, max_atomic_number=3)
    write_poscar(tmp_path / "POSCAR", crystal)
    back = sound(read_one(tmp_path / "POSCAR"))
    np.testing.assert_allclose(back.lattice, crystal.lattice, atol=1e-10)
    order = np.argsort(crystal.atomic_numbers, kind="stable")
    assert sorted(back.atomic_numbers) == sorted(crystal.atomic_numbers[order])
    assert same_structure(back, crystal)


def test_json_of_pymatgen_in_every_wrapping(tmp_path):
    structure = to_pymatgen(SALT).as_dict()
    entry = {"structure": structure, "energy": -27.0, "data": {"material_id": "mp-22862", "oxide_type": "None"}}
    entry["parameters"] = {"run_type": "GGA", "hubbards": {}}
    wrappings = {"one": structure, "many": [structure, entry], "named": {"a": structure, "b": entry}, "entry": entry}
    for name, content in wrappings.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    found = {name: list(read_crystals(tmp_path / f"{name}.json")) for name in wrappings}
    assert all(same_structure(sound(r), SALT) for results in found.values() for r in results)
    assert [len(found[name]) for name in wrappings] == [1, 2, 2, 1]
    assert found["entry"][0].info["energy"] == -27.0
    assert found["entry"][0].info["parameters"] == entry["parameters"]
    assert found["named"][1].info["id"] == "mp-22862"
    assert [r.source for r in found["named"]] == ["named.json#a", "named.json#b"]


def test_columns_of_a_csv_in_capitals(tmp_path):
    text = cif_text(SALT).replace('"', '""')
    (tmp_path / "t.csv").write_text(f'Material_ID,CIF,Band_Gap\n0042,"{text}",5.0\n')
    (one,) = read_crystals(tmp_path / "t.csv")
    assert one.info == {"material_id": "0042", "Band_Gap": 5.0, "id": "0042"}


def test_csv_with_a_cif_column(tmp_path):
    text = cif_text(SALT).replace('"', '""')
    (tmp_path / "t.csv").write_text(f'material_id,cif,band_gap\nmp-1,"{text}",5.0\nmp-2,"{text[:300]}",\n')
    good, bad = read_crystals(tmp_path / "t.csv")
    assert good.info == {"material_id": "mp-1", "band_gap": 5.0, "id": "mp-1"}
    assert same_structure(sound(good), SALT)
    assert str(bad.error).startswith("t.csv#2: ")


def test_dataset_file(tmp_path):
    CrystalDataset(ids=["x"], crystals=[SALT], labels={"dft_band_gap": [5.0]}, split=["val"]).write(
        tmp_path / "d.parquet"
    )
    result = read_one(tmp_path / "d.parquet")
    assert result.source == "d.parquet#x"
    assert result.info == {"id": "x", "split": "val", "dft_band_gap": 5.0}
    assert sound(result).atomic_numbers.tolist() == SALT.atomic_numbers.tolist()


def test_cif_with_two_blocks(tmp_path):
    good = CIF.format(sites=GOOD_SITES)
    bad = good.replace("data_test", "data_other").replace("Cl1 Cl 0.5", "Cl1 Qq 0.5")
    (tmp_path / "two.cif").write_text(good + bad)
    one, two = read_crystals(tmp_path / "two.cif")
    assert (one.source, one.error) == ("two.cif#test", None)
    assert str(two.error).startswith("two.cif#other: 'Qq'")


def test_natural_order():
    assert sorted(["b10", "b9", "a2", "a11", "10", "9"], key=natural_key) == ["9", "10", "a2", "a11", "b9", "b10"]


def test_nothing_half_written_is_left(tmp_path):
    target = tmp_path / "deep" / "a.cif"
    write_cif(target, SALT)
    assert [path.name for path in target.parent.iterdir()] == ["a.cif"]
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot write"):
        write_cif(tmp_path / "file" / "a.cif", SALT)
