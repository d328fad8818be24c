"""The last part of the way along the gradient of a reward, where there is one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from druse_crystal import Crystal, CrystalBatch
from druse_diffusion import Conditions, CrystalProcess, LatticeVP, Prediction, ScoreModel, WrappedVE
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Pull:
    """The gradient of a reward of one crystal.

    Attributes:
        on_atoms: (n, 3) by the Cartesian coordinates, in units of the reward over Å; of minus an energy the forces.
        on_strain: (3, 3) by a strain of the whole crystal, symmetric; of minus an energy minus volume times stress.
    """

    on_atoms: Float[Tensor, "n 3"]
    on_strain: Float[Tensor, "3 3"]

    @property
    def is_finite(self) -> bool:
        """Whether all numbers are finite."""
        return bool(self.on_atoms.isfinite().all() and self.on_strain.isfinite().all())


Gradient = Callable[[Sequence[Crystal]], Sequence[Pull | None]]
"""Gradients of crystals; None where there is none, as which those that are not finite count too."""


def pulls_of(gradient: Gradient, crystals: Sequence[Crystal]) -> list[Pull | None]:
    """The gradients of crystals, checked.

    Raises:
        ValueError: if the gradient fails, or gives for a crystal anything but None or a ``Pull`` of the right shapes.
    """
    try:
        found = list(gradient(crystals))
    except (Exception, SystemExit) as error:
        raise ValueError(f"the gradient to steer by failed ({type(error).__name__}: {error}): correct it") from error
    if len(found) != len(crystals):
        raise ValueError(
            f"the gradient to steer by gave {len(found)} results for {len(crystals)} crystals: give one for each"
        )
    for pull, crystal in zip(found, crystals, strict=True):
        if pull is not None:
            _check(pull, crystal)
    return found


def _check(pull: object, crystal: Crystal) -> None:
    if not isinstance(pull, Pull):
        raise ValueError(f"the gradient to steer by gave a {type(pull).__name__}: give a Pull or None for each crystal")
    for name, shape in (("on_atoms", (crystal.num_atoms, 3)), ("on_strain", (3, 3))):
        part = getattr(pull, name)
        if not isinstance(part, Tensor):
            raise ValueError(f"{name} of the gradient to steer by is a {type(part).__name__}: give a torch.Tensor")
        if tuple(part.shape) != shape:
            raise ValueError(
                f"{name} of the gradient to steer by has shape {tuple(part.shape)} for a crystal of "
                f"{crystal.num_atoms} atoms: give {shape}"
            )


@dataclass(kw_only=True, eq=False)
class RewardGradient:
    """A model whose scores gain ``strength`` times the gradient of a reward, at late times only.

    The reward is that of the crystal to which the prediction points (Bansal et al., "Universal guidance for diffusion
    models", arXiv:2302.07121, eq. 6), without the derivative of that crystal by the noisy one, for which one would have
    to differentiate the network. That derivative is one where the noise is small beside the spread of the model's
    crystals; earlier it is less, and the pull too strong.

    Attributes:
        model: what is wrapped.
        process: of lattice and coordinates.
        gradient: of the reward.
        strength: how much a reward weighs, in units of one over the reward.
        below: latest time at which the gradient acts.
        evaluations: gradients asked for so far.
    """

    model: ScoreModel
    process: CrystalProcess
    gradient: Gradient
    strength: float
    below: float = 0.1
    evaluations: int = field(default=0, init=False)

    def __post_init__(self):
        if not 0 < self.strength < float("inf"):
            raise ValueError(f"the strength of steering is {self.strength}, it must be a positive number")
        if not 0 < self.below <= 1:
            raise ValueError(f"gradients below t = {self.below}: give a time above 0 and at most 1")
        if not isinstance(self.process.lattice, LatticeVP) or not isinstance(self.process.frac_coords, WrappedVE):
            raise ValueError("gradients need a lattice and coordinates that are noised")

    def __call__(self, noisy: CrystalBatch, t: Float[Tensor, " b"], conditions: Conditions | None = None) -> Prediction:
        """The model's prediction, pulled."""
        prediction = self.model(noisy, t, conditions)
        late = torch.nonzero((t <= self.below) & (t > 0)).flatten().tolist()
        if not late:
            return prediction
        lattices, coordinates = self.process.lattice, self.process.frac_coords
        assert isinstance(lattices, LatticeVP)
        assert isinstance(coordinates, WrappedVE)
        n = noisy.num_atoms
        std, sigma = self.strength * lattices.std(t, n), self.strength * coordinates.sigma(t, n)
        ends = n.cumsum(0).tolist()
        lattice, frac_coords = prediction.lattice.clone(), prediction.frac_coords.clone()
        for row, crystal, pull in self._pulls(self.process.estimate(prediction, noisy, t), late):
            cell = torch.tensor(crystal.lattice, dtype=lattice.dtype, device=lattice.device)
            on_atoms, on_strain = pull.on_atoms.to(lattice), pull.on_strain.to(lattice)
            atoms = slice(ends[row] - crystal.num_atoms, ends[row])
            frac_coords[atoms] += sigma[row] * on_atoms @ cell.T
            by_entries = torch.linalg.solve(cell.T, on_strain)  # L' = L (1 + strain)
            # an entry off the diagonal stands in the matrix twice
            lattice[row] += std[row] * (by_entries + by_entries.T - by_entries.diagonal().diag())
        return replace(prediction, lattice=lattice, frac_coords=frac_coords)

    def _pulls(self, batch: CrystalBatch, rows: Sequence[int]) -> list[tuple[int, Crystal, Pull]]:
        found = zip(rows, batch.select(rows).crystals_or_none(), strict=True)
        crystals = [(row, crystal) for row, crystal in found if crystal is not None]
        self.evaluations += len(crystals)
        pulls = pulls_of(self.gradient, [crystal for _, crystal in crystals]) if crystals else []
        return [
            (row, crystal, pull)
            for (row, crystal), pull in zip(crystals, pulls, strict=True)
            if pull is not None and pull.is_finite
        ]
