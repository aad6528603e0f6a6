"""A sketch of each example: a few numbers that tell whether a stored label belongs to it.

sketches = sketch.of(images)                # (batch, NUMBERS) float32, in the graph
wrong = sketch.differ(stored, sketches)     # (batch,) of booleans, in NumPy

Equal examples have equal sketches but for rounding, so that another processor may decode a photo a little
otherwise; another example, another order, crop or brightness has another one.
"""

import functools
import hashlib

import keras
import numpy as np
import tensorflow as tf

PROJECTIONS = 4
NUMBERS = PROJECTIONS + 1  # and the size of the values
_VALUES = 4096  # of an example at most, evenly spread, are looked at
_TOLERANCE = 1e-3


def of(x):
    """Return the sketches of a batch, `(batch, NUMBERS)` float32.

    Args:
        x: a tensor, or a list or dict of them, numbers or strings, with one first dimension.
    """
    total, squares = 0.0, 0.0
    for place, leaf in enumerate(keras.tree.flatten(x)):
        if leaf.dtype == tf.string:
            leaf = tf.strings.to_hash_bucket_fast(leaf, 2**20)
        values = tf.reshape(leaf, (tf.shape(leaf)[0], -1))
        count = values.shape[1] or tf.shape(values)[1]
        if not isinstance(count, int) or count > _VALUES:
            values = values[:, :: tf.maximum(-(-count // _VALUES), 1)]
        values = tf.cast(values, tf.float32)
        chosen = tf.shape(values)[1]
        signs = tf.constant(_signs(place))[:chosen]
        size = tf.cast(tf.maximum(chosen, 1), tf.float32)
        total += tf.matmul(values, signs) / tf.sqrt(size)
        squares += tf.reduce_mean(tf.square(values), axis=1, keepdims=True)
    return tf.concat([total, tf.sqrt(squares)], axis=1)


def differ(stored: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Return which of the sketches `(batch, NUMBERS)` are not of the same example: `(batch,)`."""
    size = np.maximum(stored[:, -1:], found[:, -1:])
    return ~np.all(np.abs(stored - found) <= _TOLERANCE * size + 1e-6, axis=1)  # of NaN, all


@functools.cache
def _signs(place: int) -> np.ndarray:
    """Fixed ±1 `(values, PROJECTIONS)`, others for each leaf of the inputs."""
    seed = f"keras_distill sketch {place}".encode()
    bits = hashlib.shake_256(seed).digest(_VALUES * PROJECTIONS // 8)
    signs = np.unpackbits(np.frombuffer(bits, np.uint8)).astype("float32") * 2 - 1
    return signs.reshape(_VALUES, PROJECTIONS)
