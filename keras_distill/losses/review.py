"""Features, reviewed from the last stage to the first: ReviewKD.

teacher = ["conv2_block3_out", "conv3_block4_out", "conv4_block6_out", "conv5_block3_out"]
student = ["block_2_add", "block_5_add", "block_12_add", "out_relu"]
kd.Distiller(teacher_model, student_model, **kd.losses.mix(ReviewKD(teacher, student)))
"""

import functools

import keras
from keras import ops

from keras_distill import schedules
from keras_distill.losses.feature_loss import TrainableLoss
from keras_distill.losses.shapes import nearest, pooled, sequences
from keras_distill.losses.weights import (
    flat_mask,
    full_mask,
    mean_of_positions,
    paired,
    where_kept,
)

_LEVELS = (4, 2, 1)


@keras.saving.register_keras_serializable(package="keras_distill")
class ReviewKD(TrainableLoss):
    """Knowledge review: each stage of the teacher is learned from this and all later stages of the student.

    `Σ_k HCL(F_k(f_s[k], f_s[k+1], …), f_t[k])`, where HCL is `hierarchical_context` and F_k a fusion: from
    the last stage to the first, the student's features are fused with what came of the later stages
    (weighed by an attention map for each of the two), and a 3×3 convolution makes of it the teacher's
    features of that stage.

    When: CNNs with several stages, and accuracy counts more than the time of a step.

    Args:
        teacher_layer_name: layers at the ends of stages, from shallow to deep, two at least; or "auto".
        student_layer_name: as many of the student.
        mid: the width in which stages are fused; None for min(512, width of the student's last stage).
        output, name: see `FeatureLoss`.

    Attributes:
        fusions: one `Fusion` for each stage, from shallow to deep.

    Customary weights: 1 for the hard labels, 1 for this loss, with a linear warm-up of 20 epochs.
    Source: Chen et al. 2021, arXiv 2104.09044, section 3.
    """

    def __init__(
        self, teacher_layer_name=None, student_layer_name=None, mid=None, output=None, name=None
    ):
        super().__init__(teacher_layer_name, student_layer_name, output, name)
        self.mid = None if mid is None else schedules.whole("mid", mid)
        self.fusions: list[Fusion] = []

    def build(self, teacher_shapes, student_shapes):
        """Make the fusions for a list with the shape of each stage."""
        if len(student_shapes) < 2:
            raise ValueError(
                f"ReviewKD fuses stages and was given {len(student_shapes)}: name a list of at least two "
                "layers of each network, from shallow to deep; or use Hint."
            )
        mid = self.mid or min(512, student_shapes[-1][-1])
        rank = max(len(shape) for shape in (*student_shapes, *teacher_shapes)) - 2
        for shape in (*student_shapes, *teacher_shapes):
            if len(shape) not in (2, rank + 2):
                raise ValueError(
                    "ReviewKD fuses maps with maps, or sequences with sequences (and flat features with "
                    f"both), got the shapes {student_shapes} (student) and {teacher_shapes} (teacher): name "
                    "layers of one kind."
                )
        fusions = [
            Fusion(mid, teacher[-1], max(rank, 1), fuses=i < len(student_shapes) - 1)
            for i, teacher in enumerate(teacher_shapes)
        ]
        for fusion, student in zip(fusions, student_shapes, strict=True):
            fusion.build((None, *[None] * max(rank, 1), student[-1]))
        self.fusions = fusions

    def compute_loss(
        self, teacher_outputs, student_outputs, labels=None, sample_weight=None, mask=None
    ):
        """Return the sum over the stages, a scalar; arguments as `FeatureLoss.compute_loss`, as lists."""
        stages = paired(teacher_outputs, student_outputs, mask, sample_weight)
        self.build_for(stages)
        rank = self.fusions[0].rank
        deeper, total = None, 0.0
        for fusion, (teacher, student, weights) in reversed(
            list(zip(self.fusions, stages, strict=True))
        ):
            teacher, student = (_as_map(one, rank) for one in (teacher, student))
            _need_sizes(teacher, student)
            compared, deeper = fusion.fuse(student, deeper, teacher, weights)
            weights = weights.at(teacher)
            total = total + weights.mean(hierarchical_context(teacher, compared, weights.valid))
        return total

    def get_config(self):
        """Return the arguments of the constructor."""
        return {"mid": self.mid, **super().get_config()}


