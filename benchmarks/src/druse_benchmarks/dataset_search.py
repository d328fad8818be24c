"""Going through a dataset in place of generating: how many of its crystals are what was asked for."""

from collections.abc import Sequence

import numpy as np
from druse.obtained import OBTAINABLE, Value, exact, met, names_of
from druse_crystal.dataset import CrystalDataset
from jaxtyping import Bool


class DatasetSearch:
    """Counts crystals of a dataset that meet targets, by their labels or by what follows from them.

    Labels stand for the predictor: a predictor call is a crystal that has a label of everything that was asked for.

    Args:
        dataset: crystals with labels.
    """

    def __init__(self, dataset: CrystalDataset):
        self.dataset = dataset
        self._values: dict[str, list[Value]] = {}

    def __call__(self, targets: Sequence[str]) -> dict[str, int] | None:
        """How many crystals hit, and how many calls that took; None if the dataset lacks a label of theirs.

        Args:
            targets: all of which are to be met.
        """
        there, hit = np.ones(len(self.dataset), dtype=bool), np.ones(len(self.dataset), dtype=bool)
        for text, name in zip(targets, names_of(targets), strict=True):
            values = self.values(name)
            if values is None:
                return None
            there &= _known(values)
            hit &= met(text, values)
        return {"hits": int(hit.sum()), "predictor_calls": int(there.sum())}

    def values(self, name: str) -> list[Value] | None:
        """A property of all crystals, None where it is not known; None if there is no label for it."""
        if name not in self._values:
            labels = OBTAINABLE[name].labels
            column = next((label for label in labels if label in self.dataset.labels), None)
            if labels and column is None:
                return None
            if column is None:
                self._values[name] = exact(name, list(self.dataset.crystals))
            else:
                self._values[name] = [v if np.isfinite(v) else None for v in self.dataset.labels[column].tolist()]
        return self._values[name]


def _known(values: Sequence[Value]) -> Bool[np.ndarray, " b"]:
    return np.array([value is not None for value in values], dtype=bool)
