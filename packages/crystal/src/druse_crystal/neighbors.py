"""Periodic neighbours of all atoms of a batch, exact for every cell: skewed, flat, or with a single atom.

Two atoms of a cell can only be closer than the cutoff ``r`` through lattice translations of at most ``r/h + 1/2`` steps
along an axis, with ``h`` the distance between the cell's faces across that axis and the fractional difference taken in
[-1/2, 1/2]. All of them are tried, for all pairs of all crystals at once. Skewed cells are made compact first, which
changes nothing but the number of translations to try.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from druse_crystal.batch import CrystalBatch
from druse_crystal.crystal import Crystal
from druse_crystal.device import in_float64
from druse_crystal.lattice import heights

MAX_IMAGES = 10_000_000  # of one pair; more means that the cell has collapsed
MAX_REDUCTIONS = 50  # rounds of making a cell compact; any number gives the same neighbours
CHUNK = 2_000_000  # candidate pairs of atoms looked at together, which bounds the memory


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Neighbors:
    """Directed pairs of atoms, ``e`` of them, in the order of their targets.

    Attributes:
        source: (e,) index into the atoms of the batch: the neighbour.
        target: (e,) index into the atoms of the batch: the atom whose neighbour it is; ascending.
        shifts: (e, 3) integer lattice translations of the source.
        vectors: (e, 3) in Å from the target to the image of the source,
            ``(frac_coords[source] + shifts - frac_coords[target]) @ lattice``; differentiable in both.
    """

    source: Int[Tensor, " e"]
    target: Int[Tensor, " e"]
    shifts: Int[Tensor, "e 3"]
    vectors: Float[Tensor, "e 3"]

    def __len__(self) -> int:
        return len(self.source)

    @property
    def distances(self) -> Float[Tensor, " e"]:
        """Lengths of ``vectors`` in Å."""
        return self.vectors.norm(dim=-1)


def neighbors(
    batch: CrystalBatch, *, cutoff: float | Float[Tensor, " b"], k: int | None = None, keep_ties: bool = False
) -> Neighbors:
    """All pairs of atoms at most ``cutoff`` apart, or the ``k`` nearest of them for each atom.

    An atom is its own neighbour through a translation, never at distance zero. Two atoms at one place are neighbours.

    Args:
        batch: the crystals.
        cutoff: in Å, one for all or one per crystal.
        k: keep at most this many neighbours of each atom, the nearest ones; fewer where the cutoff holds fewer.
        keep_ties: with ``k``, also keep those as far away as the k-th nearest (within 0.001 Å). In a symmetric crystal
            which of several equal neighbours are kept is arbitrary otherwise, and sums over them are not equivariant.

    Raises:
        ValueError: if ``cutoff`` or ``k`` is not positive, or a cell is so flat that it has no countable neighbours.
    """
    cutoffs = torch.as_tensor(cutoff, dtype=batch.lattice.dtype, device=batch.device).expand(len(batch))
    if not bool((cutoffs > 0).all()) or not bool(torch.isfinite(cutoffs).all()):
        raise ValueError(f"the cutoff must be a positive number of Å, not {cutoff}")
    if k is not None and k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    with torch.no_grad():
        found = list(_search(batch, cutoffs))
        empty = torch.empty(0, dtype=torch.long, device=batch.device)
        source, target = (torch.cat([empty, *(part[i] for part in found)]) for i in (0, 1))
        shifts = torch.cat([empty.reshape(0, 3), *(part[2] for part in found)])
        if k is not None:
            squared = torch.cat([empty.to(batch.lattice.dtype), *(part[3] for part in found)])
            kept = _nearest(target, squared.sqrt(), k=k, num_targets=len(batch.frac_coords), keep_ties=keep_ties)
            source, target, shifts = source[kept], target[kept], shifts[kept]
    frac = batch.frac_coords[source] + shifts - batch.frac_coords[target]
    vectors = torch.einsum("ei,eij->ej", frac, batch.lattice[batch.crystal_index[target]])
    return Neighbors(source=source, target=target, shifts=shifts, vectors=vectors)


def min_distance(crystal: Crystal) -> float:
    """Shortest distance in Å between two atoms, periodic images of the same atom included.

    The cell is Minkowski-reduced first, so that the nearest image lies in a neighbouring cell, whatever its shape.
    """
    from ase.geometry import minkowski_reduce

    try:
        lattice, _ = minkowski_reduce(crystal.lattice)
    except RuntimeError:  # no reduction within ASE's limit of iterations: the cell is numerically flat
        lattice = crystal.lattice
    frac = crystal.cart_coords @ np.linalg.inv(lattice)
    difference = frac[:, None, :] - frac[None, :, :]
    difference = (difference - np.round(difference)) @ lattice
    shortest = np.inf
    for shift in itertools.product((-1, 0, 1), repeat=3):
        squared = np.square(difference + np.array(shift) @ lattice).sum(-1)
        if shift == (0, 0, 0):
            np.fill_diagonal(squared, np.inf)
        shortest = min(shortest, float(squared.min()))
    return math.sqrt(shortest)


def _search(batch: CrystalBatch, cutoffs: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Parts of the result: source, target, shifts and squared distances."""
    compact, combination = _compact(in_float64(batch.lattice))
    batch = batch.replace(
        lattice=compact.to(batch.lattice),
        frac_coords=_in_cell(batch.frac_coords, torch.linalg.inv(combination).round(), batch.crystal_index),
    )
    combination = combination.to(torch.int64).to(batch.device)
    steps = (cutoffs[:, None] / heights(batch.lattice) + 0.5 + 1e-4).floor()
    images = (2 * steps + 1).prod(-1)
    if not bool((images <= MAX_IMAGES).all()):
        worst = int(torch.argmax(torch.nan_to_num(images, nan=torch.inf)))
        raise ValueError(
            f"crystal {worst} of the batch has a cell too flat for a cutoff of {float(cutoffs[worst]):g} Å"
        )
    steps, num_images = steps.long(), images.long()

    translations, crystal_of_image = _translations(steps, num_images)
    offsets = torch.einsum("mi,mij->mj", translations.to(batch.lattice.dtype), batch.lattice[crystal_of_image])
    first_image = num_images.cumsum(0) - num_images
    squared_cutoffs = cutoffs**2

    num_atoms = batch.num_atoms
    num_partners = torch.repeat_interleave(num_atoms, num_atoms)  # of each atom
    first_atom = torch.repeat_interleave(num_atoms.cumsum(0) - num_atoms, num_atoms)
    crystal = batch.crystal_index
    for begin, end in _chunks((num_partners * num_images[crystal]).tolist()):
        partners = num_partners[begin:end]
        target = torch.repeat_interleave(torch.arange(begin, end, device=batch.device), partners)
        source = _within(partners) + torch.repeat_interleave(first_atom[begin:end], partners)
        of_pair = crystal[target]
        frac = batch.frac_coords[source] - batch.frac_coords[target]
        wrap = frac.round()
        nearest = torch.einsum("pi,pij->pj", frac - wrap, batch.lattice[of_pair])

        tried = num_images[of_pair]
        pair = torch.repeat_interleave(tried)
        image = _within(tried) + torch.repeat_interleave(first_image[of_pair], tried)
        squared = (nearest[pair] + offsets[image]).square().sum(-1)
        hit = (squared <= squared_cutoffs[of_pair][pair]).nonzero().squeeze(-1)
        pair, image, squared = pair[hit], image[hit], squared[hit]
        source, target, shifts = source[pair], target[pair], translations[image] - wrap[pair].long()
        other = (source != target) | (shifts != 0).any(-1)
        shifts = (shifts[:, :, None] * combination[of_pair[pair]]).sum(1)
        yield source[other], target[other], shifts[other], squared[other]


