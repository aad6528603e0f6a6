"""Native libraries write progress and notes straight to the process's standard error.

    with hushed():
        converter.convert()

What is written there is dropped when the block ends well. When it raises, the exception itself
carries the message: the converter and the interpreter put it there.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Sends file descriptor 2 to nowhere for the length of the block.

    `sys.stderr` stays the object that it is: a log handler that is made inside the block keeps it.
    """
    _flush()
    try:
        kept = os.dup(2)
    except OSError:  # the process has no standard error
        yield
        return
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        _flush()
        os.dup2(kept, 2)
        os.close(kept)


def _flush() -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.flush()
