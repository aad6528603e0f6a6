"""Features of two networks brought to one shape: same positions, flat, or of length 1.

Features are `(batch, positions..., channels)`: maps `(batch, height, width, channels)`, sequences `(batch,
time, channels)` with a mask `(batch, time)`, or flat `(batch, channels)`.
"""

import functools

import numpy as np
from keras import ops

from keras_distill.losses.base import frozen, where_counted


def pairs(teacher_outputs, student_outputs, mask=None, sample_weight=None):
    """Return `(teacher, student, mask)` of each pair of layers, in float32, no gradient to the teacher.

    What is masked, and examples of weight 0, are 0.

    Raises:
        ValueError: different numbers of layers, or features of different ranks.
    """
    teachers, students, masks = (
        list(one) if isinstance(one, list | tuple) else [one]
        for one in (teacher_outputs, student_outputs, mask)
    )
    same_number(teachers, students)
    masks = masks if len(masks) == len(students) else masks * len(students)
    if sample_weight is not None:
        sample_weight = ops.convert_to_tensor(sample_weight)
    return [_pair(*one, sample_weight) for one in zip(teachers, students, masks, strict=True)]


def same_number(of_teacher, of_student) -> None:
    """Refuse lists of layers of different lengths."""
    if len(of_teacher) != len(of_student):
        raise ValueError(
            f"The loss compares layer by layer, and was given {len(of_teacher)} of the teacher and "
            f"{len(of_student)} of the student: name as many of each."
        )


def _pair(teacher, student, mask, sample_weight):
    for one, whose in ((teacher, "teacher"), (student, "student")):
        if not hasattr(one, "shape") or isinstance(one, list | tuple | dict):
            raise ValueError(
                f"The {whose}'s layer returns {len(one)} tensors, and the loss compares one: name a layer "
                "that returns one, for instance the one behind it."
            )
    teacher, student = frozen(teacher), ops.cast(student, "float32")
    for weight in (mask, sample_weight):
        if weight is not None:
            weight = ops.cast(weight, "float32")
            if teacher.shape[1:-1] != student.shape[1:-1] and weight is not mask:
                weight = of_examples(weight, student)  # pooled, 0 would be mixed with what counts
            teacher, student = where_counted(teacher, weight), where_counted(student, weight)
    return teacher, student, mask


def same_positions(teacher, student, mask=None):
    """Return both with the larger one average-pooled to the positions of the smaller, axis by axis.

    Raises:
        ValueError: features of different ranks, sizes that are not known, or masked sequences of different
            lengths.
    """
    of_teacher, of_student = tuple(teacher.shape[1:-1]), tuple(student.shape[1:-1])
    if len(of_teacher) != len(of_student):
        raise ValueError(
            f"Features of the shapes {tuple(teacher.shape)} (teacher) and {tuple(student.shape)} (student) "
            "cannot be compared position by position: name layers of one kind (maps, sequences or flat "
            "features), or pass connector= a layer that brings the student's to the teacher's shape."
        )
    if of_teacher == of_student:
        return teacher, student
    if None in (*of_teacher, *of_student):
        raise ValueError(
            f"Features of the shapes {tuple(teacher.shape)} (teacher) and {tuple(student.shape)} (student) "
            "have positions whose number is not known: give batches of a fixed size, or name layers of "
            "the same size."
        )
    if mask is not None:
        raise ValueError(
            f"Masked features of {of_teacher} positions (teacher) and {of_student} (student) cannot be "
            "compared: name layers in which a position means the same."
        )
    size = tuple(min(pair) for pair in zip(of_teacher, of_student, strict=True))
    return pooled(teacher, size), pooled(student, size)


def pooled(features, size: tuple[int, ...]):
    """Return `features` averaged to `size` positions, each axis cut into about equal parts.

    As adaptive average pooling: part i of n is from ⌊i·old/n⌋ to ⌈(i+1)·old/n⌉.

    Args:
        features: `(batch, positions..., channels)`.
        size: the new positions, none larger than the old ones.
    """
    old = tuple(features.shape[1:-1])
    if old == tuple(size):
        return features
    if len(old) <= 2 and all(a % b == 0 for a, b in zip(old, size, strict=True)):
        window = tuple(a // b for a, b in zip(old, size, strict=True))
        return ops.average_pool(
            features, window, strides=window, padding="valid", data_format="channels_last"
        )
    for axis, (a, b) in enumerate(zip(old, size, strict=True), start=1):
        if a != b:
            averaged = ops.tensordot(features, _averaging(a, b), axes=[[axis], [0]])
            features = ops.moveaxis(averaged, -1, axis)
    return features


@functools.cache
def _averaging(old: int, new: int) -> np.ndarray:
    """The matrix `(old, new)` that averages parts of an axis."""
    matrix = np.zeros((old, new), "float32")
    for i in range(new):
        start, end = i * old // new, -(-(i + 1) * old // new)
        matrix[start:end, i] = 1.0 / (end - start)
    return matrix


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


def of_examples(sample_weight, examples):
    """Return weights of examples `(batch,)` in float32, those of positions averaged; ones for None.

    Args:
        sample_weight: `(batch,)`, `(batch, positions...)` or None.
        examples: `(batch, ...)`, to know the batch.
    """
    if sample_weight is None:
        return ops.ones_like(ops.reshape(examples, (ops.shape(examples)[0], -1))[:, 0])
    weight = ops.cast(sample_weight, "float32")
    return (
        ops.mean(weight, axis=tuple(range(1, len(weight.shape))))
        if len(weight.shape) > 1
        else weight
    )
