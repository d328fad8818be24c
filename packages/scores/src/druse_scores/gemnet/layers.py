"""The layers that everything is made of."""

import math
from collections.abc import Callable
from typing import cast

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn.functional import silu

from druse_scores.gemnet.fused import Weight, product

_SILU_SPREAD = 1 / 0.6  # brings the spread of a normal number back after SiLU (GemNet, appendix)
_HALF = 1 / math.sqrt(2)
_ROWS = 2048


def activation(x: Float[Tensor, "*s c"]) -> Float[Tensor, "*s c"]:
    """``SiLU(x) / 0.6`` of something that nobody else needs."""
    return scaled(silu(x, inplace=not torch.is_grad_enabled()), _SILU_SPREAD)


def mean_of_two(x: Float[Tensor, "*s c"], y: Float[Tensor, "*s c"]) -> Float[Tensor, "*s c"]:
    """``(x + y) / sqrt(2)``."""
    return scaled(x + y, _HALF)


def scaled(x: Float[Tensor, "*s c"], factor: float) -> Float[Tensor, "*s c"]:
    """``factor x`` of something that nobody else needs: in its own memory if no gradient is wanted."""
    return x * factor if torch.is_grad_enabled() else x.mul_(factor)


def by_rows(layers: Callable[..., Float[Tensor, "e o"]], *rows: Shaped[Tensor, "e ..."]) -> Float[Tensor, "e o"]:
    """``layers(*rows)``, of layers that treat every row by itself.

    Without gradients a few thousand rows go through all layers before the next ones, so that they stay in the cache;
    twice as many where products are taken in half the precision.
    """
    together = 2 * _ROWS if torch.is_autocast_enabled(rows[0].device.type) else _ROWS
    if torch.is_grad_enabled() or len(rows[0]) <= together:
        return layers(*rows)
    return torch.cat([layers(*part) for part in zip(*(values.split(together) for values in rows), strict=True)])


class Dense(nn.Module):
    """A linear map without bias, times ``factor``, and an activation if there is one."""

    def __init__(self, width_in: int, width_out: int, *, active: bool = False, factor: float = 1.0):
        super().__init__()
        self.linear = nn.Linear(width_in, width_out, bias=False)
        self.active = active
        self._weight = Weight(factor)
        he_orthogonal(self.linear.weight)

    def forward(self, x: Float[Tensor, "*s i"]) -> Float[Tensor, "*s o"]:
        """Apply."""
        y = self.unscaled(x)
        return scaled(y, _SILU_SPREAD) if self.active else y

    def unscaled(self, x: Float[Tensor, "*s i"]) -> Float[Tensor, "*s o"]:
        """Apply, without the constant of the activation."""
        return product(x, self.linear.weight, self._weight, active=self.active)

    def train(self, mode: bool = True) -> "Dense":
        """As of every module."""
        self._weight.clear()
        return super().train(mode)


class Residual(nn.Module):
    """``(x + Dense(Dense(x))) / sqrt(2)``."""

    def __init__(self, width: int):
        super().__init__()
        self.dense_mlp = nn.Sequential(
            Dense(width, width, active=True), Dense(width, width, active=True, factor=_SILU_SPREAD)
        )

    def forward(self, x: Float[Tensor, "*s c"]) -> Float[Tensor, "*s c"]:
        """Apply, with the constants of both activations where they cost least."""
        first, second = (cast(Dense, layer) for layer in self.dense_mlp)
        return scaled(torch.add(x, second.unscaled(first.unscaled(x)), alpha=_SILU_SPREAD), _HALF)


class Scale(nn.Module):
    """A constant factor that is kept with the weights and does not learn."""

    def __init__(self):
        super().__init__()
        self.scale_factor = nn.Parameter(torch.ones(()), requires_grad=False)

    def forward(self, x: Float[Tensor, "*s c"]) -> Float[Tensor, "*s c"]:
        """Apply."""
        return x * self.scale_factor


def he_orthogonal(weight: Tensor) -> None:
    """Orthogonal rows, each brought to mean 0 and variance 1 / inputs (GemNet, appendix C); of three axes the first two
    are inputs.
    """
    with torch.no_grad():
        inputs = weight.shape[1] if weight.ndim == 2 else weight.shape[0] * weight.shape[1]
        nn.init.orthogonal_(weight)
        axes = 1 if weight.ndim == 2 else (0, 1)
        variance, mean = torch.var_mean(weight, dim=axes, keepdim=True, correction=0)
        weight.sub_(mean).div_((variance + 1e-6).sqrt()).mul_(inputs**-0.5)
