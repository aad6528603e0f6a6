"""What a disk refuses, told so that one knows what is lost (nothing) and what to do.

with storing(folder):
    shards.write(path, rows)

Only what writes stands in it: a teacher that answers over a network raises errors of the same kind.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def storing(folder: Path) -> Iterator[None]:
    """Within it an OSError says that the labels in `folder` are kept, and what to do.

    Raises:
        OSError: of the same number.
    """
    try:
        yield
    except OSError as error:
        raise OSError(
            error.errno,
            f"{os.strerror(error.errno) if error.errno else error}: the labels that are finished are "
            "kept. Make room, or give another folder, and call SoftLabels.build again",
            os.fspath(folder),
        ) from error
