"""Lattices: volume, lengths and angles, Niggli reduction's companions, and the symmetric (polar) form.

A lattice is a 3x3 matrix whose ROWS are the lattice vectors in Å, so that ``cart = frac @ lattice``.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


def volume(lattice: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b"]:
    """Cell volume in Å³, non-negative."""
    return torch.linalg.det(lattice).abs()


def heights(lattice: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 3"]:
    """Distances in Å between opposite faces of the cell, one for each axis: ``V / |b x c|``."""
    a, b, c = lattice.unbind(-2)
    areas = torch.stack([torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)], -2).norm(dim=-1)
    return volume(lattice).unsqueeze(-1) / areas


def symmetric_form(lattice: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 3 3"]:
    """The symmetric positive semi-definite lattice ``(L L^T)^(1/2)``: ``lattice`` turned into a standard orientation.

    The polar decomposition ``L = S R`` keeps all lengths and angles (``S S^T = L L^T``) and drops the rotation ``R``;
    fractional coordinates stay as they are. MatterGen (arXiv:2312.03687), appendix A.5.
    """
    return metric_root(lattice @ lattice.mT)


def metric_root(metric: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 3 3"]:
    """The symmetric lattice in Å that has this metric tensor (dot products of the lattice vectors, Å²)."""
    eigenvalues, eigenvectors = torch.linalg.eigh(metric)
    root = eigenvalues.clamp_min(0).sqrt()
    return (eigenvectors * root.unsqueeze(-2)) @ eigenvectors.mT


def from_parameters(a: float, b: float, c: float, alpha: float, beta: float, gamma: float) -> Float[np.ndarray, "3 3"]:
    """Lattice with lengths ``a b c`` in Å and angles in degrees; ``a`` along x, ``b`` in the xy plane.

    Raises:
        ValueError: if no cell has these angles.
    """
    refusal = ValueError(f"no cell has lengths {a}, {b}, {c} Å and angles {alpha}, {beta}, {gamma} degrees")
    if not all(0 < length < np.inf for length in (a, b, c)) or not all(
        0 < angle < 180 for angle in (alpha, beta, gamma)
    ):
        raise refusal
    cos = np.cos(np.radians([alpha, beta, gamma]))
    sin_gamma = np.sin(np.radians(gamma))
    y = (cos[0] - cos[1] * cos[2]) / sin_gamma
    z_squared = 1 - cos[1] ** 2 - y**2
    if not z_squared > 0:
        raise refusal
    return np.array(
        [[a, 0, 0], [b * cos[2], b * sin_gamma, 0], [c * cos[1], c * y, c * np.sqrt(z_squared)]], dtype=np.float64
    )


def parameters(lattice: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, " 6"]:
    """Lengths a, b, c in Å and angles alpha, beta, gamma in degrees."""
    lengths = np.linalg.norm(lattice, axis=1)
    unit = lattice / lengths[:, None]
    cos = np.array([unit[1] @ unit[2], unit[0] @ unit[2], unit[0] @ unit[1]])
    return np.concatenate([lengths, np.degrees(np.arccos(np.clip(cos, -1, 1)))])