def _compact(old: Float64[Tensor, "b 3 3"]) -> tuple[Float64[Tensor, "b 3 3"], Float64[Tensor, "b 3 3"]]:
    """Lattices with short vectors, and the whole numbers by which they combine the old vectors.

    Whole multiples of one vector are taken off another as long as that makes it shorter.
    """
    combination = torch.eye(3, dtype=torch.float64, device=old.device).expand_as(old).clone()
    new = old
    for _ in range(MAX_REDUCTIONS):
        before = combination.clone()
        for i, j in itertools.permutations(range(3), 2):
            multiple = ((new[:, i] * new[:, j]).sum(-1) / new[:, j].square().sum(-1)).nan_to_num().round()
            combination[:, i] -= multiple[:, None] * combination[:, j]
            new = combination @ old
        if torch.equal(combination, before):
            break
    return new, combination


def _in_cell(frac_coords: Tensor, change: Tensor, crystal: Tensor) -> Tensor:
    frac = in_float64(frac_coords)
    return torch.einsum("ni,nij->nj", frac, change[crystal.to(frac.device)]).to(frac_coords)


def _translations(steps: Tensor, num_images: Tensor) -> tuple[Tensor, Tensor]:
    """All integer translations of every crystal one after the other, and the crystal of each."""
    crystal = torch.repeat_interleave(num_images)
    number = _within(num_images)
    widths = (2 * steps + 1)[crystal]
    third = number % widths[:, 2]
    second = (number // widths[:, 2]) % widths[:, 1]
    first = number // (widths[:, 2] * widths[:, 1])
    return torch.stack([first, second, third], -1) - steps[crystal], crystal


def _within(counts: Tensor) -> Tensor:
    """0, 1, ... counts[0] - 1, 0, 1, ... counts[1] - 1, and so on."""
    starts = counts.cumsum(0) - counts
    return torch.arange(int(counts.sum()), device=counts.device) - torch.repeat_interleave(starts, counts)


def _chunks(costs: list[int]) -> Iterator[tuple[int, int]]:
    """Ranges of atoms whose costs add up to at most ``CHUNK``, or of one atom."""
    begin, total = 0, 0
    for i, cost in enumerate(costs):
        if total and total + cost > CHUNK:
            yield begin, i
            begin, total = i, 0
        total += cost
    if costs:
        yield begin, len(costs)


def _nearest(target: Tensor, distances: Tensor, *, k: int, num_targets: int, keep_ties: bool) -> Tensor:
    """Positions of the k nearest of each target, in the order of the targets and then of the distance."""
    order = torch.argsort(distances, stable=True)
    order = order[torch.argsort(target[order], stable=True)]
    counts = torch.bincount(target, minlength=num_targets)
    rank = _within(counts)
    if not keep_ties:
        return order[rank < k]
    sorted_distances = distances[order]
    last = (counts.cumsum(0) - counts + counts.clamp_max(k) - 1).clamp_min(0)
    limit = torch.repeat_interleave(sorted_distances[last] if len(order) else counts.to(distances.dtype), counts)
    return order[(rank < k) | (sorted_distances <= limit + 1e-3)]
