"""One interaction: edges see the edges that end where they end, atoms see their edges, edges see their atoms."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from druse_scores.gemnet.graph import CrystalGraph
from druse_scores.gemnet.layers import Dense, Residual, Scale, activation, by_rows, he_orthogonal, mean_of_two


@dataclass(frozen=True, kw_only=True, eq=False)
class Bases:
    """What all interactions of a batch share.

    Attributes:
        graph: edges.
        rbf3: (e, r) radial basis of the triplet interaction.
        rbf_h: (e, r) of the update of the atoms.
        weighted: (n, k c, h) see ``AngularBasis``; for each atom those of the edges that lead to it.
        harmonics: (n, k, h) the same.
        own: (n, k, c) the same.
    """

    graph: CrystalGraph
    rbf3: Float[Tensor, "e r"]
    rbf_h: Float[Tensor, "e r"]
    weighted: Float[Tensor, "n kc h"]
    harmonics: Float[Tensor, "n k h"]
    own: Float[Tensor, "n k c"]


class TripletInteraction(nn.Module):
    """Every edge c -> a gathers from the other edges b -> a, by the angle between them (GemNet, eq. 8)."""

    def __init__(self, width: int, trip: int, bilinear: int, rbf: int, cbf: int):
        super().__init__()
        self.dense_ba = Dense(width, width, active=True)
        self.mlp_rbf = Dense(rbf, width)
        self.scale_rbf = Scale()
        self.down_projection = Dense(width, trip, active=True)
        self.mlp_cbf = Bilinear(trip, cbf, bilinear)
        self.scale_cbf_sum = Scale()
        self.up_projection_ca = Dense(bilinear, width, active=True)
        self.up_projection_ac = Dense(bilinear, width, active=True)

    def forward(self, m: Float[Tensor, "e w"], bases: Bases) -> Float[Tensor, "e o"]:
        """What each edge gathers; ``message`` makes messages of it."""
        return self.scale_cbf_sum(self.mlp_cbf(by_rows(self._sent, m, bases.rbf3), bases))

    def _sent(self, m: Float[Tensor, "e w"], rbf: Float[Tensor, "e r"]) -> Float[Tensor, "e i"]:
        """What each edge has to tell."""
        return self.down_projection(self.scale_rbf(self.dense_ba(m) * self.mlp_rbf(rbf)))

    def message(self, y: Float[Tensor, "e o"], mirrored: Float[Tensor, "e o"]) -> Float[Tensor, "e w"]:
        """Messages to the edges, of what they and their mirror images gathered."""
        return mean_of_two(self.up_projection_ca(y), self.up_projection_ac(mirrored))


class Bilinear(nn.Module):
    """``y[e, o] = sum over e', c, i of basis[e, e', c] x[e', i] W[i, c, o]``, with all other edges e' to e's target."""

    def __init__(self, trip: int, cbf: int, out: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(trip, cbf, out))
        he_orthogonal(self.weight)

    def forward(self, x: Float[Tensor, "e i"], bases: Bases) -> Float[Tensor, "e o"]:
        """Apply; the sum over all edges of an atom is taken first, and an edge's own part taken off."""
        edges = bases.graph.by_target(x)
        at_atoms = torch.bmm(bases.harmonics.mT, edges)
        gathered = torch.bmm(bases.weighted, at_atoms).unflatten(1, bases.own.shape[1:])
        own = bases.own.to(x.dtype)
        others = torch.addcmul(gathered, own.unsqueeze(-1), edges.unsqueeze(-2), value=-1)
        return bases.graph.by_edge(others.flatten(2) @ self.weight.transpose(0, 1).flatten(0, 1))


class AtomUpdate(nn.Module):
    """Atoms gather from their edges."""

    def __init__(self, width: int, rbf: int):
        super().__init__()
        self.dense_rbf = Dense(rbf, width)
        self.scale_sum = Scale()
        self.layers = nn.Sequential(Dense(width, width, active=True), *(Residual(width) for _ in range(3)))

    def forward(self, m: Float[Tensor, "e w"], bases: Bases) -> Float[Tensor, "n w"]:
        """Messages to the atoms."""
        return self.layers(self.scale_sum(bases.graph.sum_at_targets(m * self.dense_rbf(bases.rbf_h))))


class EdgeEmbedding(nn.Module):
    """Features of an edge from those of its atoms and its own."""

    def __init__(self, width_atom: int, width_edge: int, width_out: int):
        super().__init__()
        self.dense = Dense(2 * width_atom + width_edge, width_out, active=True)

    def forward(
        self,
        h: Float[Tensor, "n a"],
        edge: Float[Tensor, "e b"],
        source: Int[Tensor, " e"],
        target: Int[Tensor, " e"],
    ) -> Float[Tensor, "e w"]:
        """``Dense([h_source, h_target, edge])``; what belongs to atoms is multiplied once an atom, not once an edge."""
        a = h.shape[-1]
        of_source, of_target, own = self.dense.linear.weight.split([a, a, edge.shape[-1]], dim=1)
        starts, ends = h @ of_source.T, h @ of_target.T

        def embedded(edge: Tensor, source: Tensor, target: Tensor) -> Tensor:
            return activation(edge @ own.T + starts.index_select(0, source) + ends.index_select(0, target))

        return by_rows(embedded, edge, source, target)


class InteractionBlock(nn.Module):
    """One interaction."""

    def __init__(self, width: int, trip: int, bilinear: int, rbf: int, cbf: int):
        super().__init__()
        self.dense_ca = Dense(width, width, active=True)
        self.trip_interaction = TripletInteraction(width, trip, bilinear, rbf, cbf)
        self.layers_before_skip = nn.Sequential(Residual(width))
        self.layers_after_skip = nn.Sequential(Residual(width), Residual(width))
        self.atom_update = AtomUpdate(width, rbf)
        self.concat_layer = EdgeEmbedding(width, width, width)
        self.residual_m = nn.Sequential(Residual(width))

    def forward(
        self, h: Float[Tensor, "n w"], m: Float[Tensor, "e w"], bases: Bases
    ) -> tuple[Float[Tensor, "n w"], Float[Tensor, "e w"]]:
        """New features of atoms and edges."""
        gathered = self.trip_interaction(m, bases)
        m = by_rows(self._edges, m, gathered, gathered.index_select(0, bases.graph.mirror))
        h = mean_of_two(h, self.atom_update(m, bases))
        q = self.concat_layer(h, m, bases.graph.source, bases.graph.target)
        return h, by_rows(lambda m, q: mean_of_two(m, self.residual_m(q)), m, q)

    def _edges(
        self, m: Float[Tensor, "e w"], gathered: Float[Tensor, "e o"], mirrored: Float[Tensor, "e o"]
    ) -> Float[Tensor, "e w"]:
        """Edges after the triplet interaction."""
        x = mean_of_two(self.dense_ca(m), self.trip_interaction.message(gathered, mirrored))
        return self.layers_after_skip(mean_of_two(m, self.layers_before_skip(x)))
