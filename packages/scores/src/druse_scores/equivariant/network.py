"""The pair network: Druse's own score model.

O(3)-equivariant, periodic, permutation-equivariant. Two views of the same pairs feed one message: sums over periodic
images of e3nn spherical harmonics (what an atom's surroundings look like) and Fourier components of fractional
differences (where the pair sits in the cell).
"""

import math
from dataclasses import asdict, dataclass, replace

import torch
from druse_crystal import CrystalBatch
from druse_diffusion import MASK, NUM_CLASSES, NUM_ELEMENTS, Conditions, LatticeVP, Prediction, WrappedVE
from druse_diffusion.coordinates import wrapped_normal_score
from e3nn import o3
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from druse_scores.adaptation import Adaptation
from druse_scores.embeddings import sinusoidal
from druse_scores.equivariant.geometry import CrystalFrame, PairGeometry, crystal_frame, pair_geometry
from druse_scores.equivariant.layers import Interaction, rms_norm, zero_linear

_NO_CLASS = -1e4  # logit of the mask class: data hold no masked atoms
_COPY = 12.0  # logit that an atom with a known element gives to that element


@dataclass(frozen=True, kw_only=True)
class PairNetworkConfig:
    """Size of a pair network.

    Attributes:
        width: scalar channels of an atom.
        pair_width: channels of a pair.
        message_width: channels of the message from one atom to another.
        vector_width: channels of vectors and of tensors.
        num_layers: interactions.
        num_radial: Gaussians of the radial basis of vectors and tensors.
        num_distances: Gaussians of the finer radial basis of scalars.
        num_harmonics: Fourier components along each lattice axis.
        num_neighbors: neighbours within reach of an atom, images counted.
        cutoff: Å.
        lattice_spread: root mean square of ``(L_0 - mu I) / N^(1/3)`` over the entries of training lattices, Å.
    """

    width: int = 128
    pair_width: int = 64
    message_width: int = 64
    vector_width: int = 32
    num_layers: int = 4
    num_radial: int = 16
    num_distances: int = 32
    num_harmonics: int = 8
    num_neighbors: int = 32
    cutoff: float = 6.0
    lattice_spread: float = 0.7

    def __post_init__(self):
        for name, value in asdict(self).items():
            whole = isinstance(value, int) and not isinstance(value, bool)
            if name in ("cutoff", "lattice_spread"):
                if not ((whole or isinstance(value, float)) and 0 < value < math.inf):
                    raise ValueError(f"{name} is {value!r}, it must be a positive number of Å")
            elif not (whole and value > 0):
                raise ValueError(f"{name} is {value!r}, it must be a positive whole number")


