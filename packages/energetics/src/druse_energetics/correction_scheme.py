"""Corrections of total energies by schemes that others agreed on: MP2020 and TRI2024.

PBE and PBE+U energies do not mix, and PBE misplaces anions: a scheme adds to every total energy what makes formation
energies comparable. A hull and the energies that are judged against it need the same one. ``MP2020``: Wang et al., Sci.
Rep. 11, 15496 (2021), as pymatgen has it. ``TRI2024``: the scheme of the second published MatterGen reference, 1.108
times the energy, and a constant for each atom of a +U metal. ``MP2018``: the older formation energies of the embedded
hull, to which energies of potentials are brought by fitted ``Corrections`` instead. ``none``: as computed.
"""

import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from druse_crystal.composition import composition
from druse_crystal.convert import to_pymatgen
from druse_crystal.crystal import Crystal

from druse_energetics.corrections import HUBBARD_METALS, Residual
from druse_energetics.reference_entry import ReferenceEntry

SCHEMES = ("none", "MP2020", "TRI2024", "MP2018")
APPLICABLE = ("MP2020", "TRI2024")
"""Schemes that can be applied to a total energy."""
FORMATION = "MP2018"
"""The scheme whose references hold formation energies."""
SCHEME_OF_POTENTIAL = {"sevennet-0": "none", "sevennet-l3i5": "none", "chgnet": "MP2020"}
"""What the energies hold that a potential was trained on: CHGNet learned corrected ones (Deng et al., 2023)."""
LEVEL_OF_POTENTIAL = dict.fromkeys(SCHEME_OF_POTENTIAL, "PBE")
"""Level of theory that a potential imitates; ``PBE`` is PBE with +U by the Materials Project's settings."""

TRI2024_FACTOR = 1.108
TRI2024_HUBBARD = {
    "Co": -2.275,
    "Cr": -2.707,
    "Fe": -3.189,
    "Mn": -2.28,
    "Mo": -4.93,
    "Ni": -3.361,
    "V": -2.774,
    "W": -6.261,
}
"""eV per atom of these metals in a GGA+U calculation."""


