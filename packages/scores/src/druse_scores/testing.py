"""Contract checks for somebody's own score network: one call in a test."""

from itertools import pairwise

import torch
from druse_crystal import CrystalBatch
from druse_diffusion import Prediction, ScoreModel
from e3nn import o3
from jaxtyping import Float
from torch import Tensor


@torch.no_grad()
def check_score_model(
    model: ScoreModel, batch: CrystalBatch, t: Float[Tensor, " b"], *, tolerance: float = 1e-6, seed: int = 0
) -> None:
    """Check that a network has the symmetries of a crystal.

    Turning the crystal (also by a mirror) turns the lattice output with it, ``R^T T R``, and leaves coordinates and
    species alone; permuting atoms permutes the outputs; moving the origin or an atom by a lattice vector changes
    nothing; the lattice output is symmetric; a batch equals its crystals one by one; the same input, the same output.

    Args:
        model: the network, in the floating type of the batch (float64 is advised).
        batch: at least two crystals of different size.
        t: (b,) times.
        tolerance: largest difference allowed, over the largest entry of the output and one.
        seed: of the random operations.

    Raises:
        AssertionError: names the broken symmetry.
    """
    generator = torch.Generator().manual_seed(seed)
    out = model(batch, t)

    def same(other: Prediction, expected: Prediction, what: str) -> None:
        for name in ("lattice", "frac_coords", "species_logits"):
            x, y = getattr(other, name), getattr(expected, name)
            assert x.shape == y.shape, f"{what}: {name} has shape {tuple(x.shape)}, not {tuple(y.shape)}"
            finite = y.isfinite()
            assert torch.equal(x[~finite], y[~finite]), f"{what}: {name} is not finite elsewhere"
            error = float((x - y)[finite].abs().max()) / max(1.0, float(y[finite].abs().max()))
            assert error <= tolerance, f"{what}: {name} differs by {error:.2g}"

    same(model(batch, t), out, "the same input")
    mirrored = Prediction(lattice=out.lattice.mT, frac_coords=out.frac_coords, species_logits=out.species_logits)
    same(mirrored, out, "symmetric lattice output")

    for sign in (1, -1):
        angles = torch.rand(3, generator=generator, dtype=torch.float64)
        rotation = (sign * o3.angles_to_matrix(*(2 * torch.pi * angles))).to(batch.lattice.dtype)
        turned = Prediction(
            lattice=rotation.T @ out.lattice @ rotation, frac_coords=out.frac_coords, species_logits=out.species_logits
        )
        same(model(batch.replace(lattice=batch.lattice @ rotation), t), turned, "rotation" if sign > 0 else "inversion")

    starts = [0, *batch.num_atoms.cumsum(0).tolist()]
    order = torch.cat([start + torch.randperm(end - start, generator=generator) for start, end in pairwise(starts)])
    permuted = batch.replace(frac_coords=batch.frac_coords[order], atomic_numbers=batch.atomic_numbers[order])
    expected = Prediction(
        lattice=out.lattice, frac_coords=out.frac_coords[order], species_logits=out.species_logits[order]
    )
    same(model(permuted, t), expected, "permutation of atoms")

    origin = torch.rand(len(batch), 3, generator=generator, dtype=batch.frac_coords.dtype)
    moved = batch.replace(frac_coords=(batch.frac_coords + origin.repeat_interleave(batch.num_atoms, 0)) % 1)
    same(model(moved, t), out, "shift of the origin")
    images = torch.randint(-2, 3, batch.frac_coords.shape, generator=generator)
    same(model(batch.replace(frac_coords=batch.frac_coords + images), t), out, "shift by lattice vectors")

    for i in range(len(batch)):
        alone = model(batch.select([i]), t[i : i + 1])
        atoms = slice(starts[i], starts[i + 1])
        expected = Prediction(
            lattice=out.lattice[i : i + 1],
            frac_coords=out.frac_coords[atoms],
            species_logits=out.species_logits[atoms],
        )
        same(alone, expected, f"crystal {i} without the rest of the batch")
