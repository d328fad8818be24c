"""How many stable, unique, novel structures does a method give for a force call, and for a core-hour?"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from druse_crystal.console import Display
from druse_crystal.files import writable_folder, write_text
from druse_crystal.journal import Journal
from druse_crystal.manifest import Manifest
from druse_energetics.reference import Reference, load_reference
from druse_energetics.relaxation import Relaxer
from druse_evaluate.config import EvaluationConfig
from druse_evaluate.judging import check_relaxation, make_relaxer_for, pad, relax_all, relaxation_settings
from druse_evaluate.store import RelaxationStore
from druse_evaluation.matching import OrderedMatcher
from druse_evaluation.novelty import KnownStructures

from druse_benchmarks.cost_curve import write_costs
from druse_benchmarks.findings import find, judge_facts
from druse_benchmarks.record import machine_load, plain
from druse_benchmarks.screened import EXTRA_CALLS
from druse_benchmarks.sources import Source
from druse_benchmarks.timing import time_source

NAME = "cost"


def cost(
    sources: Sequence[Source],
    *,
    num: int,
    seed: int,
    timed: int,
    evaluation: EvaluationConfig,
    out: Path,
    work: Path,
    display: Display,
) -> Path:
    """Relax ``num`` crystals of each source, or take the relaxations that are there, and count what they cost.

    Args:
        sources: where the crystals come from.
        num: crystals asked for, of each source.
        seed: of the sources.
        timed: crystals on which processor time is measured.
        evaluation: reference and relaxation.
        out: folder of all results.
        work: has a folder for each source with its crystals and relaxations, as ``unconditional`` leaves them; what is
            missing is added there, and the same call continues.
        display: shows progress.

    Returns:
        the folder of the record.

    Raises:
        ValueError: for settings that make no sense, or a folder that cannot be written to.
    """
    for name, value in (("crystals", num), ("timed crystals", timed)):
        if value < 1:
            raise ValueError(f"{value} {name} were asked for: ask for at least 1")
    check_relaxation(evaluation.relaxation)
    folder = writable_folder(out / NAME)
    reference = load_reference(evaluation.reference, potential=evaluation.relaxation.potential)
    known = KnownStructures(reference.crystals, reference.ids, matcher=OrderedMatcher())
    relaxer = make_relaxer_for(evaluation.relaxation)
    for source in sources:
        display.say(f"{source.name}: {num} crystals")
        content = plain(
            _measure(
                source,
                num=num,
                seed=seed,
                timed=timed,
                evaluation=evaluation,
                reference=reference,
                known=known,
                relaxer=relaxer,
                work=writable_folder(work / source.name),
                display=display,
            )
        )
        write_text(folder / f"{source.name}.json", json.dumps(content, indent=1, allow_nan=False) + "\n")
        write_costs(out, NAME, like=source.name, display=display)
    return folder


def _measure(
    source: Source,
    *,
    num: int,
    seed: int,
    timed: int,
    evaluation: EvaluationConfig,
    reference: Reference,
    known: KnownStructures,
    relaxer: Relaxer,
    work: Path,
    display: Display,
) -> Mapping[str, Any]:
    """One method: its protocol, what each crystal cost and what it is worth."""
    manifest = Manifest(seed=seed)
    resumed = any(work.glob("*.jsonl"))
    candidates = pad(source(num, seed=seed, folder=work, display=display, manifest=manifest), num)
    settings = relaxation_settings(evaluation.relaxation)
    with manifest.stage("relaxation"):
        relaxations = relax_all(
            [candidate.crystal for candidate in candidates],
            config=evaluation.relaxation,
            store=RelaxationStore(work / "relaxations.jsonl", settings),
            display=display,
            relaxer=relaxer,
        )
    with manifest.stage("assessment"):
        findings = find(
            relaxations,
            reference=reference,
            known=known,
            extra_calls=[candidate.info.get(EXTRA_CALLS, 0) for candidate in candidates],
        )
    with manifest.stage("timing"):
        how = {"method": source.name, "seed": seed, "crystals": timed, **settings, **machine_settings()}
        journal = Journal(work / "timing.jsonl", "timings", how)
        timing = time_source(source, timed, seed=seed, relaxer=relaxer, journal=journal, display=display)
    manifest.settings |= {"method": source.name, "num": num, "timed": timed, **evaluation.as_dict()}
    manifest.results |= {
        "force_calls": sum(finding.calls for finding in findings),
        "timing": asdict(timing),
    }
    return manifest.as_dict() | {
        "machine": manifest.as_dict()["machine"] | machine_load(),
        "times_are_of_the_last_part_only": resumed,
        "judge": judge_facts(reference, known),
        "findings": [asdict(finding) for finding in findings],
    }


def machine_settings() -> dict[str, Any]:
    """What a processor time depends on."""
    load = machine_load()
    return {"processor": load["processor"], "threads": load["threads"]}
