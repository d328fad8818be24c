"""The equivariant convolution of SevenNet (NequIP), written for inference on a CPU.

The convolution sums over the neighbours e of an atom (Batzner et al., Nat. Commun. 13, 2453 (2022), eq. 9)

    out[p, m, u] = sum_e  w[e, p, u]  sum_{m1, m2}  C[p, m, m1, m2]  x[source(e), m1, u]  Y[e, m2]

for paths p (products of irreps), components m and channels u, with C the Wigner 3j symbols and Y the spherical
harmonics of the edge. e3nn evaluates it path by path over all edges at once, and on a CPU most of the time then goes
into moving and clearing memory. Here the sum over m2 is taken first (a small matrix per edge), the one over m1 is a
batched matrix product, and edges pass in chunks that stay in the cache, forwards and backwards.
"""

from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

if TYPE_CHECKING:
    from sevenn.nn.convolution import IrrepsConvolution

EDGES_PER_CHUNK = 256  # measured: 128 to 512 are within 5 %


class EdgeConvolution(nn.Module):
    """Drop-in replacement of a ``sevenn`` ``IrrepsConvolution`` with the same weights, for inference.

    Derivatives are first-order only: forces and stresses, not training.

    Args:
        convolution: the layer to replace.

    Raises:
        ValueError: if the layer holds a product of irreps other than ``uvu`` with one channel on the edge.
    """

    def __init__(self, convolution: "IrrepsConvolution"):
        from e3nn.o3 import wigner_3j

        super().__init__()
        self.coupling: Tensor
        self.gather_x: Tensor
        self.scatter_out: Tensor
        self.last_weight: Tensor
        product: Any = convolution.convolution  # e3nn types its irreps too loosely to follow
        irreps_x, irreps_y, irreps_out = product.irreps_in1, product.irreps_in2, product.irreps_out
        if any(ins.connection_mode != "uvu" or irreps_y[ins.i_in2].mul != 1 for ins in product.instructions):
            raise ValueError("only uvu products with one channel on the edge are supported")
        self.denominator = convolution.denominator
        self.key_x, self.key_filter = convolution.key_x, convolution.key_filter
        self.key_weight_input, self.key_edge_idx = convolution.key_weight_input, convolution.key_edge_idx

        starts, widths = [0], []  # of the weights of each path, in e3nn's order
        for ins in product.instructions:
            widths.append(irreps_x[ins.i_in1].mul)
            starts.append(starts[-1] + widths[-1])
        blocks, couplings, weight_order = [], [], []
        gather_x = torch.empty(irreps_x.dim, dtype=torch.long)
        scatter_out = torch.empty(irreps_out.dim, dtype=torch.long)
        x_at = out_at = w_at = 0
        for i, (mul, ir) in enumerate(irreps_x):
            paths = [(k, ins) for k, ins in enumerate(product.instructions) if ins.i_in1 == i]
            coupling = torch.zeros(irreps_y.dim, sum(irreps_out[p.i_out].ir.dim for _, p in paths), ir.dim)
            # (component, channel) inside; e3nn keeps (channel, component)
            gather_x[x_at : x_at + mul * ir.dim] = (
                irreps_x.slices()[i].start + torch.arange(mul * ir.dim).view(mul, ir.dim).T.flatten()
            )
            rows = []
            row = 0
            for k, ins in paths:
                ir_y, ir_out = irreps_y[ins.i_in2].ir, irreps_out[ins.i_out].ir
                symbols = wigner_3j(ir.l, ir_y.l, ir_out.l) * ins.path_weight
                coupling[irreps_y.slices()[ins.i_in2], row : row + ir_out.dim] = symbols.permute(1, 2, 0)
                slot = out_at + row * mul + torch.arange(mul * ir_out.dim)
                scatter_out[irreps_out.slices()[ins.i_out]] = slot.view(ir_out.dim, mul).T.flatten()
                weight_order.append(torch.arange(starts[k], starts[k] + widths[k]))
                rows.append((row, row + ir_out.dim))
                row += ir_out.dim
            blocks.append((mul, ir.dim, x_at, out_at, w_at, tuple(rows)))
            couplings.append(coupling.flatten(1))
            x_at, out_at, w_at = x_at + mul * ir.dim, out_at + mul * row, w_at + mul * len(paths)
        self.blocks = tuple(blocks)
        self.register_buffer("coupling", torch.cat(couplings, dim=1), persistent=False)
        self.register_buffer("gather_x", gather_x, persistent=False)
        self.register_buffer("scatter_out", scatter_out, persistent=False)
        # the last layer of the radial network has no activation: its columns can be put in the order of the blocks
        radial: Any = convolution.weight_nn
        *hidden, last = radial
        scale = (last.h_in * last.var_in / last.var_out) ** -0.5
        self.hidden = nn.Sequential(*hidden)
        last_weight = last.weight.detach()[:, torch.cat(weight_order)] * scale
        self.register_buffer("last_weight", last_weight, persistent=False)

    def forward(self, data: dict[str, Tensor]) -> dict[str, Tensor]:
        """Replace the node features in ``data`` by the sum of the messages that arrive at each atom."""
        destination, source = data[self.key_edge_idx]
        weights = self.hidden(data[self.key_weight_input]) @ self.last_weight
        features = data[self.key_x][:, self.gather_x]
        out = _Convolve.apply(features, data[self.key_filter], weights, source, destination, self.coupling, self.blocks)
        data[self.key_x] = out[:, self.scatter_out] / self.denominator
        return data


