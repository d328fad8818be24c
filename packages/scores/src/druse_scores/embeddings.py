"""Embeddings of time and of numbers of atoms."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def sinusoidal(x: Float[Tensor, " b"], width: int, *, longest: float) -> Float[Tensor, "b {width}"]:
    """Sines and cosines of ``x`` at ``width / 2`` wavelengths between ``2 pi`` and ``2 pi longest``, geometric.

    Vaswani et al., arXiv:1706.03762, section 3.5.
    """
    rates = torch.exp(-math.log(longest) * torch.arange(width // 2, device=x.device, dtype=x.dtype) / (width // 2 - 1))
    angle = x.unsqueeze(-1) * rates
    return torch.cat([angle.sin(), angle.cos()], -1)
