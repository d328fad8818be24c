"""Settings of a relaxation and of an evaluation, with defaults and units."""

from dataclasses import asdict, dataclass, field
from typing import Any

from druse_crystal.settings import override


@dataclass(frozen=True, kw_only=True)
class RelaxationConfig:
    """How crystals are relaxed.

    Attributes:
        potential: ``sevennet-0``, ``sevennet-l3i5`` or ``chgnet``.
        fmax: eV/Å; finished when no force is larger.
        max_steps: give up after so many steps; 0 judges the crystals as they are.
        device: torch device.
        rattle: shake every relaxed crystal, relax it again, and keep what is lower.
    """

    potential: str = "sevennet-0"
    fmax: float = 0.05
    max_steps: int = 500
    device: str = "cpu"
    rattle: bool = False


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How crystals are judged.

    Attributes:
        reference: ``embedded``, or the path of a reference.
        training: dataset or files of the crystals that the generator has learnt from, for novelty against them.
        relaxation: how they are relaxed first.
        judges: further potentials that judge the relaxed crystals, each on the hull of its own energies.
        phonons: look for imaginary modes of the relaxed crystals.
        n_best: crystals drawn in the report.
    """

    reference: str = "embedded"
    training: str | None = None
    relaxation: RelaxationConfig = field(default_factory=RelaxationConfig)
    judges: tuple[str, ...] = ()
    phonons: bool = False
    n_best: int = 9

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def with_options(
    config: EvaluationConfig,
    *,
    reference: str | None,
    training: str | None = None,
    judges: tuple[str, ...] | None = None,
    phonons: bool | None = None,
    **relaxation: Any,
) -> EvaluationConfig:
    """The settings with those replaced that were given (not None) on the command line."""
    return override(
        config,
        reference=reference,
        training=training,
        judges=judges,
        phonons=phonons,
        relaxation=override(config.relaxation, **relaxation),
    )
