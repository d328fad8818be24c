"""Where the crystals of a comparison come from: models, classical methods, known materials, other people's files."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from druse_baselines import (
    Airss,
    ChargeBalanced,
    IonExchange,
    IteratedSubstitution,
    Proposer,
    RandomSearch,
    Resampling,
    Substitution,
)
from druse_crystal import Crystal
from druse_crystal.console import Display
from druse_crystal.dataset import CrystalDataset
from druse_crystal.io import ReadResult
from druse_crystal.journal import Journal, crystal_as_json, crystal_from_json
from druse_crystal.manifest import Manifest
from druse_evaluate.judging import read_inputs
from druse_generate.config import MODEL, GenerateConfig, SamplerConfig
from druse_generate.running import draw_into

from druse_benchmarks.screened import Screened

CLASSICAL: dict[str, Callable[[Sequence[Crystal]], Proposer]] = {
    "substitution": Substitution,
    "iterated-substitution": IteratedSubstitution,
    "ion-exchange": IonExchange,
    "pyxtal": RandomSearch,
    "airss": Airss,
    "charge-balanced": ChargeBalanced,
    "resampling": Resampling,
}
METHODS = ("druse", "druse:FOLDER", "druse-screened", *CLASSICAL, "known", "files:PATH")
NEAR_HULL = 0.1  # eV/atom


@runtime_checkable
class Source(Protocol):
    """Gives the crystals that were asked for.

    Attributes:
        name: heads a column of the table and names a file.
    """

    @property
    def name(self) -> str:
        """Short name, for columns and files."""
        ...

    def __call__(self, num: int, *, seed: int, folder: Path, display: Display, manifest: Manifest) -> list[ReadResult]:
        """At most ``num`` crystals; what takes long is kept in ``folder``, and the same call continues there."""
        ...


@dataclass(frozen=True, kw_only=True)
class Model:
    """A trained Druse model, as it draws crystals, without any screening.

    Attributes:
        name: see ``Source``.
        path: checkpoint folder.
        sampler: how to draw.
        num_atoms: fewest and most atoms; None: as in the training data.
    """

    name: str
    path: Path
    sampler: SamplerConfig
    num_atoms: tuple[int, int] | None = None

    def __call__(self, num: int, *, seed: int, folder: Path, display: Display, manifest: Manifest) -> list[ReadResult]:
        """Draw; see ``Source``."""
        config = GenerateConfig(num=num, seed=seed, sampler=self.sampler, num_atoms=self.num_atoms)
        draws = draw_into(folder, model=self.path, config=config, display=display, manifest=manifest)
        return [
            ReadResult(
                source=f"{self.name}-{draw.index:05d}", crystal=draw.crystal, error=draw.message or None, info={}
            )
            for draw in draws
        ]


@dataclass(frozen=True, kw_only=True)
class Proposals:
    """A classical method that starts from known crystals.

    Attributes:
        name: see ``Source``.
        proposer: the method.
        parents: what it starts from, in words and as a hash.
    """

    name: str
    proposer: Proposer
    parents: dict[str, str | int]

    def __call__(self, num: int, *, seed: int, folder: Path, display: Display, manifest: Manifest) -> list[ReadResult]:
        """Propose; see ``Source``."""
        settings = {"method": self.name, "seed": seed, "parents": self.parents}
        manifest.settings["proposals"] = settings
        journal = Journal(folder / "proposed.jsonl", "proposed crystals", settings)
        found = len(journal)
        display.update(f"{self.name}: proposals", min(found, num), num)
        if found < num:
            with manifest.stage("generation"):
                for index, crystal in enumerate(self.proposer(num, seed=seed)):
                    if index >= found:  # the method starts from its seed: what is there already comes first, again
                        journal.keep({"index": index, "crystal": crystal_as_json(crystal)})
                        display.update(f"{self.name}: proposals", index + 1, num)
        return [
            ReadResult(
                source=f"{self.name}-{line['index']:05d}",
                crystal=crystal_from_json(line["crystal"]),
                error=None,
                info={},
            )
            for line in journal.lines[:num]
        ]


@dataclass(frozen=True, kw_only=True)
class Known:
    """Known materials that no model has seen: what the judge makes of the truth.

    Attributes:
        dataset: held-out crystals.
        name: see ``Source``.
    """

    dataset: CrystalDataset
    name: str = "known"

    def __call__(self, num: int, *, seed: int, folder: Path, display: Display, manifest: Manifest) -> list[ReadResult]:
        """Choose at random; see ``Source``.

        Raises:
            ValueError: if there are fewer.
        """
        if num > len(self.dataset):
            raise ValueError(f"there are only {len(self.dataset)} held-out crystals: ask for no more than that")
        chosen = self.dataset.select(np.random.default_rng(seed).permutation(len(self.dataset))[:num])
        above = chosen.labels.get("energy_above_hull", np.full(len(chosen), np.nan))
        manifest.settings["known"] = {
            "held_out": len(self.dataset),
            "with_dft_hull_distance": int(np.isfinite(above).sum()),
            "dft_metastable": int((above <= NEAR_HULL).sum()),
        }
        return [
            ReadResult(source=str(name), crystal=crystal, error=None, info={})
            for name, crystal in zip(chosen.ids, chosen.crystals, strict=True)
        ]


@dataclass(frozen=True, kw_only=True)
class Files:
    """Crystals that somebody else's generator wrote.

    Attributes:
        name: see ``Source``.
        path: file, zip or folder.
    """

    name: str
    path: Path

    def __call__(self, num: int, *, seed: int, folder: Path, display: Display, manifest: Manifest) -> list[ReadResult]:
        """Read; see ``Source``. Of more than ``num`` structures the first ones count."""
        results = read_inputs([self.path], display=display)
        manifest.add_input(self.path)
        manifest.settings["files"] = {"found": len(results), "used": min(num, len(results))}
        return results[:num]


def make_sources(
    methods: Sequence[str],
    *,
    parents: CrystalDataset,
    parents_hash: str,
    held_out: CrystalDataset,
    sampler: SamplerConfig,
    model: Path = MODEL,
    num_atoms: tuple[int, int] | None = None,
    potential: str = "sevennet-0",
    reference: str = "embedded",
) -> list[Source]:
    """The sources that words of a command line mean.

    Args:
        methods: ``druse``, ``druse:FOLDER`` (another checkpoint), ``druse-screened`` (as ``druse discover``),
            a name in ``CLASSICAL``, ``known`` or ``files:PATH``.
        parents: known crystals for the classical methods; their training split, if they are split.
        parents_hash: of the parents' file, or a word for them.
        held_out: whose test split is ``known``.
        sampler: of the models.
        model: checkpoint behind ``druse``.
        num_atoms: of the models.
        potential: that screens.
        reference: that screens.

    Raises:
        ValueError: for an unknown method, a path that does not exist, or two methods of one name.
    """
    sources = [
        _make_source(
            method,
            parents=parents,
            parents_hash=parents_hash,
            held_out=held_out,
            sampler=sampler,
            model=model,
            num_atoms=num_atoms,
            potential=potential,
            reference=reference,
        )
        for method in methods
    ]
    names = [source.name for source in sources]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two methods are called {name!r}: rename the file or folder of one of them")
    return sources


def _make_source(
    method: str,
    *,
    parents: CrystalDataset,
    parents_hash: str,
    held_out: CrystalDataset,
    sampler: SamplerConfig,
    model: Path,
    num_atoms: tuple[int, int] | None,
    potential: str,
    reference: str,
) -> Source:
    kind, _, where = method.partition(":")
    path = Path(where)
    if where and not path.exists():
        raise ValueError(f"{where} does not exist: {method!r} needs a path after the colon")
    if kind == "druse":
        name = f"druse-{path.name}" if where else "druse"
        return Model(name=name, path=path if where else model, sampler=sampler, num_atoms=num_atoms)
    if method == "druse-screened":
        return Screened(
            name=method, path=model, sampler=sampler, num_atoms=num_atoms, potential=potential, reference=reference
        )
    if kind == "files" and where:
        return Files(name=path.name.partition(".")[0], path=path)
    if method == "known":
        return Known(dataset=held_out.subset("test"))
    if method in CLASSICAL:
        known = parents.subset("train") if (parents.split == "train").any() else parents
        proposer = CLASSICAL[method](known.crystals)
        return Proposals(name=method, proposer=proposer, parents={"dataset": parents_hash, "crystals": len(known)})
    raise ValueError(f"there is no method {method!r}: choose of {', '.join(METHODS)}")
