"""Symbols of space groups and their numbers, by spglib's table of settings."""

import functools
import warnings

import numpy as np
import spglib
from jaxtyping import Float64

_SETTINGS = 530  # of all space groups
_FORMER = {"Abm2": 39, "Aba2": 41, "Cmca": 64, "Cmma": 67, "Ccca": 68}  # until the e glide came in 1992


def group_number(symbol: str) -> int:
    """Number of a space group by its Hermann-Mauguin symbol in any setting, ``P2_1/c`` or ``P12_1/c1``.

    Raises:
        ValueError: if there is no such symbol.
    """
    number = _numbers().get(symbol.replace(" ", "").partition(":")[0])  # ``R-3m:H`` says which axes
    if number is None:
        raise ValueError(f"{symbol!r} is no symbol of a space group such as 'P2_1/c': correct it")
    return number


def group_symbol(number: float) -> str:
    """Short Hermann-Mauguin symbol of the standard setting, such as ``P2_1/c`` for 14.

    Raises:
        ValueError: if the number is not from 1 to 230.
    """
    for symbol, known in _numbers().items():
        if known == number:
            return symbol
    raise ValueError(f"there is no space group {number:g}: a number from 1 to 230 must stand there")


def group_symbols(numbers: Float64[np.ndarray, " b"]) -> list[str | float]:
    """Symbols of many space groups; NaN stays NaN.

    Raises:
        ValueError: as ``group_symbol``.
    """
    symbols = {number: group_symbol(number) for number in set(numbers[~np.isnan(numbers)].tolist())}
    return [symbols.get(number, float("nan")) for number in numbers.tolist()]


@functools.cache
def _numbers() -> dict[str, int]:
    """Numbers by symbol; the first symbol of each number is the short one of the standard setting."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # spglib, of how it reports errors
        found = [spglib.get_spacegroup_type(hall_number) for hall_number in range(1, _SETTINGS + 1)]
    settings = [setting for setting in found if setting is not None]
    table = {setting.international_short: setting.number for setting in settings}
    for setting in settings:
        for name in (*setting.international.split("="), setting.international_full):
            table[name.replace(" ", "")] = setting.number
    return table | _FORMER