def _messages(x_block, coupling_block, weights_block, rows):
    """Products before the weights (edges, rows, channels), and the weights spread over the rows of their path."""
    product = torch.bmm(coupling_block, x_block)
    spread = torch.empty_like(product)
    for path, (start, stop) in enumerate(rows):
        spread[:, start:stop] = weights_block[:, path, None]
    return product, spread


class _Convolve(torch.autograd.Function):
    """Chunked gather, product, weight and sum; see the module's docstring."""

    @staticmethod
    def forward(
        ctx,
        x: Float[Tensor, "n x"],
        y: Float[Tensor, "e m2"],
        weights: Float[Tensor, "e w"],
        source: Int[Tensor, " e"],
        destination: Int[Tensor, " e"],
        coupling: Float[Tensor, "m2 c"],
        blocks: tuple,
    ) -> Float[Tensor, "n out"]:
        ctx.save_for_backward(x, y, weights, source, destination, coupling)
        ctx.blocks = blocks
        # index_add_ is fast on contiguous memory only: one sum for each block
        sums = [x.new_zeros(len(x), mul * rows[-1][1]) for mul, _, _, _, _, rows in blocks]
        for part in _chunks(len(source)):
            couplings = y[part] @ coupling
            x_part = x.index_select(0, source[part])
            n, at = len(x_part), 0
            for total, (mul, dim, x_at, _, w_at, rows) in zip(sums, blocks, strict=True):
                n_rows = rows[-1][1]
                coupling_block = couplings[:, at : at + n_rows * dim].reshape(n, n_rows, dim)
                at += n_rows * dim
                x_block = x_part[:, x_at : x_at + dim * mul].reshape(n, dim, mul)
                weights_block = weights[part, w_at : w_at + len(rows) * mul].reshape(n, len(rows), mul)
                product, spread = _messages(x_block, coupling_block, weights_block, rows)
                total.index_add_(0, destination[part], product.mul_(spread).view(n, -1))
        return torch.cat(sums, dim=1)

    @staticmethod
    def backward(ctx, *grad_outputs: Any):
        (grad_out,) = grad_outputs
        x, y, weights, source, destination, coupling = ctx.saved_tensors
        grad_x = torch.zeros_like(x)
        grad_weights = torch.empty_like(weights)
        grad_y = torch.empty_like(y)
        for part in _chunks(len(source)):
            couplings = y[part] @ coupling
            grad_couplings = torch.empty_like(couplings)
            x_part = x.index_select(0, source[part])
            grad_x_part = torch.empty_like(x_part)
            n, at = len(x_part), 0
            for mul, dim, x_at, out_at, w_at, rows in ctx.blocks:
                n_rows = rows[-1][1]
                coupling_block = couplings[:, at : at + n_rows * dim].reshape(n, n_rows, dim)
                x_block = x_part[:, x_at : x_at + dim * mul].reshape(n, dim, mul)
                weights_block = weights[part, w_at : w_at + len(rows) * mul].reshape(n, len(rows), mul)
                grad_block = grad_out[:, out_at : out_at + n_rows * mul].index_select(0, destination[part])
                grad_block = grad_block.view(n, n_rows, mul)
                product, spread = _messages(x_block, coupling_block, weights_block, rows)
                product.mul_(grad_block)
                for path, (start, stop) in enumerate(rows):
                    first = w_at + path * mul
                    torch.sum(product[:, start:stop], dim=1, out=grad_weights[part, first : first + mul])
                spread.mul_(grad_block)
                grad_x_part[:, x_at : x_at + dim * mul] = torch.bmm(coupling_block.mT, spread).view(n, -1)
                grad_couplings[:, at : at + n_rows * dim] = torch.bmm(spread, x_block.mT).view(n, -1)
                at += n_rows * dim
            grad_x.index_add_(0, source[part], grad_x_part)
            grad_y[part] = grad_couplings @ coupling.T
        return grad_x, grad_y, grad_weights, None, None, None, None


def _chunks(n_edges: int):
    for start in range(0, n_edges, EDGES_PER_CHUNK):
        yield slice(start, min(start + EDGES_PER_CHUNK, n_edges))
