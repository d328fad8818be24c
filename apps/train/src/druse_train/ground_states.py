"""The convex hull of the Materials Project by composition, out of the formation energies of its ground states.

The `crabnet` package carries formation energies and decomposition energies of the lowest-energy structure of 85,014
compositions (Bartel et al., npj Comput. Mater. 6, 97 (2020)). A composition is a vertex of the hull exactly when its
decomposition energy, taken against all other compositions, is negative; the elements are vertices at zero.
"""

import csv
import io
import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from druse_crystal.files import replacing
from pymatgen.core import Composition
from scipy.optimize import linprog

from druse_train.packages import read_member


@dataclass(frozen=True, kw_only=True)
class GroundStates:
    """The lowest-energy structure of each composition.

    Attributes:
        formulas: reduced formulas, sorted.
        formation_energies: eV/atom.
        decomposition_energies: eV/atom against all other compositions; negative for a stable one.
    """

    formulas: list[str]
    formation_energies: np.ndarray
    decomposition_energies: np.ndarray

    @property
    def stable(self) -> np.ndarray:
        """Which compositions are vertices of the hull."""
        return self.decomposition_energies < 0

    @property
    def elements(self) -> list[str]:
        """Symbols of all elements that occur, in alphabetical order."""
        return sorted({symbol for formula in self.formulas for symbol in Composition(formula).as_dict()})


def read_ground_states(crabnet_wheel: Path) -> GroundStates:
    """Read the two tables of the wheel; compositions and order must agree between them.

    Raises:
        ValueError: if the tables do not list the same compositions.
    """
    formation = _by_reduced_formula(read_table(crabnet_wheel, "CritExam__Ef"))
    decomposition = _by_reduced_formula(read_table(crabnet_wheel, "CritExam__Ed"))
    if formation.keys() != decomposition.keys():
        raise ValueError(f"{crabnet_wheel.name}: formation and decomposition energies are not of the same compositions")
    formulas = sorted(formation)
    return GroundStates(
        formulas=formulas,
        formation_energies=np.array([formation[f] for f in formulas]),
        decomposition_energies=np.array([decomposition[f] for f in formulas]),
    )


def read_table(crabnet_wheel: Path, name: str) -> dict[str, float]:
    """One benchmark table of the wheel, its three parts together: formula as written -> value."""
    table: dict[str, float] = {}
    for part in ("train", "val", "test"):
        text = read_member(crabnet_wheel, f"benchmark_data/{name}/{part}.csv").decode()
        table.update((row["formula"], float(row["target"])) for row in csv.DictReader(io.StringIO(text)))
    return table


class Hull:
    """Distance of a composition and its energy to the lower convex hull, by linear programming.

    Args:
        energies: reduced formula -> formation energy in eV/atom of the vertices, elements included.
    """

    def __init__(self, energies: dict[str, float]):
        self._phases: dict[frozenset[str], list[tuple[dict[str, float], float]]] = defaultdict(list)
        self._systems: dict[str, list[frozenset[str]]] = defaultdict(list)
        for formula, energy in energies.items():
            fractions = {str(element): x for element, x in Composition(formula).fractional_composition.items()}
            system = frozenset(fractions)
            if system not in self._phases:
                for symbol in system:
                    self._systems[symbol].append(system)
            self._phases[system].append((fractions, energy))

    @property
    def elements(self) -> set[str]:
        """Symbols of the elements on the hull."""
        return {next(iter(system)) for system in self._phases if len(system) == 1}

    def energy_above(self, formula: str, formation_energy: float) -> float:
        """``formation_energy`` minus the hull's energy at this composition, in eV/atom; negative below the hull.

        Raises:
            ValueError: if an element is not on the hull.
        """
        target = {str(e): x for e, x in Composition(formula).fractional_composition.items()}
        wanted = frozenset(target)
        if len(wanted) == 1:
            return formation_energy  # the hull of an element is the element, which defines the zero
        systems = {system for symbol in wanted for system in self._systems[symbol] if system <= wanted}
        phases = [phase for system in sorted(systems, key=sorted) for phase in self._phases[system]]
        symbols = sorted(wanted)
        fractions = np.array([[phase.get(symbol, 0.0) for phase, _ in phases] for symbol in symbols])
        solved = linprog([energy for _, energy in phases], A_eq=fractions, b_eq=[target[s] for s in symbols])
        if not solved.success:
            raise ValueError(f"the hull has no phases that {formula} could decompose into")
        return formation_energy - solved.fun


def hull_of(states: GroundStates) -> dict[str, float]:
    """Vertices of the hull: reduced formula -> formation energy in eV/atom, the elements at zero."""
    vertices = dict.fromkeys(states.elements, 0.0)
    for i in np.flatnonzero(states.stable):
        vertices[states.formulas[i]] = float(states.formation_energies[i])
    return dict(sorted(vertices.items()))


def write_hull(path: str | os.PathLike, vertices: dict[str, float], metadata: dict[str, str]) -> None:
    """Write the vertices as Parquet with the columns ``formula`` and ``formation_energy_per_atom`` (eV/atom)."""
    columns = {
        "formula": list(vertices),
        "formation_energy_per_atom": np.round(list(vertices.values()), 6),
    }
    _write(path, pa.table(columns), metadata)


def write_known_formulas(path: str | os.PathLike, formulas: list[str], metadata: dict[str, str]) -> None:
    """Write reduced formulas as a Parquet file with the one column ``formula``."""
    _write(path, pa.table({"formula": sorted(formulas)}), metadata)


def _by_reduced_formula(table: dict[str, float]) -> dict[str, float]:
    energies: dict[str, float] = {}
    for formula, energy in table.items():
        reduced = Composition(formula).reduced_formula
        energies[reduced] = min(energy, energies.get(reduced, np.inf))
    return energies


def _write(path: str | os.PathLike, table: pa.Table, metadata: dict[str, str]) -> None:
    with replacing(path) as temporary:
        pq.write_table(
            table.replace_schema_metadata(metadata),
            temporary,
            compression="zstd",
            compression_level=19,
            use_dictionary=False,
            column_encoding={name: "DELTA_BYTE_ARRAY" if name == "formula" else "PLAIN" for name in table.column_names},
        )
