"""One process at a time."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def only_one(path: Path, sentence: str) -> Iterator[None]:
    """Hold a file or folder for this process, to its end, however it ends.

    Raises:
        ValueError: another process holds it; with `sentence`.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(sentence) from None
        except OSError:  # a file system that knows no locks
            pass
        yield
    finally:
        os.close(descriptor)
