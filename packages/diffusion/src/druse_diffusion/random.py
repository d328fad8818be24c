"""Random numbers of which every crystal has its own stream.

A draw is a pure function of (seed, crystal, draw number, atom within the crystal), computed with the counter-based
generator Philox-4x32-10. So a crystal gets the same noise whatever the batch it is in, on any device, and a run resumes
by its step number alone. Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC11 (2011).
"""

import math

import torch
from druse_crystal.device import in_float64
from jaxtyping import Float, Int
from torch import Tensor

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_WORD = 0xFFFFFFFF


def philox(counter: Int[Tensor, "*s 4"], key: Int[Tensor, "*s 2"]) -> Int[Tensor, "*s 4"]:
    """Ten rounds of Philox-4x32; all words are 32-bit unsigned numbers held in int64."""
    multipliers, weyl = counter.new_tensor(_MULTIPLIERS), counter.new_tensor(_WEYL)
    even, odd = counter[..., ::2], counter[..., 1::2]
    for _ in range(10):
        product = even * multipliers
        even = ((product >> 32) & _WORD).flip(-1) ^ odd ^ key
        odd = (product & _WORD).flip(-1)
        key = (key + weyl) & _WORD
    return torch.stack([even, odd], -1).flatten(-2)


class RandomStreams:
    """One stream of random numbers for each of ``b`` crystals.

    No two pairs of seed and crystal have the same stream: the lower words of both are the key of Philox, the upper ones
    are in its counter beside draw, atom (of 2**24 at most) and block of four numbers (of 2**8 at most).

    Args:
        seed: the seed of the run, 0 to 2**64 - 1.
        crystals: (b,) identifiers, one a crystal; two batches that share an identifier share that crystal's numbers.
        device: where the numbers are made.

    Every method call is one draw and moves all streams on by one; ``draw`` counts them.
    """

    def __init__(self, seed: int, crystals: Int[Tensor, " b"] | range, *, device: torch.device | str = "cpu"):
        if not 0 <= seed < 2**64:
            raise ValueError(f"seed is {seed}, it must lie between 0 and 2**64 - 1")
        self.seed = seed
        self.crystals = torch.as_tensor(list(crystals) if isinstance(crystals, range) else crystals, device=device)
        self.draw = 0

    def __len__(self) -> int:
        return self.crystals.numel()

    def _uniform(self, crystals: Int[Tensor, " m"], rows: Int[Tensor, " m"], width: int) -> Float[Tensor, "m {width}"]:
        """Uniform numbers in (0, 1), the 32-bit words centred in their interval so that neither end is hit."""
        if width > 4 * 2**8:
            raise ValueError(f"a draw of {width} numbers was asked for, it must not have more than {4 * 2**8}")
        blocks = torch.arange(-(-width // 4), device=rows.device)
        low, high = self.seed & _WORD, self.seed >> 32
        counter = torch.stack(
            torch.broadcast_tensors(
                torch.tensor(self.draw & _WORD, device=rows.device),
                rows[:, None] + ((high >> 24) << 24),
                blocks + ((high & 0xFFFFFF) << 8),
                (crystals[:, None] >> 32) & _WORD,
            ),
            -1,
        )
        key = torch.stack([torch.full_like(crystals, low), crystals & _WORD], -1)[:, None].expand(-1, len(blocks), -1)
        words = philox(counter, key).flatten(1)[:, :width]
        self.draw += 1
        uniform = ((in_float64(words) + 0.5) / 2.0**32).clamp(max=1 - 2.0**-24)
        return uniform.float().to(words.device)

    def _rows(self, num_atoms: Int[Tensor, " b"]) -> tuple[Tensor, Tensor]:
        index = torch.repeat_interleave(num_atoms)
        starts = num_atoms.cumsum(0) - num_atoms
        return self.crystals[index], torch.arange(len(index), device=num_atoms.device) - starts[index]

    def crystal_uniform(self, width: int) -> Float[Tensor, "b {width}"]:
        """Uniform numbers in (0, 1), ``width`` for each crystal."""
        return self._uniform(self.crystals, torch.zeros_like(self.crystals), width)

    def crystal_normal(self, width: int) -> Float[Tensor, "b {width}"]:
        """Standard normal numbers, ``width`` for each crystal."""
        return _normal(self.crystal_uniform(width + width % 2))[:, :width]

    def atom_uniform(self, num_atoms: Int[Tensor, " b"], width: int) -> Float[Tensor, "n {width}"]:
        """Uniform numbers in (0, 1), ``width`` for each atom."""
        return self._uniform(*self._rows(num_atoms), width)

    def atom_normal(self, num_atoms: Int[Tensor, " b"], width: int) -> Float[Tensor, "n {width}"]:
        """Standard normal numbers, ``width`` for each atom."""
        return _normal(self.atom_uniform(num_atoms, width + width % 2))[:, :width]


def _normal(uniform: Float[Tensor, "m w"]) -> Float[Tensor, "m w"]:
    """Box and Muller's transform of pairs of uniform numbers."""
    first, second = uniform.chunk(2, dim=-1)
    radius, angle = (-2 * first.log()).sqrt(), 2 * math.pi * second
    return torch.cat([radius * angle.cos(), radius * angle.sin()], -1)
