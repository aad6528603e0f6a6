"""How much the examples of a batch, and the positions of each, count for a loss on features.

weights = Weights(sample_weight, mask).at(features)
weights.mean(hint(teacher, student))                                        # a value for each position
weights.mean(attention_transfer(teacher, student, mask=weights.valid))      # or for each example
"""

from keras import ops

from keras_distill.losses.base import frozen, mean_over_examples, of_rank
from keras_distill.losses.shapes import resized, sequences


def paired(teacher_outputs, student_outputs, mask=None, sample_weight=None):
    """Return `(teacher, student, Weights)` of each pair of layers, in float32, no gradient to the teacher.

    What does not count is 0 in both.

    Args:
        teacher_outputs, student_outputs: features, or lists with those of each layer.
        mask: `(batch, positions...)`, or a list with one for each layer, or None.
        sample_weight: `(batch,)`, `(batch, positions...)`, or a list with one for each layer, or None.

    Raises:
        ValueError: different numbers of layers, or a layer that returns several tensors.
    """
    teachers, students, masks, weights = (
        list(one) if isinstance(one, list | tuple) and not _is_number(one[:1]) else [one]
        for one in (teacher_outputs, student_outputs, mask, sample_weight)
    )
    same_number(teachers, students)
    masks, weights = (
        one if len(one) == len(students) else one * len(students) for one in (masks, weights)
    )
    return [
        _pair(teacher, student, Weights(weight, mask))
        for teacher, student, mask, weight in zip(teachers, students, masks, weights, strict=True)
    ]


def _is_number(one) -> bool:
    """Whether this is the beginning of a list of numbers, for which NumPy and Keras take an array."""
    return bool(one) and one[0] is not None and not hasattr(one[0], "shape")


def same_number(of_teacher, of_student) -> None:
    """Refuse lists of layers of different lengths."""
    if len(of_teacher) != len(of_student):
        raise ValueError(
            f"The loss compares layer by layer, and was given {len(of_teacher)} of the teacher and "
            f"{len(of_student)} of the student: name as many of each."
        )


def _pair(teacher, student, weights):
    for one, whose in ((teacher, "teacher"), (student, "student")):
        if not hasattr(one, "shape") or isinstance(one, list | tuple | dict):
            raise ValueError(
                f"The {whose} gives {len(one)} tensors where the loss compares one: name a layer that "
                "returns one, for instance the one behind it, or one of several outputs with output=."
            )
    teacher, student = frozen(teacher), ops.cast(student, "float32")
    sizes = [tuple(one.shape[1:-1]) for one in (teacher, student)]
    same = sizes[0] == sizes[1] and (None not in sizes[0] or weights.mask is not None)
    kept = []
    for one in (teacher, student):
        at = weights.at(one)
        # Else one of the two may be pooled: 0 would be mixed with what counts.
        kept.append(at.kept if same or at.rows is None else at.rows != 0)
    return where_kept(teacher, kept[0]), where_kept(student, kept[1]), weights


class Weights:
    """Sample weights and a mask for one pair of layers.

    Weights of positions weigh values of positions. For a value of a whole example they say two things:
    positions of weight 0 are left out of it (`valid`), and the example weighs their mean (`rows`).

    Args:
        sample_weight: `(batch,)`, `(batch, positions...)` or None for 1 everywhere.
        mask: `(batch, positions...)`, where there is something; or None for everywhere.
    """

    def __init__(self, sample_weight=None, mask=None):
        self.sample_weight, self.mask = (
            None if one is None else ops.cast(ops.convert_to_tensor(one), "float32")
            for one in (sample_weight, mask)
        )

    def at(self, features) -> "Weights":
        """Return the weights at the positions of `features` `(batch, positions..., channels)`.

        Those of larger grids are averaged, those of smaller ones repeated; weights of positions that the
        features do not have become their mean.
        """
        weight = _at(self.sample_weight, features)
        mask = _at(_spread(self.mask, features), features)
        if mask is not None:
            mask = ops.cast(mask > 0, "float32")
            if len(mask.shape) == 1:  # no positions are left
                weight = mask if weight is None else of_rank(len(weight.shape), mask) * weight
                mask = None
        return Weights(weight, mask)

    @property
    def valid(self):
        """`(batch, positions...)` of booleans, or None where all positions of an example count alike."""
        mask = _of_positions(self.mask)
        weighed = _of_positions(self.sample_weight)
        if mask is None or weighed is None:
            one = weighed if mask is None else mask
            return None if one is None else one != 0
        return ops.logical_and(mask != 0, weighed != 0)

    @property
    def rows(self):
        """The weights of examples `(batch,)`, or None for 1 each.

        Examples that are masked entirely weigh 0, and the others so much more that the mean is over them.
        """
        weight, mask = self.sample_weight, _of_positions(self.mask)
        if mask is None:
            return weight if _of_positions(weight) is None else _mean_of_rest(weight)
        there = of_mean_1(ops.cast(_mean_of_rest(mask) > 0, "float32"))
        if weight is None or _of_positions(weight) is None:
            return there if weight is None else there * weight
        return there * ops.divide_no_nan(_mean_of_rest(weight * mask), _mean_of_rest(mask))

    @property
    def kept(self):
        """`(batch,)` or `(batch, positions...)` of booleans: what counts at all. None where all does."""
        valid, rows = self.valid, self.rows
        if valid is None or rows is None:
            return valid if rows is None else rows != 0
        return ops.logical_and(valid, of_rank(len(valid.shape), rows != 0))

    def mean(self, values):
        """Return the weighted mean, a scalar: `Σ wᵢ·valueᵢ / B`, or over the valid positions of the batch.

        Args:
            values: one for each example `(batch,)`, or for each position `(batch, positions...)`.
        """
        if len(values.shape) == 1:
            return mean_over_examples(values, self.rows)
        mask = _of_positions(self.mask)
        if mask is None:
            return mean_over_examples(values, self.sample_weight)
        return mean_over_examples(values * of_mean_1(mask), self.sample_weight)


