"""Random sensible structures: a random cell, few symmetry operations, atoms that keep their distance.

In the manner of AIRSS (Pickard, Needs, J. Phys. Condens. Matter 23, 053201, 2011): volume and shortest distances are
those of known crystals, a random space group has one to four operations, everything else is left to chance and to the
relaxation that follows.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache, cached_property
from math import gcd

import numpy as np
from druse_crystal import Crystal, CrystalBatch
from druse_crystal.lattice import from_parameters
from druse_crystal.neighbors import neighbors
from druse_crystal.symmetry import primitive
from jaxtyping import Float64
from pymatgen.core import Lattice
from pymatgen.symmetry.groups import SpaceGroup

from druse_baselines.compositions import KnownCompositions
from druse_baselines.distances import ShortestDistances

# All space groups whose point group has so many operations.
SPACE_GROUPS = {
    1: (1,),
    2: tuple(range(2, 10)),
    3: tuple(range(143, 147)),
    4: (*range(10, 47), *range(75, 83)),
}
LENGTHS = (0.5, 1.5)  # of the edges of a cell, relative to each other
ANGLES = (60.0, 120.0)  # degrees
MIN_COMPACTNESS = 0.3  # volume of the cell over the product of its edges
MAX_TRIES = 100  # for the place of one atom and its images
MAX_DRAWS = 500  # of a composition and a cell for one crystal


class Airss:
    """Propose random crystals of one to four symmetry operations with sensible volumes and distances, without end.

    Compositions are drawn by ``KnownCompositions``. The number of operations is drawn from 1, 2, 3 and 4, then one of
    the space groups that have as many, not counting translations. All atoms are on general positions, so the
    composition is multiplied until every count is divisible by the number of operations; numbers of operations for
    which this exceeds ``max_atoms`` are not drawn. Atoms are placed one by one, with their images, at random points
    that are far enough from those placed before.

    Each crystal has its own random stream. The work for one draw is bounded by numbers of tries and not by a clock, so
    the same seed gives the same crystals on any machine.
    """

    name = "airss"

    def __init__(
        self,
        parents: Sequence[Crystal],
        *,
        max_atoms: int = 20,
        volume_factor: float = 1.2,
        distance_factor: float = 0.7,
    ):
        """Choose what is known.

        Args:
            parents: known crystals, the source of compositions, of volumes of atoms and of distances.
            max_atoms: most atoms in the primitive cell.
            volume_factor: volume of the cell over the sum of the volumes that its atoms take in known crystals.
            distance_factor: atoms keep this share of their ``ShortestDistances`` apart.

        Raises:
            ValueError: if no parent has at most ``max_atoms`` atoms.
        """
        self._known = KnownCompositions(parents, max_atoms=max_atoms)
        self.max_atoms = max_atoms
        self.volume_factor = volume_factor
        self.distance_factor = distance_factor

    def __call__(self, n: int, *, target: str | None = None, seed: int = 0) -> Iterator[Crystal]:
        """Propose ``n`` crystals: see ``Proposer``.

        Raises:
            ValueError: if the target does not fit into ``max_atoms``, or no parent has its elements or as many.
            RuntimeError: if the atoms of one crystal could not be placed in 500 draws.
        """
        wanted = self._known.check(target)
        for index in range(n):
            for draw in range(MAX_DRAWS):
                rng = np.random.default_rng((seed, index, draw))
                crystal = self._placed(self._known.draw(wanted, rng), rng)
                if crystal is not None:
                    yield crystal
                    break
            else:
                raise RuntimeError(
                    f"the atoms of a crystal found no place in {MAX_DRAWS} draws: "
                    f"raise volume_factor ({self.volume_factor}) or lower distance_factor ({self.distance_factor})"
                )

    @cached_property
    def _distances(self) -> ShortestDistances:
        return ShortestDistances(self._known.crystals)

    def _placed(self, counts: Mapping[int, int], rng: np.random.Generator) -> Crystal | None:
        """One draw; None if the atoms did not fit."""
        divisor = gcd(*counts.values())
        multiples = {order: order // gcd(order, divisor) for order in SPACE_GROUPS}
        size = sum(counts.values())
        orders = [order for order, multiple in multiples.items() if size * multiple <= self.max_atoms]
        order = int(rng.choice(orders))
        rotations, translations = operations(int(rng.choice(SPACE_GROUPS[order])))
        centring = len(rotations) // order  # lattice points in the cell
        volume = self.volume_factor * self._known.volumes.total(counts) * multiples[order] * centring
        lattice = random_lattice(rotations, volume=volume, rng=rng)
        # One atom for each of its images under the operations.
        kinds = np.repeat(list(counts), [count * multiples[order] // order for count in counts.values()])
        kinds = rng.permutation(kinds)
        apart = self.distance_factor * self._distances.table(kinds)
        frac_coords = place(kinds, apart, lattice, rotations, translations, rng)
        if frac_coords is None:
            return None
        numbers = np.repeat(kinds, len(rotations)).astype(np.int64)
        crystal = Crystal(lattice=lattice, frac_coords=frac_coords, atomic_numbers=numbers)
        return primitive(crystal) if self._far_enough(crystal) else None

    def _far_enough(self, crystal: Crystal) -> bool:
        """Whether all atoms keep their distance, also from their own images in neighbouring cells."""
        apart = self.distance_factor * self._distances.table(crystal.atomic_numbers)
        near = neighbors(CrystalBatch.from_crystals([crystal]), cutoff=float(apart.max()))
        return bool(np.all(near.distances.numpy() >= apart[near.source.numpy(), near.target.numpy()]))


def place(
    kinds: np.ndarray,
    apart: Float64[np.ndarray, "k k"],
    lattice: Float64[np.ndarray, "3 3"],
    rotations: Float64[np.ndarray, "m 3 3"],
    translations: Float64[np.ndarray, "m 3"],
    rng: np.random.Generator,
) -> Float64[np.ndarray, "n 3"] | None:
    """Random points, each with its images, that keep their distance.

    Args:
        kinds: (k,) atomic numbers, one for each orbit.
        apart: (k, k) distances in Å that are kept between atoms of two orbits, or of one orbit on the diagonal.
        lattice: (3, 3) in Å, rows.
        rotations: (m, 3, 3) of the space group in this cell.
        translations: (m, 3) fractional, that go with them.
        rng: source of randomness.

    Returns:
        (k * m, 3) fractional coordinates, the images of one point after the other; None if a point found no place in
        100 tries.
    """
    cell = Lattice(lattice)
    m = len(rotations)
    placed = np.empty((0, 3))
    for k in range(len(kinds)):
        for _ in range(MAX_TRIES):
            images = (rotations @ rng.random(3) + translations) % 1.0
            itself = cell.get_all_distances(images[:1], images)[0, 1:]
            if (itself < apart[k, k]).any():
                continue
            if k and (cell.get_all_distances(images[:1], placed)[0] < np.repeat(apart[k, :k], m)).any():
                continue
            placed = np.concatenate([placed, images])
            break
        else:
            return None
    return placed


@cache
def operations(number: int) -> tuple[Float64[np.ndarray, "m 3 3"], Float64[np.ndarray, "m 3"]]:
    """Rotations and translations of a space group in its conventional cell (hexagonal axes).

    Args:
        number: from 1 to 230.
    """
    found = sorted(SpaceGroup.from_int_number(number).symmetry_ops, key=lambda op: op.affine_matrix.tolist())
    return (
        np.array([op.rotation_matrix for op in found], dtype=np.float64),
        np.array([op.translation_vector for op in found], dtype=np.float64),
    )


def random_lattice(
    rotations: Float64[np.ndarray, "m 3 3"], *, volume: float, rng: np.random.Generator
) -> Float64[np.ndarray, "3 3"]:
    """A random lattice that some rotations leave alone.

    The metric of a random cell, averaged over the rotations W: the mean of W^T G W.

    Args:
        rotations: (m, 3, 3) that act on fractional coordinates, a group.
        volume: Å³.
        rng: source of randomness.

    Returns:
        (3, 3) lattice in Å, rows.
    """
    while True:
        lengths = rng.uniform(*LENGTHS, size=3)
        try:
            cell = from_parameters(*lengths.tolist(), *rng.uniform(*ANGLES, size=3).tolist())
        except ValueError:  # three angles that close no cell
            continue
        if abs(np.linalg.det(cell)) > MIN_COMPACTNESS * lengths.prod():
            break
    metric = (rotations.transpose(0, 2, 1) @ (cell @ cell.T) @ rotations).mean(axis=0)
    lattice = np.linalg.cholesky(metric)
    return lattice * (volume / np.linalg.det(lattice)) ** (1 / 3)
