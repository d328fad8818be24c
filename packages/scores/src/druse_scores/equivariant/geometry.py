"""Geometry of a padded batch: what every pair of atoms of a cell sees of each other, summed over periodic images.

Atoms ``i`` and ``j`` of a cell are neighbours many times over, once for each lattice image. The features of the pair
sum over these images, so that the network works on ``N x N`` pairs however small the cell is. No gradient flows through
geometry: the network predicts scores directly.
"""

from dataclasses import dataclass

import torch
from druse_crystal.lattice import heights
from e3nn import o3
from jaxtyping import Bool, Float, Int
from torch import Tensor

_BOX = 2  # images -2..2 along each axis


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PairGeometry:
    """Features of all ordered pairs (i, j) of a padded batch of B crystals with up to N atoms.

    Attributes:
        radial: (B, N, N, D) sums over images of a fine radial basis.
        vector: (B, N, N, 3, R) sums of a coarser radial basis times the unit vector from i to j: R x 1o, components
            in e3nn's order.
        tensor: (B, N, N, 5, R) the same times the l = 2 spherical harmonics: R x 2e.
        phases: (B, N, N, 6 M) sines and cosines of ``2 pi m (f_j - f_i)`` along the lattice axes.
    """

    radial: Float[Tensor, "B N N D"]
    vector: Float[Tensor, "B N N 3 R"]
    tensor: Float[Tensor, "B N N 5 R"]
    phases: Float[Tensor, "B N N F"]


def smooth_cutoff(u: Tensor) -> Tensor:
    """``1 - 21 u^5 + 35 u^6 - 15 u^7`` below u = 1, zero above: value and two derivatives vanish at 1.

    Gasteiger et al., "Directional message passing", arXiv:2003.03123, eq. 8 with p = 5.
    """
    return torch.where(u < 1, 1 - u**5 * (21 - 35 * u + 15 * u**2), 0.0)


def gaussians(distance: Float[Tensor, "*s"], number: int, cutoff: float) -> Float[Tensor, "*s {number}"]:
    """Gaussians as wide as they are apart, centred from 0 to the cutoff (Å)."""
    centres = torch.linspace(0.0, cutoff, number, device=distance.device, dtype=distance.dtype)
    return torch.exp(-0.5 * ((distance.unsqueeze(-1) - centres) * ((number - 1) / cutoff)) ** 2)


