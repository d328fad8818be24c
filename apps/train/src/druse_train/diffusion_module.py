"""What is learnt at each step: the Lightning module, its optimiser, the moving average of its weights."""

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import lightning
import torch
from druse_crystal import CrystalBatch
from druse_diffusion import Conditions, CrystalProcess, Fixed, RandomStreams, training_loss
from druse_guidance import AdaptedNetwork, SymmetricProcess
from druse_scores import PairNetwork, has_bfloat16
from torch import Tensor

from druse_train.batches import BatchStream, Place
from druse_train.config import FinetuneConfig, OptimizerConfig, RunConfig
from druse_train.property_labels import PropertyLabels
from druse_train.state import Progress
from druse_train.symmetric_noise import SymmetricNoise

FIELDS = ("lattice", "frac_coords", "species")
VALIDATION_SEED = 2**32 - 1


def make_optimizer(network: torch.nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """AdamW over all parameters that learn, its update in one kernel."""
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(learning, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay, fused=True)


def make_stream(config: RunConfig, train: CrystalBatch) -> BatchStream:
    """All training crystals in the order of the recipe's seed."""
    return BatchStream(
        num_atoms=train.num_atoms.numpy(),
        pair_budget=config.data.pair_budget,
        max_batch=config.data.max_batch,
        seed=config.seed,
    )


class DiffusionModule(lightning.LightningModule):
    """A score network that learns from one dataset and is validated, by its averaged weights, on another.

    Args:
        config: the recipe.
        network: with weights to start from; parameters that ask for no gradient stay as they are.
        train: crystals to learn from.
        validation: crystals to validate on.
        progress: how far the run has come.
        given_species: whether species are given and never noised.
        labels: of both, for a network that takes conditions.
    """

    def __init__(
        self,
        config: RunConfig,
        network: PairNetwork | AdaptedNetwork,
        train: CrystalBatch,
        validation: CrystalBatch,
        progress: Progress,
        *,
        given_species: bool = False,
        labels: tuple[PropertyLabels, PropertyLabels] | None = None,
    ):
        super().__init__()
        self.config, self.progress = config, progress
        self.train_data, self.validation_data = train, validation
        self.mean_batch = make_stream(config, train).mean_size()
        self.process = CrystalProcess(species=Fixed()) if given_species else CrystalProcess()
        self.symmetric = SymmetricNoise(self.process, train) if config.symmetric else None
        self.network, self.labels = network, labels
        self.average = {name: value.clone() for name, value in self.network.state_dict().items()}
        self.hours = 0.0
        self.kept: dict[str, Tensor] | None = None  # weights of the training while the average is in their place
        self.validating = ExitStack()
        self.under_way = (progress.place, 0)  # of the step that is being taken
        self.recent: list[Tensor] = []
        self.sums = torch.zeros(4)

    def on_fit_start(self) -> None:
        """Choose the precision of matrix products, now that the device is known; read the clock."""
        self.agree_on_time()
        self.average = {name: value.to(self.device) for name, value in self.average.items()}
        asked = self.config.mixed_precision
        fast = self.device.type == "cuda" and has_bfloat16(self.device)
        base = self.network if isinstance(self.network, PairNetwork) else self.network.network
        base.mixed_precision = fast if asked is None else asked
        if self.device.type == "cuda":
            torch.set_float32_matmul_precision("high")

    def training_step(self, batch: tuple[Place, Tensor, int], _: int) -> Tensor:
        """Loss summed over one batch, per crystal of a mean batch: every crystal of the data weighs the same.

        The noise of a crystal depends on seed, epoch and crystal alone.
        """
        place, index, seen = batch
        clean = self.train_data.select(index)
        streams = RandomStreams((self.config.seed << 32) + place.epoch, index, device=self.device)
        losses = training_loss(
            self.process,
            self.network,
            clean.to(device=self.device),
            conditions=self.told(index, streams),
            weights=self.config.weights,
            times=self.config.times,
            generator=streams,
            noise=self.noise(index, streams),
        )
        self.recent.append(torch.stack([getattr(losses, name).detach().mean() for name in FIELDS]))
        self.under_way = (place, seen)
        return losses.total.sum() / self.mean_batch

    def noise(self, index: Tensor, streams: RandomStreams) -> SymmetricProcess | None:
        """What noises a batch so that some of its crystals keep their symmetry; None where none of the recipe do."""
        if self.symmetric is None:
            return None
        keeps = streams.crystal_uniform(1).squeeze(-1) < self.config.symmetric
        return self.symmetric.of(index, keeps, device=self.device)

    def told(self, index: Tensor, streams: RandomStreams) -> Conditions | None:
        """What the network is told about crystals in training: some of their labels."""
        if self.labels is None:
            return None
        assert isinstance(self.config, FinetuneConfig)
        labels = self.labels[0]
        conditions = labels.conditions(
            index,
            uniform=streams.crystal_uniform(len(labels.values)),
            dropout=self.config.dropout,
            joint=self.config.joint_dropout,
        )
        return conditions.to(self.device)

    def advance(self) -> None:
        """Count an optimiser step and move the average of the weights."""
        self.progress.step += 1
        self.progress.place, seen = self.under_way
        self.progress.seen += seen
        decay = min(self.config.optimizer.ema_decay, (1 + self.progress.step) / (10 + self.progress.step))
        current = self.network.state_dict()
        with torch.no_grad():
            torch._foreach_lerp_([self.average[k] for k in current], list(current.values()), 1 - decay)

    def agree_on_time(self) -> None:
        """Let all processes read the same hours: learning rate and end depend on them and must not differ."""
        hours = torch.tensor(self.progress.seconds / 3600, device=self.device)
        self.hours = float(self.trainer.strategy.reduce(hours, reduce_op="mean"))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW."""
        return make_optimizer(self.network, self.config.optimizer)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Set the learning rate, a function of the steps and hours that are done: a resumed run has the same."""
        for group in optimizer.param_groups:
            group["lr"] = self.rate()

    def rate(self) -> float:
        """Learning rate of the next step."""
        c = self.config.optimizer
        rate = c.lr * min(1.0, (self.progress.step + 1) / max(1, c.warmup_steps))
        if c.decay_start_hours is not None and self.config.max_hours is not None:
            done = (self.hours - c.decay_start_hours) / max(1e-9, self.config.max_hours - c.decay_start_hours)
            rate *= 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, done))))
        return rate

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The averaged weights in place for a while; whatever ends it, the training weights come back."""
        if self.kept is not None:  # they are in place already
            yield
            return
        self.kept = {name: value.clone() for name, value in self.network.state_dict().items()}
        self.network.load_state_dict(self.average)
        try:
            yield
        finally:
            self.network.load_state_dict(self.kept)
            self.kept = None

    def on_validation_epoch_start(self) -> None:
        """Put the averaged weights in place."""
        self.validating.enter_context(self.averaged())
        self.sums = torch.zeros(4)

    def validation_step(self, index: Tensor, _: int) -> None:
        """Sum the losses of one batch; times and noise are the same in every validation."""
        clean = self.validation_data.select(index).to(device=self.device)
        losses = training_loss(
            self.process,
            self.network,
            clean,
            conditions=None if self.labels is None else self.labels[1].conditions(index).to(self.device),
            weights=self.config.weights,
            generator=RandomStreams(VALIDATION_SEED, index, device=self.device),
        )
        sums = [getattr(losses, name).sum() for name in (*FIELDS, "total")]
        self.sums += torch.stack(sums).cpu()

    def restore(self) -> None:
        """Put the training weights back if the averaged ones are in their place."""
        self.validating.close()

    def on_validation_epoch_end(self) -> None:
        """Put the training weights back and report means per crystal (coordinates: per atom)."""
        self.restore()
        crystals, atoms = len(self.validation_data), int(self.validation_data.num_atoms.sum())
        means = self.sums / torch.tensor([crystals, atoms, crystals, crystals])
        for name, value in zip((*FIELDS, "total"), means, strict=True):
            self.log(f"val_{name}", value, rank_zero_only=True, logger=False)
