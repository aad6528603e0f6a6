"""A version of a served model: a folder named by a number, which appears whole or not at all.

    with new_version("serving/student") as version:
        write_files_into(version.building)
    version.path                                    # serving/student/4

TF Serving watches `serving/student` and loads the highest number as soon as it is there. The files
are therefore written into a hidden folder beside the versions, whose name is no number, and that is
renamed when it is whole. Where two processes export at once, each gets a number of its own: a folder
cannot be renamed onto one that has files in it. A process that is killed leaves its hidden folder,
which servers pass over and anybody may delete.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LARGEST = 2**63 - 1  # TF Serving reads versions into 64 bits


@dataclass
class Version:
    """A version that is being written, and after the `with` block one that is there."""

    building: Path
    path: Path | None = None
    number: int | None = None


@contextlib.contextmanager
def new_version(folder: str | os.PathLike[str]) -> Iterator[Version]:
    """A hidden folder that becomes the next free version of `folder` when the block ends well.

    Raises:
        ValueError: `folder` is a file or lies below one, or its highest version is the last number
            that there is.
        OSError: it cannot be written.
    """
    folder = Path(folder)
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            raise ValueError(f"{place} is a file, not a folder: {folder} cannot hold versions.")
    folder.mkdir(parents=True, exist_ok=True)
    _next(folder)  # one that cannot have another version says so before the work
    version = Version(folder / f".{secrets.token_hex(8)}.part")
    version.building.mkdir()
    try:
        yield version
        _sync(version.building)
        version.path, version.number = _publish(version.building, folder)
    except BaseException:
        shutil.rmtree(version.building, ignore_errors=True)
        raise


def _publish(building: Path, folder: Path) -> tuple[Path, int]:
    while True:
        number = _next(folder)
        path = folder / str(number)
        try:
            os.rename(building, path)
        except OSError:
            if not path.exists():  # the number was free, and something else is wrong
                raise
            continue
        _sync_folder(folder)
        return path, number


def _next(folder: Path) -> int:
    """The number after the highest that is there; "007" is 7 to TF Serving."""
    taken = [int(one.name) for one in folder.iterdir() if one.name.isascii() and one.name.isdigit()]
    number = max(taken, default=0) + 1
    if number > LARGEST:
        raise ValueError(f"{folder} has the version {max(taken)}, after which there is no number.")
    return number


def _sync(building: Path) -> None:
    """On the disk before the name is: after a power cut, a version that is there is whole."""
    for parent, _, files in os.walk(building):
        for name in files:
            descriptor = os.open(os.path.join(parent, name), os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        _sync_folder(Path(parent))


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows opens no folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
