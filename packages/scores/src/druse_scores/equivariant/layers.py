"""Layers of the pair network on a padded batch: B crystals, N atoms, features of atoms and of pairs.

Atoms carry scalars ``(B, N, C)`` and, in e3nn's terms, ``V x 1o + V x 2e`` as ``(B, N, 3, V)`` and ``(B, N, 5, V)``;
channels come last, so that an equivariant linear map (Schur's lemma) is one matrix for each degree.
"""

import torch
from e3nn import o3
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import silu

from druse_scores.equivariant.geometry import PairGeometry


def mean_square(x: Float[Tensor, "*s m V"]) -> Float[Tensor, "*s 1 1"]:
    """Squared lengths of vectors or tensors, averaged over their channels."""
    return x.square().sum(-2, keepdim=True).mean(-1, keepdim=True)


def rms_norm(x: Float[Tensor, "*s m V"]) -> Float[Tensor, "*s m V"]:
    """Scale vectors or tensors to unit root mean square over their channels; keeps them equivariant."""
    return x * (mean_square(x) + 1e-4).rsqrt()


def log_size(x: Float[Tensor, "*s m V"]) -> Float[Tensor, "*s 1"]:
    """Logarithm of the mean square that ``rms_norm`` divides out.

    Near a symmetric site all vectors of an atom are short, and their length tells how far it is off.
    """
    return (mean_square(x).squeeze(-2) + 1e-6).log()


def outer(a: Float[Tensor, "*s x V"], b: Float[Tensor, "*s y V"]) -> Float[Tensor, "*s x*y V"]:
    """Products of all components, channel by channel."""
    return (a.unsqueeze(-2) * b.unsqueeze(-3)).flatten(-3, -2)


