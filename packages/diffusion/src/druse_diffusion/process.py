"""The three corruptions of a crystal together."""

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from druse_crystal import CrystalBatch
from jaxtyping import Float
from torch import Tensor

from druse_diffusion.coordinates import WrappedVE
from druse_diffusion.corruption import Corruption, Fixed
from druse_diffusion.lattice import LatticeVP
from druse_diffusion.random import RandomStreams
from druse_diffusion.score import Prediction
from druse_diffusion.species import AbsorbingD3PM


@runtime_checkable
class ReverseProcess(Protocol):
    """What ``sample`` runs: ``CrystalProcess``, or a wrapper that holds it to something."""

    def prior(self, template: CrystalBatch, *, generator: RandomStreams) -> CrystalBatch:
        """Draw crystals at t = 1."""
        ...

    def corrupt(self, clean: CrystalBatch, t: Float[Tensor, " b"], *, generator: RandomStreams) -> CrystalBatch:
        """Draw x_t."""
        ...

    def estimate(self, prediction: Prediction, noisy: CrystalBatch, t: Float[Tensor, " b"]) -> CrystalBatch:
        """The crystals that a prediction points to."""
        ...

    def denoise(
        self,
        prediction: Prediction,
        noisy: CrystalBatch,
        t: Float[Tensor, " b"],
        s: Float[Tensor, " b"],
        *,
        generator: RandomStreams,
    ) -> CrystalBatch:
        """Draw x_s given x_t, s < t."""
        ...

    def correct(
        self, prediction: Prediction, noisy: CrystalBatch, t: Float[Tensor, " b"], *, generator: RandomStreams
    ) -> CrystalBatch:
        """One corrector step at constant t."""
        ...


@dataclass(frozen=True, kw_only=True)
class CrystalProcess:
    """Forward process of lattice, fractional coordinates and species, with one time per crystal."""

    lattice: Corruption = field(default_factory=LatticeVP)
    frac_coords: Corruption = field(default_factory=WrappedVE)
    species: Corruption = field(default_factory=AbsorbingD3PM)

    def prior(self, template: CrystalBatch, *, generator: RandomStreams) -> CrystalBatch:
        """Draw crystals at t = 1 with the template's numbers of atoms; fixed fields are the template's."""

        def draw(corruption: Corruption, given: Tensor) -> Tensor:
            if isinstance(corruption, Fixed):
                return given
            return corruption.prior(template.num_atoms, generator=generator)

        return template.replace(
            lattice=draw(self.lattice, template.lattice),
            frac_coords=draw(self.frac_coords, template.frac_coords),
            atomic_numbers=draw(self.species, template.atomic_numbers),
        )

    def corrupt(self, clean: CrystalBatch, t: Float[Tensor, " b"], *, generator: RandomStreams) -> CrystalBatch:
        """Draw x_t."""
        n = clean.num_atoms
        return clean.replace(
            lattice=self.lattice.corrupt(clean.lattice, t, n, generator=generator),
            frac_coords=self.frac_coords.corrupt(clean.frac_coords, t, n, generator=generator),
            atomic_numbers=self.species.corrupt(clean.atomic_numbers, t, n, generator=generator),
        )

    def estimate(self, prediction: Prediction, noisy: CrystalBatch, t: Float[Tensor, " b"]) -> CrystalBatch:
        """The crystals that a prediction points to."""
        n = noisy.num_atoms
        return noisy.replace(
            lattice=self.lattice.estimate(prediction.lattice, noisy.lattice, t, n),
            frac_coords=self.frac_coords.estimate(prediction.frac_coords, noisy.frac_coords, t, n),
            atomic_numbers=self.species.estimate(prediction.species_logits, noisy.atomic_numbers, t, n),
        )

    def denoise(
        self,
        prediction: Prediction,
        noisy: CrystalBatch,
        t: Float[Tensor, " b"],
        s: Float[Tensor, " b"],
        *,
        generator: RandomStreams,
    ) -> CrystalBatch:
        """Draw x_s given x_t, s < t."""
        n = noisy.num_atoms
        return noisy.replace(
            lattice=self.lattice.denoise(prediction.lattice, noisy.lattice, t, s, n, generator=generator),
            frac_coords=self.frac_coords.denoise(
                prediction.frac_coords, noisy.frac_coords, t, s, n, generator=generator
            ),
            atomic_numbers=self.species.denoise(
                prediction.species_logits, noisy.atomic_numbers, t, s, n, generator=generator
            ),
        )

    def correct(
        self, prediction: Prediction, noisy: CrystalBatch, t: Float[Tensor, " b"], *, generator: RandomStreams
    ) -> CrystalBatch:
        """One corrector step of each field at constant t."""
        n = noisy.num_atoms
        return noisy.replace(
            lattice=self.lattice.correct(prediction.lattice, noisy.lattice, t, n, generator=generator),
            frac_coords=self.frac_coords.correct(prediction.frac_coords, noisy.frac_coords, t, n, generator=generator),
            atomic_numbers=self.species.correct(
                prediction.species_logits, noisy.atomic_numbers, t, n, generator=generator
            ),
        )
