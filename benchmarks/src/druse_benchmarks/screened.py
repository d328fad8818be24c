"""A model with the screening of ``druse discover``: as a source for comparisons at equal cost."""

from dataclasses import dataclass
from pathlib import Path

from druse.screening import screen
from druse_crystal.console import Display
from druse_crystal.io import ReadResult
from druse_crystal.journal import Journal
from druse_crystal.manifest import Manifest
from druse_energetics.potential import load_potential
from druse_energetics.reference import load_reference
from druse_generate.config import GenerateConfig, SamplerConfig
from druse_generate.running import draw_into

EXTRA_CALLS = "screening_calls"
"""Under this name a crystal's ``info`` says how many energies were asked for before its relaxation."""


@dataclass(frozen=True, kw_only=True)
class Screened:
    """Draws a pool, asks the potential once for the energy of each crystal, and keeps the most promising.

    The crystals come in the order in which they were drawn, as in ``druse discover``, so that any part of them costs as
    much screening as the next. The pool is kept beside ``folder``, where an unscreened ``druse`` keeps its crystals,
    and begins with these.

    Attributes:
        name: see ``Source``.
        path: checkpoint folder.
        sampler: how to draw.
        num_atoms: fewest and most atoms; None: as in the training data.
        pool: crystals drawn for each one that is kept.
        potential: that screens.
        reference: that screens.
        device: torch device.
    """

    name: str
    path: Path
    sampler: SamplerConfig
    num_atoms: tuple[int, int] | None = None
    pool: int = 4
    potential: str = "sevennet-0"
    reference: str = "embedded"
    device: str = "cpu"

    def __call__(self, num: int, *, seed: int, folder: Path, display: Display, manifest: Manifest) -> list[ReadResult]:
        """Draw and screen; see ``Source``."""
        config = GenerateConfig(num=num * self.pool, seed=seed, sampler=self.sampler, num_atoms=self.num_atoms)
        pool_folder = folder.parent / self.name.removesuffix("-screened")
        draws = draw_into(
            pool_folder, model=self.path, config=config, display=display, manifest=manifest, device=self.device
        )
        settings = {
            "num": num,
            "pool": self.pool,
            "seed": seed,
            "model": manifest.inputs["model"],
            "potential": self.potential,
            "reference": self.reference,
        }
        manifest.settings["screening"] = settings
        journal = Journal(folder / f"screened-{num}.jsonl", "screened crystals", settings)
        if not journal.lines:
            with manifest.stage("screening"):
                screening = screen(
                    [draw.crystal for draw in draws],
                    num,
                    potential=load_potential(self.potential, device=self.device),
                    reference=load_reference(self.reference, potential=self.potential),
                    on_progress=lambda done, total: display.update("screening", done, total),
                )
            journal.keep({"chosen": sorted(screening.chosen), "counts": screening.counts})
        (line,) = journal.lines
        manifest.results["screening"] = line["counts"]
        before = -(-line["counts"]["usable"] // max(1, len(line["chosen"])))
        return [
            ReadResult(source=f"{self.name}-{i:05d}", crystal=draws[i].crystal, info={EXTRA_CALLS: before})
            for i in line["chosen"]
        ]
