"""Edges between near atoms, by the published rule or by one that does not depend on the order of the atoms."""

from dataclasses import dataclass

import torch
from druse_crystal import CrystalBatch
from druse_crystal.lattice import heights
from druse_crystal.neighbors import neighbors
from jaxtyping import Float, Int
from torch import Tensor

_SAME_PLACE = 1e-4  # squared distance in Å² up to which two atoms are no neighbours
_PAIRS = 4_000_000  # distances looked at together, which bounds the memory


@dataclass(frozen=True, kw_only=True, eq=False)
class CrystalGraph:
    """Directed edges in the order of their targets, each with its mirror image.

    Attributes:
        source: (e,) atom of the batch.
        target: (e,) atom of the batch; ascending.
        shifts: (e, 3) lattice translations of the source.
        distances: (e,) in Å, differentiable.
        directions: (e, 3) unit vectors from the source to the target, differentiable.
        mirror: (e,) position of the edge that leads back.
        degree: (n,) edges that lead to each atom.
        crystal: (e,) of each edge.
        sizes: (b,) edges of each crystal.
        slot: (e,) place of each edge in an array of ``longest`` places for every atom.
        longest: most edges that lead to one atom.
    """

    source: Int[Tensor, " e"]
    target: Int[Tensor, " e"]
    shifts: Int[Tensor, "e 3"]
    distances: Float[Tensor, " e"]
    directions: Float[Tensor, "e 3"]
    mirror: Int[Tensor, " e"]
    degree: Int[Tensor, " n"]
    crystal: Int[Tensor, " e"]
    sizes: Int[Tensor, " b"]
    slot: Int[Tensor, " e"]
    longest: int

    def __len__(self) -> int:
        return len(self.source)

    def by_target(self, values: Float[Tensor, "e *s"]) -> Float[Tensor, "n k *s"]:
        """Values of edges in a row for each atom that they lead to, with zeros at the end."""
        rows = values.new_zeros(len(self.degree) * self.longest, *values.shape[1:])
        return rows.index_copy(0, self.slot, values).unflatten(0, (len(self.degree), self.longest))

    def by_edge(self, values: Float[Tensor, "n k *s"]) -> Float[Tensor, "e *s"]:
        """The inverse of ``by_target``."""
        return values.flatten(0, 1).index_select(0, self.slot)

    def sum_at_targets(self, values: Float[Tensor, "e *s"]) -> Float[Tensor, "n *s"]:
        """Sums over the edges that lead to each atom."""
        return values.new_zeros(len(self.degree), *values.shape[1:]).index_add(0, self.target, values)


def crystal_graph(
    batch: CrystalBatch, *, cutoff: float, max_neighbors: int, max_images: int, rule: str = "published"
) -> CrystalGraph:
    """The edges of a batch.

    Both rules look at the nearest ``max_neighbors`` atoms of each atom within the cutoff. The published one then keeps,
    of each pair of atoms, what the later one sees of the earlier one, and of an atom's own images one of two opposite
    ones, and mirrors them. So the order of the atoms matters where neighbours are cut off, and ties are decided by
    rounding. The symmetric rule keeps what either end sees, ties included.

    Args:
        batch: crystals.
        cutoff: in Å.
        max_neighbors: of each atom.
        max_images: of the published rule, see ``GemNetConfig``.
        rule: ``published`` or ``symmetric``.
    """
    with torch.no_grad():
        if rule == "published":
            half = published_half(batch, cutoff=cutoff, max_neighbors=max_neighbors, max_images=max_images)
        else:
            half = symmetric_half(batch, cutoff=cutoff, max_neighbors=max_neighbors)
    return mirrored(batch, *half)


def published_half(
    batch: CrystalBatch, *, cutoff: float, max_neighbors: int, max_images: int
) -> tuple[Int[Tensor, " h"], Int[Tensor, " h"], Int[Tensor, "h 3"]]:
    """Source, target and shifts of the edges that are kept before they are mirrored."""
    found = nearest(batch, cutoff=cutoff, max_neighbors=max_neighbors, max_images=max_images)
    return _half(*found)


def nearest(
    batch: CrystalBatch, *, cutoff: float, max_neighbors: int, max_images: int
) -> tuple[Int[Tensor, " f"], Int[Tensor, " f"], Int[Tensor, "f 3"]]:
    """Source, target and shifts of the nearest neighbours of each atom, targets ascending."""
    whole = batch.frac_coords.floor()
    batch = batch.replace(frac_coords=batch.frac_coords - whole)
    reach = (cutoff / heights(batch.lattice)).nan_to_num(posinf=max_images).ceil().clamp(1, max_images).long()
    images = (2 * reach + 1).prod(-1)
    work = images * batch.num_atoms**2
    parts, first = [], 0
    for last in _parts(work.tolist()):
        parts.append(_within_cutoff(batch, reach, cutoff, first, last))
        first = last
    source, target, shifts, squared = (torch.cat(values) for values in zip(*parts, strict=True))
    order = torch.argsort(squared, stable=True)
    order = order[torch.argsort(target[order], stable=True)]
    kept = order[_running(torch.bincount(target, minlength=len(batch.frac_coords))) < max_neighbors].sort().values
    source, target = source[kept], target[kept]
    return source, target, shifts[kept] - (whole[source] - whole[target]).long()


