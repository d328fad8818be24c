"""Files and folders that are either complete or absent."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary path beside ``path`` to write to; it becomes ``path`` when the block ends without an error.

    The folder of ``path`` is made when it does not exist. After an error nothing is left behind, and a file that was at
    ``path`` before is untouched.

    Raises:
        ValueError: if the folder cannot be made or written to.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(f"cannot write {path} ({reason}): choose a folder that you may write to") from error
    os.close(handle)
    try:
        yield Path(name)
        mask = os.umask(0)
        os.umask(mask)
        Path(name).chmod(0o666 & ~mask)  # mkstemp makes private files; a result is an ordinary file
        try:
            os.replace(name, path)
        except OSError as error:
            raise ValueError(f"cannot write {path} ({error.strerror or error}): choose another name") from error
    finally:
        Path(name).unlink(missing_ok=True)


@contextmanager
def new_folder(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary folder beside ``path`` to fill; it becomes ``path`` when the block ends without an error.

    After an error nothing is left behind.

    Raises:
        ValueError: at once, if there is something at ``path`` other than an empty folder, or it cannot be made.
    """
    path = Path(path)
    refusal = (
        f"{path} exists already and is no empty folder: choose another name, so that old files do not get mixed in"
    )
    try:
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise ValueError(refusal)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part"))
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(f"cannot make {path} ({reason}): choose a folder that you may write to") from error
    try:
        yield temporary
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o777 & ~mask)  # mkdtemp makes private folders; a result is an ordinary one
        try:
            if path.exists():
                path.rmdir()
            os.replace(temporary, path)
        except OSError as error:
            raise ValueError(refusal) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write UTF-8 text to ``path``, complete or not at all.

    Raises:
        ValueError: if the folder cannot be written to.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def writable_folder(path: str | os.PathLike) -> Path:
    """Make the folder ``path`` where it is missing, and make sure that files can be written there.

    Call it before hours of work whose result goes there.

    Raises:
        ValueError: if that fails; the sentence names the folder and the reason.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise ValueError(f"cannot write to the folder {path} ({reason}): choose another one") from error
    return path