_RUN_TYPES = {"GGA": "GGA", "PBE": "GGA", "GGA+U": "GGA+U", "GGA_U": "GGA+U", "PBE+U": "GGA+U", "PBE_U": "GGA+U"}
UNMEASURED = Residual(mae=np.nan, median=np.nan, p90=np.nan, n=0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Adjustment:
    """One term of a correction.

    Attributes:
        name: what is corrected.
        energy: eV per cell.
    """

    name: str
    energy: float


@dataclass(frozen=True, kw_only=True)
class SchemeCorrections:
    """Total energies of one potential to formation energies, by a scheme and the energies of the elements.

    Attributes:
        potential: whose energies.
        scheme: applied to these energies; ``none`` if they are on the scale of the hull as they are.
        elements: symbol -> lowest energy of the pure element in eV/atom on the scale of the hull.
        residual: of this conversion nothing was measured: NaN of no crystal.
    """

    potential: str
    scheme: str
    elements: Mapping[str, float]
    residual: Residual = UNMEASURED

    def formation_energy(self, crystal: Crystal, total_energy: float) -> float:
        """Formation energy in eV/atom on the scale of the hull.

        Args:
            crystal: the crystal.
            total_energy: eV per cell, as this potential gives it.

        Raises:
            ValueError: if an element has no reference energy, the energy is not finite, or the scheme cannot be
                applied to this crystal.
        """
        if not np.isfinite(total_energy):
            raise ValueError(f"the total energy is {total_energy}: a formation energy needs a finite one")
        amounts = {element.symbol: float(n) for element, n in composition(crystal).items()}
        missing = [symbol for symbol in amounts if symbol not in self.elements]
        if missing:
            raise ValueError(f"the reference has no energy of the pure element {', '.join(missing)}")
        corrected = float(total_energy) + correction(crystal, total_energy, self.scheme)
        return (corrected - sum(n * self.elements[symbol] for symbol, n in amounts.items())) / crystal.num_atoms


def correction(crystal: Crystal, energy: float, scheme: str, *, parameters: Mapping[str, Any] | None = None) -> float:
    """What a scheme adds to a total energy, in eV per cell; arguments and errors as ``adjustments``."""
    return float(sum(term.energy for term in adjustments(crystal, energy, scheme, parameters=parameters)))


def adjustments(
    crystal: Crystal, energy: float, scheme: str, *, parameters: Mapping[str, Any] | None = None
) -> list[Adjustment]:
    """The terms that a scheme adds to a total energy.

    Args:
        crystal: the crystal.
        energy: total energy in eV per cell without corrections.
        scheme: ``none``, ``MP2020`` or ``TRI2024``.
        parameters: ``run_type`` and ``hubbards`` of the calculation; the Materials Project's by default.

    Raises:
        ValueError: for an unknown scheme, or a calculation to which it does not apply.
    """
    if scheme == "none":
        return []
    if scheme not in APPLICABLE:
        raise ValueError(f"{scheme!r} cannot be applied to total energies: choose one of {', '.join(APPLICABLE)}")
    parameters = materials_project_parameters(crystal) if parameters is None else parameters
    run_type = parameters.get("run_type")
    if run_type not in ("GGA", "GGA+U"):
        raise ValueError(f"{scheme} corrects runs of the type GGA or GGA+U, this one is {run_type}")
    return _tri2024(crystal, energy, run_type) if scheme == "TRI2024" else _mp2020(crystal, energy, parameters)


def run_parameters(said: Mapping[str, Any], crystal: Crystal) -> dict[str, Any] | None:
    """``run_type`` and ``hubbards`` of a calculation, completed; None if nothing is said of either.

    A run type alone takes the Materials Project's values of U, values of U alone tell the run type; ``PBE`` counts as
    ``GGA``.

    Args:
        said: what the entry says under the keys ``run_type`` and ``hubbards`` (symbol -> U in eV); what is no number
            becomes NaN, to which no scheme applies.
        crystal: the crystal.
    """
    run_type, given = said.get("run_type"), said.get("hubbards")
    hubbards = {str(k): number_or_nan(v) for k, v in given.items()} if isinstance(given, Mapping) else None
    if not isinstance(run_type, str) or not run_type:
        if hubbards is None:
            return None
        run_type = "GGA+U" if any(hubbards.values()) else "GGA"
    run_type = _RUN_TYPES.get(run_type.upper(), run_type)
    if hubbards is None:
        hubbards = materials_project_parameters(crystal)["hubbards"] if run_type == "GGA+U" else {}
    return {"run_type": run_type, "hubbards": hubbards}


def of_level(entries: Iterable[ReferenceEntry], level: str) -> Iterator[ReferenceEntry]:
    """The entries one by one; a run that says itself that it is of another level has the status ``incompatible``.

    Args:
        entries: what says nothing of its run is taken as it is.
        level: ``PBE`` takes runs of the type GGA and GGA+U and no others, another level all but these two.
    """
    named = any(word in level.upper() for word in ("PBE", "GGA"))
    for entry in entries:
        run_type = None if entry.parameters is None else entry.parameters["run_type"]
        is_gga = run_type in ("GGA", "GGA+U")
        foreign = not is_gga if level == "PBE" else is_gga and not named
        if entry.status != "kept" or run_type is None or not foreign:
            yield entry
        else:
            message = f"it says that it is a run of the type {run_type}, which does not mix with energies of {level}"
            yield replace(entry, status="incompatible", message=message)


def correct(entries: Iterable[ReferenceEntry], scheme: str) -> Iterator[ReferenceEntry]:
    """The entries with their correction, one by one; what cannot be corrected has the status ``incompatible``.

    Entries that are not ``kept``, or have a correction, stay as they are.

    Raises:
        ValueError: for an unknown scheme.
    """
    if scheme not in ("none", *APPLICABLE):
        raise ValueError(f"there is no scheme {scheme!r} to apply: choose one of none, {', '.join(APPLICABLE)}")
    for entry in entries:
        if entry.crystal is None or entry.status != "kept" or entry.correction is not None:
            yield entry
            continue
        try:
            value = correction(entry.crystal, entry.energy, scheme, parameters=entry.parameters)
        except ValueError as error:
            yield replace(entry, status="incompatible", message=str(error))
        else:
            yield replace(entry, correction=value)


def materials_project_parameters(crystal: Crystal) -> dict[str, Any]:
    """Run type and Hubbard U (eV) with which the Materials Project would compute a crystal.

    A metal of ``HUBBARD_METALS`` has a U where the most electronegative element is O or F.
    """
    symbols = [element.symbol for element in sorted(composition(crystal), key=_electronegativity)]
    if symbols[-1] not in ("O", "F") or not HUBBARD_METALS & set(symbols):
        return {"run_type": "GGA", "hubbards": {}}
    values = _hubbard_values()[symbols[-1]]
    return {"run_type": "GGA+U", "hubbards": {symbol: values.get(symbol, 0) for symbol in symbols}}


def scheme_of(potential: str) -> str:
    """What the energies of a potential hold already.

    Raises:
        ValueError: if nobody wrote it down.
    """
    if potential not in SCHEME_OF_POTENTIAL:
        raise ValueError(
            f"whether the energies of {potential!r} hold corrections is not known: judge with one of "
            f"{', '.join(SCHEME_OF_POTENTIAL)}, or tell load_reference with energies='none' or 'MP2020'"
        )
    return SCHEME_OF_POTENTIAL[potential]


def scheme_to_apply(hull: str, energies: str, *, reference: str, potential: str) -> str:
    """The scheme that brings energies to the scale of a hull; ``none`` if they are there.

    Args:
        hull: scheme of the reference.
        energies: scheme of the energies that are to be judged.
        reference: name, for the sentence.
        potential: whose energies, for the sentence.

    Raises:
        ValueError: if they do not mix and no scheme can be applied.
    """
    if hull == energies:
        return "none"
    if energies == "none" and hull in APPLICABLE:
        return hull
    raise ValueError(
        f"the energies of {potential} {_words(energies)}, those of the reference {reference} {_words(hull)}, and the "
        f"two do not mix: build the reference with --scheme {energies}, or judge with another potential"
    )


def number_or_nan(value: Any) -> float:
    """What a file says, as a float; NaN if it is no number, or none that a float can hold."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return float("nan")


def _electronegativity(element: Any) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pymatgen's, of noble gases
        return float(np.nan_to_num(element.X))


def _words(scheme: str) -> str:
    return "are not corrected" if scheme == "none" else f"are corrected by {scheme}"


def _tri2024(crystal: Crystal, energy: float, run_type: str) -> list[Adjustment]:
    terms = [Adjustment(name="TRI2024 scale", energy=(TRI2024_FACTOR - 1) * energy)]
    if run_type == "GGA+U":
        metals = sum(TRI2024_HUBBARD.get(element.symbol, 0.0) * n for element, n in composition(crystal).items())
        terms.append(Adjustment(name="TRI2024 +U metals", energy=float(metals)))
    return terms


def _mp2020(crystal: Crystal, energy: float, parameters: Mapping[str, Any]) -> list[Adjustment]:
    from pymatgen.analysis.structure_analyzer import oxide_type
    from pymatgen.entries.computed_entries import ComputedStructureEntry

    scheme, incompatible = _pymatgen_scheme()
    structure = to_pymatgen(crystal)
    # as the published evaluation does: within 1.1 bond lengths; left alone, the scheme would take 1.05 and call a
    # strained peroxide an oxide
    data = {"oxide_type": oxide_type(structure, relative_cutoff=1.1)} if 8 in crystal.atomic_numbers else {}
    entry = ComputedStructureEntry(structure, float(energy), parameters=dict(parameters), data=data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            terms = scheme.get_adjustments(entry)
    except incompatible as error:
        raise ValueError(f"MP2020 does not apply to it: {str(error).split(' for {')[0]}") from error
    return [Adjustment(name=term.name, energy=float(term.value)) for term in terms]


@cache
def _pymatgen_scheme() -> tuple[Any, type[Exception]]:
    from pymatgen.entries.compatibility import CompatibilityError, MaterialsProject2020Compatibility

    return MaterialsProject2020Compatibility(check_potcar=False), CompatibilityError


@cache
def _hubbard_values() -> Mapping[str, Mapping[str, float]]:
    from pymatgen.io.vasp.sets import MPRelaxSet

    return MPRelaxSet.CONFIG["INCAR"]["LDAUU"]
