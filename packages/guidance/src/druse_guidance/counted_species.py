"""Species whose numbers of atoms are bounded: a reverse process that never leaves what is still possible."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from ase.data import chemical_symbols
from druse_diffusion import MASK, NUM_ELEMENTS, AbsorbingD3PM, Corruption, RandomStreams
from jaxtyping import Bool, Float, Int
from torch import Tensor

from druse_guidance.element_counts import ElementCounts


@dataclass(frozen=True, kw_only=True, eq=False)
class CountedSpecies(Corruption):
    """Absorbing diffusion of species in which every finished crystal keeps its bounds, with any network.

    Which atoms are revealed, and when, is the business of the wrapped process. The elements of those that a step
    reveals are then chosen one after the other, each from the predicted distribution over the elements that leave the
    others a way to comply. The last masked atoms take what is missing, so nothing has to be rejected.

    Attributes:
        species: what is wrapped.
        bounds: for each crystal of the batch.
        orbit: (n,) for each atom the first atom of its orbit; atoms of one orbit are revealed together and are of one
            element. None: every atom is alone.

    Raises:
        ValueError: from ``prior``, if no choice of elements keeps a crystal's bounds.
    """

    species: AbsorbingD3PM
    bounds: Sequence[ElementCounts]
    orbit: Int[Tensor, " n"] | None = None
    known: Int[Tensor, " n"] | None = None

    def prior(self, num_atoms: Int[Tensor, " b"], *, generator: RandomStreams) -> Int[Tensor, " n"]:
        """All atoms masked."""
        if len(self.bounds) != len(num_atoms):
            raise ValueError(f"there are bounds for {len(self.bounds)} crystals, the batch has {len(num_atoms)}")
        known = self._known(num_atoms)
        for bounds, orbits in zip(self.bounds, self._orbits(num_atoms), strict=True):
            sizes = [len(orbit) for orbit in orbits if not known[orbit[0]]]
            have = Counter(known[i] for orbit in orbits for i in orbit if known[i])
            if not bounds.possible(sizes, have):
                raise ValueError(_impossible(bounds, sizes, have))
        return self.species.prior(num_atoms, generator=generator)

    def corrupt(
        self, x0: Int[Tensor, " n"], t: Float[Tensor, " b"], num_atoms: Int[Tensor, " b"], *, generator: RandomStreams
    ) -> Int[Tensor, " n"]:
        """As the wrapped process."""
        return self.species.corrupt(x0, t, num_atoms, generator=generator)

    def target(
        self, x0: Int[Tensor, " n"], x_t: Int[Tensor, " n"], t: Float[Tensor, " b"], num_atoms: Int[Tensor, " b"]
    ) -> Float[Tensor, "n k"]:
        """As the wrapped process."""
        return self.species.target(x0, x_t, t, num_atoms)

    def estimate(
        self,
        prediction: Float[Tensor, "n k"],
        x_t: Int[Tensor, " n"],
        t: Float[Tensor, " b"],
        num_atoms: Int[Tensor, " b"],
    ) -> Int[Tensor, " n"]:
        """As the wrapped process, without regard to the bounds."""
        return self.species.estimate(prediction, x_t, t, num_atoms)

    def loss(
        self,
        prediction: Float[Tensor, "n k"],
        x0: Int[Tensor, " n"],
        x_t: Int[Tensor, " n"],
        t: Float[Tensor, " b"],
        num_atoms: Int[Tensor, " b"],
    ) -> Float[Tensor, " b"]:
        """As the wrapped process."""
        return self.species.loss(prediction, x0, x_t, t, num_atoms)

    def denoise(
        self,
        prediction: Float[Tensor, "n k"],
        x_t: Int[Tensor, " n"],
        t: Float[Tensor, " b"],
        s: Float[Tensor, " b"],
        num_atoms: Int[Tensor, " b"],
        *,
        generator: RandomStreams,
    ) -> Int[Tensor, " n"]:
        """Reveal as the wrapped process does, and choose among what is possible.

        What is revealed stays, and at s = 0 nothing is masked any more, also where the wrapped process might change the
        one or leave the other (``PublishedSpecies``).
        """
        x_s = self.species.denoise(prediction, x_t, t, s, num_atoms, generator=generator)
        x_s = torch.where(x_t == MASK, x_s, x_t)
        left = (x_s == MASK) & (s == 0).repeat_interleave(num_atoms)
        x_s = x_s.masked_fill(left, 1)  # which element is chosen below
        return self._chosen(prediction, x_t, x_s, num_atoms, generator)

    def correct(
        self,
        prediction: Float[Tensor, "n k"],
        x_t: Int[Tensor, " n"],
        t: Float[Tensor, " b"],
        num_atoms: Int[Tensor, " b"],
        *,
        generator: RandomStreams,
    ) -> Int[Tensor, " n"]:
        """Hide and reveal as the wrapped process does, and choose among what is possible."""
        after = self.species.correct(prediction, x_t, t, num_atoms, generator=generator)
        return self._chosen(prediction, x_t, after, num_atoms, generator)

    def _chosen(
        self,
        logits: Float[Tensor, "n k"],
        before: Int[Tensor, " n"],
        after: Int[Tensor, " n"],
        num_atoms: Int[Tensor, " b"],
        generator: RandomStreams,
    ) -> Int[Tensor, " n"]:
        """``after``, with the elements of what was masked ``before`` chosen within the bounds."""
        drawn = generator.atom_uniform(num_atoms, 2)  # in every step, so that the stream does not depend on the crystal
        revealed = ((before == MASK) & (after != MASK)).tolist()
        if not any(revealed):
            return after
        uniform = drawn.tolist()
        known = self._known(num_atoms)
        numbers = after.tolist()
        wanted = logits[:, :NUM_ELEMENTS].cpu().double() / self.species.temperature
        for bounds, orbits in zip(self.bounds, self._orbits(num_atoms), strict=True):
            free = [o for o in orbits if not known[o[0]]]
            fresh = sorted((o for o in free if revealed[o[0]]), key=lambda orbit: uniform[orbit[0]][0])
            open_sizes = [len(o) for o in free if numbers[o[0]] == MASK or revealed[o[0]]]
            have = Counter(known[i] for o in orbits for i in o if known[i])
            have.update(numbers[i] for o in free if not revealed[o[0]] for i in o if numbers[i] != MASK)
            for orbit in fresh:
                open_sizes.remove(len(orbit))
                named, others = bounds.choices(have, len(orbit), open_sizes)
                possible = _possible(named, others, bounds)
                z = _draw(wanted[orbit[0]], possible, named, uniform[orbit[0]][1])
                have[z] += len(orbit)
                for i in orbit:
                    numbers[i] = z
            for i in (i for o in orbits for i in o if known[i] and revealed[i]):
                numbers[i] = known[i]
        return torch.tensor(numbers, device=after.device)

    def _known(self, num_atoms: Int[Tensor, " b"]) -> list[int]:
        return [0] * int(num_atoms.sum()) if self.known is None else self.known.tolist()

    def _orbits(self, num_atoms: Int[Tensor, " b"]) -> list[list[list[int]]]:
        """For each crystal its orbits, each as positions of atoms in the batch."""
        ends = num_atoms.cumsum(0).tolist()
        first = list(range(ends[-1])) if self.orbit is None else self.orbit.tolist()
        crystals = []
        for end, size in zip(ends, num_atoms.tolist(), strict=True):
            members: dict[int, list[int]] = {}
            for atom in range(end - size, end):
                members.setdefault(first[atom], []).append(atom)
            crystals.append(list(members.values()))
        return crystals


def _possible(named: tuple[int, ...], others: bool, bounds: ElementCounts) -> Bool[Tensor, " k"]:
    """The elements that an orbit may become, as a mask over all."""
    possible = torch.zeros(NUM_ELEMENTS, dtype=torch.bool)
    if others:
        possible[[z - 1 for z in bounds.among or range(1, NUM_ELEMENTS + 1)]] = True
        possible[[z - 1 for z in bounds.named]] = False
    possible[[z - 1 for z in named]] = True
    return possible


def _draw(logits: Float[Tensor, " k"], possible: Bool[Tensor, " k"], named: tuple[int, ...], uniform: float) -> int:
    """An atomic number of those that are possible.

    Where the model forbids all of them, evenly among the named ones, which are demanded by name.

    Raises:
        ValueError: if none is possible.
    """
    allowed = logits.nan_to_num(nan=-torch.inf).masked_fill(~possible, -torch.inf)
    if bool(torch.isinf(allowed).all()):
        if not named:
            raise ValueError("no element is left for an atom: what was asked for excludes what the model may choose")
        allowed = torch.full_like(logits, -torch.inf)
        allowed[[z - 1 for z in named]] = 0.0
    cumulative = allowed.softmax(-1).cumsum(0)
    return min(int(torch.searchsorted(cumulative, uniform * cumulative[-1])) + 1, NUM_ELEMENTS)


def _impossible(bounds: ElementCounts, sizes: list[int], have: Counter[int]) -> str:
    def counts(numbers: Mapping[int, int]) -> str:
        return ", ".join(f"{count} {chemical_symbols[z]}" for z, count in numbers.items())

    both = (("at least", bounds.least), ("at most", bounds.most))
    wishes = [f"{word} {counts(numbers)}" for word, numbers in both if numbers]
    some = f"{', '.join(map(str, sorted(sizes, reverse=True)))}"
    places = f" that come in groups of {some}" if max(sizes, default=1) > 1 else ""
    kept = f", of which {counts(have)} are kept," if have else ""
    total = sum(sizes) + have.total()
    return f"no crystal of {total} atoms{places}{kept} has {' and '.join(wishes)}: ask for other numbers of atoms"
