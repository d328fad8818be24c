"""Names of what was read: one for each structure, none twice."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from druse_crystal.io import ReadResult

_ROW = re.compile(r"(?P<table>.*\.csv)#(?P<row>[0-9]+)(?P<block>#.*)?", re.IGNORECASE | re.DOTALL)


def unique_sources(found: Sequence[tuple[Path, ReadResult]]) -> list[ReadResult]:
    """The results with sources of which none occurs twice.

    Rows of a CSV table with ids, all different, are named by them: ``table.csv#mp-22862`` for ``table.csv#1``. Equal
    sources from several paths get the folder in front: ``da/x.cif`` and ``db/x.cif``. What is still equal, such as
    doubled members of an archive, is numbered from the second on: ``set.zip/x.cif#2``.

    Args:
        found: each with the path, as the user gave it, that it was read from.
    """
    sources = _with_ids(found)
    paths_of: dict[str, set[Path]] = defaultdict(set)
    for source, (path, _) in zip(sources, found, strict=True):
        paths_of[source].add(path)
    for i, (path, _) in enumerate(found):
        if len(paths_of[sources[i]]) > 1:
            folder = path if path.is_dir() else path.parent
            sources[i] = (folder / sources[i]).as_posix()
    taken, given = set(sources), set()
    for i, source in enumerate(sources):
        number, name = 1, source
        while name in given or (number > 1 and name in taken):
            number += 1
            name = f"{source}#{number}"
        given.add(name)
        sources[i] = name
    return [_named(result, source) for source, (_, result) in zip(sources, found, strict=True)]


def _with_ids(found: Sequence[tuple[Path, ReadResult]]) -> list[str]:
    """Sources in which the number of a CSV table's row is its id, where every row of the table has one of its own."""
    parts = [_ROW.fullmatch(result.source) for _, result in found]
    ids: dict[tuple[Path, str], dict[str, str | None]] = defaultdict(dict)
    for (path, result), part in zip(found, parts, strict=True):
        if part:
            ids[path, part["table"]][part["row"]] = result.info.get("id")
    counts = {table: Counter(rows.values()) for table, rows in ids.items()}
    sources = []
    for (path, result), part in zip(found, parts, strict=True):
        source = result.source
        if part:
            of_table = counts[path, part["table"]]
            if None not in of_table and max(of_table.values()) == 1:
                source = f"{part['table']}#{result.info['id']}{part['block'] or ''}"
        sources.append(source)
    return sources


def _named(result: ReadResult, source: str) -> ReadResult:
    """The result under another name, which its error uses too."""
    if source == result.source:
        return result
    error = result.error and f"{source}{result.error.removeprefix(result.source)}"
    return replace(result, source=source, error=error)
