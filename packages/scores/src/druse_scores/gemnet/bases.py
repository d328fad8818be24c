"""What an edge is to the network: its length in Gaussians, its direction in spherical harmonics."""

import math

import torch
from e3nn import o3
from jaxtyping import Float
from torch import Tensor, nn

from druse_scores.gemnet.layers import he_orthogonal


class Gaussians(nn.Module):
    """Gaussians of a number between 0 and 1, as wide as they are apart."""

    offset: Tensor

    def __init__(self, num: int):
        super().__init__()
        self.register_buffer("offset", torch.linspace(0, 1, num))

    def forward(self, x: Float[Tensor, " e"]) -> Float[Tensor, "e k"]:
        """Values."""
        spacing = self.offset[1] - self.offset[0]
        return torch.exp(-0.5 * ((x.unsqueeze(-1) - self.offset) / spacing).square())


class RadialBasis(nn.Module):
    """Gaussians of the length of an edge that vanish smoothly at the cutoff.

    The envelope is ``1 - 21 u^5 + 35 u^6 - 15 u^7`` with ``u = distance / cutoff`` (Gasteiger et al., "Directional
    message passing", arXiv:2003.03123, eq. 8, p = 5).
    """

    def __init__(self, num: int, cutoff: float):
        super().__init__()
        self.cutoff = cutoff
        self.rbf = Gaussians(num)

    def forward(self, distances: Float[Tensor, " e"]) -> Float[Tensor, "e k"]:
        """Values."""
        u = distances / self.cutoff
        envelope = torch.where(u < 1, 1 - 21 * u**5 + 35 * u**6 - 15 * u**7, torch.zeros_like(u))
        return envelope.unsqueeze(-1) * self.rbf(u)


class AngularBasis(nn.Module):
    """Radial weights of the Legendre polynomials of the angle between two edges.

    GemNet expands the angle between an edge and another one that ends at the same atom in ``Y_l(cos)``, l < L, each
    with weights that depend on the length of the first edge. By the addition theorem

        Y_l(cos gamma) = sqrt((2 l + 1) / 4 pi) P_l(cos gamma) = sqrt(4 pi / (2 l + 1)) sum_m Y_lm(V) Y_lm(V'),

    so that a sum over the second edge is a sum over all edges of the atom, once for the atom and not once for each of
    its edges: no triplet is ever enumerated.
    """

    def __init__(self, num_spherical: int, num_radial: int, width: int):
        super().__init__()
        self.num_spherical = num_spherical
        self.weight = nn.Parameter(torch.empty(num_spherical, num_radial, width))
        he_orthogonal(self.weight)

    def forward(
        self, rbf: Float[Tensor, "e k"], directions: Float[Tensor, "e 3"]
    ) -> tuple[Float[Tensor, "e c l"], Float[Tensor, "e h"], Float[Tensor, "e c"]]:
        """For each edge its weights R of the degrees, its harmonics B, and its value with itself s.

        With ``A = weighted(R, B)``, ``sum_h A[e, c, h] B[e', h]`` is the value of channel c for the edges e and e', and
        ``s[e, c]`` that of e with itself.
        """
        harmonics = o3.spherical_harmonics(
            list(range(self.num_spherical)), directions, normalize=False, normalization="integral"
        )
        radial = torch.einsum("ek,lkc->ecl", rbf, self.weight)
        orders = 2 * torch.arange(self.num_spherical, device=rbf.device, dtype=rbf.dtype) + 1  # of each degree
        return radial * (4 * math.pi / orders).sqrt(), harmonics, radial @ (orders / (4 * math.pi)).sqrt()


def weighted(radial: Float[Tensor, "*e c l"], harmonics: Float[Tensor, "*e h"]) -> Float[Tensor, "*e c h"]:
    """Harmonics, those of each degree times its weight."""
    degrees = range(radial.shape[-1])
    orders = harmonics.unsqueeze(-2).split([2 * degree + 1 for degree in degrees], -1)
    return torch.cat([radial[..., degree : degree + 1] * orders[degree] for degree in degrees], -1)
