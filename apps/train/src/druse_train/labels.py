"""What is known about structures of the Materials Project, by id or by composition, from published tables."""

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from druse_crystal import Crystal
from druse_crystal.composition import composition, reduced_formula
from pymatgen.core import Composition

from druse_train.ground_states import GroundStates, Hull, read_table
from druse_train.packages import read_member
from druse_train.standard_form import Candidate

SAME_STATE = 0.005  # eV/atom; a structure this close to its composition's ground state is that ground state
LARGEST_SHIFT = 0.1  # eV/atom; labels further than this from the ground state are of other structures
SMALLEST_SHIFT = 0.002  # eV/atom
MIN_STRUCTURES = 20


def with_energies_and_gaps(candidates: list[Candidate], archive: Path) -> list[Candidate]:
    """Formation energies and PBE gaps by Materials Project id, which take precedence over those of the other tables."""
    tables = {
        "formation_energy_per_atom": _jarvis_table(archive, "megnet_e_form"),
        "dft_band_gap": _jarvis_table(archive, "megnet_gappbe"),
    }
    return [
        replace(c, labels={**c.labels, **{label: t[c.id] for label, t in tables.items() if c.id in t}})
        for c in candidates
    ]


def _jarvis_table(archive: Path, name: str) -> dict[str, float]:
    inner = zipfile.ZipFile(io.BytesIO(read_member(archive, f"SinglePropertyPrediction/{name}.json.zip")))
    parts = json.loads(inner.read(f"{name}.json"))
    return {material: float(value) for part in parts.values() for material, value in part.items()}


def reference_shifts(candidates: list[Candidate], states: GroundStates) -> dict[str, float]:
    """What the elements' reference energies changed by between the labels' release of the database and the hull's.

    Both releases know the formation energy of thousands of ground states. For most they agree to less than 1 meV/atom
    once a constant per element is taken out; the constants are fitted by least absolute deviations, which the
    structures that are no ground states do not disturb.

    Args:
        candidates: structures with ``formation_energy_per_atom`` of the older release.
        states: ground states of the newer one.

    Returns:
        eV/atom to add per fraction of the element, for every element whose reference changed noticeably.
    """
    ground = dict(zip(states.formulas, states.formation_energies.tolist(), strict=True))
    column = {symbol: i for i, symbol in enumerate(states.elements)}
    rows: list[np.ndarray] = []
    differences: list[float] = []
    for candidate in candidates:
        formula = composition(candidate.crystal) if candidate.crystal is not None else None
        if formula is None or len(formula) == 1 or "formation_energy_per_atom" not in candidate.labels:
            continue
        difference = ground.get(formula.reduced_formula, np.nan) - candidate.labels["formation_energy_per_atom"]
        if abs(difference) < LARGEST_SHIFT:
            row = np.zeros(len(column))
            for element, fraction in formula.fractional_composition.items():
                row[column[str(element)]] = fraction
            rows.append(row)
            differences.append(difference)
    fractions, target = np.array(rows), np.array(differences)
    shifts = np.zeros(len(column))
    for _ in range(100):  # iteratively reweighted least squares
        weights = 1 / np.maximum(np.abs(target - fractions @ shifts), 1e-3)
        normal = (fractions.T * weights) @ fractions + 1e-3 * np.eye(len(column))
        shifts = np.linalg.solve(normal, (fractions.T * weights) @ target)
    enough = (fractions > 0).sum(0) >= MIN_STRUCTURES
    return {
        symbol: round(float(shifts[i]), 4)
        for symbol, i in column.items()
        if enough[i] and abs(shifts[i]) >= SMALLEST_SHIFT
    }


def on_the_scale_of_the_hull(candidate: Candidate, shifts: dict[str, float]) -> Candidate:
    """The candidate with its formation energy against the elements of the hull; elements stay as they are."""
    formula = composition(candidate.crystal) if candidate.crystal is not None else None
    if formula is None or len(formula) == 1 or "formation_energy_per_atom" not in candidate.labels:
        return candidate
    shift = sum(x * shifts.get(str(element), 0.0) for element, x in formula.fractional_composition.items())
    energy = candidate.labels["formation_energy_per_atom"] + shift
    return replace(candidate, labels={**candidate.labels, "formation_energy_per_atom": energy})


def with_moments(candidates: list[Candidate], states: GroundStates, archive: Path) -> list[Candidate]:
    """Magnetic density of ground states in µB/Å³: moments are known by composition, for its lowest structure's cell."""
    moments = {Composition(f).reduced_formula: abs(m) for f, m in read_table(archive, "mp_mu_b").items()}
    ground = dict(zip(states.formulas, states.formation_energies.tolist(), strict=True))

    def labels(candidate: Candidate, crystal: Crystal) -> dict[str, float]:
        formula = reduced_formula(crystal)
        above = candidate.labels.get("formation_energy_per_atom", np.nan) - ground.get(formula, np.nan)
        if formula in moments and abs(above) < SAME_STATE:
            return {**candidate.labels, "dft_mag_density": moments[formula] / crystal.volume}
        return candidate.labels

    return [replace(c, labels=labels(c, c.crystal)) for c in candidates if c.crystal is not None]


def with_hull_distance(
    candidates: list[Candidate], hull: Hull, on_progress: Callable[[int], None] | None = None
) -> Iterator[Candidate]:
    """The distance of the formation energy to the hull in eV/atom, where the hull has all the elements."""
    elements = hull.elements
    for candidate in candidates:
        energy = candidate.labels.get("formation_energy_per_atom")
        if candidate.crystal is not None and energy is not None:
            formula = composition(candidate.crystal)
            if len(formula) == 1 or {str(element) for element in formula} <= elements:
                above = hull.energy_above(formula.reduced_formula, energy)
                candidate = replace(candidate, labels={**candidate.labels, "energy_above_hull": above})
        if on_progress:
            on_progress(1)
        yield candidate
