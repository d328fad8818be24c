"""Draw the crystals of one request, relax and judge them."""

from pathlib import Path

from druse_crystal.console import Display
from druse_crystal.io import ReadResult
from druse_crystal.manifest import Manifest
from druse_energetics.reference import Reference
from druse_evaluate.config import EvaluationConfig
from druse_evaluate.judging import judge, pad
from druse_evaluation.table import Assessment
from druse_generate.config import GenerateConfig
from druse_generate.generating import Draw
from druse_generate.running import draw_into


def draw_and_judge(
    name: str,
    config: GenerateConfig,
    *,
    title: str,
    model: Path,
    evaluation: EvaluationConfig,
    reference: Reference,
    work: Path,
    display: Display,
    manifest: Manifest,
) -> tuple[list[Draw], Assessment]:
    """Draw, relax and judge; the same call continues where it was interrupted.

    Args:
        name: of the case; heads the names of its crystals.
        config: what to draw.
        title: of the report, without the number of crystals.
        model: checkpoint folder.
        evaluation: relaxation.
        reference: what the crystals are judged against.
        work: folder of the case, which keeps what is finished.
        display: shows progress.
        manifest: takes settings, hashes, results and times.

    Returns:
        what was drawn, and a row of facts for each crystal asked for.
    """
    device = evaluation.relaxation.device
    draws = draw_into(work, model=model, config=config, display=display, manifest=manifest, device=device)
    candidates = [
        ReadResult(source=f"{name}-{d.index:05d}", crystal=d.crystal, error=d.message or None, info={}) for d in draws
    ]
    assessment = judge(
        pad(candidates, config.num),
        out=work,
        config=evaluation,
        display=display,
        manifest=manifest,
        reference=reference,
        title=f"{config.num} crystals: {title}",
    )
    return draws, assessment
