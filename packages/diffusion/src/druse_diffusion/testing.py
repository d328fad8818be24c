"""Contract checks for somebody's own corruption: one call in a test."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor

from druse_diffusion.corruption import Corruption
from druse_diffusion.random import RandomStreams

_SAMPLES = 2000  # crystals drawn from the prior for each one of the data


def check_corruption(
    corruption: Corruption,
    x0: Tensor,
    oracle,
    *,
    num_atoms: Int[Tensor, " b"],
    prior_moments: tuple[float, float] | None = None,
    periodic: bool = False,
    tolerance: float = 1e-4,
) -> None:
    """Check that a corruption keeps the contract of ``Corruption``.

    * as t goes to 0 ``corrupt`` returns the data, at t = 1 every entry has the mean and the spread that it has in
      ``prior``, to within 10 % of the spread and the noise of the comparison;
    * with a perfect prediction ``denoise`` recovers x0, in one step, in three and in many;
    * crystals do not see each other: a batch equals its crystals one by one, in any order;
    * the same generator gives the same result, and another seed another one.

    Args:
        corruption: to be checked.
        x0: data, one row per atom or per crystal.
        oracle: ``oracle(x0, x_t, t, num_atoms)`` gives the perfect prediction.
        num_atoms: (b,) of at least two crystals.
        prior_moments: mean and standard deviation that the entries of ``prior``, pooled, must have to within 10 % of
            the standard deviation, where they are known.
        periodic: compare modulo 1.
        tolerance: largest difference of continuous fields.

    Raises:
        AssertionError: names the broken rule.
    """
    b = len(num_atoms)
    per_atom = len(x0) == int(num_atoms.sum()) and len(x0) != b
    starts = [0, *num_atoms.cumsum(0).tolist()] if per_atom else list(range(b + 1))

    def streams(seed: int = 0, crystals=range(b)) -> RandomStreams:
        return RandomStreams(seed, crystals)

    def at(value: float, size: int = b) -> Tensor:
        return torch.full((size,), value, dtype=x0.dtype if x0.is_floating_point() else torch.float32)

    def close(x: Tensor, y: Tensor, allowed: float = tolerance) -> bool:
        if not x.is_floating_point():
            return bool((x == y).all())
        difference = x - y
        if periodic:
            difference = difference - difference.round()
        return bool(difference.abs().max() <= allowed)

    def rows(values: Tensor, i: int) -> Tensor:
        return values[starts[i] : starts[i + 1]]

    early = corruption.corrupt(x0, at(1e-5), num_atoms, generator=streams())
    agree = (early == x0).float().mean() if not x0.is_floating_point() else None
    assert agree is None or agree > 0.9, "at t -> 0 corrupt changes discrete data"
    assert agree is not None or close(early, x0, 0.1), "at t -> 0 corrupt moves the data by more than 0.1"

    many, repeated = streams(crystals=range(b * _SAMPLES)), num_atoms.repeat(_SAMPLES)
    everywhere = x0.repeat(_SAMPLES, *[1] * (x0.ndim - 1))
    late = corruption.corrupt(everywhere, at(1.0, b * _SAMPLES), repeated, generator=many)
    prior = corruption.prior(repeated, generator=many)
    late, prior = (x.double().unflatten(0, (_SAMPLES, len(x0))) for x in (late, prior))
    spread, noise = prior.std(0), 5 * _SAMPLES**-0.5  # five standard errors of a mean or a spread, in spreads
    for what, difference in (("mean", late.mean(0) - prior.mean(0)), ("spread", late.std(0) - spread)):
        worst = float((difference.abs() - (0.1 + 2**0.5 * noise) * spread).max())
        assert worst <= tolerance, f"at t = 1 corrupt has another {what} than prior: not all of the data is forgotten"

    if prior_moments is not None:
        mean, std = prior_moments
        assert abs(prior.mean() - mean) <= 0.1 * std, f"prior has mean {prior.mean():.3f}, not {mean:.3f}"
        assert abs(prior.std() - std) <= 0.1 * std, f"prior has standard deviation {prior.std():.3f}, not {std:.3f}"

    for times in ([1.0, 0.0], [1.0, 0.6, 0.2, 0.0], [1 - i / 50 for i in range(51)]):
        generator = streams(1)
        x = corruption.prior(num_atoms, generator=generator)
        for t, s in pairwise(times):
            x = corruption.denoise(oracle(x0, x, at(t), num_atoms), x, at(t), at(s), num_atoms, generator=generator)
        # a perfect score of a noisy path recovers the data up to rounding amplified by 1 / (smallest noise)
        assert close(x, x0, 100 * tolerance), f"an oracle does not recover x0 in {len(times) - 1} steps"

    x_t = corruption.corrupt(x0, at(0.5), num_atoms, generator=streams())
    prediction = oracle(x0, x_t, at(0.5), num_atoms)
    together = [
        corruption.corrupt(x0, at(0.5), num_atoms, generator=streams(3)),
        corruption.denoise(prediction, x_t, at(0.5), at(0.3), num_atoms, generator=streams(3)),
        corruption.correct(prediction, x_t, at(0.5), num_atoms, generator=streams(3)),
    ]
    losses = corruption.loss(prediction, x0, x_t, at(0.5), num_atoms)
    for i in range(b):
        one, n = torch.tensor([i]), num_atoms[i : i + 1]
        data, noisy, guess = rows(x0, i), rows(x_t, i), rows(prediction, i)
        alone = [
            corruption.corrupt(data, at(0.5, 1), n, generator=streams(3, one)),
            corruption.denoise(guess, noisy, at(0.5, 1), at(0.3, 1), n, generator=streams(3, one)),
            corruption.correct(guess, noisy, at(0.5, 1), n, generator=streams(3, one)),
        ]
        for name, x, y in zip(("corrupt", "denoise", "correct"), together, alone, strict=True):
            assert close(rows(x, i), y), f"{name} of crystal {i} depends on the rest of the batch"
        alone_loss = corruption.loss(guess, data, noisy, at(0.5, 1), n)
        assert torch.allclose(alone_loss[0], losses[i], atol=1e-4), f"loss of crystal {i} depends on the batch"

    again = corruption.corrupt(x0, at(0.5), num_atoms, generator=streams(3))
    assert torch.equal(again, together[0]), "the same generator gives another result"
    other = corruption.corrupt(x0, at(0.5), num_atoms, generator=streams(4))
    assert not torch.equal(other, together[0]), "another seed gives the same result"


class RecordedNoise(RandomStreams):
    """Plays back the noise that the published sampler drew, in place of random numbers.

    Args:
        drawn: in the order in which it was drawn: of lattices and atoms at the start if a run begins there, then for
            each step of atoms and lattices in the corrector, of atoms and lattices in the predictor, and two for the
            species, of which the second counts.
        num_crystals: of the batch.
        steps: of the run.
        from_prior: whether the run begins with noise alone.

    Raises:
        ValueError: if there is more or less noise than that.
    """

    def __init__(self, drawn: Sequence[Tensor], num_crystals: int, *, steps: int, from_prior: bool):
        super().__init__(0, range(num_crystals))
        start, rest = (drawn[:2], drawn[2:]) if from_prior else ([], drawn)
        if len(rest) != 6 * steps:
            raise ValueError(f"{steps} steps need {6 * steps} draws, there are {len(rest)}")
        lattices, atoms = list(start[:1]), list(start[1:])
        for i in range(0, len(rest), 6):
            atoms += [rest[i], rest[i + 2]]
            lattices += [rest[i + 1], rest[i + 3]]
        self._lattices, self._atoms, self._gumbel = iter(lattices), iter(atoms), iter(rest[5::6])

    def crystal_normal(self, width: int) -> Float[Tensor, "b {width}"]:
        """Noise of the lattices: one number, or the six entries of the symmetric matrix that the code made of nine."""
        z = next(self._lattices).double()
        if width == 1:
            return z[:, 0]
        beside = [(z[:, i, j] + z[:, j, i]) / 2**0.5 for i, j in ((1, 2), (0, 2), (0, 1))]
        return torch.stack([z[:, 0, 0], z[:, 1, 1], z[:, 2, 2], *beside], -1)

    def atom_normal(self, num_atoms: Int[Tensor, " b"], width: int) -> Float[Tensor, "n {width}"]:
        """Noise of the coordinates."""
        return next(self._atoms).double()

    def atom_uniform(self, num_atoms: Int[Tensor, " b"], width: int) -> Float[Tensor, "n {width}"]:
        """The numbers of which the Gumbel noise of the species is made."""
        return torch.exp(-torch.exp(-next(self._gumbel).double()))

    def left(self) -> int:
        """Draws that nobody asked for."""
        return sum(1 for rest in (self._lattices, self._atoms, self._gumbel) for _ in rest)
