"""The convex hull of formation energies over composition, as a linear program."""

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import highspy
import numpy as np
from jaxtyping import Float64, Int64, UInt64
from pymatgen.core import Composition, Element

CompositionLike = str | Composition | Mapping[str, float]

_TOKEN = re.compile(r"([A-Z][a-z]?)(\d*\.?\d*)")
_PLAIN_FORMULA = re.compile(r"(?:[A-Z][a-z]?\d*\.?\d*)+")
_ATOMIC_NUMBERS = {element.symbol: element.Z for element in Element}
_SYMBOLS = {z: symbol for symbol, z in _ATOMIC_NUMBERS.items()}
_NEGLIGIBLE = 1e-9  # amounts below are noise of the solver


class ConvexHull:
    """Phases with known formation energies, and what any composition would decompose into among them.

    The energy of the hull at a composition is the minimum of ``sum_i x_i e_i`` over amounts ``x_i >= 0`` of the phases
    of its chemical system with the right amounts of every element: a linear program with one row an element, solved
    exactly (to 1e-7) by HiGHS. No facet is ever built, so that seven elements cost no more than three.

    Args:
        compositions: formulas, pymatgen compositions or mappings from symbol to amount.
        formation_energies_per_atom: eV/atom, relative to the elements.
        ids: a name for each phase; the formulas as given if left out.

    Raises:
        ValueError: if lengths disagree, an energy is not finite, a formula cannot be read or there is no phase.
    """

    def __init__(
        self,
        compositions: Sequence[CompositionLike],
        formation_energies_per_atom: Sequence[float] | np.ndarray,
        ids: Sequence[str] | None = None,
    ):
        energies = np.asarray(formation_energies_per_atom, dtype=np.float64)
        names = [str(c) for c in compositions] if ids is None else [str(i) for i in ids]
        if energies.shape != (len(compositions),) or len(names) != len(compositions):
            raise ValueError(
                f"{len(compositions)} compositions, {energies.size} formation energies and {len(names)} ids: "
                "a hull needs one of each for every phase"
            )
        if len(compositions) == 0:
            raise ValueError("a hull needs at least one phase")
        if not np.isfinite(energies).all():
            raise ValueError(
                f"the formation energy of {names[int(np.flatnonzero(~np.isfinite(energies))[0])]} is not finite"
            )

        parts = [_fractions(composition) for composition in compositions]
        lowest: dict[tuple, int] = {}  # of several phases of one composition, only the lowest can be on the hull
        for i, part in enumerate(parts):
            key = tuple(sorted((z, round(x, 8)) for z, x in part.items()))
            if key not in lowest or energies[i] < energies[lowest[key]]:
                lowest[key] = i
        self.ids: list[str] = [names[i] for i in lowest.values()]
        self.formation_energies_per_atom: Float64[np.ndarray, " n"] = energies[list(lowest.values())]
        self._parts: list[dict[int, float]] = [parts[i] for i in lowest.values()]
        masks = np.array([_mask(part) for part in self._parts], dtype=np.uint64)
        self._low: UInt64[np.ndarray, " n"] = masks[:, 0].copy()
        self._high: UInt64[np.ndarray, " n"] = masks[:, 1].copy()
        self._solved: dict[tuple, tuple[float, dict[str, float]]] = {}

    def __len__(self) -> int:
        return len(self.ids)

    def joined(self, other: "ConvexHull") -> "ConvexHull":
        """The hull of the phases of both; of one composition in both, the lower phase."""
        return ConvexHull(
            [{_SYMBOLS[z]: x for z, x in part.items()} for part in (*self._parts, *other._parts)],
            np.concatenate([self.formation_energies_per_atom, other.formation_energies_per_atom]),
            [*self.ids, *other.ids],
        )

    @property
    def elements(self) -> frozenset[int]:
        """Atomic numbers of the elements that occur in some phase."""
        return frozenset(z for part in self._parts for z in part)

    def hull_energy(self, composition: CompositionLike) -> float:
        """Formation energy in eV/atom of the best mixture of phases with this composition.

        Raises:
            ValueError: if the phases of the hull cannot make this composition; the sentence names the elements missing.
        """
        return self._solve(composition)[0]

    def energy_above_hull(self, composition: CompositionLike, formation_energy_per_atom: float) -> float:
        """Formation energy minus the hull's at this composition, in eV/atom; negative for a phase below the hull.

        Of a phase that is itself on the hull this is zero; of one that is absent and stable, minus the energy by which
        it would lower the hull.

        Raises:
            ValueError: as ``hull_energy``.
        """
        return float(formation_energy_per_atom) - self.hull_energy(composition)

    def decomposition(self, composition: CompositionLike) -> dict[str, float]:
        """What it decomposes into: id of each phase -> its share of the atoms (shares sum to one).

        Raises:
            ValueError: as ``hull_energy``.
        """
        return dict(self._solve(composition)[1])

    def phases(self, composition: CompositionLike) -> Int64[np.ndarray, " k"]:
        """Positions of all phases made of no other elements than this composition."""
        low, high = ~np.array(_mask(_fractions(composition)), dtype=np.uint64)
        return np.flatnonzero(((self._low & low) | (self._high & high)) == 0)

    def _solve(self, composition: CompositionLike) -> tuple[float, dict[str, float]]:
        target = _fractions(composition)
        key = tuple(sorted((z, round(x, 12)) for z, x in target.items()))
        if key not in self._solved:
            self._solved[key] = self._program(composition, target)
        return self._solved[key]

    def _program(self, composition: CompositionLike, target: dict[int, float]) -> tuple[float, dict[str, float]]:
        candidates = self.phases(composition)
        row = {z: i for i, z in enumerate(sorted(target))}
        parts = [self._parts[phase] for phase in candidates]
        missing = [Element.from_Z(z).symbol for z in row if not any(z in part for part in parts)]
        if missing:
            lacking = " or ".join(missing)
            formula, _ = Composition({_SYMBOLS[z]: x for z, x in target.items()}).get_integer_formula_and_factor()
            raise ValueError(f"the reference has no phase with {lacking}, so {formula} has no distance to the hull")
        program = highspy.HighsLp()
        program.num_row_, program.num_col_ = len(row), len(candidates)
        program.col_cost_ = self.formation_energies_per_atom[candidates]
        program.col_lower_ = np.zeros(len(candidates))
        program.col_upper_ = np.full(len(candidates), np.inf)
        program.row_lower_ = program.row_upper_ = np.array([target[z] for z in row])
        program.a_matrix_.format_ = highspy.MatrixFormat.kColwise
        program.a_matrix_.start_ = np.cumsum([0, *(len(part) for part in parts)]).astype(np.int32)
        program.a_matrix_.index_ = np.array([row[z] for part in parts for z in part], dtype=np.int32)
        program.a_matrix_.value_ = np.array([x for part in parts for x in part.values()])
        self._solver.passModel(program)
        self._solver.run()
        status = self._solver.getModelStatus()
        if status != highspy.HighsModelStatus.kOptimal:
            reason = self._solver.modelStatusToString(status)
            raise ValueError(f"the phases of the hull cannot make {_text(composition)}: {reason}")
        amounts = np.array(self._solver.getSolution().col_value)
        shares = {self.ids[candidates[k]]: float(amounts[k]) for k in np.flatnonzero(amounts > _NEGLIGIBLE)}
        return float(self._solver.getInfo().objective_function_value), shares

    @cached_property
    def _solver(self) -> Any:
        # the class Highs itself prints a banner on stdout, where a command's JSON goes
        solver = highspy._Highs()  # ty: ignore[missing-attribute]
        solver.setOptionValue("output_flag", False)
        solver.setOptionValue("presolve", "off")  # for so few rows it takes longer than it saves
        return solver


