"""How new is a crystal? To the order-disorder matcher, to the training set, and with its elements made anonymous."""

from typing import Any

from druse_crystal.crystal import Crystal
from druse_energetics.reference import Reference

from druse_evaluation.matching import OrderDisorderMatcher
from druse_evaluation.novelty import KnownStructures
from druse_evaluation.prototypes import KnownPrototypes, Prototype
from druse_evaluation.renaming import Undecided


class NoveltyLevels:
    """Stricter answers to whether a crystal is new, beside the one of the ordered matcher.

    Args:
        reference: has the known crystals.
        training: crystals that a generator has learnt from, if they are known.
    """

    def __init__(self, reference: Reference, *, training: KnownStructures | None = None):
        crystals, ids = reference.crystals, reference.ids
        self.orderings = KnownStructures(crystals, ids, matcher=OrderDisorderMatcher())
        self.prototypes = KnownPrototypes(crystals, ids, standard_form=reference.standard_form)
        self.training = training

    def facts(self, crystal: Crystal, *, novel: bool, match_id: str | None) -> dict[str, Any]:
        """Values of the columns ``novel_order_disorder``, ``novel_to_training``, ``new_prototype`` and their ids.

        ``prototype_rms`` says how close the crystal is to its prototype, which costs one comparison more where there is
        one.

        Where the structure type cannot be decided, ``new_prototype`` is None and ``message`` says why.

        Args:
            crystal: relaxed.
            novel: whether the ordered matcher finds it among no known crystals; what it finds, the others find too.
            match_id: the known crystal that it found.
        """
        ordering = match_id
        prototype: Prototype | None = None
        undecided = ""
        prepared = self.prototypes.matcher.prepare(crystal)  # both matchers compare the same reduced cell
        if novel:
            ordering = self.orderings.first_match(prepared)
            try:
                prototype = self.prototypes.nearest(prepared)
            except Undecided as reason:
                undecided = f"its structure type is undecided: {reason}"
        elif match_id is not None:
            prototype = Prototype(id=match_id, rms=self.prototypes.distance(prepared, match_id))
        facts: dict[str, Any] = {
            "novel_order_disorder": ordering is None,
            "new_prototype": None if undecided else prototype is None,
            "prototype_id": None if prototype is None else str(prototype.id),
            "prototype_rms": None if prototype is None else prototype.rms,
        }
        if undecided:
            facts["message"] = undecided
        if self.training is not None:
            learnt = self.training.first_match(crystal)
            facts |= {
                "novel_to_training": learnt is None,
                "training_match_id": None if learnt is None else str(learnt),
            }
        return facts
