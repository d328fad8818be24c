"""Keep parts of known crystals and let a model grow the rest around them."""

from dataclasses import dataclass

import torch
from druse_crystal import CrystalBatch
from druse_diffusion import Conditions, CrystalProcess, Prediction, ScoreModel
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class KnownParts:
    """A model that knows how some of the crystal ends.

    For what is kept, the model's prediction is replaced by the one of a perfect network that has seen this crystal and
    no other (``Corruption.target``). Every step then moves the kept part along the noise that leads to its known value,
    as noisy at each time as the rest, and with the last step it is there: replacement by fresh noise (Lugmayr et al.,
    "RePaint", arXiv:2201.09865) without its jumps from step to step. ``restore`` takes away the rounding.

    Attributes:
        model: what is wrapped.
        process: of lattice, coordinates and species.
        known: crystals of the batch's shape, lattices in their symmetric form; what is not kept may be anything.
        lattice: (b,) of which crystals the lattice is kept.
        frac_coords: (n,) of which atoms the coordinates are kept.
        species: (n,) of which atoms the element is kept.
    """

    model: ScoreModel
    process: CrystalProcess
    known: CrystalBatch
    lattice: Bool[Tensor, " b"]
    frac_coords: Bool[Tensor, " n"]
    species: Bool[Tensor, " n"]

    def __call__(self, noisy: CrystalBatch, t: Float[Tensor, " b"], conditions: Conditions | None = None) -> Prediction:
        """The model's prediction, but for what is kept."""
        prediction, known, process, n = self.model(noisy, t, conditions), self.known, self.process, noisy.num_atoms
        logits = prediction.species_logits
        certain = process.species.target(known.atomic_numbers, noisy.atomic_numbers, t, n)[:, : logits.shape[1]]
        return Prediction(
            lattice=torch.where(
                self.lattice[:, None, None],
                process.lattice.target(known.lattice, noisy.lattice, t, n),
                prediction.lattice,
            ),
            frac_coords=torch.where(
                self.frac_coords[:, None],
                process.frac_coords.target(known.frac_coords, noisy.frac_coords, t, n),
                prediction.frac_coords,
            ),
            species_logits=torch.where(self.species[:, None], certain.to(logits.dtype), logits),
        )

    def restore(self, drawn: CrystalBatch) -> CrystalBatch:
        """The crystals with what is kept exactly as it is known."""
        return drawn.replace(
            lattice=torch.where(self.lattice[:, None, None], self.known.lattice, drawn.lattice),
            frac_coords=torch.where(self.frac_coords[:, None], self.known.frac_coords, drawn.frac_coords),
            atomic_numbers=torch.where(self.species, self.known.atomic_numbers, drawn.atomic_numbers),
        )