def _fractions(composition: CompositionLike) -> dict[int, float]:
    """Atomic number -> fraction of the atoms."""
    try:
        if isinstance(composition, str) and _PLAIN_FORMULA.fullmatch(composition):
            amounts: dict[str, float] = {}
            for symbol, number in _TOKEN.findall(composition):
                amounts[symbol] = amounts.get(symbol, 0.0) + float(number or 1)
        elif isinstance(composition, Mapping) and not isinstance(composition, Composition):
            amounts = {str(symbol): float(n) for symbol, n in composition.items()}
        else:
            parsed = Composition(composition) if isinstance(composition, str) else composition
            amounts = {element.symbol: float(n) for element, n in parsed.items()}
        total = sum(amounts.values())
        if not total > 0 or min(amounts.values()) < 0:
            raise ValueError("amounts must be positive")
        return {_ATOMIC_NUMBERS[symbol]: n / total for symbol, n in amounts.items() if n > 0}
    except (KeyError, ValueError, AttributeError) as error:
        raise ValueError(f"{composition!r} is no composition of chemical elements") from error


def _mask(atomic_numbers) -> tuple[int, int]:
    """The set of elements as two 64-bit words."""
    bits = 0
    for z in atomic_numbers:
        bits |= 1 << int(z)
    return bits & 0xFFFFFFFFFFFFFFFF, bits >> 64


def _text(composition: CompositionLike) -> str:
    return composition if isinstance(composition, str) else Composition(dict(composition)).formula.replace(" ", "")
