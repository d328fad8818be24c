"""What does each method find in a chemical system for the same number of force calls?

The exploration experiment of MatterGen (Zeni et al., Nature 639, 624 (2025)), with a potential in place of DFT: named
systems of three, four and five elements, several methods, one budget, and the hull of everything that is known or was
found by any of them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from druse_baselines import Proposer, Target
from druse_crystal.composition import chemical_system
from druse_crystal.console import Display
from druse_crystal.dataset import CrystalDataset
from druse_crystal.files import writable_folder, write_text
from druse_crystal.journal import Journal
from druse_crystal.manifest import Manifest
from druse_energetics.potential import load_potential
from druse_energetics.reference import Reference, load_reference
from druse_energetics.relaxation import Relaxer
from druse_evaluate.config import EvaluationConfig
from druse_evaluate.judging import check_relaxation, make_relaxer_for, relax_all, relaxation_settings
from druse_evaluate.store import RelaxationStore
from druse_evaluation.matching import OrderedMatcher
from druse_evaluation.novelty import KnownStructures
from druse_generate.config import MODEL, SAMPLERS, SamplerConfig
from druse_guidance import parse_elements
from pymatgen.core import Element

from druse_benchmarks.exploration import ORDER, write_exploration
from druse_benchmarks.findings import find, judge_facts
from druse_benchmarks.model_proposer import ModelProposer
from druse_benchmarks.record import machine_load, plain
from druse_benchmarks.sources import CLASSICAL
from druse_benchmarks.spending import KeptProposals, spend

NAME = "chemical-systems"
SYSTEMS = (
    *("La-Mo-O", "Mn-O-Se", "O-Sr-V"),
    *("As-Cl-O-Pb", "Bi-Cu-Pb-S", "Fe-Na-O-P"),
    *("C-H-N-O-S", "Cs-F-O-Tl-Zr", "Eu-F-K-O-Si"),
)
"""Systems of the published experiment with a compound of all their elements among the known materials."""


@dataclass(frozen=True, kw_only=True)
class ExplorationConfig:
    """What every method is given.

    Attributes:
        systems: chemical systems.
        methods: names.
        budget: force calls for each method in each system.
        seed: of the methods.
        sampler: of the model.
        model: checkpoint folder.
        num_atoms: fewest and most atoms of the model's crystals; as in the training data if None.
    """

    systems: tuple[str, ...] = SYSTEMS
    methods: tuple[str, ...] = ORDER
    budget: int = 5000
    seed: int = 0
    sampler: SamplerConfig = SAMPLERS["fast"]
    model: Path = MODEL
    num_atoms: tuple[int, int] | None = None

    def __post_init__(self):
        if self.budget < 1:
            raise ValueError(f"the budget is {self.budget} force calls, it must be at least 1")
        for method in self.methods:
            if method not in ORDER:
                raise ValueError(f"there is no method {method!r}: choose of {', '.join(ORDER)}")
        for system in self.systems:
            if len(parse_elements(system)) < 2:
                raise ValueError(f"{system} is one element: give systems of at least two, such as Li-O")


def chemical_systems(
    config: ExplorationConfig,
    *,
    evaluation: EvaluationConfig,
    parents: CrystalDataset,
    parents_hash: str,
    out: Path,
    work: Path,
    display: Display,
) -> Path:
    """Explore every system with every method, one after the other, and write the table of all that are there.

    Args:
        config: systems, methods, budget.
        evaluation: reference and relaxation.
        parents: known crystals that the classical methods start from; their training split, if they are split.
        parents_hash: of the parents' file, or a word for them.
        out: folder of all results.
        work: keeps proposals and relaxations; the same call continues there.
        display: shows progress.

    Returns:
        the folder of the record.

    Raises:
        ValueError: for settings that make no sense, an element that the model, the potential or the reference does not
            know, or a folder that cannot be written to.
    """
    check_relaxation(evaluation.relaxation)
    reference = load_reference(evaluation.reference, potential=evaluation.relaxation.potential)
    known_parents = parents.subset("train") if (parents.split == "train").any() else parents
    proposers: dict[str, Proposer] = {
        name: CLASSICAL[name](known_parents.crystals) for name in config.methods if name in CLASSICAL
    }
    model = ModelProposer(
        config.model,
        sampler=config.sampler,
        num_atoms=config.num_atoms,
        device=evaluation.relaxation.device,
        keep=work / "drawn",
    )
    refuse_unknown(config.systems, reference, evaluation, model)
    if "druse" in config.methods:
        proposers["druse"] = model
    folder = writable_folder(out / NAME)
    known = KnownStructures(reference.crystals, reference.ids, matcher=OrderedMatcher())
    relaxer = make_relaxer_for(evaluation.relaxation)
    content: dict[str, Any] = {}
    for given in config.systems:
        system = "-".join(sorted(given.replace(" ", "").split("-")))
        for method in config.methods:
            display.say(f"{system}: {method}")
            content = plain(
                _explore(
                    proposers[method],
                    method=method,
                    system=system,
                    config=config,
                    evaluation=evaluation,
                    parents={"dataset": parents_hash, "crystals": len(known_parents)},
                    reference=reference,
                    known=known,
                    relaxer=relaxer,
                    work=work / system / method,
                    display=display,
                )
            )
            if method == "druse":
                content["inputs"]["model"] = model.model_hash
            path = writable_folder(folder / method) / f"{system}.json"
            write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")
    write_exploration(out, NAME, hull=reference.hull, like=content, display=display)
    return folder


def refuse_unknown(
    systems: Sequence[str], reference: Reference, evaluation: EvaluationConfig, model: ModelProposer
) -> None:
    """Refuse what not every method can be asked for.

    Raises:
        ValueError: names system, element and what does not know it.
    """
    judge = evaluation.relaxation.potential
    knows = {
        "the model": frozenset(model.checkpoint.elements),
        f"the potential {judge}": load_potential(judge).elements,
        f"the reference {reference.name}": reference.hull.elements,
    }
    for system in systems:
        for z in sorted(Target.parse(system).elements):
            for name, elements in knows.items():
                if z not in elements:
                    symbol = Element.from_Z(z).symbol
                    raise ValueError(f"{name} does not know {symbol}: leave {system} out of --systems")


def _explore(
    proposer: Proposer,
    *,
    method: str,
    system: str,
    config: ExplorationConfig,
    evaluation: EvaluationConfig,
    parents: Mapping[str, str | int],
    reference: Reference,
    known: KnownStructures,
    relaxer: Relaxer,
    work: Path,
    display: Display,
) -> dict[str, Any]:
    """One method in one system: its protocol and what came out."""
    manifest = Manifest(seed=config.seed)
    settings: dict[str, Any] = {"method": method, "system": system, "seed": config.seed}
    if isinstance(proposer, ModelProposer):
        settings |= {"model": proposer.model_hash, "sampler": asdict(config.sampler), "num_atoms": config.num_atoms}
    else:
        settings |= {"parents": dict(parents)}
    journal = Journal(work / "proposed.jsonl", "proposed crystals", settings)
    store = RelaxationStore(work / "relaxations.jsonl", relaxation_settings(evaluation.relaxation))
    resumed = len(journal) > 0
    proposals = KeptProposals(proposer, target=system, seed=config.seed, journal=journal)
    with manifest.stage("generation and relaxation"):
        relaxations = spend(
            config.budget,
            proposals,
            lambda crystals: relax_all(
                crystals, config=evaluation.relaxation, store=store, display=Display(quiet=True), relaxer=relaxer
            ),
            on_spent=lambda spent: display.update(f"{system}: {method}", spent, config.budget),
        )
    with manifest.stage("assessment"):
        findings = find(relaxations, reference=reference, known=known)
    manifest.settings |= {**settings, "budget": config.budget, **evaluation.as_dict()}
    manifest.results |= {
        "proposals_relaxed": len(relaxations),
        "force_calls": sum(finding.calls for finding in findings),
        "generation_seconds": proposals.seconds,
        "ended": proposals.ended,
        "known_structures": sum(chemical_system(crystal) == system for crystal in reference.crystals),
    }
    return manifest.as_dict() | {
        "machine": manifest.as_dict()["machine"] | machine_load(),
        "times_are_of_the_last_part_only": resumed,
        "judge": judge_facts(reference, known),
        "findings": [asdict(finding) for finding in findings],
    }
