"""Published checkpoints as checkpoints of Druse."""

from pathlib import Path

from druse_crystal.alex_mp_20 import ELEMENTS, NUM_ATOMS
from druse_crystal.manifest import file_hash

from druse_scores.checkpoint import Checkpoint
from druse_scores.gemnet.lightning_file import HUB, PUBLISHED, LightningFileError, fetch, find_file, read_lightning
from druse_scores.gemnet.published import network_of
from druse_scores.gemnet.run_settings import RunSettings


def import_checkpoint(source: str, *, which: str = "last") -> Checkpoint:
    """Read a checkpoint of the published MatterGen code.

    Args:
        source: a Lightning file, a folder with ``config.yaml`` and Lightning files, or the name of a published model;
            what lies at the path wins.
        which: of a folder with several files, ``last`` or ``best``.

    Returns:
        the network, also one that was trained for crystal structure prediction, with the elements and numbers of atoms
        of Alex-MP-20, which all published models were trained on but ``mp_20_base``, whose elements and sizes are as
        many.

    Raises:
        ValueError: in one sentence, if it cannot be fetched or read, or is of another network.
    """
    named = source in PUBLISHED and not Path(source).exists()
    path = fetch(source) if named else find_file(Path(source), which=which)
    file = read_lightning(path)
    settings = file.settings or RunSettings()
    try:
        network = network_of(file.tensors, logarithmic=settings.logarithmic, **settings.graph)
    except ValueError as error:
        raise LightningFileError(f"{path}: {error}") from error
    return Checkpoint(
        network=network,
        num_atoms=dict(NUM_ATOMS),
        elements=ELEMENTS,
        given_species=settings.given_species,
        provenance={
            "imported": f"{source} of {HUB}" if named else Path(source).name,
            "file": path.name,
            "sha256": file_hash(path),
            **({} if file.epoch is None else {"epoch": file.epoch}),
            **({"settings": "none beside the file: those of the published models"} if file.settings is None else {}),
        },
    )
