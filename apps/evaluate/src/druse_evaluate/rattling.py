"""Shake relaxed crystals and relax them again, with every finished relaxation kept."""

from collections import Counter
from collections.abc import Sequence

from druse_crystal.console import Display
from druse_crystal.crystal import Crystal
from druse_energetics.relaxation import Relaxation, Relaxer


def rattle_all(crystals: Sequence[Crystal | None], *, relaxer: Relaxer, display: Display) -> list[Relaxation | None]:
    """What is left of each crystal after a shake and a second relaxation; see ``druse_energetics.rattling``.

    Args:
        crystals: as given; None stays None.
        relaxer: remembers the first relaxations, and the second ones of an interrupted call: the shake of a crystal is
            always the same.
        display: shows progress, and how many found a lower place.
    """
    from druse_energetics.rattling import RattledRelaxer

    present = [crystal for crystal in crystals if crystal is not None]
    counts: Counter[str] = Counter()
    done = 0
    display.update("rattling", 0, len(present))

    def on_result(_index: int, relaxation: Relaxation) -> None:
        nonlocal done
        done += 1
        counts["fell lower"] += (relaxation.rattled_energy_drop or 0.0) > 0
        display.update("rattling", done, len(present), counts)

    results = iter(RattledRelaxer(relaxer)(present, on_result=on_result))
    return [None if crystal is None else next(results) for crystal in crystals]
