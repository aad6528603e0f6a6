"""Examples of any kind as short rows of numbers, for a model that is small and quick.

rows = simple_features(x)       # (examples, at most 1024 numbers for each input)

Pictures are shrunk to 8×8, sequences of whole numbers become counts of 256 groups of them, and long rows of
numbers are averaged over neighbours.
"""

import keras
import numpy as np

_SIDE, _GROUPS, _LONGEST = 8, 256, 1024


def simple_features(x) -> np.ndarray:
    """Return `(examples, numbers)` float32 of a batch: an array, or a list or dict of them."""
    leaves = [np.asarray(leaf) for leaf in keras.tree.flatten(x)]
    return np.concatenate([_of(leaf) for leaf in leaves], axis=1)


def _of(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "biuf":  # strings
        array = np.vectorize(hash_of, otypes=[int])(array)
    count = len(array)
    if array.ndim == 2 and array.dtype.kind in "iu":  # tokens
        rows = np.zeros((count, _GROUPS), "float32")
        np.add.at(rows, (np.arange(count)[:, None], array % _GROUPS), 1.0)
        return rows
    array = array.astype("float32")
    if array.ndim == 4:
        array = _shrunk(_shrunk(array, 1, _SIDE), 2, _SIDE)
    return _shrunk(array.reshape(count, -1), 1, _LONGEST)


def _shrunk(array: np.ndarray, axis: int, size: int) -> np.ndarray:
    """Means of neighbours, `size` of them at most."""
    if array.shape[axis] <= size:
        return array
    starts = np.linspace(0, array.shape[axis], size, endpoint=False).astype(int)
    counts = np.diff([*starts, array.shape[axis]])
    shape = [1] * array.ndim
    shape[axis] = size
    return np.add.reduceat(array, starts, axis=axis) / counts.reshape(shape).astype("float32")


def hash_of(text) -> int:
    """Return the same number in every process."""
    import zlib

    return zlib.crc32(text if isinstance(text, bytes) else str(text).encode())
