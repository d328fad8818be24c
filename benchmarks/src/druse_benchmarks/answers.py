"""What came of one request: columns with an item for each crystal that was asked for."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from druse.obtained import Value, met, names_of
from druse_crystal.composition import reduced_formula
from druse_crystal.console import Display
from druse_evaluation.estimate import Rate
from druse_evaluation.table import Assessment
from jaxtyping import Bool, Float64

from druse_benchmarks.record import judged_by, read_alike

FLAGS = {"unique": "unique", "novel": "novel", "sun": "sun_metastable"}
"""Names here, and columns of an assessment."""
DRAWN_BY = ("model", "sampler")


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """The crystals of one request.

    Attributes:
        formulas: reduced, None where no relaxed crystal came of it.
        flags: ``unique`` (first of its kind), ``novel``, and ``sun``: both, and at most 0.1 eV/atom above the hull.
        obtained: by property the values of the relaxed crystals, None where there is none.
    """

    formulas: Sequence[str | None]
    flags: Mapping[str, Bool[np.ndarray, " b"]]
    obtained: Mapping[str, Sequence[Value]]

    @classmethod
    def of(cls, assessment: Assessment, obtained: Mapping[str, Sequence[Value]]) -> "Answers":
        """From judged crystals and what was obtained of them."""
        relaxed = [assessment.relaxed(row) for row in range(len(assessment))]
        formulas = [None if crystal is None else reduced_formula(crystal) for crystal in relaxed]
        flags = {name: assessment.flags(column) for name, column in FLAGS.items()}
        return cls(formulas=formulas, flags=flags, obtained=obtained)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Answers":
        """What ``as_json`` made."""
        flags = {name: np.array(content[name], dtype=bool) for name in FLAGS}
        return cls(formulas=content["formula"], flags=flags, obtained=content["obtained"])

    def as_json(self) -> dict[str, Any]:
        """Plain values; flags are 0 and 1."""
        flags = {name: found.astype(int).tolist() for name, found in self.flags.items()}
        return {"formula": list(self.formulas), **flags, "obtained": dict(self.obtained)}

    def __len__(self) -> int:
        return len(self.formulas)

    @property
    def calls(self) -> int:
        """Predictor calls: relaxed crystals, of each of which what was asked for is obtained once."""
        return sum(formula is not None for formula in self.formulas)

    def hit(self, targets: Sequence[str]) -> Bool[np.ndarray, " b"]:
        """Which crystals meet all of the targets; what could not be obtained meets none."""
        found = np.ones(len(self), dtype=bool)
        for text in targets:
            found &= met(text, self.obtained[names_of([text])[0]])
        return found

    def share(self, targets: Sequence[str]) -> Rate:
        """Share of the crystals asked for that meet all of the targets."""
        return Rate(int(self.hit(targets).sum()), len(self))

    def distinct(self, targets: Sequence[str], *, flag: str | None = None) -> int:
        """How many crystals meet all of the targets, equal ones counted once; with a flag only those that have it."""
        found = self.hit(targets) & self.flags["unique"]
        return int((found if flag is None else found & self.flags[flag]).sum())

    def numbers(self, name: str) -> Float64[np.ndarray, " k"]:
        """The values of a property that is a number, of those crystals that have one."""
        return np.array([value for value in self.obtained[name] if value is not None], dtype=float)


def read_answers(folder: Path, names: Iterable[str], *, like: str, display: Display) -> dict[str, Mapping[str, Any]]:
    """The JSON files of a folder that are there, by name, as far as they were drawn and judged alike."""
    return read_alike(folder, names, like=like, display=display, made_by=_made_by, made="drawn or judged")


def _made_by(content: Mapping[str, Any]) -> list[Any]:
    return [*judged_by(content), *(content["settings"]["generate"][key] for key in DRAWN_BY)]
