"""Do crystals have the properties that were asked for, and is asking cheaper than sifting?"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from druse.obtained import names_of
from druse_crystal.dataset import CrystalDataset
from druse_crystal.files import writable_folder
from druse_evaluation.summary import judge_sentence

from druse_benchmarks.answers import Answers, read_answers
from druse_benchmarks.asking import Asking, write_case
from druse_benchmarks.dataset_search import DatasetSearch
from druse_benchmarks.properties_picture import picture
from druse_benchmarks.properties_table import SEVEN, table
from druse_benchmarks.record import write_record

NAME = "properties"
NOTHING = "nothing"
CASES: Mapping[str, tuple[str, ...]] = {
    NOTHING: (),
    "chemical-system-Ba-O-Ti": ("chemical_system=Ba-O-Ti",),
    "chemical-system-Li-Mn-O": ("chemical_system=Li-Mn-O",),
    "space-group-225": ("space_group=225",),
    "space-group-62": ("space_group=62",),
    "energy-above-hull-0": ("energy_above_hull=0",),
    "energy-above-hull-0.1": ("energy_above_hull=0.1",),
    "bulk-modulus-250": ("ml_bulk_modulus=250",),
    "bulk-modulus-50": ("ml_bulk_modulus=50",),
    "band-gap-1.5": ("dft_band_gap=1.5",),
    "band-gap-3": ("dft_band_gap=3",),
    "magnetic-density-0.1": ("dft_mag_density=0.1",),
    "magnetic-density-0.02": ("dft_mag_density=0.02",),
    "hhi-1250": ("hhi_score=1250",),
    "hhi-4000": ("hhi_score=4000",),
    "magnetic-density-from-0.1-hhi-to-1500": ("dft_mag_density>=0.1", "hhi_score<=1500"),
    "magnetic-density-0.1-hhi-2500": ("dft_mag_density=0.1", "hhi_score=2500"),
    "Ba-O-Ti-on-the-hull": ("chemical_system=Ba-O-Ti", "energy_above_hull=0"),
    "Li-Mn-O-on-the-hull": ("chemical_system=Li-Mn-O", "energy_above_hull=0"),
}
"""What is asked for, by the name of the case: each property twice, and two pairs of properties twice."""


def properties(names: Sequence[str], *, asking: Asking, dataset: CrystalDataset, dataset_name: str, out: Path) -> Path:
    """Ask for properties, obtain them of the relaxed crystals, and compare with asking for nothing and with a dataset.

    Args:
        names: of ``CASES``.
        asking: how crystals are drawn, judged and measured.
        dataset: crystals with labels, in place of generated ones.
        dataset_name: names it in the protocol.
        out: folder of all results.

    Returns:
        the folder of the record.

    Raises:
        ValueError: for a case that does not exist, or one that the model cannot be asked for.
    """
    asking.check(names, CASES)
    folder = writable_folder(out / NAME)
    search = DatasetSearch(dataset)
    for name in names:
        targets = CASES[name]
        content = asking(name, targets, names=names_of(targets) or SEVEN)
        content["dataset"] = {"name": dataset_name, "found": search(targets) if targets else None}
        write_case(folder, name, content)
        write_properties(out, like=name, asking=asking)
    return folder


def write_properties(out: Path, *, like: str, asking: Asking) -> None:
    """Write tables, picture and section of the README from the JSON files that are there."""
    there = read_answers(out / NAME, CASES, like=like, display=asking.display)
    answers = {name: Answers.from_json(content["crystals"]) for name, content in there.items()}
    asked = {name: CASES[name] for name in there if CASES[name]}
    write_record(
        out,
        NAME,
        documents={},
        table=table(there, answers, asked, answers.get(NOTHING), judge_sentence(there[like]["judge"])),
        picture=picture(answers, asked, answers.get(NOTHING)),
        caption="Properties obtained of crystals that were asked for two values, and of crystals that were not asked",
    )
