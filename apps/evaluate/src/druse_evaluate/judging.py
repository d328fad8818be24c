"""The work behind the commands: read files, relax with a store that survives interruptions, judge, write results."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from druse_crystal.console import Display
from druse_crystal.crystal import Crystal
from druse_crystal.documents import holds_nothing
from druse_crystal.files import writable_folder, write_text
from druse_crystal.io import ReadResult, read_crystals
from druse_crystal.manifest import Manifest
from druse_energetics.relaxation import Relaxation, Relaxer, force_calls

from druse_evaluate.config import EvaluationConfig, RelaxationConfig
from druse_evaluate.rattling import rattle_all
from druse_evaluate.sources import unique_sources
from druse_evaluate.store import RelaxationStore, StoredRelaxer

if TYPE_CHECKING:
    from druse_energetics.phonons import PhononCheck
    from druse_energetics.reference import Reference
    from druse_evaluation.novelty import KnownStructures
    from druse_evaluation.opinion import Opinion
    from druse_evaluation.table import Assessment


def read_inputs(paths: Sequence[Path], *, display: Display, requested: int | None = None) -> list[ReadResult]:
    """Every structure in files, folders, zips and datasets; one that cannot be read has an error instead of a crystal.

    No two have the same ``source`` (``unique_sources``).

    Args:
        paths: to read.
        display: shows progress and what is not read.
        requested: how many crystals were asked for, if it is known; then it is a result that none can be read, or that
            none is there.

    Raises:
        ValueError: if a path does not exist, or nobody says how many crystals were asked for and nothing at all is
            found, or nothing of what is found can be read.
    """
    names = ", ".join(str(path) for path in paths)
    found: list[tuple[Path, ReadResult]] = []
    for path in paths:
        if requested is not None and holds_nothing(path):
            display.warn(f"{path} holds no structure files: it has none of the {requested} crystals asked for")
            continue
        for result in read_crystals(path):
            found.append((path, result))
            display.update("reading", len(found), len(found))
    results = unique_sources(found)
    if not results and requested is None:
        raise ValueError(f"there is no structure in {names}: give CIF, POSCAR, extxyz, JSON, zip or Parquet files")
    refused = [r for r in results if r.crystal is None]
    if len(refused) == len(results) and requested is None:
        several = f"none of {len(results)} structures in {names} can be read; the first is " if refused[1:] else ""
        raise ValueError(f"{several}{refused[0].error}")
    for result in refused[:5]:
        display.warn(f"not read: {result.error}")
    if len(refused) > 5:
        display.warn(f"not read: {len(refused) - 5} more; see the column 'message' of the table")
    return results


def pad(candidates: Sequence[ReadResult], requested: int | None) -> list[ReadResult]:
    """Add a row for every crystal that was asked for and does not exist.

    Raises:
        ValueError: if there are more crystals than were asked for.
    """
    candidates = list(candidates)
    if requested is None:
        return candidates
    if requested < len(candidates):
        raise ValueError(f"{len(candidates)} structures were found, more than the {requested} that were asked for")
    missing = range(len(candidates), requested)
    return candidates + [ReadResult(source=f"missing {i + 1}", crystal=None, error=None, info={}) for i in missing]


def check_relaxation(config: RelaxationConfig) -> None:
    """Refuse settings that no relaxer can follow, before anything is loaded.

    Raises:
        ValueError: for an unknown potential or numbers that make no sense.
    """
    from druse_energetics.potential import POTENTIAL_NAMES

    if config.potential not in POTENTIAL_NAMES:
        raise ValueError(f"there is no potential {config.potential!r}: choose one of {', '.join(POTENTIAL_NAMES)}")
    if not config.fmax > 0:
        raise ValueError(f"fmax is {config.fmax}, it must be above 0 eV/Å")
    if config.max_steps < 0:
        raise ValueError(f"max_steps is {config.max_steps}, it cannot be negative")
    if config.rattle and config.max_steps == 0:
        raise ValueError("rattling relaxes crystals a second time, which no steps forbid: leave out one of the two")


def make_relaxer_for(config: RelaxationConfig) -> Relaxer:
    """The relaxer that the settings ask for.

    Raises:
        ValueError: for an unknown potential or numbers that make no sense.
    """
    from druse_energetics.relaxation import make_relaxer

    return make_relaxer(config.potential, fmax=config.fmax, max_steps=config.max_steps, device=config.device)


def make_phonon_check_for(config: RelaxationConfig) -> "PhononCheck":
    """The check for imaginary modes with the potential of the relaxation."""
    from druse_energetics.phonons import PhononCheck
    from druse_energetics.potential import load_potential

    return PhononCheck(load_potential(config.potential, device=config.device))


def relax_all(
    crystals: Sequence[Crystal | None],
    *,
    config: RelaxationConfig,
    store: RelaxationStore,
    display: Display,
    reference: "Reference | None" = None,
    known: "KnownStructures | None" = None,
    relaxer: Relaxer | None = None,
) -> list[Relaxation | None]:
    """Relax what the store does not have yet, keeping every result as soon as it is there; then rattle, if asked for.

    Args:
        crystals: None stays None.
        config: how.
        store: finished relaxations.
        display: shows progress and running counts.
        reference: for the running count of crystals near the hull.
        known: for the running count of new ones among these.
        relaxer: instead of the one that ``config`` names.
    """
    todo = [c for c in crystals if c is not None and store.get(c) is None]
    total = sum(c is not None for c in crystals)
    done = total - len(todo)
    funnel = _Funnel(reference, known)
    for crystal in crystals:
        relaxation = None if crystal is None else store.get(crystal)
        if relaxation is not None:
            funnel.add(relaxation)
    if done:
        display.say(f"{done} of {total} relaxations are there already")
    display.update("relaxation", done, total, funnel.counts)
    remembering = StoredRelaxer(store, lambda: relaxer or make_relaxer_for(config), name=config.potential)

    def on_result(_index: int, relaxation: Relaxation) -> None:
        nonlocal done
        done += 1
        funnel.add(relaxation)
        display.update("relaxation", done, total, funnel.counts)

    remembering(todo, on_result=on_result)
    if config.rattle:
        return rattle_all(crystals, relaxer=remembering, display=display)
    return [None if c is None else store.get(c) for c in crystals]


class _Funnel:
    """Running counts while crystals relax: how each ended, and against a reference which of them are worth a look.

    They are for the eye: the crystals come in the order in which they finish, so of two equal ones another may count
    as the first than in the assessment.
    """

    def __init__(self, reference: "Reference | None", known: "KnownStructures | None"):
        from druse_evaluation.novelty import DistinctStructures

        self.counts: Counter[str] = Counter()
        self.reference, self.known = reference, known
        self.distinct = None if known is None else DistinctStructures(matcher=known.matcher)
        self.added = 0

    def add(self, relaxation: Relaxation) -> None:
        """Count one."""
        from druse_evaluation.assessment import DOUBTFUL, JUDGED, METASTABLE

        self.added += 1
        self.counts[relaxation.status.replace("_", " ")] += 1
        crystal = relaxation.crystal
        if self.reference is None or crystal is None or relaxation.status not in JUDGED:
            return
        try:
            above = self.reference.energy_above_hull(crystal, relaxation.energy)
        except ValueError:
            return
        near = DOUBTFUL <= above <= METASTABLE
        self.counts[f"≤ {METASTABLE} eV/atom"] += near
        if not self.known or self.distinct is None:
            return
        first = near and self.distinct.add(self.added, crystal) == self.added
        self.counts["new among them"] += first and self.known.first_match(crystal) is None


def judge(
    candidates: Sequence[ReadResult],
    *,
    out: Path,
    config: EvaluationConfig,
    display: Display,
    manifest: Manifest,
    reference: "Reference | None" = None,
    relaxer: Relaxer | None = None,
    title: str = "Crystals and what they are worth",
) -> "Assessment":
    """Relax and judge, and write ``crystals.parquet``, ``metrics.json``, ``report.html`` and ``manifest.json``.

    Finished relaxations are kept in ``relaxations.jsonl``: an interrupted call, made again, continues.

    Args:
        candidates: one for every crystal that was asked for.
        out: folder of the results, made when it is missing.
        config: reference and relaxation.
        display: shows progress.
        manifest: receives settings, results, timings and the hashes of reference and training crystals, and is
            written at the end.
        reference: instead of the one that ``config`` names.
        relaxer: instead of the one that ``config`` names.
        title: heading of the report.

    Raises:
        ValueError: for settings that make no sense, or a folder that cannot be written to.
    """
    from druse_energetics.phonons import require_phonopy
    from druse_energetics.reference import load_reference
    from druse_evaluation.assessment import assess
    from druse_evaluation.matching import OrderedMatcher
    from druse_evaluation.metrics import measure
    from druse_evaluation.novelty import KnownStructures
    from druse_evaluation.report import write_report
    from druse_evaluation.statuses import status_counts
    from druse_evaluation.summary import as_json

    from druse_evaluate.phonons import check_all

    check_relaxation(config.relaxation)
    check_judges(config)
    if config.phonons:
        require_phonopy()
    if reference is None:
        with manifest.stage("reference"):
            reference = load_reference(config.reference, potential=config.relaxation.potential)
    if reference.remark:
        display.warn(reference.remark)
    embedded = config.reference == "embedded" or config.reference.startswith("embedded-")
    if not embedded and Path(config.reference).exists():
        manifest.add_input(config.reference)
    out = writable_folder(out)
    store = RelaxationStore(out / "relaxations.jsonl", relaxation_settings(config.relaxation))
    known = KnownStructures(reference.crystals, reference.ids, matcher=OrderedMatcher())
    training = None
    if config.training is not None:
        training = read_training(Path(config.training), display=display)
        manifest.add_input(config.training)
    with manifest.stage("relaxation"):
        relaxations = relax_all(
            [c.crystal for c in candidates],
            config=config.relaxation,
            store=store,
            display=display,
            reference=reference,
            known=known,
            relaxer=relaxer,
        )
    opinions = {}
    if config.judges:
        with manifest.stage("second opinions"):
            opinions = ask_judges(relaxations, config=config, out=out, display=display)
    dynamics = None
    if config.phonons:
        with manifest.stage("phonons"):
            dynamics = check_all(
                relaxations,
                path=out / "phonons.jsonl",
                potential=config.relaxation.potential,
                make=lambda: make_phonon_check_for(config.relaxation),
                display=display,
            )
    with manifest.stage("assessment"):
        assessment = assess(
            candidates,
            reference=reference,
            relaxations=relaxations,
            judge=config.relaxation.potential,
            known=known,
            training=training,
            opinions=opinions,
            dynamics=dynamics,
            on_progress=display.update,
        )
    measured = measure(assessment)
    manifest.settings |= config.as_dict()
    manifest.results |= {m.metric.name: m.value.as_dict() for m in measured}
    manifest.results["status"] = status_counts(assessment)
    manifest.results["force_calls"] = sum(map(force_calls, relaxations))
    assessment.write(out / "crystals.parquet")
    write_text(out / "metrics.json", json.dumps(as_json(assessment, measured), indent=2) + "\n")
    with manifest.stage("report"):
        write_report(out / "report.html", assessment, title=title, manifest=manifest.as_dict(), n_best=config.n_best)
    manifest.write(out / "manifest.json")
    return assessment


def check_judges(config: EvaluationConfig) -> None:
    """Refuse judges that do not exist, that are named twice, or that are the first judge again.

    Raises:
        ValueError: names it.
    """
    names = (config.relaxation.potential, *config.judges)
    for i, name in enumerate(config.judges, start=1):
        check_relaxation(replace(config.relaxation, potential=name))
        if name in names[:i]:
            raise ValueError(f"{name!r} judges already: leave out --judge {name}, or choose another potential")


def ask_judges(
    relaxations: Sequence[Relaxation | None], *, config: EvaluationConfig, out: Path, display: Display
) -> "dict[str, Opinion]":
    """Relax the relaxed crystals with every further potential; each judges on the hull of its own energies.

    Args:
        relaxations: those of the first judge, whose opinion of its own hull is there too.
        config: names the judges.
        out: finished relaxations are kept here, in a file for each judge.
        display: shows progress.
    """
    from druse_energetics.reference import load_reference
    from druse_evaluation.assessment import JUDGED
    from druse_evaluation.opinion import Opinion

    first = config.relaxation.potential
    opinions = {first: Opinion(reference=load_reference(f"embedded-{first}", potential=first), relaxations=relaxations)}
    crystals = [r.crystal if r is not None and r.status in JUDGED else None for r in relaxations]
    for name in config.judges:
        settings = replace(config.relaxation, potential=name, rattle=False)
        store = RelaxationStore(out / f"relaxations-{name}.jsonl", relaxation_settings(settings))
        display.say(f"second opinion: {name}")
        opinions[name] = Opinion(
            reference=load_reference(f"embedded-{name}", potential=name),
            relaxations=relax_all(crystals, config=settings, store=store, display=display),
        )
    return opinions


def read_training(path: Path, *, display: Display) -> "KnownStructures":
    """The crystals that a generator has learnt from; those that cannot be read are named and left out.

    Raises:
        ValueError: if there are none.
    """
    from druse_evaluation.matching import OrderedMatcher
    from druse_evaluation.novelty import KnownStructures

    results = read_inputs([path], display=display)
    found = [(r.crystal, str(r.info.get("id") or r.source)) for r in results if r.crystal is not None]
    return KnownStructures([crystal for crystal, _ in found], [name for _, name in found], matcher=OrderedMatcher())


def relaxation_settings(config: RelaxationConfig) -> dict[str, str | float | int]:
    """What decides the result of one relaxation: neither the device, nor whether a second one follows."""
    return {"potential": config.potential, "fmax": config.fmax, "max_steps": config.max_steps}
