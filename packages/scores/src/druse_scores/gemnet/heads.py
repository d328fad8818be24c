"""What is read off the edges: a force along each of them, and a symmetric tensor of the lattice."""

from typing import cast

from jaxtyping import Float
from torch import Tensor, nn

from druse_scores.gemnet.graph import CrystalGraph
from druse_scores.gemnet.layers import Dense, Residual, Scale


class ForceHead(nn.Module):
    """A number for each edge: the force along it."""

    def __init__(self, width: int, rbf: int):
        super().__init__()
        self.seq_forces = nn.Sequential(Dense(width, width, active=True), *(Residual(width) for _ in range(3)))
        self.dense_rbf_F = Dense(rbf, width)
        self.scale_rbf_F = Scale()
        self.out_forces = Dense(width, 1)

    def forward(self, m: Float[Tensor, "e w"], rbf: Float[Tensor, "e r"]) -> Float[Tensor, "e 1"]:
        """Forces: ``out_forces(scale_rbf_F(seq_forces(m) * dense_rbf_F(rbf)))``, the last maps taken together."""
        last = self.out_forces.linear.weight.T * self.dense_rbf_F.linear.weight  # (w, r)
        return self.scale_rbf_F((self.seq_forces(m) @ last * rbf).sum(-1, keepdim=True))


class LatticeHead(nn.Module):
    """A symmetric tensor for each crystal: ``sum of s_e V_e V_e^T`` over its edges, over their number."""

    def __init__(self, width: int, rbf: int):
        super().__init__()
        self.mlp = nn.Sequential(Dense(width, width, active=True), Dense(width, width))
        self.dense_rbf_F = Dense(rbf, width)
        self.out_forces = Dense(width, 1)

    def forward(self, m: Float[Tensor, "e w"], rbf: Float[Tensor, "e r"]) -> Float[Tensor, "e 1"]:
        """Numbers ``s_e``: ``out_forces(mlp(m) * dense_rbf_F(rbf))``, all but the first map taken together."""
        first, second = (cast(Dense, layer) for layer in self.mlp)
        last = second.linear.weight.T @ (self.out_forces.linear.weight.T * self.dense_rbf_F.linear.weight)  # (w, r)
        return (first(m) @ last * rbf).sum(-1, keepdim=True)


def lattice_tensor(s: Float[Tensor, "e 1"], graph: CrystalGraph) -> Float[Tensor, "b 3 3"]:
    """``sum over the edges of a crystal of s_e V_e V_e^T``, over their number."""
    v = graph.directions
    tensors = (s / graph.sizes[graph.crystal].unsqueeze(-1)).unsqueeze(-1) * v.unsqueeze(-1) * v.unsqueeze(-2)
    return tensors.new_zeros(len(graph.sizes), 3, 3).index_add(0, graph.crystal, tensors)
