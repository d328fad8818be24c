"""What a benchmark leaves behind: JSON with the whole protocol, a table, a picture, a section of the README."""

import json
import math
import os
import platform
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from druse_crystal.console import Display
from druse_crystal.files import replacing, write_text
from druse_evaluation.estimate import Rate
from druse_evaluation.table import CALIBRATED_ON
from matplotlib.figure import Figure

README = "README.md"


def write_record(
    out: Path,
    name: str,
    *,
    documents: Mapping[str, Mapping[str, Any]],
    table: str,
    picture: Figure,
    caption: str,
) -> Path:
    """Write ``<out>/<name>/*.json``, ``table.md`` and ``picture.png``, and the section of ``README.md`` beside ``out``.

    The section is what stands between ``<!-- name:begin -->`` and ``<!-- name:end -->``; without such a README nothing
    but the folder is written.

    Args:
        out: folder of all results.
        name: of the benchmark.
        documents: content of the JSON files, by their names without ``.json``.
        table: Markdown, with whatever the reader must know to read it.
        picture: the figure.
        caption: says what the picture shows.

    Returns:
        the folder.

    Raises:
        ValueError: if a file cannot be written.
    """
    folder = out / name
    for title, content in documents.items():
        write_text(folder / f"{title}.json", json.dumps(plain(content), indent=2, allow_nan=False) + "\n")
    write_text(folder / "table.md", table)
    with replacing(folder / "picture.png") as temporary:
        picture.savefig(temporary, dpi=150, format="png", metadata={"Software": None})
    write_section(out.parent / README, name, f"{table}\n![{caption}]({out.name}/{name}/picture.png)\n")
    return folder


def write_section(readme: Path, name: str, text: str) -> bool:
    """Replace the section ``name`` of a README; whether it has such a section."""
    if not readme.is_file():
        return False
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, found, rest = readme.read_text(encoding="utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        return False
    write_text(readme, f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}")
    return True


def plain(value: Any) -> Any:
    """As JSON can hold it: no NaN, no infinity, no numpy numbers, and of absolute paths only the last name."""
    if isinstance(value, Mapping):
        return {plain(str(key)): plain(item) for key, item in value.items()}
    if isinstance(value, str | os.PathLike):
        return re.sub(r"(^|[=,:])/(?:[^,=:]*/)?", r"\1", str(value))
    if isinstance(value, Sequence):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def machine_load() -> dict[str, Any]:
    """What a time depends on: the processor, the threads in use, and how busy the machine is."""
    return {
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "load_average": [round(x, 2) for x in os.getloadavg()] if hasattr(os, "getloadavg") else None,
    }


def processor() -> str:
    """The processor's name for people, where the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(encoding="utf-8", errors="ignore"), re.MULTILINE)
        if found:
            return found[1].strip()
    return platform.processor() or platform.machine()


JUDGED_BY = ("judge", "reference", "n_known_structures", "matcher", "symprec", "residual", "calibrations")
"""What has to be the same for two rates to stand side by side; further judges and levels of novelty add rows only.

The same is asked of the hashes of reference and weights, see ``made_alike``."""


def judged_by(content: Mapping[str, Any]) -> list[Any]:
    """Judge and relaxation of a JSON file, by name: see ``made_alike``."""
    judge, relaxation = content["judge"], content["settings"]["relaxation"]
    return [*(judge[key] for key in JUDGED_BY), *(relaxation[key] for key in ("potential", "fmax", "max_steps"))]


def made_alike(
    one: Mapping[str, Any],
    other: Mapping[str, Any],
    *,
    made_by: Callable[[Mapping[str, Any]], list[Any]] = judged_by,
) -> bool:
    """Whether the numbers of two JSON files may stand side by side.

    Names and settings have to be the same, and where both files have the hashes of the reference and of the judge's
    weights, these too. Older files have none.

    Args:
        one: content of a file.
        other: content of another one.
        made_by: of a file, what has to be the same.
    """
    return made_by(one) == made_by(other) and _same_files(one["judge"], other["judge"])


def _same_files(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether reference and weights have the same hashes, or one of the files does not tell."""
    weights = [judge.get("weights", {}).get(judge["judge"]) for judge in (one, other)]
    if None not in weights and weights[0] != weights[1]:
        return False
    mine, theirs = one.get("reference_files"), other.get("reference_files")
    if not mine or not theirs:
        return True
    if any(theirs[name] != digest for name, digest in mine.items() if name in theirs):
        return False
    # only references of further judges may be missing on the other side
    more = [(one, mine.keys() - theirs.keys()), (other, theirs.keys() - mine.keys())]
    return all(judge.get("judges") or not names for judge, names in more)


def read_alike(
    folder: Path,
    names: Iterable[str],
    *,
    like: str,
    display: Display,
    made_by: Callable[[Mapping[str, Any]], list[Any]] = judged_by,
    made: str = "judged",
) -> dict[str, Mapping[str, Any]]:
    """The JSON files of a folder that are there, by name, as far as they were made alike.

    Args:
        folder: of the record.
        names: of cases, in the order of the table.
        like: the case that decides.
        display: told which files stay out.
        made_by: of a file, what has to be the same.
        made: what that is about, in words.
    """
    files = {name: folder / f"{name}.json" for name in names}
    there = {name: json.loads(file.read_text(encoding="utf-8")) for name, file in files.items() if file.is_file()}
    for name in list(there):
        if not made_alike(there[name], there[like], made_by=made_by):
            display.warn(f"{files[name]} was {made} in another way than {like} and stays out of the table")
            del there[name]
    return there


EXPECTED = (
    "After the semicolon: the share that DFT is expected to find, by the calibrations on generated and on substituted "
    "crystals."
)
"""What ``judged_and_expected`` means, for the text below a table."""


def judged_and_expected(results: Mapping[str, Any], name: str) -> str:
    """A rate about the hull as judged, with its interval, and what the calibrations make of it, if there are any.

    Args:
        results: of an evaluation, by metric.
        name: of the metric as judged.
    """
    judged = str(Rate(results[name]["count"], results[name]["total"]))
    keys = [f"{name}_calibrated_{against}" for against in CALIBRATED_ON]
    expected = " to ".join(f"{100 * results[key]['value']:.1f}" for key in keys if key in results)
    return f"{judged}; {expected} %" if expected else judged


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are numbers."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
