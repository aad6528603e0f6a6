"""Mixup: each image is mixed with another one, both drawn from the image's number and the view.

Zhang et al. 2018, mixup: Beyond Empirical Risk Minimization, arXiv 1710.09412. That a teacher and its student
see the same mixture is function matching (Beyer et al. 2022, arXiv 2106.05237), which takes alpha = 1.
"""

import functools

import numpy as np
import tensorflow as tf

_STEPS = 4096


def partners(drawn, count: int):
    """Return the numbers of the other images `(batch,)` of uniform numbers `(batch,)`, of `count` images."""
    return tf.minimum(tf.cast(drawn * count, tf.int64), count - 1)


def shares(drawn, alpha: float):
    """Return the images' own shares `(batch,)`, ½..1: the larger of λ and 1 − λ, λ ~ Beta(alpha, alpha).

    Args:
        drawn: uniform numbers `(batch,)` in 0..1.
        alpha: > 0; 1 for all shares alike, 0.2 for mostly one image.
    """
    places = drawn * (_STEPS - 1)
    below = tf.floor(places)
    table = tf.constant(_quantiles(alpha))
    low = tf.gather(table, tf.cast(below, tf.int32))
    high = tf.gather(table, tf.minimum(tf.cast(below, tf.int32) + 1, _STEPS - 1))
    return low + (places - below) * (high - low)


@functools.cache
def _quantiles(alpha: float) -> np.ndarray:
    """Of max(λ, 1 − λ), evenly spaced: the upper half of the distribution of λ, which is symmetric."""
    from scipy.special import betaincinv  # tf.math has no inverse of the incomplete beta function

    return betaincinv(alpha, alpha, np.linspace(0.5, 1.0, _STEPS)).astype("float32")
