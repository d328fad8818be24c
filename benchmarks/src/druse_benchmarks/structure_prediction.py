"""Does the model find the structure of a composition that it has not seen?

Crystal structure prediction as CDVAE's successors measure it: known crystals of held-out compositions, one or several
draws with the same atoms, pymatgen's ``StructureMatcher`` with wide tolerances (Jiao et al., "Crystal structure
prediction by joint equivariant diffusion", arXiv:2309.04475, section 5.1).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from druse_crystal import Crystal, CrystalBatch
from druse_crystal.batch import size_buckets
from druse_crystal.console import Display
from druse_crystal.convert import to_pymatgen
from druse_crystal.files import writable_folder
from druse_crystal.journal import Journal, crystal_as_json, crystal_from_json
from druse_crystal.manifest import Manifest, file_hash
from druse_diffusion import AbsorbingD3PM, CrystalProcess, Fixed, RandomStreams, sample
from druse_evaluation.estimate import Rate
from druse_generate.config import SAMPLERS, SamplerConfig
from druse_guidance import AllowedElements, CountedSpecies, ElementCounts
from druse_scores import Checkpoint, load_checkpoint
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from pymatgen.analysis.structure_matcher import StructureMatcher

from druse_benchmarks.drawing import COLORS, canvas
from druse_benchmarks.record import machine_load, markdown_table, plain, write_record

NAME = "structure-prediction"
WAYS = ("counted", "fixed")
"""``counted``: elements are revealed on the way, within the counts; ``fixed``: each atom has its own from the start."""
_DRAW = 1 << 32  # added to a crystal's number for every further draw


@dataclass(frozen=True, kw_only=True)
class PredictionConfig:
    """What is predicted.

    Attributes:
        num: crystals.
        draws: for each crystal.
        ways: of ``WAYS``.
        seed: of choice and draws.
        sampler: how to draw.
        batch_pairs: see ``GenerateConfig``.
    """

    num: int = 200
    draws: int = 1
    ways: tuple[str, ...] = WAYS
    seed: int = 0
    sampler: SamplerConfig = SAMPLERS["fast"]
    batch_pairs: int = 12000

    def __post_init__(self):
        for name, value in (("crystals", self.num), ("draws", self.draws)):
            if value < 1:
                raise ValueError(f"{value} {name} were asked for: ask for at least 1")
        for way in self.ways:
            if way not in WAYS:
                raise ValueError(f"there is no way {way!r}: choose of {', '.join(WAYS)}")


def structure_prediction(
    config: PredictionConfig,
    targets: Sequence[Crystal],
    *,
    model: Path,
    out: Path,
    work: Path,
    display: Display,
    manifest: Manifest,
) -> Path:
    """Predict known crystals from their atoms alone.

    Args:
        config: how many, how often, how.
        targets: to choose from; held out in the training of the model.
        model: checkpoint folder.
        out: folder of all results.
        work: keeps what is finished; the same call continues there.
        display: shows progress.
        manifest: receives the protocol.

    Returns:
        the folder of the record.

    Raises:
        ValueError: if none of the targets has a size and elements that the model knows.
    """
    checkpoint = load_checkpoint(model)
    known = set(checkpoint.elements)
    fit = [c for c in targets if c.num_atoms in checkpoint.num_atoms and set(c.atomic_numbers.tolist()) <= known]
    if not fit:
        raise ValueError("no crystal has a number of atoms and elements that the model knows: give other crystals")
    if checkpoint.given_species and config.ways != ("fixed",):
        raise ValueError("the model finds structures of given species: only the way 'fixed' makes sense (--ways fixed)")
    order = np.random.default_rng(config.seed).permutation(len(fit))[: config.num]
    chosen = [fit[i] for i in order]
    weights = file_hash(model / "weights.safetensors")
    settings = {"seed": config.seed, "sampler": asdict(config.sampler), "model": weights}
    results: dict[str, Any] = {}
    for way in config.ways:
        journal = Journal(writable_folder(work) / f"{way}.jsonl", "drawn crystals", settings)
        with manifest.stage(way):
            drawn = _draw(way, config, chosen, checkpoint, journal, display)
            results[way] = matches(chosen, drawn, config.draws)
    manifest.seed = config.seed
    manifest.inputs["model"] = weights
    manifest.settings |= asdict(config) | {"targets": len(fit)}
    manifest.results |= results
    document = manifest.as_dict()
    document["machine"] |= machine_load()
    return write_record(
        out,
        NAME,
        documents={NAME: plain(document)},
        table=_table(results, len(chosen)),
        picture=picture(results),
        caption="Share of crystals found within so many draws",
    )


def process_of(way: str, process: CrystalProcess, crystals: Sequence[Crystal]) -> CrystalProcess:
    """The reverse process of one way for a batch of crystals whose atoms are given."""
    if way == "fixed":
        return replace(process, species=Fixed())
    assert isinstance(process.species, AbsorbingD3PM)
    counts = [dict(Counter(crystal.atomic_numbers.tolist())) for crystal in crystals]
    bounds = [ElementCounts(least=count, most=count) for count in counts]
    return replace(process, species=CountedSpecies(species=process.species, bounds=bounds))


def _draw(
    way: str,
    config: PredictionConfig,
    chosen: Sequence[Crystal],
    checkpoint: Checkpoint,
    journal: Journal,
    display: Display,
) -> dict[tuple[int, int], Crystal | None]:
    """For each crystal and draw what came out."""
    drawn = {(line["index"], line["draw"]): crystal_from_json(line["crystal"]) for line in journal.lines}
    missing = [(i, k) for k in range(config.draws) for i in range(len(chosen)) if (i, k) not in drawn]
    model = AllowedElements(checkpoint.network, checkpoint.elements)
    sizes = np.array([chosen[i].num_atoms for i, _ in missing], dtype=int)
    for bucket in size_buckets(sizes, pair_budget=config.batch_pairs):
        keys = [missing[b] for b in bucket]
        batch = [chosen[i] for i, _ in keys]
        template = CrystalBatch.from_crystals(batch).replace(
            lattice=torch.eye(3).expand(len(batch), 3, 3), frac_coords=torch.zeros(sum(c.num_atoms for c in batch), 3)
        )
        found = sample(
            process_of(way, config.sampler.process(), batch),
            model,
            template,
            times=config.sampler.times,
            n_corrector_steps=config.sampler.corrector_steps,
            generator=RandomStreams(config.seed, torch.tensor([i + k * _DRAW for i, k in keys])),
        )
        for (i, k), crystal in zip(keys, found.crystals_or_none(), strict=True):
            drawn[i, k] = crystal
            journal.keep({"index": i, "draw": k, "crystal": crystal_as_json(crystal)})
        display.update(f"{NAME}: {way}", len(drawn), config.draws * len(chosen))
    return drawn


def matches(targets: Sequence[Crystal], drawn: Mapping[tuple[int, int], Crystal | None], draws: int) -> dict[str, Any]:
    """How many crystals are found within 1, 2, ... draws, and how far off the nearest of them are.

    The distance is pymatgen's root mean square displacement over ``(V / N)^(1/3)``, the mean over all that are found.
    """
    matcher = StructureMatcher(stol=0.5, angle_tol=10, ltol=0.3)
    first = np.full(len(targets), np.inf)
    nearest = np.full((len(targets), draws), np.nan)
    for i, target in enumerate(targets):
        structure = to_pymatgen(target)
        for k in range(draws):
            crystal = drawn[i, k]
            distance = None if crystal is None else matcher.get_rms_dist(to_pymatgen(crystal), structure)
            if distance is not None:
                first[i] = min(first[i], k + 1)
                nearest[i, k:] = np.fmin(nearest[i, k:], distance[0])
    within = [int((first <= k).sum()) for k in range(1, draws + 1)]
    return {
        "requested": len(targets),
        "found_within": within,
        "rmse_within": [float(np.nanmean(x)) if np.isfinite(x).any() else None for x in nearest.T],
        "no_crystal": sum(crystal is None for crystal in drawn.values()),
    }


def _table(results: Mapping[str, Mapping[str, Any]], num: int) -> str:
    draws = len(next(iter(results.values()))["found_within"])
    marks = [k for k in (1, 5, 20, 100) if k < draws] + [draws]
    rows = [
        [way]
        + [str(Rate(r["found_within"][k - 1], num)) for k in marks]
        + [_number(r["rmse_within"][k - 1]) for k in marks]
        for way, r in results.items()
    ]
    header = ["", *(f"found in {k} draw{'s' if k > 1 else ''}" for k in marks)]
    header += [f"RMSE, {'1 draw' if k == 1 else f'nearest of {k}'}" for k in marks]
    return (
        f"{markdown_table(header, rows)}\n{num} crystals of held-out compositions, of which the model is told the "
        "atoms of the cell. Matched with stol 0.5, ltol 0.3, angle 10°; RMSE over (V/N)^(1/3), of what is found. "
        "Nothing is relaxed.\n"
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def picture(results: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Share found against draws."""
    figure, (panel,) = canvas(width=5.0, height=3.4)
    for i, (way, r) in enumerate(results.items()):
        share = [100 * k / r["requested"] for k in r["found_within"]]
        panel.plot(range(1, len(share) + 1), share, marker="o", color=COLORS[i], label=way)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.set_xlabel("draws")
    panel.set_ylabel("found, % of the crystals")
    panel.set_ylim(bottom=0)
    panel.legend(frameon=False)
    return figure
