"""Features of two networks brought to one shape: same positions, flat, or of length 1.

Features are `(batch, positions..., channels)`: maps `(batch, height, width, channels)`, sequences `(batch,
time, channels)` with a mask `(batch, time)`, or flat `(batch, channels)`.
"""

import functools

import numpy as np
from keras import ops


def same_positions(teacher, student, mask=None, whose=("teacher", "student")):
    """Return both with the larger one average-pooled to the positions of the smaller, axis by axis.

    Args:
        teacher, student: `(batch, positions..., channels)`.
        mask: of positions, or None.
        whose: the two features', for sentences.

    Raises:
        ValueError: features of different ranks, or masked sequences of different lengths.
    """
    of_teacher, of_student = tuple(teacher.shape[1:-1]), tuple(student.shape[1:-1])
    shapes = " and ".join(
        f"{tuple(one.shape)} ({name})" for one, name in zip((teacher, student), whose, strict=True)
    )
    if len(of_teacher) != len(of_student):
        raise ValueError(
            f"Features of the shapes {shapes} cannot be compared position by position: name layers of one "
            "kind (maps, sequences or flat features), or pass connector= a layer that brings the student's "
            "to the teacher's shape."
        )
    known = None not in (*of_teacher, *of_student)
    if of_teacher == of_student and (known or mask is not None):
        return teacher, student
    if mask is not None:
        raise ValueError(
            f"Masked features of the shapes {shapes} cannot be compared: name layers in which a position "
            "means the same."
        )
    size = tuple(map(_smaller, sizes(teacher), sizes(student)))
    return pooled(teacher, size), pooled(student, size)


def sizes(features) -> tuple:
    """Return the number of positions along each axis; scalar tensors where it is not known yet."""
    known = tuple(features.shape[1:-1])
    if None not in known:
        return known
    now = ops.shape(features)[1:-1]
    return tuple(b if a is None else a for a, b in zip(known, now, strict=True))


def _smaller(first, second):
    if isinstance(first, int) and isinstance(second, int):
        return min(first, second)
    return ops.minimum(first, second)


def pooled(features, size: tuple):
    """Return `features` averaged to `size` positions, each axis cut into about equal parts.

    As adaptive average pooling: part i of n is from ⌊i·old/n⌋ to ⌈(i+1)·old/n⌉.

    Args:
        features: `(batch, positions..., channels)`.
        size: the new positions, none larger than the old ones; numbers, or scalar tensors.
    """
    old = sizes(features)
    known = all(isinstance(one, int) for one in (*old, *size))
    if known and old == tuple(size):
        return features
    if known and len(old) <= 2 and all(a % b == 0 for a, b in zip(old, size, strict=True)):
        window = tuple(a // b for a, b in zip(old, size, strict=True))
        return ops.average_pool(
            features, window, strides=window, padding="valid", data_format="channels_last"
        )
    for axis, (a, b) in enumerate(zip(old, size, strict=True), start=1):
        fixed = isinstance(a, int) and isinstance(b, int)
        if not fixed or a != b:
            matrix = _averaging(a, b) if fixed else _averaging_of(a, b)
            averaged = ops.tensordot(features, matrix, axes=[[axis], [0]])
            features = ops.moveaxis(averaged, -1, axis)
    return features


def resized(features, like):
    """Return `features` at the positions of `like`: larger axes are averaged, smaller ones repeated.

    Args:
        features: `(batch, positions..., channels)`.
        like: `(batch, positions..., channels)`.
    """
    new = sizes(like)
    return nearest(pooled(features, tuple(map(_smaller, sizes(features), new))), new)


def nearest(features, size):
    """Return features of other sizes by repeating (or leaving out) positions: position i·old // new.

    Args:
        features: `(batch, positions..., channels)`.
        size: the new positions, numbers or scalar tensors.
    """
    for axis, (old, new) in enumerate(zip(sizes(features), size, strict=True), start=1):
        if not isinstance(old, int) or not isinstance(new, int):
            features = ops.take(features, ops.arange(new) * old // new, axis=axis)
        elif old != new and new % old == 0:
            features = ops.repeat(features, new // old, axis=axis)
        elif old != new:
            features = ops.take(features, np.arange(new) * old // new, axis=axis)
    return features


@functools.cache
def _averaging(old: int, new: int) -> np.ndarray:
    """The matrix `(old, new)` that averages parts of an axis."""
    matrix = np.zeros((old, new), "float32")
    for i in range(new):
        start, end = i * old // new, -(-(i + 1) * old // new)
        matrix[start:end, i] = 1.0 / (end - start)
    return matrix


def _averaging_of(old, new):
    """The same for sizes that are known only when the graph runs."""
    place, part = ops.arange(old)[:, None], ops.arange(new)[None, :]
    start, end = part * old // new, ((part + 1) * old + new - 1) // new
    inside = ops.logical_and(place >= start, place < end)
    return ops.cast(inside, "float32") / ops.cast(end - start, "float32")


def sequences(features):
    """Return features as `(batch, positions, channels)`."""
    rank, channels = len(features.shape), features.shape[-1]
    if rank == 3:
        return features
    if rank == 2:
        return ops.expand_dims(features, 1)
    positions = features.shape[1:-1]
    if None in positions:
        return ops.reshape(features, (ops.shape(features)[0], -1, channels))
    return ops.reshape(features, (-1, int(np.prod(positions)), channels))


def embeddings(features):
    """Return features as `(batch, all their values)`."""
    if len(features.shape) == 2:
        return features
    size = features.shape[1:]
    flat = (ops.shape(features)[0], -1) if None in size else (-1, int(np.prod(size)))
    return ops.reshape(features, flat)


def normalized(features, axis=-1):
    """Return features divided by their L2 norm along `axis`; 0 where that is 0, without a gradient there."""
    squares = ops.sum(ops.square(features), axis=axis, keepdims=True)
    positive = squares > 1e-36
    return features * ops.where(positive, ops.rsqrt(ops.where(positive, squares, 1.0)), 0.0)