class Fusion(keras.layers.Layer):
    """Attention-based fusion of a stage of the student with what came of the later ones.

    Args:
        mid: the width in which it fuses.
        width: the teacher's width.
        rank: 1 for sequences, 2 for maps.
        fuses: False for the last stage.
    """

    def __init__(self, mid: int, width: int, rank: int, fuses: bool):
        super().__init__(dtype="float32")
        convolution = functools.partial(
            getattr(keras.layers, f"Conv{rank}D"), data_format="channels_last", dtype="float32"
        )
        normalization = keras.layers.BatchNormalization
        self.mid, self.width, self.rank, self.fuses = mid, width, rank, fuses
        self.narrow = convolution(mid, 1, use_bias=False)
        self.narrow_norm = normalization(epsilon=1e-5, dtype="float32")
        self.attend = convolution(2, 1, activation="sigmoid") if fuses else None
        self.widen = convolution(width, 3, padding="same", use_bias=False)
        self.widen_norm = normalization(epsilon=1e-5, dtype="float32")

    def build(self, student_shape):
        """Make the weights."""
        middle = (*student_shape[:-1], self.mid)
        self.narrow.build(student_shape)
        self.narrow_norm.build(middle)
        if self.attend is not None:
            self.attend.build((*student_shape[:-1], 2 * self.mid))
        self.widen.build(middle)
        self.widen_norm.build((*student_shape[:-1], self.width))

    def fuse(self, student, deeper, teacher, weights):
        """Return what is compared with the teacher, of its positions, and what goes to the next stage.

        What does not count is not in the statistics of the normalisations, and 0 for the convolutions.
        """

        def normed(norm, features):
            mask = full_mask(weights.at(features).kept, features)
            return norm.call(features, training=True, mask=mask)  # `norm()` would attach the mask

        fused = normed(self.narrow_norm, self.narrow(student))
        if self.attend is not None:
            deeper = nearest(deeper, student.shape[1:-1])
            attention = self.attend(ops.concatenate([fused, deeper], axis=-1))
            fused = fused * attention[..., :1] + deeper * attention[..., 1:]
        fused = where_kept(fused, weights.at(fused).kept)
        return normed(self.widen_norm, self.widen(nearest(fused, teacher.shape[1:-1]))), fused


def _as_map(features, rank: int):
    """Flat features as a map of one position."""
    for _ in range(rank + 2 - len(features.shape)):
        features = ops.expand_dims(features, 1)
    return features


def _need_sizes(*features) -> None:
    for one in features:
        if None in one.shape[1:-1]:
            raise ValueError(
                f"ReviewKD resizes features, and of those of shape {tuple(one.shape)} a size is not known: "
                "give batches of a fixed size."
            )


def hierarchical_context(teacher, student, mask=None):
    """Return the hierarchical context loss of each example: `(batch,)`.

    The mean squared difference, of the maps and of the maps pooled to 4, 2 and 1 positions a side (those
    smaller than the map), weighed 1, ½, ¼, ⅛, divided by the sum of the weights.

    Args:
        teacher: `(batch, positions..., channels)`.
        student: the same shape.
        mask: `(batch, positions...)`: all means are over valid positions; or None.
    """
    teacher = ops.stop_gradient(teacher)
    size = tuple(teacher.shape[1:-1])
    valid = None if mask is None else ops.expand_dims(ops.cast(mask, teacher.dtype), -1)

    def difference(a, b, there):
        squares = ops.mean(sequences(ops.square(a - b)), axis=-1)
        return mean_of_positions(squares, None if there is None else flat_mask(there > 0))

    def at(level, features, there):
        if valid is None:
            return pooled(features, level)
        return ops.divide_no_nan(pooled(features * valid, level), there)

    total, weight, weights = difference(student, teacher, valid), 1.0, 1.0
    for level in _LEVELS:
        if None in size or level >= min(size, default=1):
            continue
        weight /= 2.0
        smaller = (level,) * len(size)
        there = None if valid is None else pooled(valid, smaller)
        ours, theirs = at(smaller, student, there), at(smaller, teacher, there)
        total = total + weight * difference(ours, theirs, there)
        weights += weight
    return total / weights
