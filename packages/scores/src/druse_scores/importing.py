"""Published checkpoints as checkpoints of Druse."""

from pathlib import Path

import numpy as np
from druse_crystal.alex_mp_20 import ELEMENTS, NUM_ATOMS
from druse_crystal.cache_directory import is_cache, read_cache
from druse_crystal.dataset import CrystalDataset
from druse_crystal.manifest import file_hash
from druse_diffusion import NUM_ELEMENTS

from druse_scores.checkpoint import Checkpoint
from druse_scores.gemnet.lightning_file import (
    HUB,
    PUBLISHED,
    LightningFileError,
    fetch,
    find_file,
    has_lightning,
    read_lightning,
)
from druse_scores.gemnet.published import network_of
from druse_scores.gemnet.run_settings import RunSettings

ASSUMED_SETTINGS = "none in the file or beside it: those of the published models"
"""What the provenance of an import says under ``settings`` where nothing told them."""
_ANOTHER = "another file than the one that had this name on the hub in 2025"


def import_checkpoint(source: str, *, which: str = "last", data: Path | None = None) -> Checkpoint:
    """Read a checkpoint of the published MatterGen code.

    Args:
        source: a Lightning file, a folder with ``config.yaml`` and Lightning files, or the name of a published model;
            Lightning files that lie at the path win.
        which: of a folder with several files, ``last`` or ``best``.
        data: what it was trained on, whose elements and numbers of atoms are those that are drawn: a Parquet file of
            Druse, or a cache directory of the published code; of data with a split the training part. None: those of
            Alex-MP-20, which all published models were trained on but ``mp_20_base``, whose elements and sizes are as
            many.

    Returns:
        the network, also one that was trained for crystal structure prediction.

    Raises:
        ValueError: in one sentence, if it cannot be fetched or read, or is of another network.
    """
    named = source in PUBLISHED and not has_lightning(Path(source))
    num_atoms, elements = (dict(NUM_ATOMS), ELEMENTS) if data is None else _prior(data)
    path, where = fetch(source) if named else (path := find_file(Path(source), which=which), f"the file {path}")
    file = read_lightning(path)
    settings = file.settings or RunSettings()
    digest = file_hash(path)
    assumed = data is None and (not named or source == "mp_20_base")
    try:
        network = network_of(file.tensors, logarithmic=settings.logarithmic, **settings.graph).float()
    except ValueError as error:
        raise LightningFileError(f"{path}: {error}") from error
    return Checkpoint(
        network=network,
        num_atoms=num_atoms,
        elements=elements,
        given_species=settings.given_species,
        density=settings.density,
        provenance={
            "imported": f"{source} of {HUB}" if named else Path(source).name,
            "from": where,
            "file": path.name,
            "sha256": digest,
            **({} if digest.startswith(PUBLISHED.get(source, "")) else {"note": _ANOTHER}),
            "sizes_and_elements": "those of Alex-MP-20" if data is None else f"those of {data.name}",
            **({"assumed": "sizes and elements"} if assumed else {}),
            **({} if file.epoch is None else {"epoch": file.epoch}),
            **({"settings": ASSUMED_SETTINGS} if file.settings is None else {}),
        },
    )


def _prior(data: Path) -> tuple[dict[int, int], tuple[int, ...]]:
    """How many crystals of some data have each number of atoms, and atomic numbers of all their elements, rising.

    Raises:
        ValueError: if it cannot be read, or has elements without a class.
    """
    table = data.suffix.lower() in (".csv", ".zip", ".gz")
    if table or (data.is_dir() and not is_cache(data)):
        raise ValueError(
            f"{data} is no {'Parquet file' if table else 'cache directory'}: give one, or the Parquet file that "
            f"`druse-train data build --from {data}` makes of tables"
        )
    dataset = read_cache(data) if data.is_dir() else CrystalDataset.read(data)
    if not len(dataset):
        raise ValueError(f"{data} has no crystals: give what the model was trained on")
    part = dataset.subset("train") if "train" in dataset.split else dataset
    sizes, counts = np.unique(part.num_atoms, return_counts=True)
    elements = sorted({int(z) for crystal in part.crystals for z in crystal.atomic_numbers})
    if elements[-1] > NUM_ELEMENTS:
        raise ValueError(f"{data} has crystals with element number {elements[-1]}, which has no class: leave them out")
    return dict(zip(sizes.tolist(), counts.tolist(), strict=True)), tuple(elements)
