"""The whole way: generate, screen, relax, judge, write."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from druse_crystal.console import Display
from druse_crystal.io import ReadResult, write_cif_zip, write_extxyz
from druse_crystal.manifest import Manifest
from druse_crystal.symmetry import contains_group
from druse_evaluate.config import EvaluationConfig
from druse_evaluate.judging import check_relaxation, judge, pad
from druse_evaluation.table import Assessment
from druse_generate.config import GenerateConfig
from druse_generate.property_request import read_targets
from druse_generate.running import draw_into
from druse_guidance import Target

from druse.obtained import PREDICTED, Value, met, obtain, told_by
from druse.rewards import rewards_of, steering_target
from druse.screening import screen


def discover(
    out: Path,
    *,
    num: int,
    pool: int,
    model: Path,
    generation: GenerateConfig,
    evaluation: EvaluationConfig,
    display: Display,
    manifest: Manifest,
) -> Assessment:
    """Find new crystals: draw ``pool`` times as many as asked for, relax and judge the most promising ``num``.

    The network runs on the device of the relaxation.

    Writes ``crystals.extxyz``, ``cifs.zip``, ``crystals.parquet``, ``metrics.json``, ``report.html`` and
    ``manifest.json``. What is finished is kept in ``generated.jsonl`` and ``relaxations.jsonl``; an interrupted call,
    made again, continues.

    Raises:
        ValueError: for a request that makes no sense, a broken checkpoint, or a folder that cannot be written to.
    """
    from druse_energetics.potential import load_potential
    from druse_energetics.reference import load_reference
    from druse_energetics.relaxation import make_relaxer

    relaxation = evaluation.relaxation
    check_relaxation(relaxation)
    warn_of_moving(generation, display)
    potential = load_potential(relaxation.potential, device=relaxation.device)
    reference = load_reference(evaluation.reference, potential=relaxation.potential)
    relaxer = make_relaxer(
        relaxation.potential, fmax=relaxation.fmax, max_steps=relaxation.max_steps, potential=potential
    )
    draws = draw_into(
        out,
        model=model,
        config=generation,
        display=display,
        manifest=manifest,
        device=relaxation.device,
        rewards=rewards_of(generation.steering.reward, potential=potential, reference=reference),
        rewards_depend_on=f"{relaxation.potential}, {evaluation.reference}",
    )
    names = [f"druse-{draw.index:05d}" for draw in draws]
    crystals = [draw.crystal for draw in draws]
    if pool > 1:
        with manifest.stage("screening"):
            screening = screen(
                crystals,
                num,
                potential=potential,
                reference=reference,
                on_progress=lambda done, total: display.update("screening", done, total),
            )
        manifest.results["screening"] = screening.counts
        display.say("  ".join(f"{name} {count}" for name, count in screening.counts.items()))
        chosen = sorted(screening.chosen)
    else:
        chosen = list(range(len(draws)))
    candidates = pad(
        [
            ReadResult(source=names[i], crystal=crystals[i], error=draws[i].message or None, info={"id": names[i]})
            for i in chosen
        ],
        num,
    )
    assessment = judge(
        candidates,
        out=out,
        config=evaluation,
        display=display,
        manifest=manifest,
        reference=reference,
        relaxer=relaxer,
        title=f"{num} crystals grown by Druse" + (f", the best of {len(draws)} drawn" if pool > 1 else ""),
    )
    targets = list(read_targets(model, generation.properties))
    if (by := steering_target(generation.steering.reward)) is not None and by.text not in {t.text for t in targets}:
        targets.append(by)
    obtained = obtain_targets(targets, assessment, out=out, display=display, manifest=manifest)
    tell_groups_kept(generation, assessment, display=display, manifest=manifest)
    manifest.write(out / "manifest.json")
    write_crystals(out, assessment, obtained)
    return assessment


def obtain_targets(
    targets: Sequence[Target], assessment: Assessment, *, out: Path, display: Display, manifest: Manifest
) -> dict[str, list[Value]]:
    """What the relaxed crystals have of the properties asked for, as far as that can be told.

    The manifest takes by target how many crystals hit it, and null where nothing tells the property.

    Returns:
        by property a value for each row of the assessment.
    """
    found: dict[str, list[Value]] = {}
    hits: dict[str, dict[str, int] | None] = {}
    with manifest.stage("properties"):
        for target in targets:
            text, name = target.text, told_by(target.property)
            if name is None:
                unit = f" in {target.property.unit}" if target.property.unit else ""
                display.warn(f"{text}: whether the crystals meet it is not known, for nothing tells it{unit}")
                hits[text] = None
                continue
            found |= obtain([name], assessment, predict=PREDICTED, work=out, display=display)
            hit = met(target, found[name])
            known = sum(value is not None for value in found[name])
            hits[text] = {"met": int(hit.sum()), "known": known, "requested": len(assessment)}
            display.say(f"{text}: {int(hit.sum())} of {len(assessment)} once relaxed, {known} of them known")
    if hits:
        manifest.results["obtained"] = hits
    return found


def tell_groups_kept(
    generation: GenerateConfig, assessment: Assessment, *, display: Display, manifest: Manifest
) -> None:
    """Say of how many crystals relaxation has left the space group that was asked for.

    The manifest takes how many relaxed crystals have the group, or that of the drawn one, or a larger.
    """
    if generation.symmetry.restricts:
        asked, (drawn, relaxed) = generation.symmetry.space_group, assessment.space_groups()
        kept = sum(contains_group(b, asked or a) for a, b in zip(drawn, relaxed, strict=True))
        manifest.results["space_group_kept"] = {"met": kept, "requested": len(assessment)}
        what = "the space group as drawn" if asked is None else f"space group {asked}"
        display.say(f"{what}, or one that contains it: {kept} of {len(assessment)} once relaxed")


def warn_of_moving(generation: GenerateConfig, display: Display) -> None:
    """Warn that lattices and sites that are kept of a structure are kept until crystals are relaxed."""
    seed = generation.seed_structure.read()
    if seed is not None and (seed.lattice or seed.coordinates.any()):
        display.warn(
            "the lattice or sites that are kept of the structure stay as they are in generated.jsonl only: relaxation "
            "moves them in the crystals that are written; draw by `druse generate` to have them as they were"
        )


def write_crystals(out: Path, assessment: Assessment, obtained: Mapping[str, Sequence[Value]]) -> None:
    """Write the relaxed crystals with their facts, best first, as ``crystals.extxyz`` and ``cifs.zip``.

    Those without a distance to the hull come last. Without any crystal nothing is written.
    """
    rows = assessment.ranking()
    rows += sorted(set(range(len(assessment))) - set(rows))
    crystals = [assessment.relaxed(row) for row in rows]
    kept = [(row, crystal) for row, crystal in zip(rows, crystals, strict=True) if crystal is not None]
    if not kept:
        return
    facts = (
        "source",
        "formula",
        "energy_per_atom",
        "energy_above_hull",
        "novel",
        "unique",
        "metastable",
        "space_group_number",
    )
    table = dict(obtained) | {name: assessment.table.column(name).to_pylist() for name in facts}
    info = [{name: values[row] for name, values in table.items() if values[row] is not None} for row, _ in kept]
    write_extxyz(out / "crystals.extxyz", [crystal for _, crystal in kept], info=info)
    write_cif_zip(
        out / "cifs.zip",
        [crystal for _, crystal in kept],
        names=[f"{rank + 1:03d}-{table['source'][row]}" for rank, (row, _) in enumerate(kept)],
    )
