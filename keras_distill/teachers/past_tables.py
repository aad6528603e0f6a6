"""Where past predictions are kept: a table in memory, or two in files.

table = OnDisk("predictions/", examples=50_000, classes=10)
table.begin()                       # a training begins: nothing is said
past = table.read(indices)          # (batch, classes) float32, 0 for what is not known; in the graph
table.write(indices, predictions)
"""

import os

import keras
import numpy as np
from keras import ops

from keras_distill import epoch
from keras_distill.train_step import call_numpy_flat, read_rows, required, write_rows


class InMemory(keras.layers.Layer):
    """A table of predictions `(examples, classes)`, saved with the training; 0 for what is not known."""

    def __init__(self, examples: int, classes: int):
        super().__init__(name="past_predictions", trainable=False)
        self.table = self.add_weight(
            shape=(examples, classes), initializer="zeros", trainable=False, name="table"
        )
        self.built = True

    def begin(self) -> None:
        """Begin a training."""
        self.table.assign(ops.zeros_like(self.table))

    def read(self, indices):
        """Return what is known of these examples, `(batch, classes)`."""
        examples = self.table.shape[0]
        inside = ops.all((indices >= 0) & (indices < examples))
        return read_rows(self.table, required(indices, inside, _outside(examples)))

    def write(self, indices, predictions) -> None:
        """Remember what was said of these."""
        write_rows(self.table, indices, predictions)


class OnDisk:
    """Two tables in files: an epoch reads one and writes the other, so that it can be trained again.

    Args:
        folder: of the files.
        examples, classes: the shape of a table.

    Raises:
        ValueError: a file is of another shape; in use, a number lies outside.
    """

    def __init__(self, folder: str, examples: int, classes: int):
        os.makedirs(folder, exist_ok=True)
        self._shape = (examples, classes)
        self._tables = [
            _table(os.path.join(folder, f"predictions-{i}.npy"), self._shape) for i in (0, 1)
        ]
        self._anew = False
        self._written: int | None = None  # the epoch that has begun to write

    def begin(self) -> None:
        """Begin a training."""
        self._written = None
        self._anew = True  # if its first epoch is the first: one that goes on needs what is there

    def read(self, indices):
        """Return what was said of these examples before this epoch, `(batch, classes)`."""
        shape = (None, self._shape[1])
        return call_numpy_flat(self._read, [epoch.variable(), indices], [(shape, "float32")])[0]

    def write(self, indices, predictions) -> None:
        """Remember what was said of these, for the next epoch."""
        inputs = [epoch.variable(), indices, predictions]
        call_numpy_flat(self._write, inputs, [((), "int32")])

    def _read(self, number, indices):
        self._check(indices)
        if self._anew and number == 0:
            for table in self._tables:
                table[:] = 0
        self._anew = False
        if number == 0:
            return [np.zeros((len(indices), self._shape[1]), "float32")]
        return [self._tables[(number + 1) % 2][indices].astype("float32")]

    def _write(self, number, indices, predictions):
        self._check(indices)
        if number > 0 and number != self._written:  # an example need not be seen in each epoch
            self._tables[number % 2][:] = self._tables[(number + 1) % 2]
        self._written = number
        self._tables[number % 2][indices] = predictions
        return [np.int32(0)]

    def _check(self, indices) -> None:
        if ((indices < 0) | (indices >= self._shape[0])).any():
            raise ValueError(_outside(self._shape[0]))


def _outside(examples: int) -> str:
    return (
        f"PastPredictions has examples={examples}, and a number in the batch is not from 0 to "
        f"{examples - 1}: number the examples from 0."
    )


def _table(path: str, shape: tuple[int, int]) -> np.ndarray:
    if os.path.exists(path):
        table = np.lib.format.open_memmap(path, "r+")
        if table.shape != shape or table.dtype != np.float16:
            raise ValueError(
                f"{path} holds {table.shape} {table.dtype} and not the predictions of {shape[0]} examples "
                f"and {shape[1]} classes: give another folder."
            )
        return table
    return np.lib.format.open_memmap(path, "w+", np.float16, shape)
