"""How long does a draw from a network take from noise to crystals, and how much memory, in a process of its own?"""

import multiprocessing
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import torch
from druse_crystal import CrystalBatch
from druse_crystal.alex_mp_20 import ELEMENTS, NUM_ATOMS
from druse_generate.checking import check
from druse_generate.config import SAMPLERS, GenerateConfig, SamplerConfig
from druse_generate.generating import generate
from druse_scores import Checkpoint, GemNet, GemNetConfig
from druse_scores.gemnet.graph import CrystalGraph


@dataclass(frozen=True, kw_only=True)
class WholeDraw:
    """Crystals that a network with random weights draws.

    Attributes:
        network: its size.
        crystals: how many.
        num_atoms: of each.
        sampler: that draws them.
        mixed_precision: whether the network multiplies in bfloat16.
        threads: of the processor.
        seed: of weights and noise.
    """

    network: GemNetConfig
    crystals: int = 16
    num_atoms: int = 10
    sampler: SamplerConfig = SAMPLERS["quick"]
    mixed_precision: bool = False
    threads: int = 2
    seed: int = 0

    def measure(self) -> dict[str, Any]:
        """Seconds from noise to crystals, edges of an evaluation, valid crystals, and MiB held at most.

        To be called before this process has grown: on Linux a new process inherits the mark of its parent.
        """
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            return pool.submit(_draw, self).result()


def peak_memory() -> float:
    """MiB that this process has held at most."""
    bytes_in_a_unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * bytes_in_a_unit / 2**20


class _Counted(GemNet):
    """Remembers how many edges each evaluation had."""

    def __init__(self, config: GemNetConfig):
        super().__init__(config)
        self.edges: list[int] = []

    def graph(self, noisy: CrystalBatch) -> CrystalGraph:
        found = super().graph(noisy)
        self.edges.append(len(found))
        return found


def _draw(asked: WholeDraw) -> dict[str, Any]:
    torch.set_num_threads(asked.threads)
    torch.manual_seed(asked.seed)
    network = _Counted(asked.network).eval()
    checkpoint = Checkpoint(network=network, num_atoms=dict(NUM_ATOMS), elements=ELEMENTS)
    config = GenerateConfig(
        num=asked.crystals,
        seed=asked.seed,
        num_atoms=(asked.num_atoms, asked.num_atoms),
        sampler=asked.sampler,
        mixed_precision=asked.mixed_precision,
    )
    wishes = check(checkpoint, config)
    start = time.perf_counter()
    draws = [draw for batch in generate(wishes, range(asked.crystals)) for draw in batch]
    return {
        "crystals": asked.crystals,
        "num_atoms": asked.num_atoms,
        "precision": "bfloat16" if asked.mixed_precision else "float32",
        "sampler": asdict(asked.sampler),
        "evaluations": asked.sampler.evaluations,
        "seconds": time.perf_counter() - start,
        "edges": sum(network.edges) / len(network.edges),
        "valid": sum(draw.crystal is not None for draw in draws),
        "peak_mib": peak_memory(),
    }
