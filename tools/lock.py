"""Write ``uv.lock`` without addresses.

The lock that uv writes names the index and the download address of every file, so it only works for people who reach
the same index. This script keeps what a resolution needs to come out the same anywhere, the version of every package,
and drops the rest. uv takes the result as version preferences and completes it from whatever index is configured.

    python tools/lock.py < uv.lock       the address-free form on stdout (the git clean filter of ``make install``)
    python tools/lock.py uv.lock         rewrite the file in place
"""

import json
import os
import sys
import tomllib
from pathlib import Path

HEADER = (
    "# Versions only: uv completes this file from the index in use, and git commits this form. Written by `make lock`."
)
ANY_INDEX = "."  # a registry that is no address; uv asks for one and ignores it when it resolves again
LOCAL_SOURCES = ("editable", "virtual", "directory")


def address_free(text: str) -> str:
    """The address-free form of a lock file.

    Args:
        text: content of a ``uv.lock``, completed or already address-free (then nothing changes).

    Raises:
        ValueError: if the text is not a lock, or a package comes from an address instead of an index.
    """
    try:
        lock = tomllib.loads(text)
        packages = lock["package"]
        lines = [HEADER, f"version = {lock['version']}", f"requires-python = {quoted(lock['requires-python'])}"]
    except (tomllib.TOMLDecodeError, KeyError) as error:
        raise ValueError(f"uv.lock is no lock of uv ({error}): write it again with `uv lock`") from error
    lines += markers(lock)
    if members := lock.get("manifest", {}).get("members"):
        lines += ["", "[manifest]", "members = [", *(f"    {quoted(name)}," for name in members), "]"]
    for package in packages:
        lines += ["", "[[package]]", f"name = {quoted(package['name'])}"]
        if "version" in package:
            lines.append(f"version = {quoted(package['version'])}")
        lines += [source(package), *markers(package)]
    return "\n".join(lines) + "\n"


def source(package: dict) -> str:
    """The line that says where a package comes from: a folder of the workspace, or any index."""
    ((kind, value),) = package["source"].items()
    if kind in LOCAL_SOURCES:
        return f"source = {{ {kind} = {quoted(value)} }}"
    if kind == "registry":
        return f"source = {{ registry = {quoted(ANY_INDEX)} }}"
    raise ValueError(f"{package['name']} comes from {kind} {value}: depend on a version that is on a package index")


def markers(table: dict) -> list[str]:
    """The lines of ``resolution-markers``, where a lock or a package has any."""
    if "resolution-markers" not in table:
        return []
    return ["resolution-markers = [", *(f"    {quoted(marker)}," for marker in table["resolution-markers"]), "]"]


def quoted(value: str) -> str:
    """A TOML string."""
    return json.dumps(value, ensure_ascii=False)


def main(arguments: list[str]) -> int:
    """Clean the file that is named, or stdin to stdout."""
    try:
        if not arguments:
            sys.stdout.buffer.write(address_free(sys.stdin.buffer.read().decode()).encode())
            return 0
        path = Path(arguments[0])
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        partial.write_bytes(address_free(path.read_text(encoding="utf-8")).encode())
        os.replace(partial, path)
    except (OSError, ValueError) as error:
        print(f"tools/lock.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