class PairNetwork(nn.Module):
    """Scores and species of noisy crystals.

    The network is told which elements the crystal holds already, how many, and in what shares: whether a masked atom
    brings another one is a property of the whole cell, which messages between pairs count badly.

    The heads are preconditioned: the lattice head adds to the best linear guess, the coordinate head is scaled by the
    expected size of its target (Karras et al., arXiv:2206.00364, section 5, for the idea), both end in zero-initialised
    layers.

    Args:
        config: sizes.
        mixed_precision: compute the learnt part's matrix products in bfloat16 (geometry and heads stay as they are).
    """

    matrix_from_2e: Tensor
    target_size: Tensor

    def __init__(self, config: PairNetworkConfig, *, mixed_precision: bool = False):
        super().__init__()
        self.config = c = config
        self.mixed_precision = mixed_precision
        self.coordinates, self.lattice = WrappedVE(), LatticeVP()
        self.condition = nn.Sequential(nn.Linear(64 + 16 + 7, c.width), nn.SiLU(), nn.Linear(c.width, c.width))
        self.composition = nn.Sequential(
            nn.Linear(NUM_CLASSES + NUM_ELEMENTS + _MOST_ELEMENTS, c.width), nn.SiLU(), zero_linear(c.width, c.width)
        )
        self.species = nn.Embedding(NUM_CLASSES, c.width)
        self.pairs = nn.Sequential(
            nn.Linear(c.num_distances + 6 * c.num_harmonics, c.width), nn.SiLU(), nn.Linear(c.width, c.pair_width)
        )
        self.layers = nn.ModuleList(
            Interaction(
                width=c.width,
                pair_width=c.pair_width,
                message_width=c.message_width,
                vector_width=c.vector_width,
                num_radial=c.num_radial,
                condition_width=c.width,
                first=i == 0,
                last=i + 1 == c.num_layers,
            )
            for i in range(c.num_layers)
        )
        self.head = nn.Sequential(nn.LayerNorm(c.width), nn.Linear(c.width, c.width), nn.SiLU())
        self.species_head = zero_linear(c.width, NUM_ELEMENTS)
        self.again_head = zero_linear(c.width, 1)
        self.atom_head = zero_linear(c.width, 2 * c.vector_width + 3)
        self.crystal_head = nn.Sequential(nn.Linear(3 * c.width, c.width), nn.SiLU(), zero_linear(c.width, 6))
        # the five symmetric traceless matrices that 2e stands for
        self.register_buffer("matrix_from_2e", 5**0.5 * o3.wigner_3j(1, 1, 2), persistent=False)
        self.register_buffer("target_size", _target_sizes(), persistent=False)

    def deepened(self, num_layers: int) -> "PairNetwork":
        """The same function with more interactions; the new ones, before the last, start as the identity.

        Raises:
            ValueError: if it has as many interactions already.
        """
        c = self.config
        if num_layers <= c.num_layers or c.num_layers < 2:
            raise ValueError(f"a network of {c.num_layers} interactions cannot be deepened to {num_layers}")
        deeper = PairNetwork(replace(c, num_layers=num_layers), mixed_precision=self.mixed_precision)
        deeper = deeper.to(self.species.weight)  # device and floating type
        for name, module in self.named_children():
            if name != "layers":
                getattr(deeper, name).load_state_dict(module.state_dict())
        for old, new in zip(self.layers[:-1], deeper.layers, strict=False):
            new.load_state_dict(old.state_dict())
        deeper.layers[-1].load_state_dict(self.layers[-1].state_dict())
        for layer in deeper.layers[c.num_layers - 1 : -1]:
            assert isinstance(layer, Interaction)
            layer.become_identity()
        return deeper

    def forward(
        self,
        noisy: CrystalBatch,
        t: Float[Tensor, " b"],
        conditions: Conditions | None = None,
        *,
        adaptation: Adaptation | None = None,
    ) -> Prediction:
        """Predict.

        Args:
            noisy: crystals at t.
            t: (b,) times.
            conditions: none; a network by itself knows no properties.
            adaptation: what an adapter does to the features on their way.

        Raises:
            ValueError: for conditions.
        """
        if conditions is not None and conditions.values:
            raise ValueError(
                f"the model was asked for {', '.join(sorted(conditions.values))} and knows no properties: add an "
                "adapter that was trained on them"
            )
        n = noisy.num_atoms
        longest = int(n.max())
        is_atom = torch.arange(longest, device=noisy.device) < n[:, None]
        frac_coords = noisy.frac_coords.new_zeros(len(n), longest, 3)
        frac_coords[is_atom] = noisy.frac_coords
        numbers = torch.full((len(n), longest), MASK, device=noisy.device)
        numbers[is_atom] = noisy.atomic_numbers
        lattice, coords, logits = self.predict(noisy.lattice, frac_coords, numbers, is_atom, n, t, adaptation)
        return Prediction(lattice=lattice, frac_coords=coords[is_atom], species_logits=logits[is_atom])

    def predict(
        self,
        lattice: Float[Tensor, "B 3 3"],
        frac_coords: Float[Tensor, "B N 3"],
        atomic_numbers: Int[Tensor, "B N"],
        is_atom: Bool[Tensor, "B N"],
        num_atoms: Int[Tensor, " B"],
        t: Float[Tensor, " B"],
        adaptation: Adaptation | None = None,
    ) -> tuple[Float[Tensor, "B 3 3"], Float[Tensor, "B N 3"], Float[Tensor, "B N K"]]:
        """The network on a padded batch."""
        c = self.config
        with torch.no_grad():
            cell = crystal_frame(lattice, num_atoms)
            geometry = pair_geometry(
                lattice,
                frac_coords,
                is_atom,
                cutoff=c.cutoff,
                num_neighbors=c.num_neighbors,
                num_radial=c.num_radial,
                num_distances=c.num_distances,
                num_harmonics=c.num_harmonics,
            )
        with torch.autocast(lattice.device.type, torch.bfloat16, enabled=self.mixed_precision):
            return self.score(cell, geometry, atomic_numbers, is_atom, num_atoms, t, adaptation)

    def score(
        self,
        cell: CrystalFrame,
        geometry: PairGeometry,
        atomic_numbers: Int[Tensor, "B N"],
        is_atom: Bool[Tensor, "B N"],
        num_atoms: Int[Tensor, " B"],
        t: Float[Tensor, " B"],
        adaptation: Adaptation | None = None,
    ) -> tuple[Float[Tensor, "B 3 3"], Float[Tensor, "B N 3"], Float[Tensor, "B N K"]]:
        """The learnt part: everything that needs a gradient."""
        c = self.config
        edge = num_atoms.to(t.dtype) ** (1 / 3)
        condition = self.condition(
            torch.cat(
                [
                    sinusoidal(1000 * t, 64, longest=2000.0),
                    sinusoidal(num_atoms.to(t.dtype), 16, longest=50.0),
                    cell.symmetric.flatten(1)[:, _UPPER] / edge[:, None] - 1.5,
                    cell.spacing.unsqueeze(-1) - 2.6,
                ],
                -1,
            )
        )
        share = t.new_zeros(len(t), NUM_CLASSES)  # of all atoms
        share = share.scatter_add(1, atomic_numbers - 1, is_atom.to(t.dtype)) / num_atoms.unsqueeze(-1)
        present = share[:, :NUM_ELEMENTS] > 0
        count = torch.nn.functional.one_hot(present.sum(-1).clamp(max=_MOST_ELEMENTS - 1), _MOST_ELEMENTS)
        condition = condition + self.composition(torch.cat([share, present, count], -1).to(t.dtype))
        if adaptation is not None:
            condition = adaptation.crystal(condition)
        batch, n = is_atom.shape
        h = self.species(atomic_numbers - 1)
        v = h.new_zeros(batch, n, 3, c.vector_width)
        tensors = h.new_zeros(batch, n, 5, c.vector_width)
        pairs = self.pairs(torch.cat([geometry.radial, geometry.phases], -1))
        weight = is_atom[:, None, :, None] / num_atoms[:, None, None, None] ** 0.5
        for i, layer in enumerate(self.layers):
            if adaptation is not None:
                h = adaptation.atoms(i, h)
            h, v, tensors, pairs = layer(h, v, tensors, pairs, geometry, condition, weight)
        if adaptation is not None:
            h = adaptation.atoms(len(self.layers), h)

        x = self.head(h)
        logits = self.species_head(x) + self.again_head(x) * present.unsqueeze(1)
        if adaptation is not None:
            logits = adaptation.species(x, logits)
        known = torch.nn.functional.one_hot(atomic_numbers - 1, NUM_CLASSES)[..., :NUM_ELEMENTS]
        logits = torch.cat([logits + _COPY * known, torch.full_like(logits[..., :1], _NO_CLASS)], -1)

        to_force, to_stress, direct = self.atom_head(x).to(t.dtype).split([c.vector_width, c.vector_width, 3], -1)
        force = (rms_norm(v.to(t.dtype)) * to_force.unsqueeze(-2)).sum(-1)
        inside = is_atom.unsqueeze(-1)
        coords = edge[:, None, None] * force @ cell.inverse + direct
        coords = (coords - (coords * inside).sum(1, keepdim=True) / num_atoms[:, None, None]) * inside
        coords = coords * self.expected_target(self.coordinates.sigma(t, num_atoms))[:, None, None]

        mean = (x * inside).sum(1) / num_atoms.unsqueeze(-1)
        largest = x.masked_fill(~inside, -torch.inf).amax(1)
        entries = self.crystal_head(torch.cat([mean, largest, condition], -1)).to(t.dtype)
        stress = ((rms_norm(tensors.to(t.dtype)) * to_stress.unsqueeze(-2)).sum(-1) * inside).sum(1)
        stress = stress / num_atoms.unsqueeze(-1)
        change = cell.frame.mT @ entries[:, _SYMMETRIC].unflatten(-1, (3, 3)) @ cell.frame
        change = change + torch.einsum("bk,xyk->bxy", stress, self.matrix_from_2e)
        return self.precondition_lattice(change, cell, num_atoms, t), coords, logits

    def precondition_lattice(
        self,
        change: Float[Tensor, "B 3 3"],
        cell: CrystalFrame,
        num_atoms: Int[Tensor, " B"],
        t: Float[Tensor, " B"],
    ) -> Float[Tensor, "B 3 3"]:
        """Best linear guess of the noise in the lattice, plus ``change`` scaled to what that guess leaves."""
        process = self.lattice
        std = process.std(t, num_atoms)
        spread = process.mean_coefficient(t) * self.config.lattice_spread * num_atoms.to(t.dtype) ** (1 / 3)
        total = spread**2 + std**2
        stretch = cell.frame.mT @ cell.symmetric @ cell.frame - process.prior_mean(num_atoms, t.dtype)
        return (spread / total.sqrt())[:, None, None] * change - (std / total)[:, None, None] * stretch

    def expected_target(self, sigma: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        """Root mean square of ``sigma * score`` of the wrapped normal, interpolated in log sigma."""
        start, stop = _SIGMA_RANGE
        last = len(self.target_size) - 1
        place = ((sigma.clamp(start, stop).log() - math.log(start)) / math.log(stop / start) * last).clamp(0, last)
        left = place.floor().long().clamp(max=last - 1)
        fraction = place - left
        return self.target_size[left] * (1 - fraction) + self.target_size[left + 1] * fraction


_MOST_ELEMENTS = 8  # different elements are told apart up to seven
_UPPER = [0, 1, 2, 4, 5, 8]  # upper triangle of a flattened 3x3 matrix
_SYMMETRIC = [0, 1, 2, 1, 3, 4, 2, 4, 5]  # and back: six numbers to a symmetric matrix
_SIGMA_RANGE = (1e-2, 6.0)


def _target_sizes(points: int = 96) -> Float[Tensor, " {points}"]:
    """Root mean square of ``sigma * score`` for widths even in their logarithm, by quadrature over the normal."""
    start, stop = _SIGMA_RANGE
    sigma = torch.exp(torch.linspace(math.log(start), math.log(stop), points, dtype=torch.float64))
    z = torch.linspace(-6, 6, 601, dtype=torch.float64)
    density = torch.exp(-0.5 * z**2)
    sizes = []
    for width in sigma:
        score = wrapped_normal_score((width * z).unsqueeze(-1), width.expand(len(z), 1)).squeeze(-1)
        sizes.append((((width * score) ** 2 * density).sum() / density.sum()).sqrt())
    return torch.stack(sizes).float()