def symmetric_half(
    batch: CrystalBatch, *, cutoff: float, max_neighbors: int
) -> tuple[Int[Tensor, " h"], Int[Tensor, " h"], Int[Tensor, "h 3"]]:
    """One of the two directions of every edge that either end has among its nearest neighbours."""
    found = neighbors(batch, cutoff=cutoff, k=max_neighbors, keep_ties=True)
    apart = found.distances.square() > _SAME_PLACE
    source, target, shifts = found.source[apart], found.target[apart], found.shifts[apart]
    source, target = torch.cat([source, target]), torch.cat([target, source])
    rows = torch.column_stack([target, source, torch.cat([shifts, -shifts])]).unique(dim=0)
    return _half(rows[:, 1], rows[:, 0], rows[:, 2:])


def mirrored(
    batch: CrystalBatch, source: Int[Tensor, " h"], target: Int[Tensor, " h"], shifts: Int[Tensor, "h 3"]
) -> CrystalGraph:
    """The graph of edges and their mirror images."""
    half = len(source)
    source, target = torch.cat([source, target]), torch.cat([target, source])
    shifts = torch.cat([shifts, -shifts])
    order = torch.argsort(target, stable=True)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device)
    mirror = place[(order + half) % max(1, 2 * half)]
    source, target, shifts = source[order], target[order], shifts[order]
    crystal = batch.crystal_index[target]
    step = batch.frac_coords[source] + shifts - batch.frac_coords[target]
    vectors = torch.einsum("ei,eij->ej", step, batch.lattice[crystal])
    distances = vectors.norm(dim=-1)
    degree = torch.bincount(target, minlength=len(batch.frac_coords))
    longest = int(degree.max())
    return CrystalGraph(
        source=source,
        target=target,
        shifts=shifts,
        distances=distances,
        directions=-vectors / distances.unsqueeze(-1),
        mirror=mirror,
        degree=degree,
        crystal=crystal,
        sizes=torch.bincount(crystal, minlength=len(batch)),
        slot=target * longest + _running(degree),
        longest=longest,
    )


def _half(source: Tensor, target: Tensor, shifts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Edges from an earlier to a later atom, and of an atom to itself those whose shift begins with a minus."""
    first = shifts.gather(-1, (shifts != 0).int().argmax(-1, keepdim=True)).squeeze(-1)
    kept = (source < target) | ((source == target) & (first < 0))
    return source[kept], target[kept], shifts[kept]


def _within_cutoff(
    batch: CrystalBatch, reach: Tensor, cutoff: float, first: int, last: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """All pairs and images within the cutoff of the crystals from ``first`` to before ``last``."""
    n, reach, lattice = batch.num_atoms[first:last], reach[first:last], batch.lattice[first:last]
    images = (2 * reach + 1).prod(-1)
    start = int(batch.num_atoms[:first].sum()) + (n.cumsum(0) - n)

    number = _running(images)  # of an image within its crystal
    widths = (2 * reach + 1).repeat_interleave(images, 0)
    digits = [number // (widths[:, 1] * widths[:, 2]), number // widths[:, 2] % widths[:, 1], number % widths[:, 2]]
    shifts = torch.stack(digits, -1) - reach.repeat_interleave(images, 0)
    offsets = torch.einsum("mi,mij->mj", shifts.to(lattice.dtype), lattice.repeat_interleave(images, 0))

    pairs = n**2
    crystal = torch.repeat_interleave(pairs)
    number = _running(pairs)
    target, source = start[crystal] + number // n[crystal], start[crystal] + number % n[crystal]
    step = batch.frac_coords[source] - batch.frac_coords[target]
    vectors = torch.einsum("pi,pij->pj", step, lattice[crystal])

    tried = images[crystal]
    pair = torch.repeat_interleave(tried)
    image = _running(tried) + (images.cumsum(0) - images)[crystal][pair]
    squared = (vectors[pair] + offsets[image]).square().sum(-1)
    hit = ((squared <= cutoff**2) & (squared > _SAME_PLACE)).nonzero().squeeze(-1)
    pair = pair[hit]
    return source[pair], target[pair], shifts[image[hit]], squared[hit]


def _parts(work: list[int]) -> list[int]:
    """Ends of runs of crystals whose work adds up to what is looked at together, or of single crystals."""
    ends, total = [], 0
    for i, cost in enumerate(work):
        if total and total + cost > _PAIRS:
            ends.append(i)
            total = 0
        total += cost
    return [*ends, len(work)]


def _running(counts: Tensor) -> Tensor:
    """0, 1, ... counts[0] - 1, 0, 1, ... counts[1] - 1, and so on."""
    starts = counts.cumsum(0) - counts
    return torch.arange(int(counts.sum()), device=counts.device) - starts.repeat_interleave(counts)
