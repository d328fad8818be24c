"""Restrict a model to some elements, by its logits."""

from collections.abc import Iterable
from dataclasses import replace

import torch
from ase.data import atomic_numbers, chemical_symbols
from druse_crystal import CrystalBatch
from druse_diffusion import NUM_CLASSES, NUM_ELEMENTS, Conditions, Prediction, ScoreModel
from jaxtyping import Float
from torch import Tensor


class AllowedElements:
    """A model that can only ever choose allowed elements.

    The logits of all other elements become minus infinity, so that their probability is exactly zero at every
    temperature, in the predictor as in correctors that choose elements anew. A mask class, which comes after the
    elements, stays as it is. Logits that are not finite are made so first: no network, however bad, gets around the
    restriction. Lattice and coordinates are the model's.

    Attributes:
        model: what is wrapped.
        elements: atomic numbers that are allowed, rising.
    """

    def __init__(self, model: ScoreModel, elements: Iterable[int], *, known: Iterable[int] | None = None):
        """Choose the elements.

        Args:
            model: a network, or a wrapper of one.
            elements: atomic numbers.
            known: atomic numbers that the training crystals held; if not given, those that ``model`` allows, where it
                is an ``AllowedElements`` itself, else all elements that have a class.

        Raises:
            ValueError: if no element is given, or one that has no class or that no training crystal held.
        """
        self.model = model
        self.elements = tuple(sorted(set(elements)))
        if known is None:
            known = model.elements if isinstance(model, AllowedElements) else range(1, NUM_ELEMENTS + 1)
        _refuse_unknown(self.elements, frozenset(known))
        self._forbidden = torch.ones(NUM_CLASSES, dtype=torch.bool)
        self._forbidden[[z - 1 for z in self.elements]] = False
        self._forbidden[NUM_ELEMENTS:] = False

    def __call__(self, noisy: CrystalBatch, t: Float[Tensor, " b"], conditions: Conditions | None = None) -> Prediction:
        """Scores of the model, logits of the allowed elements only.

        Raises:
            ValueError: if the model has fewer classes than an allowed element needs.
        """
        prediction = self.model(noisy, t, conditions)
        logits = prediction.species_logits
        if logits.shape[-1] < self.elements[-1]:
            raise ValueError(
                f"the model has {logits.shape[-1]} classes and none for {chemical_symbols[self.elements[-1]]}: "
                "leave this element out"
            )
        self._forbidden = self._forbidden.to(logits.device)  # moves once
        forbidden = self._forbidden[: logits.shape[-1]]
        return replace(prediction, species_logits=logits.nan_to_num().masked_fill(forbidden, -torch.inf))


def _refuse_unknown(elements: tuple[int, ...], known: frozenset[int]) -> None:
    if not elements:
        raise ValueError("no element is allowed: give at least one, such as Li-Fe-O")
    for z in elements:
        if not 1 <= z <= NUM_ELEMENTS:
            name = chemical_symbols[z] if 0 < z < len(chemical_symbols) else f"atomic number {z}"
            raise ValueError(f"the model has no class for {name}: leave it out, classes end at number {NUM_ELEMENTS}")
    unknown = [chemical_symbols[z] for z in elements if z not in known]
    if unknown:
        raise ValueError(
            f"no crystal that the model was trained on holds {' or '.join(unknown)}: leave that out, or use a model "
            "that was trained with it"
        )


def parse_elements(text: str) -> tuple[int, ...]:
    """Element symbols with hyphens between them, such as ``Li-Fe-O``, as rising atomic numbers.

    Raises:
        ValueError: names the word that is no element, or that stands there twice.
    """
    symbols = [word.strip() for word in text.split("-")]
    for symbol in symbols:
        if symbol not in atomic_numbers or not atomic_numbers[symbol]:  # number 0 is ASE's X, which is no element
            raise ValueError(f"{symbol!r} in {text!r} is no element: write symbols with hyphens, such as Li-Fe-O")
        if symbols.count(symbol) > 1:
            raise ValueError(f"{symbol} stands in {text!r} more than once: write each element once")
    return tuple(sorted(atomic_numbers[symbol] for symbol in symbols))