def _mean_of_rest(weight):
    return ops.mean(weight, axis=tuple(range(1, len(weight.shape))))


def _of_positions(weight):
    return None if weight is None or len(weight.shape) == 1 else weight


def _at(weight, features):
    """`weight` as `(batch,)`, or `(batch, positions...)` with the positions of `features`."""
    if weight is None:
        return None
    rank = len(features.shape) - 1  # of what has one number for each position
    while len(weight.shape) > max(rank, 1) and weight.shape[-1] == 1:
        weight = ops.squeeze(weight, axis=-1)
    if len(weight.shape) == 1:
        return weight
    if len(weight.shape) != rank:
        return _mean_of_rest(weight)
    return ops.squeeze(resized(ops.expand_dims(weight, -1), features), axis=-1)


def _spread(mask, features):
    """A mask of steps `(batch, time)` as one of what each step holds, `(batch, time, positions...)`."""
    own = () if mask is None else tuple(mask.shape[1:])
    size = tuple(features.shape[1:-1])
    if not own or len(own) >= len(size) or own != size[: len(own)]:
        return mask
    return ops.broadcast_to(of_rank(len(features.shape) - 1, mask), ops.shape(features)[:-1])


def of_mean_1(mask):
    """Return a mask as weights of mean 1, so that a mean over all is one over what is valid."""
    mask = ops.cast(mask, "float32")
    return mask * ops.divide_no_nan(ops.cast(ops.size(mask), "float32"), ops.sum(mask))


def full_mask(kept, features):
    """Return booleans `(batch,)` or `(batch, positions...)` for all positions, for BatchNormalization."""
    if kept is None:
        return None
    return ops.broadcast_to(of_rank(len(features.shape) - 1, kept), ops.shape(features)[:-1])


def flat_mask(mask):
    """Return a mask `(batch, positions...)` as booleans `(batch, positions)`; None for None."""
    if mask is None:
        return None
    return ops.cast(ops.reshape(mask, (ops.shape(mask)[0], -1)), "bool")


def where_kept(features, kept):
    """Return `features` with 0 where `kept` is False: there may be anything, NaN even, and 0·NaN is NaN."""
    if kept is None:
        return features
    return ops.where(of_rank(len(features.shape), kept), features, ops.zeros_like(features))


def mean_of_positions(values, valid=None):
    """Return the mean of each example over its (valid) positions: `(batch, ...)`, 0 where there is none.

    Args:
        values: `(batch, positions)`, or with channels behind.
        valid: `(batch, positions)` of booleans, or None.
    """
    if valid is None:
        return ops.mean(values, axis=1)
    valid = ops.cast(of_rank(len(values.shape), valid), values.dtype)
    return ops.divide_no_nan(ops.sum(values * valid, axis=1), ops.sum(valid, axis=1))


def averaged(features, weights):
    """Features `(batch, channels)`: the mean over the (valid) positions."""
    if len(features.shape) == 2:
        return features
    return mean_of_positions(sequences(features), flat_mask(weights.at(features).valid))
