"""SHA-256 of what a reference is read from."""

from importlib.resources import as_file, files
from pathlib import Path

from druse_crystal.manifest import file_hash


def digests(*sources: Path | str) -> dict[str, str]:
    """SHA-256 by name of files of the user's own, given as paths, and of data of these packages, given as names.

    Raises:
        OSError: if one of them is not there.
    """
    found = {}
    for source in sources:
        if isinstance(source, Path):
            found[source.name] = file_hash(source)
            continue
        package = "druse_crystal" if source == "embedded.parquet" else "druse_energetics"
        with as_file(files(package) / "data" / source) as path:
            found[source] = file_hash(path)
    return found
