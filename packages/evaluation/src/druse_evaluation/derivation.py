"""The recipe behind ``data/known-bonds.json``: run again when the embedded data or the rule for bonds changes.

    python -m druse_evaluation.derivation
    python -m druse_evaluation.derivation measure

The first finds the bonds of the embedded structures near the hull of the split ``train`` (a minute on one core) and
writes the ranges that they span. The splits ``val``, by which the tolerance was chosen, and ``test`` stay out. The
second puts the split ``test``, as it is and spoilt in five ways, to the tests of ``plausibility``, and prints how many
percent of the crystals fail each (some minutes).
"""

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from druse_crystal.crystal import Crystal
from druse_crystal.dataset import CrystalDataset, load_embedded
from druse_crystal.files import write_text

from druse_evaluation.bonds import BOND, EQUALLY_NEAR, LONGEST_BOND, Bonds, find_bonds
from druse_evaluation.known_bonds import TAIL, KnownBonds, collect_known_bonds
from druse_evaluation.plausibility import TESTS, Plausibility, plausibility

DATA = Path(__file__).parent / "data"
N_SPOILT = 300
NEAR_HULL = 0.3
"""eV/atom above the hull, up to which a DFT structure counts as a known crystal: hypothetical phases far above
it, with lone atoms, do not widen the ranges."""
HEAVIEST = 83  # random elements are those from lithium to bismuth


def derive_known_bonds(folder: Path = DATA) -> KnownBonds:
    """The ranges of the embedded structures near the hull of the split ``train``; written into ``folder``."""
    dataset = known_crystals("train")
    found = [bonds for crystal in dataset.crystals if (bonds := _bonds(crystal)) is not None]
    known = collect_known_bonds(
        found,
        provenance={
            "data": f"embedded structures of the Materials Project, split train, to {NEAR_HULL} eV/atom above the hull",
            "source": dataset.metadata["source"],
            "licence": dataset.metadata["licence"],
            "structures": len(found),
            "units": "Å; by_radii in sums of covalent radii (B. Cordero et al., Dalton Trans. 2008, 2832)",
            "rule": {"bond": BOND, "longest_bond": LONGEST_BOND, "equally_near": EQUALLY_NEAR, "tail": TAIL},
            "recipe": "python -m druse_evaluation.derivation",
        },
    )
    write_text(folder / "known-bonds.json", json.dumps(known.as_dict(), ensure_ascii=False, indent=0) + "\n")
    return known


def known_crystals(split: str) -> CrystalDataset:
    """The embedded structures of a split that lie at most ``NEAR_HULL`` above the hull."""
    dataset = load_embedded().subset(split)
    return dataset.select(dataset.labels["energy_above_hull"] <= NEAR_HULL)


def _bonds(crystal: Crystal) -> Bonds | None:
    try:
        return find_bonds(crystal)
    except ValueError:
        return None


type Spoil = Callable[[Crystal, np.random.Generator], Crystal]


def _other_elements(crystal: Crystal, rng: np.random.Generator) -> Crystal:
    elements = np.unique(crystal.atomic_numbers)
    others = rng.choice(np.arange(3, HEAVIEST + 1), len(elements), replace=False)
    return crystal.replace(atomic_numbers=others[np.searchsorted(elements, crystal.atomic_numbers)])


SPOILT: dict[str, Spoil] = {
    "atoms at random places": lambda c, rng: c.replace(frac_coords=rng.random(c.frac_coords.shape)),
    "other elements, at random": _other_elements,
    "atoms of a compound exchanged at random": lambda c, rng: c.replace(
        atomic_numbers=rng.permutation(c.atomic_numbers)
    ),
    "volume 20 % smaller": lambda c, rng: c.replace(lattice=0.8 ** (1 / 3) * c.lattice),
    "volume 30 % larger": lambda c, rng: c.replace(lattice=1.3 ** (1 / 3) * c.lattice),
}
"""Ways to make known crystals implausible."""


def measure_tests(*, n_spoilt: int = N_SPOILT, seed: int = 0) -> None:
    """Print how many crystals of the split ``test``, and of spoilt ones, fail each test, with the time it takes."""
    dataset = load_embedded().subset("test")
    rng = np.random.default_rng(seed)
    started = time.process_time()
    seconds, blocks = [], []
    for crystal in dataset.crystals:
        before = time.process_time()
        blocks.append(plausibility(crystal))
        seconds.append(time.process_time() - before)
    _print_shares("as they are", blocks)
    near = (dataset.labels["energy_above_hull"] <= NEAR_HULL).tolist()
    _print_shares("near the hull", [block for block, is_near in zip(blocks, near, strict=True) if is_near])
    _print_shares("farther above it", [block for block, is_near in zip(blocks, near, strict=True) if not is_near])
    print(f"charges: {_shares([str(b.charge_balance) for b in blocks])}")
    print(f"dimensionality: {_shares([str(b.dimensionality) for b in blocks])}")
    print(f"flags: {_shares([name for b in blocks for name in {f.partition(':')[0] for f in b.flags}], len(blocks))}")
    print(f"untested: {_shares([line for b in blocks for line in b.untested], len(blocks))}")
    print(f"processor seconds a crystal: median {np.median(seconds):.3f}, 99 % {np.quantile(seconds, 0.99):.3f}")
    print(f"slowest after the first: {max(seconds[1:]):.3f}; all {time.process_time() - started:.0f}")
    compounds = [c for c in known_crystals("test").crystals if len(set(c.atomic_numbers.tolist())) > 1]
    chosen = rng.choice(len(compounds), n_spoilt, replace=False).tolist()
    _print_shares("compounds as they are", [plausibility(compounds[i]) for i in chosen])
    for name, spoil in SPOILT.items():
        _print_shares(name, [plausibility(spoil(compounds[i], rng)) for i in chosen])


def _print_shares(name: str, blocks: Sequence[Plausibility]) -> None:
    n = len(blocks)
    failed = Counter(line.partition(":")[0] for block in blocks for line in block.failed)
    shares = ", ".join(f"{test} {100 * failed[test] / n:.1f}" for test in TESTS)
    none = sum(not block.failed for block in blocks)
    print(f"{name}: {n} crystals, fail {shares}; none of them {100 * none / n:.1f}", flush=True)


def _shares(values: Sequence[str], total: int | None = None) -> str:
    counted = Counter(values).most_common()
    return ", ".join(f"{name} {100 * n / (total or len(values)):.1f}" for name, n in counted)


if __name__ == "__main__":
    if sys.argv[1:] == ["measure"]:
        measure_tests()
    else:
        known = derive_known_bonds()
        print(f"{known.provenance['structures']} structures, {len(known.shortest)} pairs of elements", file=sys.stderr)
