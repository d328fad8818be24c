"""What a training run is made of; read from a YAML recipe, in which a misspelt key is an error that names it."""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from druse_crystal.derived import DERIVED
from druse_crystal.settings import read_settings
from druse_diffusion import LossWeights, TimeDistribution
from druse_guidance.properties import KINDS, NUMBERS
from druse_scores import PairNetworkConfig

SYSTEM, GROUP = "chemical_system", "space_group"
"""Kinds of properties that follow from the crystals; properties of these names are of these kinds."""
_FITTING = dict.fromkeys(DERIVED, NUMBERS) | {SYSTEM: (SYSTEM,), GROUP: (GROUP,)}  # kinds by name; else all
_MEANINGLESS = {SYSTEM: ("unit", "column", "low", "high", "share", "predictor"), GROUP: ("unit", "predictor")}


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Training data.

    Attributes:
        path: a Parquet dataset (``druse-train data build``); None: the embedded Materials Project structures.
        max_atoms: crystals with more atoms are left out.
        pair_budget: a batch holds crystals of similar size, as many as keep ``crystals x (largest number of atoms)^2``
            below this.
        max_batch: most crystals in a batch.
    """

    path: Path | None = None
    max_atoms: int = 20
    pair_budget: int = 4000
    max_batch: int = 256


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW with a linear warm-up, then a constant rate, then an optional cosine decay.

    Attributes:
        lr: learning rate after the warm-up.
        warmup_steps: length of the warm-up.
        decay_start_hours: hours of training at which the decay to zero begins; None: no decay.
        betas: of AdamW.
        weight_decay: of AdamW.
        gradient_clip: largest norm of the gradient.
        ema_decay: of the moving average of the weights, the weights that are kept.
    """

    lr: float = 1e-3
    warmup_steps: int = 500
    decay_start_hours: float | None = None
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.0
    gradient_clip: float = 1.0
    ema_decay: float = 0.9995


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What all training runs have.

    Attributes:
        data: what to learn from.
        weights: of the three losses.
        times: at which noise levels to train; validation always covers all evenly, so that losses of training and of
            validation are not on one scale.
        symmetric: share of the crystals whose noise keeps their space group and Wyckoff positions, as it does where a
            symmetry is asked for; 0 is MatterGen's choice.
        optimizer: how to learn.
        max_hours: stop after so many hours of training, counted over all resumed runs; None: no limit.
        max_steps: stop after so many steps; None: no limit.
        validate_every_steps: steps between validations.
        checkpoint_every_minutes: minutes between checkpoints: what a kill can cost.
        mixed_precision: bfloat16 matrix products; None: on GPUs that have instructions for them. On processors they
            were slower than float32, with such instructions too. What stays in float32 is multiplied as TF32 on CUDA.
        threads: CPU threads; None: torch's choice.
        devices: number of processes (Lightning's DDP); a batch then goes to one of them.
        tensorboard: also write TensorBoard logs.
        seed: of weights, data order and noise.
    """

    data: DataConfig = field(default_factory=DataConfig)
    weights: LossWeights = field(default_factory=lambda: LossWeights(lattice=2.0, frac_coords=0.1, species=2.0))
    times: TimeDistribution = field(default_factory=lambda: TimeDistribution(focus=0.4))
    symmetric: float = 0.0
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    max_hours: float | None = None
    max_steps: int | None = None
    validate_every_steps: int = 2000
    checkpoint_every_minutes: float = 5.0
    mixed_precision: bool | None = None
    threads: int | None = None
    devices: int = 1
    tensorboard: bool = False
    seed: int = 0

    def __post_init__(self):
        numbers = {
            "data.max_atoms": self.data.max_atoms,
            "data.pair_budget": self.data.pair_budget,
            "data.max_batch": self.data.max_batch,
            "optimizer.lr": self.optimizer.lr,
            "optimizer.gradient_clip": self.optimizer.gradient_clip,
            "max_hours": self.max_hours,
            "max_steps": self.max_steps,
            "validate_every_steps": self.validate_every_steps,
            "threads": self.threads,
            "devices": self.devices,
        }
        for name, value in numbers.items():
            if value is not None and not value > 0:
                raise ValueError(f"{name} is {value}, it must be positive")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed is {self.seed}, it must lie between 0 and 2**32 - 1")
        if not 0 <= self.symmetric <= 1:
            raise ValueError(f"symmetric is {self.symmetric}, it must lie between 0 and 1")
        if not 0 <= self.optimizer.ema_decay < 1:
            raise ValueError(f"optimizer.ema_decay is {self.optimizer.ema_decay}, it must be at least 0 and below 1")


@dataclass(frozen=True, kw_only=True)
class FitConfig(RunConfig):
    """The training of a network.

    Attributes:
        network: size of the network.
        init_from: a checkpoint folder whose weights to start from.
        given_species: learn to find structures of given species, which are never noised (crystal structure prediction).
    """

    network: PairNetworkConfig = field(default_factory=PairNetworkConfig)
    init_from: Path | None = None
    given_species: bool = False


@dataclass(frozen=True, kw_only=True)
class PropertyConfig:
    """A property that an adapter learns.

    Attributes:
        name: by which it will be asked for. ``space_group``, ``hhi_score``, ``density`` and ``num_elements`` follow
            from the crystals, if the data have no such column.
        kind: see ``druse_guidance.Property``; None: what the name says, else ``scalar``. A ``chemical_system`` follows
            from the crystals whatever it is called, a ``space_group`` if the data have no such column.
        unit: such as ``GPa``; empty: that of a well-known property (``druse_guidance.units``), else none.
        column: of the dataset, if it has another name.
        low: labels below count as unknown, such as moduli of 0; None: no bound.
        high: labels above count as unknown; None: no bound.
        share: of the training labels that is kept, chosen at random, to see how many are needed.
        predictor: what tells the property of a drawn crystal (``druse_energetics.predictors``), for the calibration;
            None: nothing, unless it follows from the crystal.
    """

    name: str
    kind: str | None = None
    unit: str = ""
    column: str | None = None
    low: float | None = None
    high: float | None = None
    share: float = 1.0
    predictor: str | None = None

    def __post_init__(self):
        if not 0 < self.share <= 1:
            raise ValueError(f"share of {self.name} is {self.share}, it must be above 0 and at most 1")
        if not re.fullmatch(r"[A-Za-z]\w*", self.name):
            raise ValueError(
                f"a property cannot be called {self.name!r}: give a name of letters, digits and underscores, and the "
                "column of the data as `column`"
            )
        if self.resolved_kind not in (fitting := _FITTING.get(self.name, KINDS)):
            raise ValueError(
                f"{self.name} is of kind {self.kind!r}, and a property of this name must be one of "
                f"{', '.join(fitting)}: change its kind or its name"
            )
        for setting in _MEANINGLESS.get(self.resolved_kind, ()):
            if getattr(self, setting) != getattr(PropertyConfig, setting):
                raise ValueError(
                    f"{self.name} is of kind {self.resolved_kind!r}, for which {setting} means nothing: leave it out"
                )
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise ValueError(
                f"{self.name} has the bounds low {self.low:g} and high {self.high:g}, between which nothing lies: "
                "give a high above low, or leave one out"
            )

    @property
    def resolved_kind(self) -> str:
        """The kind, where it is not given that of the name."""
        return self.kind or _FITTING.get(self.name, KINDS)[0]

    @property
    def derived(self) -> str | None:
        """Which of ``DERIVED`` tells the property of a crystal, if any."""
        if self.resolved_kind == GROUP:
            return GROUP
        return self.name if self.name in DERIVED else None


@dataclass(frozen=True, kw_only=True)
class CalibrationConfig:
    """Crystals drawn at each validation to see whether they are what was asked for.

    Attributes:
        num: crystals for each property that can be told; 0: none.
        guidance: scale of classifier-free guidance.
        steps: of the predictor.
        corrector_steps: before each of these.
    """

    num: int = 16
    guidance: float = 2.0
    steps: int = 50
    corrector_steps: int = 1

    def __post_init__(self):
        for name, value, least in (
            ("num", self.num, 0),
            ("guidance", self.guidance, 0),
            ("steps", self.steps, 1),
            ("corrector_steps", self.corrector_steps, 0),
        ):
            if not value >= least:
                raise ValueError(f"calibration.{name} is {value}, it must be at least {least}")


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(RunConfig):
    """The training of an adapter.

    Attributes:
        base: checkpoint folder of the network.
        adapters: earlier adapters that are there too; they stay as they are.
        init_from: an adapter of the same properties and labels whose weights to start from.
        properties: what to learn; crystals without a label of any of them are left out.
        dropout: how often a known label is withheld, so that the model also learns to do without.
        joint_dropout: withhold all labels of a crystal together; else each by itself, so that any of them can be asked
            for alone.
        balance: crystals with rare labels come up to so many times an epoch; 1: each once.
        freeze_base: leave the network as it is. False: it learns too, and is written beside the adapter.
        patience: stop after so many validations without a better one; None: go on to the end.
        calibration: asked for against obtained, at each validation.
    """

    base: Path = Path("base")
    adapters: tuple[Path, ...] = ()
    init_from: Path | None = None
    properties: tuple[PropertyConfig, ...] = ()
    dropout: float = 0.2
    joint_dropout: bool = False
    balance: int = 1
    freeze_base: bool = True
    patience: int | None = 10
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}, it is a probability: it must be at least 0 and below 1")
        if self.balance < 1:
            raise ValueError(f"balance is {self.balance}, it must be at least 1, which shows each crystal once")
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"patience is {self.patience}, it must be at least 1")


def read_recipe[C: RunConfig](path: Path, kind: type[C]) -> C:
    """Read a recipe; relative paths in it start at its folder.

    Args:
        path: YAML file.
        kind: ``FitConfig`` or ``FinetuneConfig``.

    Raises:
        ValueError: if the file cannot be read or a key or value is wrong; names it.
    """
    config, beside = read_settings(path, kind), path.parent.resolve()
    changes: dict[str, Any] = {"data": replace(config.data, path=config.data.path and beside / config.data.path)}
    for name in ("init_from", "base"):
        if getattr(config, name, None) is not None:
            changes[name] = beside / getattr(config, name)
    if isinstance(config, FinetuneConfig):
        changes["adapters"] = tuple(beside / adapter for adapter in config.adapters)
    return replace(config, **changes)
