"""How long does the published network take, beside the published code and beside the floor of its matrix products?"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from druse_crystal import CrystalBatch
from druse_crystal.console import Display
from druse_crystal.dataset import CrystalDataset
from druse_crystal.manifest import Manifest
from druse_diffusion import CrystalProcess, Prediction, RandomStreams
from druse_scores import GemNet, GemNetConfig, has_bfloat16
from matplotlib.figure import Figure
from torch.utils.flop_counter import FlopCounterMode

from druse_benchmarks.drawing import COLORS, canvas
from druse_benchmarks.record import machine_load, markdown_table, plain, write_record
from druse_benchmarks.whole_draw import WholeDraw, peak_memory

NAME = "published-network"
PUBLISHED: Mapping[int, float] = {1: 0.226, 4: 0.829, 16: 3.581}
"""Mean seconds of one evaluation by the published code (commit ac9ddd4, torch 2.13, float32, t = 0.5, two threads),
by the number of crystals: recorded once on two cores that multiplied 8,000 x 512 x 512 matrices at the speed below."""
PUBLISHED_PRODUCTS = 146.0
"""GFLOP/s, a multiplication and an addition each counting."""
PUBLISHED_MEMORY = 885
"""MiB that the process of the published code grew by for 16 crystals."""
FULL = GemNetConfig()
SMALL = GemNetConfig(num_blocks=1, hidden=32, trip=8, bilinear=8, rbf=4, cbf=4)


@dataclass(frozen=True, kw_only=True)
class PublishedNetworkConfig:
    """What is timed.

    Attributes:
        network: its size; weights are random.
        crystals: batches of so many crystals of 10 or 11 atoms; as many as the largest holds are drawn from noise.
        repeats: evaluations of each; their mean counts, as of the published code.
        threads: of the processor.
        seed: of crystals, noise and weights.
    """

    network: GemNetConfig = FULL
    crystals: tuple[int, ...] = (1, 4, 16)
    repeats: int = 5
    threads: int = 2
    seed: int = 0


def published_network(
    config: PublishedNetworkConfig, dataset: CrystalDataset, *, out: Path, display: Display, manifest: Manifest
) -> Path:
    """Time evaluations of a network of the published size.

    Args:
        config: what is timed.
        dataset: crystals that are noised to t = 0.5.
        out: folder of all results.
        display: shows progress.
        manifest: receives the protocol.

    Returns:
        the folder of the record.
    """
    modes = [False, *([True] if has_bfloat16(torch.device("cpu")) else [])]
    draws = []
    for mixed in modes:
        display.say(f"{max(config.crystals)} crystals from noise, {'bfloat16' if mixed else 'float32'}")
        draw = WholeDraw(
            network=config.network,
            crystals=max(config.crystals),
            mixed_precision=mixed,
            threads=config.threads,
            seed=config.seed,
        )
        draws.append(draw.measure())
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    network = GemNet(config.network).eval()
    rows: list[dict[str, Any]] = []
    full: dict[int, Prediction] = {}
    before = peak_memory()
    for mixed, number in product(modes, sorted(config.crystals)):
        precision = "bfloat16" if mixed else "float32"
        display.say(f"{number} crystals, {precision}")
        batch, t = _noised(dataset, number, config.seed), torch.full((number,), 0.5)
        graph = network.graph(batch)
        network.mixed_precision = mixed
        with torch.no_grad():
            with FlopCounterMode(display=False, custom_mapping=_fused_flops()) as counter:
                network(batch, t)
            answer, seconds, fastest = _timed(lambda b=batch, t=t: network(b, t), config.repeats)
        grown = peak_memory() - before
        full.setdefault(number, answer)
        rows.append(
            {
                "crystals": number,
                "atoms": len(batch.frac_coords),
                "edges": len(graph),
                "triplets": int((graph.degree * (graph.degree - 1)).sum()),
                "precision": precision,
                "seconds": seconds,
                "fastest": fastest,
                "gflop": counter.get_total_flops() / 1e9,
                "products_gflop_per_s": _products(len(graph), config.network.hidden, config.repeats, mixed=mixed),
                "off": {
                    name: _off(getattr(answer, name), getattr(full[number], name))
                    for name in ("lattice", "frac_coords", "species_logits")
                },
                "grown_mib": grown,
            }
        )
    manifest.seed = config.seed
    manifest.settings |= asdict(config)
    manifest.results |= {
        "rows": rows,
        "draws": draws,
        "published": {
            "seconds": {str(n): s for n, s in PUBLISHED.items()},
            "products_gflop_per_s": PUBLISHED_PRODUCTS,
            "grown_mib": PUBLISHED_MEMORY,
        },
    }
    document = manifest.as_dict()
    document["machine"] |= machine_load()
    return write_record(
        out,
        NAME,
        documents={NAME: plain(document)},
        table=_table(rows, draws),
        picture=picture(rows),
        caption="Seconds of one evaluation of the published network",
    )


def _noised(dataset: CrystalDataset, number: int, seed: int) -> CrystalBatch:
    """Crystals of ten atoms and, for a quarter, of eleven, noised to t = 0.5."""
    rng = np.random.default_rng(seed)
    wanted = {10: number - number // 4, 11: number // 4}
    rows = [row for n, k in wanted.items() for row in rng.choice(np.flatnonzero(dataset.num_atoms == n), k)]
    clean = CrystalBatch.from_crystals([dataset.crystals[int(row)] for row in rows])
    streams = RandomStreams(seed, range(number))
    return CrystalProcess().corrupt(clean, torch.full((number,), 0.5), generator=streams)


def _products(edges: int, width: int, repeats: int, *, mixed: bool) -> float:
    """GFLOP/s of the product of edges with a weight matrix."""
    dtype = torch.bfloat16 if mixed else torch.float32
    x, w = torch.randn(edges, width).to(dtype), torch.randn(width, width).to(dtype)
    _, seconds, _ = _timed(lambda: x @ w, 4 * repeats)
    return 2 * edges * width**2 / seconds / 1e9


def _fused_flops() -> dict[Any, Callable[..., int]]:
    """How torch counts the operations of products that are taken together with their activation."""
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return {}

    def flops(x: Sequence[int], weight: Sequence[int], *_: Any, out_shape: Any = None, **__: Any) -> int:
        return 2 * math.prod(x) * weight[0]

    return {torch.ops.mkldnn._linear_pointwise: flops}


def _timed[T](call: Callable[[], T], repeats: int) -> tuple[T, float, float]:
    """The answer of a call, and the mean and the smallest of its seconds; the first call does not count."""
    answer, seconds = call(), []
    for _ in range(repeats):
        start = time.perf_counter()
        answer = call()
        seconds.append(time.perf_counter() - start)
    return answer, sum(seconds) / len(seconds), min(seconds)


def _off(ours: torch.Tensor, full: torch.Tensor) -> float:
    return float((ours - full).abs().max() / full.abs().max().clamp(min=1e-30))


def _table(rows: Sequence[Mapping[str, Any]], draws: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    float32 = {r["crystals"]: r["products_gflop_per_s"] for r in rows if r["precision"] == "float32"}
    for r in rows:
        floor = r["gflop"] / r["products_gflop_per_s"]
        published = PUBLISHED.get(r["crystals"])
        here = None if published is None else published * PUBLISHED_PRODUCTS / float32[r["crystals"]]
        lines.append(
            [
                f"{r['crystals']} crystals, {r['atoms']} atoms",
                r["precision"],
                f"{r['edges']:,}",
                f"{r['seconds']:.3f}",
                f"{r['gflop']:.0f}",
                f"{r['products_gflop_per_s']:.0f}",
                f"{floor:.3f}",
                f"{r['seconds'] / floor:.2f}",
                "–" if published is None else f"{published:.3f}",
                "–" if published is None else f"{published / r['seconds']:.2f}",
                "–" if here is None else f"{here / r['seconds']:.2f}",
                f"{r['grown_mib']:.0f}",
                f"{max(r['off'].values()):.1e}",
            ]
        )
    header = [
        "",
        "precision",
        "edges",
        "s",
        "GFLOP",
        "GFLOP/s of its products",
        "floor, s",
        "s / floor",
        "published, s",
        "published / s",
        "the same, of equal machines",
        "MiB",
        "off",
    ]
    drawn = [
        f"{d['crystals']} crystals of {d['num_atoms']} atoms by {d['evaluations']} evaluations in {d['precision']}, "
        f"of {d['edges']:,.0f} edges in the mean, took {d['seconds']:.0f} s from noise to the end and "
        f"{d['peak_mib'] / 1024:.2f} GiB of memory at most ({d['valid']} valid)"
        for d in draws
    ]
    return (
        f"{markdown_table(header, lines)}\nOne evaluation at t = 0.5, the mean of some. Floor: the network's "
        "operations at the speed at which this machine multiplies its edges with a weight matrix of one layer. "
        "Published: the mean of the published code in float32, recorded on two cores whose products ran at "
        f"{PUBLISHED_PRODUCTS:.0f} GFLOP/s; of equal machines: scaled by the speed of these products in float32 "
        f"on both. MiB: most that the process has grown so far, {PUBLISHED_MEMORY} for 16 crystals of the published "
        "code. Off: largest difference from float32, over the largest entry.\n\n"
        f"{'; '.join(drawn)}. Each draw had a process of its own; the weights are random, so that the crystals mean "
        "nothing.\n"
    )


def picture(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Seconds against crystals."""
    figure, (panel,) = canvas(width=5.0, height=3.4)
    for i, precision in enumerate(dict.fromkeys(r["precision"] for r in rows)):
        own = [r for r in rows if r["precision"] == precision]
        sizes = [r["crystals"] for r in own]
        panel.plot(sizes, [r["seconds"] for r in own], marker="o", color=COLORS[i], label=f"Druse, {precision}")
        if precision == "float32":
            floors = [r["gflop"] / r["products_gflop_per_s"] for r in own]
            panel.plot(sizes, floors, color=COLORS[5], linestyle=":", label="floor, float32")
    panel.plot(list(PUBLISHED), list(PUBLISHED.values()), marker="s", color=COLORS[2], label="published code, recorded")
    panel.set_xscale("log", base=2)
    panel.set_xticks(list(PUBLISHED), [str(number) for number in PUBLISHED])
    panel.set_yscale("log")
    panel.yaxis.set_major_formatter("{x:g}")
    panel.set_xlabel("crystals")
    panel.set_ylabel("seconds of an evaluation")
    panel.legend(frameon=False)
    return figure
