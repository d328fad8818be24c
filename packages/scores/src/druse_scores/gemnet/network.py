"""The network."""

from typing import cast

import torch
from druse_crystal import CrystalBatch
from druse_diffusion import NUM_CLASSES, Conditions, Prediction
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from druse_scores.gemnet.bases import AngularBasis, RadialBasis, weighted
from druse_scores.gemnet.conditions import PropertyEmbedding, Sinusoid
from druse_scores.gemnet.config import GemNetConfig
from druse_scores.gemnet.graph import CrystalGraph, crystal_graph
from druse_scores.gemnet.heads import ForceHead, LatticeHead, lattice_tensor
from druse_scores.gemnet.interaction import Bases, EdgeEmbedding, InteractionBlock
from druse_scores.gemnet.layers import Dense, by_rows


class SpeciesEmbedding(nn.Module):
    """A vector for each element, and one for the mask."""

    def __init__(self, width: int):
        super().__init__()
        self.embeddings = nn.Embedding(NUM_CLASSES, width)
        nn.init.uniform_(self.embeddings.weight, -(3**0.5), 3**0.5)


class GemNetCore(nn.Module):
    """Everything between the embedding of the time and the heads of the species."""

    def __init__(self, config: GemNetConfig):
        super().__init__()
        c = config
        told = 1 + len(c.base_properties)
        self.radial_basis = RadialBasis(c.num_radial, c.cutoff)
        self.mlp_rbf3, self.mlp_rbf_h, self.mlp_rbf_out, self.mlp_rbf_lattice = (
            Dense(c.num_radial, c.rbf) for _ in range(4)
        )
        self.mlp_cbf3 = AngularBasis(c.num_spherical, c.num_radial, c.cbf)
        self.atom_emb = SpeciesEmbedding(c.hidden)
        self.atom_latent_emb = nn.Linear((1 + told) * c.hidden, c.hidden)
        self.edge_emb = EdgeEmbedding(c.hidden, c.num_radial, c.hidden)
        self.angle_edge_emb = nn.Sequential(nn.Linear(c.hidden + 3, c.hidden), nn.ReLU(), nn.Linear(c.hidden, c.hidden))
        self.int_blocks = nn.ModuleList(
            InteractionBlock(c.hidden, c.trip, c.bilinear, c.rbf, c.cbf) for _ in range(c.num_blocks)
        )
        self.out_blocks = nn.ModuleList(ForceHead(c.hidden, c.rbf) for _ in range(c.num_blocks + 1))
        self.lattice_out_blocks = nn.ModuleList(LatticeHead(c.hidden, c.rbf) for _ in range(c.num_blocks + 1))
        if c.adapter_properties:
            self.cond_adapt_layers = nn.ModuleDict(
                {
                    p.name: nn.ModuleList(
                        nn.Sequential(nn.Linear(2 * c.hidden, c.hidden), nn.ReLU(), nn.Linear(c.hidden, c.hidden))
                        for _ in range(c.num_blocks)
                    )
                    for p in c.adapter_properties
                }
            )
            self.cond_mixin_layers = nn.ModuleDict(
                {
                    p.name: nn.ModuleList(_zero(nn.Linear(c.hidden, c.hidden, bias=False)) for _ in range(c.num_blocks))
                    for p in c.adapter_properties
                }
            )


