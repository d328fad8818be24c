"""One crystal: lattice, fractional coordinates, atomic numbers."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64, Int64

MAX_ATOMIC_NUMBER = 118
MAX_LENGTH = 1e9  # Å, of a component of a lattice vector: ten centimetres; nothing overflows below it
MIN_VOLUME_PER_CELL = 0.1  # Å³; below this no atom fits (MatterGen's structural validity uses the same bound)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Crystal:
    """A periodic structure, on the host, immutable.

    Attributes:
        lattice: (3, 3) in Å; ROWS are the lattice vectors, ``cart = frac_coords @ lattice``.
        frac_coords: (n, 3) fractional coordinates, wrapped into [0, 1) on construction.
        atomic_numbers: (n,) from 1 to 118.

    Raises:
        ValueError: if shapes disagree, a number is not finite, the cell has (nearly) no volume or is longer than any
            crystal's, there is no atom or an atomic number is no integer or does not exist. The sentence says which.
    """

    lattice: Float64[np.ndarray, "3 3"]
    frac_coords: Float64[np.ndarray, "n 3"]
    atomic_numbers: Int64[np.ndarray, " n"]

    def __post_init__(self):
        lattice = np.array(self.lattice, dtype=np.float64)
        frac_coords = np.array(self.frac_coords, dtype=np.float64)
        atomic_numbers = np.array(self.atomic_numbers)
        if lattice.shape != (3, 3):
            raise ValueError(f"lattice has shape {lattice.shape}, it must be (3, 3)")
        if frac_coords.ndim != 2 or frac_coords.shape[1] != 3:
            raise ValueError(f"frac_coords has shape {frac_coords.shape}, it must be (number of atoms, 3)")
        if atomic_numbers.shape != (len(frac_coords),):
            raise ValueError(
                f"frac_coords has {len(frac_coords)} atoms, atomic_numbers has shape {atomic_numbers.shape}"
            )
        if len(frac_coords) == 0:
            raise ValueError("a crystal needs at least one atom")
        if not np.isfinite(lattice).all():
            raise ValueError("lattice holds a number that is not finite")
        if not np.isfinite(frac_coords).all():
            raise ValueError("frac_coords holds a number that is not finite")
        if np.abs(lattice).max() > MAX_LENGTH:
            longest = np.abs(lattice).max()
            raise ValueError(
                f"a lattice vector has a component of {longest:.3g} Å, it must be at most {MAX_LENGTH:,.0f} Å"
            )
        volume = abs(np.linalg.det(lattice))
        if volume < MIN_VOLUME_PER_CELL:
            raise ValueError(f"the cell has a volume of {volume:.3g} Å³, it must be at least {MIN_VOLUME_PER_CELL} Å³")
        if atomic_numbers.dtype.kind not in "iu":
            atomic_numbers = _whole(atomic_numbers)
        wrong = (atomic_numbers < 1) | (atomic_numbers > MAX_ATOMIC_NUMBER)
        if wrong.any():
            raise ValueError(f"no element has atomic number {atomic_numbers[wrong][0]:g}")
        atomic_numbers = atomic_numbers.astype(np.int64)
        frac_coords = frac_coords % 1.0
        frac_coords[frac_coords >= 1.0] = 0.0  # -1e-18 % 1.0 rounds to 1.0
        for name, value in (("lattice", lattice), ("frac_coords", frac_coords), ("atomic_numbers", atomic_numbers)):
            value.flags.writeable = False
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.atomic_numbers)

    @property
    def num_atoms(self) -> int:
        """Number of atoms in the cell."""
        return len(self.atomic_numbers)

    @property
    def volume(self) -> float:
        """Cell volume in Å³."""
        return float(abs(np.linalg.det(self.lattice)))

    @property
    def cart_coords(self) -> Float64[np.ndarray, "n 3"]:
        """Cartesian coordinates in Å."""
        return self.frac_coords @ self.lattice

    def replace(self, **changes) -> "Crystal":
        """A new crystal with some fields changed."""
        return replace(self, **changes)


def _whole(numbers: np.ndarray) -> np.ndarray:
    """Numbers of another type than integer, as floats without a fraction.

    Raises:
        ValueError: for the first that is no integer.
    """
    for number in numbers.tolist():
        try:
            whole = float(number).is_integer()
        except (TypeError, ValueError):
            whole = False
        if not whole:
            raise ValueError(f"the atomic number {number!r} is no integer")
    return numbers.astype(np.float64)
