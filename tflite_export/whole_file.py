"""A file is written beside its place and renamed when it is whole.

    write_whole("student.tflite", content)

A reader sees the earlier file or the new one, never half of one; an exception leaves the earlier
file as it was.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_whole(path: str | os.PathLike[str], content: bytes) -> Path:
    """Writes `content` at `path`, making its folder if there is none, and returns the path.

    Raises:
        ValueError: `path` is a folder or a device, or lies below a file.
        OSError: it cannot be written; `filename` is `path`.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give the name of a file in it.")
    if path.exists() and not path.is_file():  # renaming onto /dev/null would replace it
        raise ValueError(f"{path} is no ordinary file: give another name.")
    if path.parent.is_file():
        raise ValueError(f"{path.parent} is a file, not a folder: {path} cannot be written.")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        _write(path, content)
    except OSError as error:
        if error.errno is not None:
            error.filename = str(path)  # a full disk names no file, others the temporary one
        raise
    return path


def _write(path: Path, content: bytes) -> None:
    descriptor, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files that only their owner reads: give the usual rights instead.
        os.chmod(beside, path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask())
        os.replace(beside, path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
