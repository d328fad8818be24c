"""CIF text: reading every structure in it, writing one with its symmetry."""

import re
import warnings

import numpy as np
from pymatgen.core import Element
from pymatgen.core.operations import SymmOp
from pymatgen.io.cif import CifBlock, CifFile, CifParser, CifWriter

from druse_crystal.composition import reduced_formula
from druse_crystal.convert import from_pymatgen, to_pymatgen
from druse_crystal.crystal import Crystal
from druse_crystal.lattice import from_parameters
from druse_crystal.symmetry import SYMPREC, symmetrized

_CELL = tuple(
    f"_cell_{name}" for name in ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
)
_CELL_SETTINGS = ("_symmetry_cell_setting", "_space_group_crystal_system")
_FRACTIONS = tuple(f"_atom_site_fract_{axis}" for axis in "xyz")
_OCCUPANCY = "_atom_site_occupancy"
_FULL = 1e-3  # an occupancy so close to 1 is one
_SITE = ("_atom_site_label", "_atom_site_type_symbol", *_FRACTIONS, _OCCUPANCY)
_OPERATIONS = (
    "_symmetry_equiv_pos_as_xyz",
    "_symmetry_equiv_pos_as_xyz_",
    "_space_group_symop_operation_xyz",
    "_space_group_symop_operation_xyz_",
)
_SYMBOLS = (
    "_symmetry_space_group_name_h-m",
    "_space_group_name_h-m_alt",
    "_symmetry_space_group_name_hall",
    "_space_group_name_hall",
)
_GROUPS = ("_symmetry_int_tables_number", "_space_group_it_number", *_SYMBOLS)


