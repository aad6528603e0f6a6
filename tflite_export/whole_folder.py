"""A folder of files is written beside its place and renamed when it is whole.

    write_whole_folder("student-golden", {"golden.json": b"{}", "README.md": b"…"})

As whole_file.py, for several files that belong together, but for one moment: an earlier folder is moved
aside, and then the new one takes its place. A process killed between these two renames leaves no folder
there, and both in a hidden one beside it (`.student-golden.….part`, with `earlier` and `new` in it): move one
of them back. (Linux can exchange two folders in one step, renameat2; Python has no call for it.)
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tflite_export.whole_file import write_whole


def write_whole_folder(
    path: str | os.PathLike[str], files: Mapping[str, bytes], ours: str = r"(?!)"
) -> Path:
    """Writes `files` into the folder `path` and returns it.

    Args:
        path: of a folder that does not exist, is empty, or holds only files of ours: then it is
            replaced as a whole. A link to a folder stays, and what it points to is replaced.
        files: {name: content}.
        ours: a regular expression for names that may be replaced.

    Raises:
        ValueError: `path` is a file, lies below one, or is a folder that holds something else; nothing
            is changed.
        OSError: it cannot be written; an earlier folder is as it was.
    """
    given = Path(path)
    path = given.resolve() if given.is_symlink() else given
    below = next((p for p in path.parents if p.exists() and not p.is_dir()), None)
    if below is not None:
        raise ValueError(f"{below} is a file, not a folder: {path} cannot be written.")
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file: give the name of a folder.")
    others = sorted(p.name for p in path.iterdir()) if path.is_dir() else []
    strange = [n for n in others if not re.fullmatch(ours, n)]
    if strange:
        raise ValueError(
            f"The folder {path} holds {', '.join(strange[:3])}{', …' if strange[3:] else ''}, which would "
            "be lost: give a new folder."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part"))
    try:
        whole = beside / "new"
        for name, content in files.items():
            write_whole(whole / name, content)
        if path.is_dir():
            path.rename(beside / "earlier")
        try:
            whole.rename(path)
        except BaseException:
            if (beside / "earlier").exists():
                (beside / "earlier").rename(path)
            raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return given