def zero_linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer that starts as zero."""
    layer = nn.Linear(inputs, outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class AdaptiveNorm(nn.Module):
    """Layer norm whose scale and shift come from the crystal (time, size, lattice).

    Peebles and Xie, arXiv:2212.09748, "adaLN".
    """

    def __init__(self, width: int, condition_width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.scale_shift = zero_linear(condition_width, 2 * width)

    def forward(self, h: Float[Tensor, "B N C"], condition: Float[Tensor, "B D"]) -> Float[Tensor, "B N C"]:
        """Normalise and modulate."""
        scale, shift = self.scale_shift(condition).unsqueeze(1).chunk(2, -1)
        return self.norm(h) * (1 + scale) + shift


class Coupling(nn.Module):
    """Channel-wise tensor products ``1o x 1o -> 2e``, ``1o x 2e -> 1o``, ``2e x 2e -> 2e`` of two linear images."""

    vv_t: Tensor
    vt_v: Tensor
    tt_t: Tensor

    def __init__(self, width: int):
        super().__init__()
        self.vector_in = nn.Linear(width, 2 * width, bias=False)
        self.tensor_in = nn.Linear(width, 2 * width, bias=False)
        self.vector_out = nn.Linear(width, width, bias=False)
        self.tensor_out = nn.Linear(2 * width, width, bias=False)
        for name, degrees in (("vv_t", (1, 1, 2)), ("vt_v", (1, 2, 1)), ("tt_t", (2, 2, 2))):
            symbols = o3.wigner_3j(*degrees) * (2 * degrees[2] + 1) ** 0.5
            self.register_buffer(name, symbols.flatten(0, 1).T.contiguous(), persistent=False)

    def forward(
        self, v: Float[Tensor, "B N 3 V"], t: Float[Tensor, "B N 5 V"]
    ) -> tuple[Float[Tensor, "B N 3 V"], Float[Tensor, "B N 5 V"]]:
        """Products, mixed over channels."""
        v1, v2 = self.vector_in(v).chunk(2, -1)
        t1, t2 = self.tensor_in(t).chunk(2, -1)
        vt = self.vt_v @ outer(v1, t1)
        vv = self.vv_t @ outer(v1, v2)
        tt = self.tt_t @ outer(t1, t2)
        return self.vector_out(vt), self.tensor_out(torch.cat([vv, tt], -1))


class Interaction(nn.Module):
    """One round of messages over all pairs, then an update of every atom.

    Args:
        width: scalar channels C of an atom.
        pair_width: channels of a pair.
        message_width: channels of the message from one atom to another.
        vector_width: channels V of vectors and of tensors.
        num_radial: radial channels R of the geometry.
        condition_width: of the crystal's embedding.
        first: whether atoms come without vectors and tensors.
        last: whether nobody reads the pairs afterwards.
    """

    def __init__(
        self,
        *,
        width: int,
        pair_width: int,
        message_width: int,
        vector_width: int,
        num_radial: int,
        condition_width: int,
        first: bool,
        last: bool,
    ):
        super().__init__()
        self.num_radial, self.vector_width = num_radial, vector_width
        self.norm = AdaptiveNorm(width, condition_width)
        self.receiver = nn.Linear(width, message_width)
        self.sender = nn.Linear(width, message_width, bias=False)
        self.pair = nn.Linear(pair_width, message_width, bias=False)
        self.first, self.last = first, last
        if not first:
            self.vector_along = nn.Linear(vector_width, num_radial, bias=False)
            self.tensor_along = nn.Linear(vector_width, num_radial, bias=False)
            self.along = zero_linear(2 * num_radial, message_width)
        self.message = nn.Linear(message_width, message_width)
        gates = 2 * num_radial + 2 * vector_width
        # without a bias, so that a pair without weight (padding) passes nothing on
        self.gates = nn.Linear(message_width, gates + (0 if last else pair_width), bias=False)
        self.vector_in = nn.Linear(num_radial + vector_width, vector_width, bias=False)
        self.tensor_in = nn.Linear(num_radial + vector_width, vector_width, bias=False)
        self.coupling = Coupling(vector_width)
        self.norm_update = AdaptiveNorm(width, condition_width)
        self.aggregate = nn.Linear(message_width, width)
        self.update = nn.Sequential(
            nn.Linear(width + 3 * vector_width + 2, 2 * width),
            nn.SiLU(),
            zero_linear(2 * width, width + 2 * vector_width),
        )

    @torch.no_grad()
    def become_identity(self) -> None:
        """Zero what the layer adds to its input, and nothing else, so that it can still learn."""
        coupling = self.coupling
        for last in (self.vector_in, self.tensor_in, coupling.vector_out, coupling.tensor_out, self.aggregate):
            last.weight.zero_()
        self.aggregate.bias.zero_()
        for parameter in self.update[-1].parameters():
            parameter.zero_()
        self.gates.weight[2 * (self.num_radial + self.vector_width) :].zero_()

    def forward(
        self,
        h: Float[Tensor, "B N C"],
        v: Float[Tensor, "B N 3 V"],
        t: Float[Tensor, "B N 5 V"],
        pairs: Float[Tensor, "B N N P"],
        geometry: PairGeometry,
        condition: Float[Tensor, "B D"],
        weight: Float[Tensor, "B 1 N 1"],
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Update atoms and pairs; ``weight`` is zero for padded senders and scales the sum over senders."""
        x = self.norm(h, condition)
        m = self.receiver(x)[:, :, None] + self.sender(x)[:, None] + self.pair(pairs)
        if not self.first:  # the pair as seen from the receiver's surroundings: angles
            along_v = (self.vector_along(rms_norm(v)).unsqueeze(2) * geometry.vector).sum(-2)
            along_t = (self.tensor_along(rms_norm(t)).unsqueeze(2) * geometry.tensor).sum(-2)
            m = m + self.along(torch.cat([along_v, along_t], -1))
        m = silu(m)
        m = silu(self.message(m)) * weight
        gates = self.gates(m)
        radial, vector = self.num_radial, self.vector_width
        gate_v, gate_t, carry_v, carry_t, pair_update = gates.split(
            [radial, radial, vector, vector, gates.shape[-1] - 2 * radial - 2 * vector], -1
        )
        v_new = torch.cat(
            [(gate_v.unsqueeze(-2) * geometry.vector).sum(2), torch.einsum("bijc,bjxc->bixc", carry_v, v)], -1
        )
        t_new = torch.cat(
            [(gate_t.unsqueeze(-2) * geometry.tensor).sum(2), torch.einsum("bijc,bjxc->bixc", carry_t, t)], -1
        )
        v = v + self.vector_in(v_new)
        t = t + self.tensor_in(t_new)
        v_unit, t_unit = rms_norm(v), rms_norm(t)
        dv, dt = self.coupling(v_unit, t_unit)
        h = h + self.aggregate(m.sum(2))
        invariants = [v_unit.square().sum(-2), t_unit.square().sum(-2), (v_unit * dv).sum(-2), log_size(v), log_size(t)]
        x = self.norm_update(h, condition)
        change, scale_v, scale_t = self.update(torch.cat([x, *invariants], -1)).split([h.shape[-1], vector, vector], -1)
        h = h + change
        v = v + dv + v_unit * scale_v.unsqueeze(-2)
        t = t + dt + t_unit * scale_t.unsqueeze(-2)
        if not self.last:
            pairs = pairs + pair_update
        return h, v, t, pairs
