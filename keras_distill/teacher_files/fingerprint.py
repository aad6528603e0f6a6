"""Which file it is: the SHA-256 of a file, or of all files of a folder and their names."""

import hashlib
import os
from pathlib import Path


def fingerprint(path: str | os.PathLike) -> str:
    """Return the SHA-256 of a file's content; of a folder, of its files' names and contents in order."""
    path = Path(path)
    if path.is_file():
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    whole = hashlib.sha256()
    for one in sorted(path.rglob("*")):
        if one.is_file():
            whole.update(f"{one.relative_to(path).as_posix()} {fingerprint(one)}\n".encode())
    return whole.hexdigest()
