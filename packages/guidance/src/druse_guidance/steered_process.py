"""Feynman-Kac steering: several particles for each crystal, of which the promising are copied and the others dropped.

Singhal et al., "A general framework for inference-time scaling and steering of diffusion models", arXiv:2501.06848. At
chosen times each particle's prediction is turned into the crystal that it points to, and this one is given a reward r.
Within the particles of one crystal the next ones are drawn with weights ``exp(strength (r - r_before))``: over all
times they multiply to ``exp(strength r)`` of the last reward, and the particles approach the model's distribution
times that.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from druse_crystal import Crystal, CrystalBatch
from druse_diffusion import Prediction, RandomStreams, ReverseProcess
from jaxtyping import Float, Float64, Int
from torch import Tensor

Reward = Callable[[Sequence[Crystal]], Float64[np.ndarray, " b"]]
"""Rewards of crystals, the larger the better; those that are not finite count as none, which is worse than any."""


@dataclass(kw_only=True, eq=False)
class SteeredProcess:
    """A process whose crystals are chosen among particles, again and again on the way.

    The particles of a crystal stand one after the other in the batch; each has random numbers of its own.

    Attributes:
        process: what is wrapped.
        reward: of crystals.
        particles: for each crystal.
        strength: how much a reward weighs; in units of one over the reward.
        times: at which particles are chosen, as many as there are; each acts at the first step that begins at or below.
        evaluations: rewards asked for so far.
    """

    process: ReverseProcess
    reward: Reward
    particles: int
    strength: float
    times: tuple[float, ...] = (0.5, 0.35, 0.2, 0.1, 0.05)
    evaluations: int = field(default=0, init=False)
    _due: list[float] = field(default_factory=list, init=False)
    _before: Float64[np.ndarray, " b"] | None = field(default=None, init=False)

    def __post_init__(self):
        self.check(self.particles, self.strength, self.times)

    @staticmethod
    def check(particles: int, strength: float, times: Sequence[float]) -> None:
        """Raise ValueError for settings that make no sense."""
        if particles < 2:
            raise ValueError(f"{particles} particles were asked for: steering chooses among at least 2")
        if not 0 < strength < float("inf"):
            raise ValueError(f"the strength of steering is {strength}, it must be a positive number")
        if not times or not all(0 < time <= 1 for time in times):
            raise ValueError(f"steering at the times {tuple(times)}: give some, above 0 and at most 1")

    def prior(self, template: CrystalBatch, *, generator: RandomStreams) -> CrystalBatch:
        """As the wrapped process."""
        self._start()
        return self.process.prior(template, generator=generator)

    def corrupt(self, clean: CrystalBatch, t: Float[Tensor, " b"], *, generator: RandomStreams) -> CrystalBatch:
        """As the wrapped process."""
        self._start()
        return self.process.corrupt(clean, t, generator=generator)

    def estimate(self, prediction: Prediction, noisy: CrystalBatch, t: Float[Tensor, " b"]) -> CrystalBatch:
        """As the wrapped process."""
        return self.process.estimate(prediction, noisy, t)

    def denoise(
        self,
        prediction: Prediction,
        noisy: CrystalBatch,
        t: Float[Tensor, " b"],
        s: Float[Tensor, " b"],
        *,
        generator: RandomStreams,
    ) -> CrystalBatch:
        """A step of the wrapped process, and where it is due a choice among the particles.

        Raises:
            ValueError: if the batch is not made of whole groups of particles of one size.
        """
        stepped = self.process.denoise(prediction, noisy, t, s, generator=generator)
        uniform = generator.crystal_uniform(1).squeeze(-1)
        if not self._due or float(t[0]) > self._due[0]:
            return stepped
        while self._due and float(t[0]) <= self._due[0]:
            self._due.pop(0)
        return stepped.select(self._chosen(self.process.estimate(prediction, noisy, t), uniform))

    def correct(
        self, prediction: Prediction, noisy: CrystalBatch, t: Float[Tensor, " b"], *, generator: RandomStreams
    ) -> CrystalBatch:
        """As the wrapped process."""
        return self.process.correct(prediction, noisy, t, generator=generator)

    def best(self, drawn: CrystalBatch) -> tuple[Int[Tensor, " k"], list[float | None]]:
        """For each crystal the position of its particle with the largest reward, and that reward.

        Where no particle has a reward, the reward is None and the particle the first that is a crystal at all.
        """
        self._groups(drawn)
        rewards = self._rewards(drawn)
        ranks = np.where(np.isnan(rewards), np.finfo(np.float64).min, rewards).reshape(-1, self.particles)
        places = ranks.argmax(1) + self.particles * np.arange(len(ranks))
        found = [reward if np.isfinite(reward) else None for reward in rewards[places].tolist()]
        return torch.tensor(places, device=drawn.device), found

    def _start(self) -> None:
        self._due, self._before = sorted(self.times, reverse=True), None

    def _chosen(self, crystals: CrystalBatch, uniform: Float[Tensor, " b"]) -> Int[Tensor, " b"]:
        """Positions of the particles that go on: systematic resampling within each group.

        In a group without any reward all go on.
        """
        self._groups(crystals)
        rewards = self._rewards(crystals)
        before = np.zeros(len(rewards)) if self._before is None else self._before
        missing = ~np.isfinite(rewards)
        logits = np.where(missing, -np.inf, self.strength * (rewards - before)).reshape(-1, self.particles)
        logits[missing.reshape(-1, self.particles).all(1)] = 0.0
        shares = torch.tensor(logits).softmax(1).cumsum(1)
        start = uniform.cpu().double().reshape(-1, self.particles)[:, :1]
        places = (start + torch.arange(self.particles)) / self.particles
        within = torch.searchsorted(shares, places.contiguous()).clamp(max=self.particles - 1)
        chosen = (within + self.particles * torch.arange(len(within))[:, None]).flatten()
        self._before = np.where(missing, before, rewards)[chosen.numpy()]
        return chosen.to(crystals.device)

    def _rewards(self, batch: CrystalBatch) -> Float64[np.ndarray, " b"]:
        """Rewards; not a number for a crystal that has none, minus infinity for what is no crystal."""
        crystals = [(row, crystal) for row, crystal in enumerate(batch.crystals_or_none()) if crystal is not None]
        rewards = np.full(len(batch), -np.inf)
        if crystals:
            self.evaluations += len(crystals)
            found = self._ask([crystal for _, crystal in crystals])
            rewards[[row for row, _ in crystals]] = np.where(np.isfinite(found), found, np.nan)
        return rewards

    def _ask(self, crystals: Sequence[Crystal]) -> Float64[np.ndarray, " b"]:
        try:
            found = np.asarray(self.reward(crystals), dtype=np.float64)
        except (Exception, SystemExit) as error:
            raise ValueError(f"the reward to steer by failed ({type(error).__name__}: {error}): correct it") from error
        if found.shape != (len(crystals),):
            raise ValueError(f"the reward to steer by gave numbers of shape {found.shape} for {len(crystals)} crystals")
        return found

    def _groups(self, batch: CrystalBatch) -> None:
        if len(batch) % self.particles or bool(
            (batch.num_atoms.reshape(-1, self.particles) != batch.num_atoms[:: self.particles, None]).any()
        ):
            raise ValueError(
                f"the batch of {len(batch)} crystals is not made of groups of {self.particles} particles with one "
                "number of atoms"
            )