def parse_cif(text: str) -> list[tuple[str, Crystal | ValueError]]:
    """Every structure of a CIF text, with the name of its data block; what is wrong with a block instead of a crystal.

    A structure listed atom by atom (space group P1) is taken exactly as written, even where atoms overlap. Any other is
    expanded by pymatgen.

    Raises:
        ValueError: if there is no data block with atoms at all.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            blocks = CifFile.from_str(text).data
    except Exception as error:  # the tokenizer fails in many ways on text that is no CIF
        raise ValueError("it is not a CIF: check that the file is complete") from error
    blocks = {name: block for name, block in blocks.items() if "_atom_site_fract_x" in _lower(block)}
    if not blocks:
        raise ValueError("it holds no structure (no _atom_site_fract_x): export it again with its atoms")
    return [(name, _parse_block(block)) for name, block in blocks.items()]


def cif_text(crystal: Crystal, *, symprec: float | None = SYMPREC) -> str:
    """CIF of a crystal: conventional cell and symmetry-distinct atoms of the space group found within ``symprec`` Å.

    With ``symprec=None``, or when no symmetry is found, every atom of the cell as it is (P1).
    """
    if symprec is not None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                refined = symmetrized(crystal, symprec=symprec)
                text = str(CifWriter(to_pymatgen(refined), symprec=symprec))
                (_, back), *_ = parse_cif(text)
            if isinstance(back, Crystal) and _same_contents(back, crystal):
                return text
        except Exception:  # pymatgen and spglib refuse some cells in several ways; P1 always works
            pass
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pymatgen, of the electronegativity of noble gases
        return str(CifWriter(to_pymatgen(crystal), symprec=None, significant_figures=8))


def _same_contents(one: Crystal, other: Crystal) -> bool:
    """The same formula at the same density: a guard against a symmetry that merges or multiplies atoms."""
    same_density = np.isclose(one.volume / one.num_atoms, other.volume / other.num_atoms, rtol=0.1)
    return bool(same_density) and reduced_formula(one) == reduced_formula(other)


def _parse_block(block: CifBlock) -> Crystal | ValueError:
    try:
        block = _plain(block)
        data = _lower(block)
        listed = _listed_atoms(data)
        return listed if listed is not None else _expanded(block, data)
    except ValueError as error:
        return error


def _lower(block: CifBlock) -> dict:
    return {str(key).lower(): value for key, value in block.data.items()}


def _check(data: dict) -> None:
    """Refuse numbers and operations that make no structure, of which pymatgen says little or nothing.

    Raises:
        ValueError: for the first of them.
    """
    missing = [key for key in _FRACTIONS if key not in data]
    if not any(key in data for key in _CELL_SETTINGS):
        missing += [key for key in _CELL if key not in data]
    if missing:
        raise ValueError(f"it has no {missing[0]}: export it again with its cell and atoms")
    for value in (value for key in _FRACTIONS for value in data[key]):
        if not np.isfinite(_number(value)):
            raise ValueError(f"the coordinate {value!r} is not finite: correct or remove that value")
    if set(data.get(_OCCUPANCY, [])) == {"0"}:
        raise ValueError("no site is occupied, all have the occupancy 0: export it again with its atoms")
    if all(key in data for key in _CELL):
        from_parameters(*(_number(data[key]) for key in _CELL))
    operations = _operations(data)
    turns = np.array([_rotation(operation) for operation in operations]).reshape(-1, 3, 3)
    for operation, determinant in zip(operations, np.linalg.det(turns), strict=True):
        if not abs(abs(determinant) - 1) < 1e-3:
            raise ValueError(f"{operation!r} is no symmetry operation: correct or remove it")


def _listed_atoms(data: dict) -> Crystal | None:
    """The crystal of a P1 block whose sites are full and plain; None when that is not what the block holds.

    Raises:
        ValueError: if the numbers make no valid crystal.
    """
    if not _is_p1(data) or any(key not in data for key in (*_CELL, *_FRACTIONS)):
        return None
    names = data.get("_atom_site_type_symbol") or data.get("_atom_site_label")
    columns = [data[key] for key in _FRACTIONS]
    if not isinstance(names, list) or not all(len(column) == len(names) for column in columns):
        return None
    if any(value != "1" for value in data.get(_OCCUPANCY, [])):
        return None
    numbers = [_atomic_number(name) for name in names]
    unknown = [name for name, number in zip(names, numbers, strict=True) if number is None]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is no chemical element: correct the symbol in _atom_site_type_symbol")
    lattice = from_parameters(*(_number(data[key]) for key in _CELL))
    frac_coords = np.array([[_number(value) for value in column] for column in columns]).T
    return Crystal(lattice=lattice, frac_coords=frac_coords, atomic_numbers=np.array(numbers))


def _is_magnetic(data: dict) -> bool:
    """Whether the symmetry is that of a magnetic space group, whose operations have names of their own."""
    return any(key.startswith(("_space_group_magn", "_space_group_symop_magn")) for key in data)


def _is_p1(data: dict) -> bool:
    if _is_magnetic(data):
        return False
    operations = _operations(data)
    if operations:
        return [re.sub(r"[\s'\"+]", "", operation).lower() for operation in operations] == ["x,y,z"]
    return all(re.sub(r"[\s'\"_]", "", group).lower() in ("1", "p1") for group in _groups(data, _GROUPS))


def _operations(data: dict) -> list[str]:
    """The symmetry operations that a block lists, e.g. ``-x, y+1/2, -z``."""
    operations = next((data[key] for key in _OPERATIONS if key in data), [])
    return [operations] if isinstance(operations, str) else operations


def _rotation(operation: str) -> np.ndarray:
    """Its rotation matrix; zeros when it cannot be read."""
    try:
        return SymmOp.from_xyz_str(operation).rotation_matrix
    except Exception:  # every kind of broken text has its own exception
        return np.zeros((3, 3))


def _groups(data: dict, keys: tuple[str, ...]) -> list[str]:
    """What a block says about its space group under some keys; ``.`` and ``?`` say nothing."""
    said = [str(data[key]).strip() for key in keys if key in data]
    return [group for group in said if group not in ("", ".", "?")]


def _occupancy(text: str) -> float:
    """Share of a site that is occupied; 1 where the file leaves it open, by ``.`` (the default) or ``?`` (unknown).

    Raises:
        ValueError: if it is not from 0 to 1.
    """
    value = 1.0 if str(text).strip() in (".", "?") else _number(text)
    if not 0 <= value <= 1 + _FULL:
        raise ValueError(f"a site has the occupancy {text!r}, it must be from 0 to 1: correct that value")
    return 1.0 if abs(value - 1) <= _FULL else value


def _number(text: str) -> float:
    """A CIF number without its uncertainty, ``1.234(5)``.

    Raises:
        ValueError: if it is none.
    """
    try:
        return float(re.sub(r"\(\d*\)\s*$", "", str(text).strip()))
    except ValueError:
        raise ValueError(f"{text!r} stands where a number must be: correct or remove that value") from None


def _atomic_number(name: str) -> int | None:
    letters = re.match(r"[A-Za-z]+", name.strip())
    if letters is None:
        return None
    word = letters.group().capitalize()
    symbols = [word] if len(word) <= 2 else []
    if len(name.strip()) > len(word) or not symbols:
        symbols += [word[:2], word[:1]]  # a label such as Na1 or CA1B
    return next((int(Element(symbol).Z) for symbol in symbols if Element.is_valid_symbol(symbol)), None)


def _expanded(block: CifBlock, data: dict) -> Crystal:
    """The crystal of a block by pymatgen's parser.

    Args:
        block: as ``_plain`` makes it.
        data: its content, keys in small letters.

    Raises:
        ValueError: if it holds no ordered structure, or a space group whose operations nobody knows.
    """
    _check(data)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            structures = CifParser.from_str(str(block)).parse_structures(primitive=False, on_error="raise")
        except Exception as error:
            raise ValueError(_in_words(error.__cause__ or error)) from error
    if not (_is_p1(data) or _operations(data) or _is_magnetic(data)):
        _check_group(data, " ".join(str(warning.message) for warning in caught))
    return from_pymatgen(structures[0])


def _plain(block: CifBlock) -> CifBlock:
    """The block as pymatgen reads it: keys of sites, cell and operations in small letters, a single site in a loop too.

    Occupancies that are left open or are rounded are written out: pymatgen takes ``.`` for none at all.

    Raises:
        ValueError: for an occupancy that is none.
    """

    def known(key: str) -> str:
        return key.lower() if key.lower() in (*_CELL, *_SITE, *_OPERATIONS) else key

    data = {known(key): value for key, value in block.data.items()}
    alone = [key for key in _SITE if key in data and not isinstance(data[key], list)]
    data |= {key: [data[key]] for key in alone}
    if _OCCUPANCY in data:
        data[_OCCUPANCY] = [f"{_occupancy(value):.6g}" for value in data[_OCCUPANCY]]
    loops = [[known(key) for key in loop] for loop in block.loops]
    return CifBlock(data, [*loops, alone] if alone else loops, block.header)


def _check_group(data: dict, notes: str) -> None:
    """Refuse a space group that pymatgen did not understand and for which it took another one.

    Args:
        data: the block.
        notes: the parser's warnings, which say what it used.

    Raises:
        ValueError: if the group or its setting is not known.
    """
    symbols = _groups(data, _SYMBOLS)
    if "Defaulting to P1" in notes or (symbols and "Spacegroup from" not in notes):
        group = (symbols or _groups(data, _GROUPS))[0]
        raise ValueError(
            f"it lists no symmetry operations, and the setting {group!r} of its space group is not known: export it "
            "again with its operations (_symmetry_equiv_pos_as_xyz)"
        )


def _in_words(error: BaseException) -> str:
    """A sentence about what kept pymatgen from making a structure."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".!")
    if isinstance(error, KeyError):
        return f"it has no {error.args[0]}: export it again"
    if crowded := re.match(r"Occupancy (\S+) exceeded tolerance", reason):
        return (
            f"sites that fall on each other by symmetry have an occupancy of {float(crowded[1]):g} together: correct "
            "their coordinates or occupancies"
        )
    return f"no structure can be made of it ({reason}): export it again"
