"""Settings of a search."""

from dataclasses import dataclass, field

from druse_evaluate.config import EvaluationConfig
from druse_generate.config import GenerateConfig


@dataclass(frozen=True, kw_only=True)
class DiscoverConfig:
    """One search: how crystals are drawn, how many of them are relaxed, how they are judged.

    Attributes:
        pool: crystals drawn for each one that is relaxed; 1: no screening.
        generate: how crystals are drawn; its ``num`` counts those that are relaxed and judged.
        evaluate: how they are relaxed and judged.
    """

    pool: int = 4
    generate: GenerateConfig = field(default_factory=GenerateConfig)
    evaluate: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self):
        if self.pool < 1:
            raise ValueError(f"pool is {self.pool}, it must be at least 1")