def pair_geometry(
    lattice: Float[Tensor, "B 3 3"],
    frac_coords: Float[Tensor, "B N 3"],
    is_atom: Bool[Tensor, "B N"],
    *,
    cutoff: float,
    num_neighbors: int,
    num_radial: int,
    num_distances: int,
    num_harmonics: int,
) -> PairGeometry:
    """Compute the features.

    Each atom sees its images and neighbours within ``min(cutoff, 2.5 times the smallest height of the cell, distance of
    the neighbour after the first num_neighbors)``: the first bound is a choice, the second makes the search over 125
    images exact, the third bounds the cost. Every contribution fades to zero at that distance, so ties among neighbours
    of equal distance, the rule in perfect crystals, are cut all or none, and the result stays equivariant.

    Args:
        lattice: rows are lattice vectors, Å.
        frac_coords: padded with anything.
        is_atom: false where padded.
        cutoff: Å.
        num_neighbors: of one atom.
        num_radial: number R of Gaussians for vectors and tensors.
        num_distances: number D of Gaussians for scalars.
        num_harmonics: number M of Fourier components along each axis.
    """
    batch, n = is_atom.shape
    difference = frac_coords[:, None] - frac_coords[:, :, None]
    difference = difference - difference.round()
    steps = torch.arange(1, num_harmonics + 1, device=lattice.device, dtype=lattice.dtype)
    angle = (2 * torch.pi * difference.unsqueeze(-1) * steps).flatten(-2)
    phases = torch.cat([angle.sin(), angle.cos()], -1)

    box = torch.arange(-_BOX, _BOX + 1, device=lattice.device, dtype=lattice.dtype)
    images = torch.cartesian_prod(box, box, box)
    pair_vectors = (difference @ lattice[:, None]).flatten(1, 2)
    image_vectors = images @ lattice
    # |d + T|^2 by one matrix product: exact enough to choose the nearest, whose distances are then computed anew
    square = pair_vectors.square().sum(-1)[..., None] + image_vectors.square().sum(-1)[:, None]
    square = torch.baddbmm(square, pair_vectors, image_vectors.mT, alpha=2).unflatten(1, (n, n))
    itself = torch.eye(n, dtype=torch.bool, device=lattice.device)[:, :, None] & (images == 0).all(-1)
    square = square.masked_fill(itself | ~is_atom[:, None, :, None], torch.inf).flatten(2)
    k = min(num_neighbors + 1, square.shape[-1])
    nearest, index = square.topk(k, dim=-1, largest=False, sorted=True)
    source, image = index // len(images), index % len(images)
    from_pair = pair_vectors.unflatten(1, (n, n)).gather(2, source.unsqueeze(-1).expand(-1, -1, -1, 3))
    from_image = image_vectors.gather(1, image.flatten(1).unsqueeze(-1).expand(-1, -1, 3)).unflatten(1, (n, k))
    vector = from_pair + from_image
    distance = vector.norm(dim=-1).masked_fill(nearest.isinf(), 100.0)
    reach = (2.5 * heights(lattice).amin(-1)).clamp(max=cutoff)[:, None]
    # the tiny margin keeps neighbours that tie with the first one left out at exactly zero despite rounding
    reach = torch.minimum(reach, distance[..., -1] * (1 - 1e-5)) if k > num_neighbors else reach.expand(batch, n)
    vector, distance, source = (x[:, :, :num_neighbors] for x in (vector, distance, source))

    envelope = smooth_cutoff(distance / reach.clamp(min=1e-3).unsqueeze(-1)).unsqueeze(-1)
    scalar = gaussians(distance, num_distances, cutoff) * envelope
    radial = gaussians(distance, num_radial, cutoff) * envelope

    unit = vector / (vector.square().sum(-1, keepdim=True) + 1e-4).sqrt()
    harmonics = o3.spherical_harmonics([1, 2], unit, normalize=False, normalization="component")
    to_pair = torch.nn.functional.one_hot(source, n).to(lattice.dtype)
    directed = (harmonics.unsqueeze(-1) * radial.unsqueeze(-2)).flatten(-2)
    summed = to_pair.transpose(-1, -2) @ torch.cat([scalar, directed], -1)
    vector, tensor = summed[..., num_distances:].unflatten(-1, (8, num_radial)).split([3, 5], -2)
    return PairGeometry(radial=summed[..., :num_distances], vector=vector, tensor=tensor, phases=phases)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CrystalFrame:
    """Polar decomposition ``L = S Q`` of the lattices of a batch.

    Attributes:
        symmetric: (B, 3, 3) the symmetric lattice S in Å, the same for every orientation of the crystal.
        frame: (B, 3, 3) the orthogonal matrix Q, which turns with the crystal.
        inverse: (B, 3, 3) of the lattice in 1/Å, the lattice kept away from flatness so that noise never blows it up.
        spacing: (B,) cube root of the volume per atom, Å.
    """

    symmetric: Float[Tensor, "B 3 3"]
    frame: Float[Tensor, "B 3 3"]
    inverse: Float[Tensor, "B 3 3"]
    spacing: Float[Tensor, " B"]


def crystal_frame(lattice: Float[Tensor, "B 3 3"], num_atoms: Int[Tensor, " B"]) -> CrystalFrame:
    """Decompose."""
    u, widths, vh = torch.linalg.svd(lattice)
    frame = u @ vh
    symmetric = (u * widths.unsqueeze(-2)) @ u.mT
    edge = num_atoms.to(lattice.dtype) ** (1 / 3)
    safe = torch.maximum(widths, 0.5 * edge[:, None])
    inverse = frame.mT @ (u / safe.unsqueeze(-2)) @ u.mT
    return CrystalFrame(
        symmetric=symmetric, frame=frame, inverse=inverse, spacing=widths.prod(-1).clamp(min=1e-6) ** (1 / 3) / edge
    )
