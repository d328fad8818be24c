"""A trained model behind the call of a classical method: it proposes crystals of a chemical system or a formula."""

from collections.abc import Iterator
from dataclasses import asdict
from itertools import count
from pathlib import Path

from druse_baselines import Target
from druse_baselines.proposer import element_counts
from druse_crystal import Crystal
from druse_crystal.journal import Journal, crystal_as_json, crystal_from_json
from druse_crystal.manifest import file_hash
from druse_generate.checking import check
from druse_generate.composition_request import CompositionRequest
from druse_generate.config import MODEL, GenerateConfig, SamplerConfig
from druse_generate.generating import generate
from druse_generate.planning import Wishes
from druse_scores import load_checkpoint
from pymatgen.core import Element

BLOCK = 16  # crystals drawn together; always as many, so that a crystal does not depend on how many are asked for
MAX_BARREN = 8  # blocks in a row without a crystal of the target, after which the target counts as out of reach


class ModelProposer:
    """Proposes what a model draws, without end: see ``druse_baselines.Proposer``.

    Chemical systems and formulas are kept to as ``druse generate --chemical-system`` and ``--formula`` do. Draws that
    give no crystal are passed over.
    """

    name = "druse"

    def __init__(
        self,
        model: Path = MODEL,
        *,
        sampler: SamplerConfig | None = None,
        num_atoms: tuple[int, int] | None = None,
        device: str = "cpu",
        keep: Path | None = None,
    ):
        """Choose the model.

        Args:
            model: checkpoint folder.
            sampler: how to draw; the default sampler if not given.
            num_atoms: fewest and most atoms; as in the training data if not given.
            device: torch device.
            keep: folder in which draws are kept, so that the same request made again does not draw them again.

        Raises:
            ValueError: for a broken checkpoint.
        """
        self.checkpoint = load_checkpoint(model, device=device)
        self.model_hash = file_hash(model / "weights.safetensors")
        self.sampler = sampler or SamplerConfig()
        self.num_atoms = num_atoms
        self.keep = keep

    def __call__(self, n: int, *, target: str | None = None, seed: int = 0) -> Iterator[Crystal]:
        """Propose ``n`` crystals: see ``Proposer``.

        Raises:
            ValueError: if the target cannot be read, holds an element that the model does not know, or is not found.
        """
        wanted = Target.parse(target) if target else None
        wishes = check(self.checkpoint, self.settings(wanted, seed))
        found = barren = 0
        blocks = self._blocks(wishes, wanted, target)
        while found < n:
            crystals = next(blocks)
            barren = 0 if crystals else barren + 1
            if barren == MAX_BARREN:
                raise ValueError(
                    f"none of the last {MAX_BARREN * BLOCK} crystals drawn is {target}: ask for another target"
                )
            for crystal in crystals[: n - found]:
                yield crystal
                found += 1

    def settings(self, wanted: Target | None, seed: int) -> GenerateConfig:
        """What the model is asked for."""
        composition = CompositionRequest()
        if wanted is not None and wanted.formula is not None:
            composition = CompositionRequest(
                formula="".join(f"{Element.from_Z(z).symbol}{number}" for z, number in wanted.formula)
            )
        elif wanted is not None:
            composition = CompositionRequest(
                chemical_system="-".join(sorted(Element.from_Z(z).symbol for z in wanted.elements))
            )
        return GenerateConfig(seed=seed, num_atoms=self.num_atoms, sampler=self.sampler, composition=composition)

    def _blocks(self, wishes: Wishes, wanted: Target | None, target: str | None) -> Iterator[list[Crystal]]:
        """The crystals of one block after the other, without those that are none or do not fit."""
        journal = self._journal(wishes.config, target)
        kept = {} if journal is None else {x["index"]: crystal_from_json(x["crystal"]) for x in journal.lines}
        for block in count():
            indices = range(block * BLOCK, (block + 1) * BLOCK)
            there = {i: kept[i] for i in indices if i in kept}
            if missing := [i for i in indices if i not in there]:
                for batch in generate(wishes, missing):
                    for draw in batch:
                        there[draw.index] = draw.crystal
                        if journal is not None:
                            journal.keep({"index": draw.index, "crystal": crystal_as_json(draw.crystal)})
            crystals = [crystal for i in indices if (crystal := there[i]) is not None]
            yield [c for c in crystals if wanted is None or wanted.matches(element_counts(c))]

    def _journal(self, config: GenerateConfig, target: str | None) -> Journal | None:
        if self.keep is None:
            return None
        settings = {k: v for k, v in asdict(config).items() if k not in ("num", "batch_pairs")}
        name = f"{target or 'anything'}-{config.seed}.jsonl"
        return Journal(self.keep / name, "drawn crystals", settings | {"model": self.model_hash})
