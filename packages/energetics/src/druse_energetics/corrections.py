"""From a potential's total energy to a formation energy on the scale of the DFT hull.

A formation energy of the Materials Project is a total energy minus those of the elements, with corrections where plain
PBE and PBE+U do not mix or where the elements are poorly described (Jain et al., PRB 84, 045115 (2011); Wang et al.,
Sci. Rep. 11, 15496 (2021)). All of that is linear in a few counts: atoms of each element; atoms of a metal with a
Hubbard U in an oxide or fluoride; oxygen in peroxides and superoxides. A potential trained on those calculations makes
the same combinations of them, plus its own small systematic errors. So the energies of the elements and all
corrections are fitted together, by robust least squares, on known crystals whose formation energy is given. What
remains is measured by cross-validation over chemical systems and on crystals that the fit never saw, and travels with
the coefficients.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path

import numpy as np
from druse_crystal.composition import chemical_system, composition
from druse_crystal.convert import to_pymatgen
from druse_crystal.crystal import Crystal
from druse_crystal.files import replacing
from pymatgen.analysis.structure_analyzer import oxide_type

from druse_energetics.robust import huber_fit

HUBBARD_METALS = frozenset({"V", "Cr", "Mn", "Fe", "Co", "Ni", "Mo", "W"})  # of the Materials Project's settings
HUBER_WIDTH = 0.03  # eV/atom; larger residuals count linearly
N_FOLDS = 10


@dataclass(frozen=True, kw_only=True)
class Residual:
    """How far converted energies are from the DFT formation energies of known crystals, in eV/atom.

    Attributes:
        mae: mean absolute error.
        median: median absolute error.
        p90: 90th percentile of the absolute error.
        n: number of crystals.
    """

    mae: float
    median: float
    p90: float
    n: int


@dataclass(frozen=True, kw_only=True)
class Corrections:
    """Coefficients that turn total energies of one potential into formation energies.

    Attributes:
        potential: whose energies.
        coefficients: term -> eV; see ``correction_terms``.
        elements: symbol -> energy in eV/atom of the pure element, the zero of its formation energy. Only used for
            crystals of one element.
        residual: cross-validated over chemical systems.
        residual_near_hull: the same for crystals within 0.1 eV/atom of the hull.
        provenance: data, versions, settings.
        residual_held_out: of the compounds that were held out of the fit; None if there were none.
    """

    potential: str
    coefficients: Mapping[str, float]
    elements: Mapping[str, float]
    residual: Residual
    residual_near_hull: Residual
    provenance: Mapping[str, object] = field(default_factory=dict)
    residual_held_out: Residual | None = None

    def formation_energy(self, crystal: Crystal, total_energy: float) -> float:
        """Formation energy in eV/atom on the scale of the hull.

        Args:
            crystal: the crystal.
            total_energy: eV per cell, as this potential gives it.

        Raises:
            ValueError: if there is no reference energy for one of its elements, or the energy is not finite.
        """
        if not np.isfinite(total_energy):
            raise ValueError(f"the total energy is {total_energy}: a formation energy needs a finite one")
        symbols = [element.symbol for element in composition(crystal)]
        if len(symbols) == 1 and symbols[0] in self.elements:
            return float(total_energy) / crystal.num_atoms - self.elements[symbols[0]]
        missing = [symbol for symbol in symbols if symbol not in self.coefficients]
        if missing:
            raise ValueError(f"there is no reference energy of {', '.join(missing)} for {self.potential}")
        terms = correction_terms(crystal)
        reference = sum(count * self.coefficients.get(term, 0.0) for term, count in terms.items())
        return (float(total_energy) - reference) / crystal.num_atoms

    def write(self, path: str | os.PathLike) -> None:
        """Write as JSON."""
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(asdict(self), indent=1, sort_keys=True) + "\n")

    @classmethod
    def read(cls, path) -> "Corrections":
        """Read what ``write`` wrote."""
        content = json.loads(Path(str(path)).read_text())
        keys = ("residual", "residual_near_hull", "residual_held_out")
        residuals = {key: Residual(**content.pop(key)) for key in keys if content.get(key) is not None}
        return cls(**content | residuals)


def correction_terms(crystal: Crystal) -> dict[str, float]:
    """Counts per cell on which the conversion is linear.

    ``Fe`` counts atoms of an element; ``Fe in oxide`` and ``Fe in fluoride`` those of a metal that has a Hubbard U
    there (the more electronegative anion decides); ``O in peroxide`` and ``O in superoxide`` (ozonides included) oxygen
    atoms by the distances between them, as pymatgen's ``oxide_type`` tells them apart.
    """
    amounts = {element.symbol: float(n) for element, n in composition(crystal).items()}
    terms = dict(amounts)
    anion = "fluoride" if "F" in amounts else "oxide" if "O" in amounts else None
    if anion:
        for symbol in HUBBARD_METALS & amounts.keys():
            terms[f"{symbol} in {anion}"] = amounts[symbol]
    if len(amounts) > 1 and amounts.get("O", 0) > 1:
        kind = oxide_type(to_pymatgen(crystal), relative_cutoff=1.1)
        if kind == "peroxide":
            terms["O in peroxide"] = amounts["O"]
        elif kind in ("superoxide", "ozonide"):
            terms["O in superoxide"] = amounts["O"]
    return terms


def fit_corrections(
    crystals: Sequence[Crystal],
    energies: Sequence[float] | np.ndarray,
    formation_energies: Sequence[float] | np.ndarray,
    *,
    potential: str,
    energies_above_hull: Sequence[float] | np.ndarray | None = None,
    held_out: Sequence[bool] | np.ndarray | None = None,
    provenance: Mapping[str, object] | None = None,
    seed: int = 0,
) -> Corrections:
    """Fit the conversion of a potential's energies, and measure what it leaves.

    Args:
        crystals: known crystals.
        energies: (b,) eV per cell from the potential; NaN = leave out.
        formation_energies: (b,) eV/atom from DFT, on the scale of the hull; NaN = leave out.
        potential: its name.
        energies_above_hull: (b,) eV/atom from DFT, for the residual near the hull; everything counts as near if absent.
        held_out: (b,) bool; where True, the crystal takes part neither in the fit of the coefficients nor in its
            cross-validation, and its error is measured afterwards. A pure element still sets the zero of its element:
            that is where a scale begins, and nothing is fitted to it.
        provenance: kept with the result.
        seed: of the assignment of chemical systems to folds.

    Raises:
        ValueError: if lengths disagree or fewer than ten crystals are left to fit.
    """
    energies = np.asarray(energies, dtype=np.float64)
    targets = np.asarray(formation_energies, dtype=np.float64)
    above = np.zeros(len(crystals)) if energies_above_hull is None else np.asarray(energies_above_hull, np.float64)
    away = np.zeros(len(crystals), dtype=bool) if held_out is None else np.asarray(held_out, dtype=bool)
    if not len(crystals) == len(energies) == len(targets) == len(above) == len(away):
        raise ValueError(
            f"{len(crystals)} crystals, {len(energies)} energies, {len(targets)} formation energies, {len(above)} "
            f"energies above hull, {len(away)} marks of what is held out: give one of each for every crystal"
        )
    labelled = np.flatnonzero(np.isfinite(energies) & np.isfinite(targets))
    known, away, near = labelled.tolist(), away[labelled], above[labelled] <= 0.1
    fit = ~away
    if fit.sum() < N_FOLDS:
        raise ValueError(f"{fit.sum()} crystals have an energy and a label: a fit needs at least {N_FOLDS}")
    terms = [correction_terms(crystals[i]) for i in known]
    names = sorted({name for term, inside in zip(terms, fit, strict=True) if inside for name in term})
    num_atoms = np.array([crystals[i].num_atoms for i in known])
    counts = np.array([[term.get(name, 0.0) for name in names] for term in terms]) / num_atoms[:, None]
    shift = energies[known] / num_atoms - targets[known]  # what the terms have to explain
    systems = [chemical_system(crystals[i]) for i in known]
    elemental = np.array([len(composition(crystals[i])) == 1 for i in known])

    errors = _cross_validated(counts[fit], shift[fit], [systems[i] for i in np.flatnonzero(fit)], seed)
    errors[elemental[fit]] = np.nan
    coefficients = huber_fit(counts[fit], shift[fit], width=HUBER_WIDTH)
    foreign = np.array([not term.keys() <= set(names) for term in terms])
    judged = away & ~elemental & ~foreign
    return Corrections(
        potential=potential,
        coefficients={name: round(float(value), 5) for name, value in zip(names, coefficients, strict=True)},
        elements=_element_energies(systems, elemental, targets[known], shift),
        residual=_residual(errors),
        residual_near_hull=_residual(errors[near[fit]]),
        residual_held_out=_residual((shift - counts @ coefficients)[judged]) if judged.any() else None,
        provenance=dict(provenance or {}),
    )


def load_corrections(potential: str) -> Corrections:
    """The shipped conversion of a potential.

    Raises:
        ValueError: if there is none.
    """
    path = files("druse_energetics") / "data" / f"corrections-{potential}.json"
    if not path.is_file():
        raise ValueError(f"there are no corrections for the potential {potential!r}")
    return Corrections.read(path)


def _cross_validated(counts: np.ndarray, shift: np.ndarray, systems: Sequence[str], seed: int) -> np.ndarray:
    """Error of each crystal under a fit without its chemical system; NaN where that fit lacks one of its terms."""
    distinct = sorted(set(systems))
    folds_of = dict(zip(distinct, _balanced_folds(len(distinct), seed), strict=True))
    fold = np.array([folds_of[system] for system in systems])
    errors = np.full(len(shift), np.nan)
    for k in range(N_FOLDS):
        train = fold != k
        fitted = huber_fit(counts[train], shift[train], width=HUBER_WIDTH)
        seen = (counts[train] > 0).any(axis=0)
        judged = ~train & ~(counts[:, ~seen] > 0).any(axis=1)
        errors[judged] = shift[judged] - counts[judged] @ fitted
    return errors


def _balanced_folds(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(np.arange(n) % N_FOLDS)


def _element_energies(systems, elemental, targets, shift) -> dict[str, float]:
    """Zero of each pure element, from the structure that its label places lowest."""
    energies: dict[str, tuple[float, float]] = {}
    for i in np.flatnonzero(elemental):
        if systems[i] not in energies or targets[i] < energies[systems[i]][0]:
            energies[systems[i]] = (targets[i], shift[i])
    return {symbol: round(float(value), 5) for symbol, (_, value) in sorted(energies.items())}


def _residual(errors: np.ndarray) -> Residual:
    sizes = np.abs(errors[np.isfinite(errors)])
    return Residual(
        mae=round(float(sizes.mean()), 5),
        median=round(float(np.median(sizes)), 5),
        p90=round(float(np.percentile(sizes, 90)), 5),
        n=len(sizes),
    )
