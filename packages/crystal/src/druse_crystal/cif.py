"""CIF text: reading every structure in it, writing one with its symmetry."""

import re
import warnings

import numpy as np
from pymatgen.core import Element
from pymatgen.io.cif import CifBlock, CifFile, CifParser, CifWriter

from druse_crystal.composition import reduced_formula
from druse_crystal.convert import from_pymatgen, to_pymatgen
from druse_crystal.crystal import Crystal
from druse_crystal.lattice import from_parameters
from druse_crystal.symmetry import SYMPREC, symmetrized

_CELL = tuple(
    f"_cell_{name}" for name in ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
)
_FRACTIONS = tuple(f"_atom_site_fract_{axis}" for axis in "xyz")
_OPERATIONS = (
    "_symmetry_equiv_pos_as_xyz",
    "_symmetry_equiv_pos_as_xyz_",
    "_space_group_symop_operation_xyz",
    "_space_group_symop_operation_xyz_",
)
_GROUPS = (
    "_symmetry_int_tables_number",
    "_space_group_it_number",
    "_symmetry_space_group_name_h-m",
    "_space_group_name_h-m_alt",
    "_symmetry_space_group_name_hall",
    "_space_group_name_hall",
)


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
    return str(CifWriter(to_pymatgen(crystal), symprec=None, significant_figures=8))


def _same_contents(one: Crystal, other: Crystal) -> bool:
    """The same formula at the same density: a guard against a symmetry that merges or multiplies atoms."""
    same_density = np.isclose(one.volume / one.num_atoms, other.volume / other.num_atoms, rtol=0.1)
    return bool(same_density) and reduced_formula(one) == reduced_formula(other)


def _parse_block(block: CifBlock) -> Crystal | ValueError:
    try:
        listed = _listed_atoms(_lower(block))
        return listed if listed is not None else _expanded(block)
    except ValueError as error:
        return error


def _lower(block: CifBlock) -> dict:
    return {str(key).lower(): value for key, value in block.data.items()}


def _listed_atoms(data: dict) -> Crystal | None:
    """The crystal of a P1 block whose sites are full and plain; None when that is not what the block holds.

    Raises:
        ValueError: if the numbers make no valid crystal.
    """
    if not _is_p1(data) or any(key not in data for key in (*_CELL, *_FRACTIONS)):
        return None
    names = data.get("_atom_site_type_symbol") or data.get("_atom_site_label")
    columns = [data[key] for key in _FRACTIONS]
    if not isinstance(names, list) or not all(isinstance(c, list) and len(c) == len(names) for c in columns):
        return None
    if any(abs(_number(value) - 1) > 1e-3 for value in data.get("_atom_site_occupancy", [])):
        return None
    numbers = [_atomic_number(name) for name in names]
    unknown = [name for name, number in zip(names, numbers, strict=True) if number is None]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is no chemical element: correct the symbol in _atom_site_type_symbol")
    lattice = from_parameters(*(_number(data[key]) for key in _CELL))
    frac_coords = np.array([[_number(value) for value in column] for column in columns]).T
    return Crystal(lattice=lattice, frac_coords=frac_coords, atomic_numbers=np.array(numbers))


def _is_p1(data: dict) -> bool:
    operations = next((data[key] for key in _OPERATIONS if key in data), None)
    if operations is not None:
        operations = [operations] if isinstance(operations, str) else operations
        return [re.sub(r"[\s'\"+]", "", operation).lower() for operation in operations] == ["x,y,z"]
    groups = [re.sub(r"[\s'\"_]", "", str(data[key])).lower() for key in _GROUPS if key in data]
    return all(group in ("1", "p1") for group in groups)


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


def _expanded(block: CifBlock) -> Crystal:
    """The crystal of a block by pymatgen's parser.

    Raises:
        ValueError: if it holds no ordered structure.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            structures = CifParser.from_str(str(block)).parse_structures(primitive=False, on_error="raise")
        except Exception as error:
            raise ValueError(f"no structure can be made of it ({_first_line(error)}): export it again") from error
    if not structures:
        raise ValueError("it holds no structure: export it again with its atoms")
    return from_pymatgen(structures[0])


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".!")
