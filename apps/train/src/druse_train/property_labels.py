"""Labels of crystals as conditions of a model."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from druse_crystal import Crystal
from druse_crystal.dataset import CrystalDataset
from druse_crystal.derived import DERIVED, derived_labels
from druse_diffusion import Conditions
from druse_guidance import Property
from druse_guidance.properties import multi_hot
from druse_guidance.units import UNITS, usual_spelling
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from druse_train.config import SYSTEM, PropertyConfig

_BINS, _SHARE = 20, 0.02  # of the range of a label; what each bin is brought up to, of all labels


@dataclass(frozen=True, kw_only=True, eq=False)
class PropertyLabels:
    """Labels of the crystals of one dataset, on the scale that is learnt.

    Attributes:
        values: by property, (b,) numbers or (b, k) rows; where nothing is known, anything.
        known: by property, (b,) where there is a label.
    """

    values: dict[str, Float[Tensor, "b ..."]]
    known: dict[str, Bool[Tensor, " b"]]

    def conditions(
        self, index: Tensor, *, uniform: Float[Tensor, "b p"] | None = None, dropout: float = 0.0, joint: bool = False
    ) -> Conditions:
        """The conditions of some crystals: what is known of them, but for what is withheld.

        Args:
            index: (b,) positions.
            uniform: (b, p) numbers even in (0, 1), a column for each property; None: nothing is withheld.
            dropout: how often a label is withheld.
            joint: withhold all of a crystal together, by the first column.
        """
        index, given = index.cpu(), {}
        for column, (name, known) in enumerate(self.known.items()):
            given[name] = known[index]
            if uniform is not None:
                given[name] = given[name] & (uniform[:, 0 if joint else column] >= dropout).cpu()
        return Conditions(values={name: value[index] for name, value in self.values.items()}, given=given)

    def select(self, index: Int64[np.ndarray, " n"]) -> "PropertyLabels":
        """The labels of some crystals, in this order."""
        return PropertyLabels(
            values={name: value[index] for name, value in self.values.items()},
            known={name: known[index] for name, known in self.known.items()},
        )


def systems_of(crystals: Sequence[Crystal]) -> Float64[np.ndarray, "b k"]:
    """Chemical systems of crystals, as rows of zeros and ones."""
    return multi_hot([sorted(set(crystal.atomic_numbers.tolist())) for crystal in crystals])


def raw_labels(config: PropertyConfig, dataset: CrystalDataset) -> np.ndarray:
    """Labels of one property as the dataset has them, or derived from the crystals: (b,) numbers, or (b, k) rows.

    Raises:
        ValueError: if there is no such column and nothing to derive it from, or it holds infinite numbers.
    """
    if config.resolved_kind == SYSTEM:
        return systems_of(dataset.crystals)
    column = config.column or config.name
    if column in dataset.labels:
        labels = dataset.labels[column]
    elif config.column is None and config.derived is not None:
        labels = derived_labels(config.derived, dataset.crystals)
    else:
        raise ValueError(
            f"the dataset has no column {column!r}: it has {', '.join(dataset.labels) or 'none'}, and "
            f"{', '.join((SYSTEM, *DERIVED))} follow from the crystals"
        )
    if np.isinf(labels).any():
        raise ValueError(f"the column {column!r} has labels that are infinite: correct or empty these cells")
    low, high = (bound if bound is not None else np.nan for bound in (config.low, config.high))
    return np.where((labels < low) | (labels > high), np.nan, labels)


def thinned(config: PropertyConfig, raw: np.ndarray) -> np.ndarray:
    """Labels of which only the share of the recipe is kept; the others count as unknown.

    A smaller share is part of a larger one.
    """
    if config.share == 1:
        return raw
    known = np.flatnonzero(~np.isnan(raw))
    kept = np.random.default_rng(0).permutation(known)[: round(config.share * len(known))]
    labels = np.full(len(raw), np.nan)
    labels[kept] = raw[kept]
    return labels


def unit_of(config: PropertyConfig) -> str:
    """The unit of a property in its usual spelling; where none is given, that of a well-known property or column."""
    return usual_spelling(config.unit) or UNITS.get(config.name) or UNITS.get(config.column or "", "")


def check_labels(configs: Sequence[PropertyConfig], raw: Sequence[np.ndarray], *, split: str) -> None:
    """Refuse labels of a split (``raw_labels``) that do not belong to the kind of their property.

    Raises:
        ValueError: for the first of them; names the split.
    """
    for config, labels in zip(configs, raw, strict=True):
        try:
            _described(config).check(labels)
        except ValueError as error:
            raise ValueError(f"in split {split!r} {error}") from error


def learn_properties(configs: Sequence[PropertyConfig], raw: Sequence[np.ndarray]) -> list[Property]:
    """The properties of a recipe with the statistics of their labels in the training crystals (``raw_labels``).

    Raises:
        ValueError: for labels that nothing can be learnt from.
    """
    return [
        replace(_described(config), num_labels=len(labels))
        if config.resolved_kind == SYSTEM
        else _described(config).fitted(labels)
        for config, labels in zip(configs, raw, strict=True)
    ]


def _described(config: PropertyConfig) -> Property:
    """A property without statistics."""
    return Property(name=config.name, kind=config.resolved_kind, unit=unit_of(config))


def labelled(
    properties: Sequence[Property], raw: Sequence[np.ndarray], dataset: CrystalDataset
) -> tuple[CrystalDataset, PropertyLabels]:
    """The crystals of which some label is known, and their labels, which have been checked (``check_labels``)."""
    learnable = [r if r.ndim == 2 else p.learnable(r) for p, r in zip(properties, raw, strict=True)]
    known = [~np.isnan(v) if v.ndim == 1 else np.full(len(v), True) for v in learnable]
    some = np.flatnonzero(np.any(known, axis=0))
    values, there = {}, {}
    for p, v, k in zip(properties, learnable, known, strict=True):
        values[p.name] = torch.tensor(np.nan_to_num(v[some])).float()
        there[p.name] = torch.tensor(k[some])
    return dataset.select(some), PropertyLabels(values=values, known=there)


def balanced(properties: Sequence[Property], labels: PropertyLabels, *, most: int) -> Int64[np.ndarray, " n"]:
    """Positions of crystals for an epoch in which rare labels come more often.

    The range of each number, on the scale that is learnt, is cut into 20 bins; the crystals of a bin with less than 2 %
    of the labels are repeated until it has as much; one that is rare in two ways comes as often as the rarer one wants.
    That leaves the distribution of crystals with a given value of a property as it is, and shifts what is learnt for
    other properties towards crystals with rare labels.

    Args:
        properties: that are learnt; chemical systems and space groups do not count.
        labels: of b crystals.
        most: how many times one crystal may come.

    Returns:
        (n,) positions, rising, each once at least.
    """
    times = np.ones(len(next(iter(labels.known.values()))), dtype=np.int64)
    for wanted in properties:
        if not wanted.is_number:
            continue
        known = labels.known[wanted.name].numpy()
        values = labels.values[wanted.name].numpy()[known]
        counts, edges = np.histogram(values, bins=_BINS)
        own = counts[np.searchsorted(edges[1:-1], values, side="right")]
        times[known] = np.maximum(times[known], np.ceil(_SHARE * len(values) / own).astype(np.int64))
    return np.repeat(np.arange(len(times)), times.clip(max=most))
