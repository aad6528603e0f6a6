"""Shards: files of TFRecords of one length, so that any of them is read at its place.

shards.write(path, rows)                # whole or not at all
reader = shards.Reader(folder, dtype, rows_per_shard)
reader.rows(view=0, indices=[7, 3])     # a structured array
shards.check(path)                      # finds a flipped byte

A record is one example of one view: the bytes of a row of a structured NumPy array, little endian.
"""

import dataclasses
import errno
import functools
import os
import re
import secrets
import weakref
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_distill.soft_labels.manifest import Manifest

# A TFRecord: length (8 bytes), its checksum (4), the data, their checksum (4).
_HEAD, _TAIL = 12, 4


def place(folder: Path, view: int, shard: int) -> Path:
    """Return the path of a shard."""
    return folder / f"view-{view:04}" / f"labels-{shard:06}.tfrecord"


def rows_in(path: Path, dtype: np.dtype) -> int | None:
    """Return how many rows a file has by its size, or None where there is none or it was cut."""
    try:
        rows, rest = divmod(path.stat().st_size, _HEAD + dtype.itemsize + _TAIL)
    except FileNotFoundError:
        return None
    return rows if rows and not rest else None


def write(path: Path, rows: np.ndarray) -> None:
    """Write `rows`, a structured array, to `path`; the file appears when it is whole."""
    path.parent.mkdir(exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with tf.io.TFRecordWriter(os.fspath(part)) as writer:
            for row in rows:
                writer.write(row.tobytes())
        with part.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    except tf.errors.OpError as error:
        part.unlink(missing_ok=True)
        full = isinstance(error, tf.errors.ResourceExhaustedError) or "No space" in error.message
        raise OSError(
            errno.ENOSPC if full else errno.EIO, error.message, os.fspath(path)
        ) from error
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def forget_parts(folder: Path, worker: int, num_workers: int) -> None:
    """Remove what a process that was killed had begun of the shards that are this worker's."""
    for part in folder.glob("view-*/.labels-*.part"):
        named = _PART.fullmatch(part.relative_to(folder).as_posix())
        if named and _whose(int(named[1]), int(named[2]), num_workers) == worker:
            part.unlink(missing_ok=True)


_PART = re.compile(r"view-(\d+)/\.labels-(\d+)\.tfrecord\.[0-9a-f]+\.part")


def _whose(view: int, shard: int, num_workers: int) -> int:
    """The worker that writes a shard."""
    return (view + shard) % num_workers


def check(path: Path, dtype: np.dtype) -> int:
    """Return how many rows a shard has, after reading all of it.

    Raises:
        ValueError: it is not what was written; the sentence names the file.
    """
    try:
        lengths = [
            len(record) for record in tf.data.TFRecordDataset(os.fspath(path)).as_numpy_iterator()
        ]
    except tf.errors.DataLossError as error:
        raise ValueError(
            f"{path} is damaged (its checksums do not fit): delete the file and call SoftLabels.build again, "
            "which writes it anew."
        ) from error
    if any(length != dtype.itemsize for length in lengths):
        raise ValueError(
            f"{path} holds records of another length than the manifest says: delete it."
        )
    return len(lengths)


@dataclasses.dataclass(frozen=True)
class Share:
    """The shards that one of several processes writes: every `num_workers`-th, of each view others.

    Attributes:
        folder, manifest: where they are, and what they hold.
        worker, num_workers: which process of how many.
        examples: how many there are, or None where that is not known yet.
    """

    folder: Path
    manifest: Manifest
    worker: int = 0
    num_workers: int = 1
    examples: int | None = None

    def written(self, view: int, shard: int) -> bool:
        """Whether a shard is there and as long as it should be."""
        rows = rows_in(place(self.folder, view, shard), self.manifest.dtype)
        return rows is not None and (self.examples is None or rows == self.length(shard))

    def missing(self, view: int, shard: int) -> bool:
        """Whether this process has to write a shard."""
        mine = _whose(view, shard, self.num_workers) == self.worker
        return mine and not self.written(view, shard)

    def missing_of(self, view: int) -> list[int]:
        """Return the shards of a view that this process has to write; `examples` is known."""
        return [shard for shard in range(self.shards) if self.missing(view, shard)]

    @property
    def shards(self) -> int:
        """How many there are in each view."""
        return -(-(self.examples or 0) // self.manifest.rows_per_shard)

    def length(self, shard: int) -> int:
        """Return how many rows a shard is to have; `examples` is known."""
        size = self.manifest.rows_per_shard
        return min(size, (self.examples or 0) - shard * size)

    def read(self, view: int, start: int, count: int) -> np.ndarray:
        """Return up to `count` rows from `start` on, of the shard that `start` lies in."""
        size = self.manifest.rows_per_shard
        shard = start // size
        rows = rows_in(place(self.folder, view, shard), self.manifest.dtype) or 0
        stop = min(start + count, shard * size + rows)
        reader = Reader(self.folder, self.manifest.dtype, size)
        return reader.rows(view, np.arange(start, max(stop, start)))


class Reader:
    """Rows of any view, by their numbers, without holding them.

    Args:
        folder: where the views are.
        dtype: of a row.
        rows_per_shard: how many rows each shard but the last one has.
    """

    def __init__(self, folder: Path, dtype: np.dtype, rows_per_shard: int):
        self._folder, self._dtype, self._rows_per_shard = folder, dtype, rows_per_shard
        self._open = functools.lru_cache(maxsize=256)(_File)

    def rows(self, view: int, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the rows of these examples `(len(indices),)`."""
        size = self._dtype.itemsize
        shards, rows = np.divmod(np.asarray(indices, np.int64), self._rows_per_shard)
        offsets = rows * (_HEAD + size + _TAIL) + _HEAD
        files = {
            shard: self._open(place(self._folder, view, shard)) for shard in set(shards.tolist())
        }
        read = [
            os.pread(files[shard].descriptor, size, offset)
            for shard, offset in zip(shards.tolist(), offsets.tolist(), strict=True)
        ]
        return np.frombuffer(b"".join(read), self._dtype)


class _File:
    """A file that is read at any place, by any thread, as long as this object lives."""

    def __init__(self, path: Path):
        self.descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self.descriptor)
