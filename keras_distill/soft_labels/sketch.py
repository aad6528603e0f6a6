"""A sketch of each example: a few numbers that tell whether a stored label belongs to it.

sketches = sketch.of(images)                # (batch, numbers) float32, in the graph
wrong = sketch.differ(stored, sketches)     # (batch,) of booleans, in NumPy

Whole numbers and strings are compared exactly. Of other numbers equal examples have equal sketches but for
rounding: tables and sequences may differ by 1e-5 of their size, maps by 1e-3, as another processor may decode
a photo a little otherwise. Another example, order, crop or brightness has another sketch.
"""

import functools
import hashlib

import keras
import numpy as np
import tensorflow as tf

_OF_LEAF = 6  # two projections and their size, of the values and of their logarithms
_VALUES = 4096  # of an example at most, evenly spread, are looked at
_TOLERANCE, _OF_TABLES = 1e-3, 1e-2  # tables and sequences: the product
_OF_DARK = 3.0  # of pixels near 0 the logarithm changes most
_EVERY = 7
_LARGEST = 1e15


def numbers(x) -> int:
    """Return how many numbers the sketch of an example of `x` has."""
    return _OF_LEAF * len(keras.tree.flatten(x))


def of(x):
    """Return the sketches of a batch, `(batch, numbers)` float32.

    Args:
        x: a tensor, or a list or dict of them, numbers or strings, with one first dimension.
    """
    with tf.device("CPU:0"):  # GPUs may round the factors of a product to ten bits
        leaves = [_of_leaf(leaf, place) for place, leaf in enumerate(keras.tree.flatten(x))]
        return tf.concat(leaves, axis=1)


def differ(stored: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Return which of the sketches `(batch, numbers)` are not of the same example: `(batch,)`."""
    stored, found = (one.reshape(len(one), -1, 3) for one in (stored, found))
    size = np.maximum(stored[..., -1:], found[..., -1:])
    return ~np.all(np.abs(stored - found) <= _TOLERANCE * size + 1e-6, axis=(1, 2))  # of NaN, all


def _of_leaf(leaf, place: int):
    """Whole numbers have the size 0, which allows no difference."""
    if leaf.dtype == tf.string:
        leaf = tf.strings.to_hash_bucket_fast(leaf, 2**62)
    values = tf.reshape(leaf, (tf.shape(leaf)[0], -1))
    if (leaf.dtype.is_integer or leaf.dtype.is_bool) and leaf.dtype != tf.uint8:  # uint8: pixels
        first, second = _exact(values)
        nothing = tf.zeros_like(first)
        return tf.stack([first, second, nothing] * 2, axis=1)
    count = leaf.shape[1:].num_elements() or tf.shape(values)[1]  # unknown: of this batch
    if not isinstance(count, int) or count > _VALUES:
        values = values[:, :: tf.maximum(-(-count // _VALUES), 1)]
    values = tf.cast(values, tf.float32)
    if leaf.shape.rank is None:
        raise ValueError(
            "The inputs of the data set have no known number of axes: set their shape."
        )
    # One large column must not hide the others: of logarithms too, which cost most. Nor may an offset of
    # all hide what varies.
    if leaf.shape.rank < 4:
        values = _finite(values)
        parts = _projected(values, _OF_TABLES, place)
        parts += _projected(_logarithm(values), _OF_TABLES, place)
    else:
        parts = _projected(values, 1.0, place)
        parts += _projected(_logarithm(values[:, ::_EVERY]), _OF_DARK, place)
    return _finite(tf.stack(parts, axis=1))


def _finite(values):
    """Tables and sequences have gaps; to look for them in each pixel takes longer than all else."""
    return tf.where(tf.abs(values) < _LARGEST, values, 0.5)


def _logarithm(values):
    return tf.sign(values) * tf.math.log(1.0 + tf.abs(values))


def _projected(values, scale: float, place: int) -> list:
    chosen = tf.shape(values)[1]
    count = tf.cast(tf.maximum(chosen, 1), tf.float32)
    found = tf.matmul(values, tf.constant(_factors(place))[:chosen]) / tf.sqrt(count)
    size = tf.sqrt(tf.reduce_sum(tf.square(values), axis=1) / count)
    return [*tf.unstack(found, 2, axis=1), scale * size]


def _exact(values) -> tuple:
    """Two numbers of 24 bits that any change of a whole number changes."""
    values = tf.cast(values, tf.int64)
    places = tf.range(1, tf.shape(values, out_type=tf.int64)[1] + 1)
    found = []
    for factor in (0x9E3779B97F4A7C15 - 2**64, 0x2545F4914F6CDD1D):
        mixed = (values + 0x632BE59BD9B4E019 * places) * factor  # overflows, as is meant
        mixed = tf.bitwise.bitwise_xor(mixed, tf.bitwise.right_shift(mixed, 29)) * factor
        total = tf.reduce_sum(mixed, axis=1)
        total = tf.bitwise.bitwise_and(tf.bitwise.right_shift(total, 32), 2**24 - 1)
        found.append(tf.cast(total, tf.float32))
    return tuple(found)


@functools.cache
def _factors(place: int) -> np.ndarray:
    """Fixed normal numbers `(values, 2)`, others for each leaf of the inputs.

    Of ±1 the sums of a few ones, as of one-hot rows, would often be the same. They come from a digest and a
    sum, so that every machine and every version of NumPy has these.
    """
    seed = f"keras_distill sketch {place}".encode()
    uniform = np.frombuffer(hashlib.shake_256(seed).digest(_VALUES * 2 * 12 * 4), "<u4")
    normal = uniform.reshape(-1, 2, 12).sum(axis=2, dtype="float64") / 2.0**32 - 6.0  # variance 1
    return normal.astype("float32")