class GemNet(nn.Module):
    """A published score network, as a ``ScoreModel``.

    Its outputs are ``sigma * score`` of the fractional coordinates, which the network makes as displacements
    ``F L^-1`` of Cartesian forces ``F`` (arXiv:2312.03687, appendix B), ``std * score`` of the lattice, and logits.

    Args:
        config: sizes, and properties that it knows.
        mixed_precision: multiply matrices in bfloat16; edges and outputs stay in the precision of the crystals. It pays
            where the hardware has such products (``has_bfloat16``).
    """

    def __init__(self, config: GemNetConfig, *, mixed_precision: bool = False):
        super().__init__()
        self.config, self.mixed_precision = config, mixed_precision
        self.noise_level_encoding = Sinusoid(config.hidden)
        self.gemnet = GemNetCore(config)
        self.fc_atom = nn.Linear(config.hidden, NUM_CLASSES)
        self.property_embeddings = _embeddings(config, adapter=False)
        self.property_embeddings_adapt = _embeddings(config, adapter=True)

    def forward(self, noisy: CrystalBatch, t: Float[Tensor, " b"], conditions: Conditions | None = None) -> Prediction:
        """Predict.

        Args:
            noisy: crystals at t.
            t: (b,) times.
            conditions: properties, numbers standardised; those that are not given are not told.

        Raises:
            ValueError: for a property that it does not know.
        """
        conditions = conditions or Conditions()
        for name in conditions.values:
            if name not in self.property_embeddings and name not in self.property_embeddings_adapt:
                known = ", ".join(p.name for p in self.config.properties) or "none"
                raise ValueError(f"the model was asked for {name} and knows of properties {known}")
        graph = self.graph(noisy)
        with torch.autocast(noisy.device.type, torch.bfloat16, enabled=self.mixed_precision):
            out = self.score(noisy, graph, t, conditions)
        dtype = noisy.lattice.dtype
        return Prediction(
            lattice=out.lattice.to(dtype),
            frac_coords=out.frac_coords.to(dtype),
            species_logits=out.species_logits.to(dtype),
        )

    def graph(self, noisy: CrystalBatch) -> CrystalGraph:
        """The edges that it sees."""
        c = self.config
        return crystal_graph(
            noisy, cutoff=c.cutoff, max_neighbors=c.max_neighbors, max_images=c.max_images, rule=c.graph
        )

    def score(
        self, noisy: CrystalBatch, graph: CrystalGraph, t: Float[Tensor, " b"], conditions: Conditions
    ) -> Prediction:
        """Predict on given edges."""
        core, of_atom = self.gemnet, noisy.crystal_index
        rbf = core.radial_basis(graph.distances)
        radial, harmonics, own = core.mlp_cbf3(rbf, graph.directions)
        at_atoms = graph.by_target(harmonics)
        bases = Bases(
            graph=graph,
            rbf3=core.mlp_rbf3(rbf),
            rbf_h=core.mlp_rbf_h(rbf),
            weighted=weighted(graph.by_target(radial), at_atoms).flatten(1, 2),
            harmonics=at_atoms,
            own=graph.by_target(own),
        )
        rbf_out, rbf_lattice = core.mlp_rbf_out(rbf), core.mlp_rbf_lattice(rbf)

        told = self.told(t, conditions)
        h = core.atom_latent_emb(torch.cat([core.atom_emb.embeddings(noisy.atomic_numbers - 1), told[of_atom]], -1))
        m = core.edge_emb(h, rbf, graph.source, graph.target)
        along = cosine_similarity(graph.directions.unsqueeze(1), noisy.lattice[graph.crystal], dim=-1)
        m = by_rows(lambda m, along: core.angle_edge_emb(torch.cat([m, along], -1)), m, along)

        adapted = self.adapted(conditions)
        force, tensor = by_rows(core.out_blocks[0], m, rbf_out), by_rows(core.lattice_out_blocks[0], m, rbf_lattice)
        for i, block in enumerate(core.int_blocks):
            h = h + self.mixed_in(i, h, adapted, of_atom)
            h, m = block(h, m, bases)
            force = force + by_rows(core.out_blocks[i + 1], m, rbf_out)
            tensor = tensor + by_rows(core.lattice_out_blocks[i + 1], m, rbf_lattice)

        forces = graph.sum_at_targets(force * graph.directions)
        inverse = torch.linalg.inv(noisy.lattice)
        return Prediction(
            lattice=lattice_tensor(tensor, graph),
            frac_coords=torch.einsum("ni,nij->nj", forces, inverse[of_atom]),
            species_logits=self.fc_atom(h),
        )

    def told(self, t: Float[Tensor, " b"], conditions: Conditions) -> Float[Tensor, "b w"]:
        """Time and the properties that stand beside it."""
        parts = [self.noise_level_encoding(t)]
        for known in self.config.base_properties:
            embedding = self.property_embeddings[known.name]
            assert isinstance(embedding, PropertyEmbedding)
            part = embedding.unconditional_embedding_module.embedding.weight.expand(len(t), -1)
            if known.name in conditions.values:
                given = conditions.given[known.name].unsqueeze(-1)
                part = torch.where(given, embedding(conditions.values[known.name]), part)
            parts.append(part)
        return torch.cat(parts, -1)

    def adapted(self, conditions: Conditions) -> dict[str, tuple[Tensor, Tensor]]:
        """Of each adapter's property that is told its embedding, and which crystals have it."""
        return {
            p.name: (self.property_embeddings_adapt[p.name](conditions.values[p.name]), conditions.given[p.name])
            for p in self.config.adapter_properties
            if p.name in conditions.values
        }

    def mixed_in(
        self, block: int, h: Float[Tensor, "n w"], adapted: dict[str, tuple[Tensor, Tensor]], of_atom: Tensor
    ) -> Float[Tensor, "n w"] | float:
        """What the adapters add to the atoms before an interaction."""
        total: Tensor | float = 0.0
        for name, (embedding, given) in adapted.items():
            layers = cast(nn.ModuleList, self.gemnet.cond_adapt_layers[name])
            mixins = cast(nn.ModuleList, self.gemnet.cond_mixin_layers[name])
            told = mixins[block](layers[block](torch.cat([h, embedding[of_atom]], -1)))
            total = total + torch.where(given[of_atom].unsqueeze(-1), told, 0.0)
        return total


def _embeddings(config: GemNetConfig, *, adapter: bool) -> nn.ModuleDict:
    known = config.adapter_properties if adapter else config.base_properties
    return nn.ModuleDict({p.name: PropertyEmbedding(p, config.hidden) for p in known})


def _zero(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    return layer
