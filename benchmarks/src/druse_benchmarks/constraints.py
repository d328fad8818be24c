"""Do crystals keep what was asked of them, and what does it cost in stability?"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from druse_crystal import Crystal
from druse_crystal.console import Display
from druse_crystal.dataset import load_embedded
from druse_crystal.files import writable_folder, write_text
from druse_crystal.io import write_extxyz
from druse_crystal.manifest import Manifest
from druse_crystal.symmetry import contains_group
from druse_energetics.reference import load_reference
from druse_evaluate.config import EvaluationConfig
from druse_evaluate.judging import check_relaxation
from druse_evaluation.estimate import Rate
from druse_evaluation.summary import judge_sentence
from druse_evaluation.table import Assessment
from druse_generate.composition_request import CompositionRequest
from druse_generate.config import GenerateConfig, SymmetryRequest
from druse_generate.seed_request import Seed, SeedRequest
from druse_scores import load_checkpoint
from matplotlib.figure import Figure

from druse_benchmarks.drawing import COLORS, canvas
from druse_benchmarks.judged_draws import draw_and_judge
from druse_benchmarks.record import (
    EXPECTED,
    judged_and_expected,
    machine_load,
    markdown_table,
    plain,
    read_alike,
    write_record,
)

NAME = "constraints"


@dataclass(frozen=True, kw_only=True)
class Constraint:
    """Something that every crystal has to keep.

    Attributes:
        composition: see ``CompositionRequest``.
        symmetry: see ``SymmetryRequest``.
        host: id of an embedded crystal to start from.
        keep: of it, see ``SeedRequest``.
        substitute: in it, the same.
    """

    composition: CompositionRequest = field(default_factory=CompositionRequest)
    symmetry: SymmetryRequest = field(default_factory=SymmetryRequest)
    host: str | None = None
    keep: str | None = None
    substitute: str | None = None

    def request(self, generation: GenerateConfig, work: Path) -> GenerateConfig:
        """The settings of a run whose crystals shall keep this; a host is written into a folder."""
        seed_structure = SeedRequest()
        if self.host is not None:
            known = load_embedded()
            path = work / f"{self.host}.extxyz"
            write_extxyz(path, [known.crystals[list(known.ids).index(self.host)]])
            seed_structure = SeedRequest(structure=path, keep=self.keep, substitute=self.substitute)
        return replace(generation, composition=self.composition, symmetry=self.symmetry, seed_structure=seed_structure)

    def kept_by(self, crystal: Crystal, known: Sequence[int], group: int) -> bool:
        """Whether a crystal complies with composition and space group.

        Args:
            crystal: drawn or relaxed.
            known: elements of the model.
            group: its space group.
        """
        numbers = crystal.atomic_numbers.tolist()
        bounds = self.composition.bounds(len(numbers))
        if not set(numbers) <= set(self.composition.allowed(known)) or not (bounds is None or bounds.comply(numbers)):
            return False
        asked = self.symmetry.space_group
        return asked is None or contains_group(group, asked)


def keeps(crystal: Crystal, seed: Seed | None) -> bool:
    """Whether a crystal as drawn has all that is kept of a structure; atoms are in its order."""
    if seed is None:
        return True
    if crystal.num_atoms != seed.crystal.num_atoms:
        return False
    moved = crystal.frac_coords - seed.crystal.frac_coords
    off = np.abs(moved - np.rint(moved)).max(axis=1)
    numbers = crystal.atomic_numbers
    other = seed.species & (numbers != seed.crystal.atomic_numbers)
    if (substitution := seed.substitution) is not None:
        replaced = other & (seed.crystal.atomic_numbers == substitution.element) & np.isin(numbers, substitution.by)
        if replaced.sum() != substitution.number:
            return False
        other &= ~replaced
    same_lattice = not seed.lattice or np.allclose(crystal.lattice, seed.crystal.lattice, atol=_SAME)
    return bool(same_lattice and (off[seed.coordinates] < _SAME).all() and not other.any())


_SAME = 1e-4  # Å of a lattice, and of fractional coordinates, in files with six decimals or more
CONSTRAINTS: Mapping[str, Constraint] = {
    "nothing": Constraint(),
    "elements": Constraint(composition=CompositionRequest(elements="Li-Na-Mg-Al-Fe-O-F-P-S")),
    "chemical-system": Constraint(composition=CompositionRequest(chemical_system="O-Sr-Ti")),
    "formula": Constraint(composition=CompositionRequest(formula="SrTiO3")),
    "include-exclude": Constraint(composition=CompositionRequest(include="Li-O", exclude="Pb-Cd-Hg-Tl-As")),
    "counts": Constraint(composition=CompositionRequest(counts="O:4-8,Fe:2", exclude="F")),
    "symmetric": Constraint(symmetry=SymmetryRequest(symmetric=True)),
    **{f"space-group-{n}": Constraint(symmetry=SymmetryRequest(space_group=n)) for n in (14, 62, 139, 166, 194, 225)},
    "formula-and-group": Constraint(
        composition=CompositionRequest(formula="MgAl2O4"), symmetry=SymmetryRequest(space_group=227)
    ),
    "wyckoff": Constraint(symmetry=SymmetryRequest(space_group=225, wyckoff="a,b,c")),
    "kept-oxygen": Constraint(host="mp-3536", keep="lattice,species:O"),
    "doping": Constraint(host="mp-3536", substitute="Al:2:V-Cr-Mn-Fe-Ga"),
}
"""By name; the groups are one of each crystal system but the triclinic, the host is the spinel MgAl2O4."""


def constraints(
    names: Sequence[str],
    *,
    generation: GenerateConfig,
    model: Path,
    evaluation: EvaluationConfig,
    out: Path,
    work: Path,
    display: Display,
) -> Path:
    """Draw crystals under each constraint, relax and judge them.

    Args:
        names: of ``CONSTRAINTS``.
        generation: how many, from which seed, with which sampler.
        model: checkpoint folder.
        evaluation: reference and relaxation.
        out: folder of all results.
        work: keeps what is finished; the same call continues there.
        display: shows progress.

    Returns:
        the folder of the record.

    Raises:
        ValueError: for a constraint that does not exist, or one that the model cannot meet.
    """
    for name in names:
        if name not in CONSTRAINTS:
            raise ValueError(f"there is no constraint {name!r}: choose of {', '.join(CONSTRAINTS)}")
    check_relaxation(evaluation.relaxation)
    folder = writable_folder(out / NAME)
    reference = load_reference(evaluation.reference, potential=evaluation.relaxation.potential)
    known = load_checkpoint(model).elements
    for name in names:
        display.say(f"{name}: {generation.num} crystals")
        constraint, manifest = CONSTRAINTS[name], Manifest(seed=generation.seed)
        config = constraint.request(generation, writable_folder(work / name))
        draws, assessment = draw_and_judge(
            name,
            config,
            title=name,
            model=model,
            evaluation=evaluation,
            reference=reference,
            work=work / name,
            display=display,
            manifest=manifest,
        )
        manifest.settings |= {"constraint": asdict(constraint), "num": config.num}
        seed = config.seed_structure.read()
        manifest.results |= compliance(constraint, [d.crystal for d in draws], assessment, known, seed)
        content = manifest.as_dict()
        content["machine"] |= machine_load()
        content["judge"] = dict(assessment.metadata)
        write_text(folder / f"{name}.json", json.dumps(plain(content), indent=2, allow_nan=False) + "\n")
        write_constraints(out, like=name, display=display)
    return folder


def compliance(
    constraint: Constraint,
    crystals: Sequence[Crystal | None],
    assessment: Assessment,
    known: Sequence[int],
    seed: Seed | None = None,
) -> dict[str, Any]:
    """How many crystals comply as drawn and relaxed; what has no group counts as P1, what failed as a breach.

    What is kept of a structure is looked for as drawn only, for relaxation moves all atoms. Of symmetry that nobody
    named, the relaxed crystal shall have that of the drawn one.
    """
    drawn, relaxed = assessment.space_groups()
    asked, symmetric = constraint.symmetry.space_group, constraint.symmetry.symmetric

    def kept(crystal: Crystal | None, group: int) -> bool:
        return crystal is not None and constraint.kept_by(crystal, known, group)

    kept_drawn = [
        kept(crystal, group) and keeps(cast(Crystal, crystal), seed)
        for crystal, group in zip(crystals, drawn, strict=True)
    ]
    kept_relaxed = [
        before and kept(assessment.relaxed(row), group) and (not symmetric or contains_group(group, drawn[row]))
        for row, (before, group) in enumerate(zip(kept_drawn, relaxed, strict=True))
    ]
    if seed is not None or constraint == Constraint():
        return {"kept_as_drawn": None if seed is None else sum(kept_drawn), "kept_relaxed": None} | _NO_GROUP
    return {
        "kept_as_drawn": None if symmetric else sum(kept_drawn),
        "kept_relaxed": sum(kept_relaxed),
        "kept_relaxed_and_metastable": int((assessment.flags("metastable") & kept_relaxed).sum()),
        "exactly_the_group": None if asked is None else sum(group == asked for group in relaxed),
    }


_NO_GROUP = {"kept_relaxed_and_metastable": None, "exactly_the_group": None}
"""What is not counted of crystals that were asked for nothing, or for parts of a structure."""


def write_constraints(out: Path, *, like: str, display: Display) -> None:
    """Write table, picture and section of the README from the JSON files that are there."""
    there = read_alike(out / NAME, CONSTRAINTS, like=like, display=display)
    write_record(
        out,
        NAME,
        documents={},
        table=_table(there, judge_sentence(there[like]["judge"])),
        picture=picture(there),
        caption="Share of crystals that keep what was asked, and share near the hull",
    )


def _table(contents: Mapping[str, Mapping[str, Any]], sentence: str) -> str:
    rows = []
    for name, content in contents.items():
        r, num = content["results"], content["settings"]["num"]
        metastable = r["metastable"]["count"]
        rows.append(
            [
                name,
                f"{num}",
                _share(r["kept_as_drawn"], num),
                _share(r["kept_relaxed"], num),
                _share(r.get("kept_relaxed_and_metastable"), metastable),  # not in files of before it was counted
                _share(r["exactly_the_group"], num),
                judged_and_expected(r, "metastable"),
                judged_and_expected(r, "sun"),
                str(Rate(r["p1"]["count"], r["p1"]["total"])),
                "–" if r["rmsd"]["mean"] is None else f"{r['rmsd']['mean']:.3f}",
            ]
        )
    header = ["", "asked for", "kept as drawn", "kept relaxed", "the same of the metastable", "group itself"]
    header += ["metastable", "S.U.N.", "P1", "RMSD, Å"]
    return (
        f"{markdown_table(header, rows)}\nA space group is kept if the crystal has it or one that contains it (symprec "
        "0.1 Å), by `symmetric` if the relaxed crystal has that of the drawn one; a crystal that could not be relaxed "
        "has kept nothing. –: nothing was asked that could be counted, or relaxation moves what was kept. Shares are "
        "of the crystals asked for where nothing else is said, with 95 % intervals. "
        f"{EXPECTED} {sentence}\n"
    )


def _share(count: int | None, total: int) -> str:
    return "–" if count is None or not total else str(Rate(count, total))


def picture(contents: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Bars of compliance and of metastability."""
    figure, (panel,) = canvas(width=7.0, height=0.9 + 0.36 * len(contents))
    for i, content in enumerate(contents.values()):
        r, num = content["results"], content["settings"]["num"]
        for k, (label, value) in enumerate(
            (
                ("kept, relaxed", (r["kept_relaxed"] or 0) / num),
                ("metastable", r["metastable"]["value"]),
                ("metastable, unique, novel", r["sun"]["value"]),
            )
        ):
            panel.barh(i + 0.26 * (k - 1), 100 * value, 0.24, color=COLORS[k], label=label if i == 0 else None)
    panel.set_yticks(range(len(contents)), list(contents))
    panel.invert_yaxis()
    panel.set_xlim(0, 101)
    panel.set_xlabel("share of the crystals asked for, %")
    panel.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure
