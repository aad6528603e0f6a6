"""Responses, compared by correlation: DIST.

loss = DIST(beta=2.0, gamma=2.0, temperature=4.0)
loss.compute_loss(teacher_logits, student_logits)
"""

import keras
from keras import ops

from keras_distill import schedules
from keras_distill.losses.base import frozen, mean_over_examples, of_rank
from keras_distill.losses.logit_loss import LogitLoss
from keras_distill.losses.response import checked_temperature


@keras.saving.register_keras_serializable(package="keras_distill")
class DIST(LogitLoss):
    """DIST: probabilities need only rise and fall together, not be equal.

    `β·T²·(1 − mean_i r(p_s[i, :], p_t[i, :])) + γ·T²·(1 − mean_c r(p_s[:, c], p_t[:, c]))`, where r is
    Pearson's correlation: first over the classes of each example, then over the examples of the batch for
    each class. It suits a teacher that is much stronger than its student.

    What does not vary in either network (all of a class in a batch of one) counts 0; in one alone, 1.

    When: the teacher is much stronger than the student, or was trained in another way.

    Args:
        beta: β, a number or a schedule; 2 on CIFAR-100.
        gamma: γ, a number or a schedule; 2 on CIFAR-100.
        temperature: T, a number or a schedule; 4 on CIFAR-100.
        standardize, class_indices, output, name: see `LogitLoss`.

    Customary weights: 1 for the hard labels, 1 for this loss.
    Source: Huang et al. 2022, arXiv 2205.10536.
    """

    def __init__(
        self,
        beta=1.0,
        gamma=1.0,
        temperature=1.0,
        standardize=False,
        class_indices=None,
        output=None,
        name=None,
    ):
        super().__init__(standardize, class_indices, output, name)
        self.beta = schedules.checked("beta", beta)
        self.gamma = schedules.checked("gamma", gamma)
        self.temperature = checked_temperature(temperature)

    def of_output(self, teacher_logits, student_logits, labels, sample_weight, activation):
        """Return `dist` of one output."""
        beta, gamma, temperature = map(schedules.value, (self.beta, self.gamma, self.temperature))
        return dist(teacher_logits, student_logits, beta, gamma, temperature, sample_weight)

    def get_config(self):
        """Return the arguments of the constructor."""
        return {**self.config_of("beta", "gamma", "temperature"), **super().get_config()}


def dist(teacher_logits, student_logits, beta=1.0, gamma=1.0, temperature=1.0, sample_weight=None):
    """Return the DIST loss of a batch, a float32 scalar.

    Args:
        teacher_logits: `(batch, ..., classes)`; positions count as examples.
        student_logits: `(batch, ..., classes)`.
        beta, gamma, temperature: see `DIST`.
        sample_weight: `(batch,)` or `(batch, ...)`, or None: the rows' weights in the mean over rows and in
            the correlations over them.
    """
    teacher = ops.softmax(frozen(teacher_logits) / temperature, axis=-1)
    student = ops.softmax(ops.cast(student_logits, "float32") / temperature, axis=-1)
    rows = ops.ones_like(student[..., 0])
    if sample_weight is not None:
        weight = ops.cast(sample_weight, "float32")
        rows = rows * of_rank(len(rows.shape), weight)
    classes = student.shape[-1]
    within = _uncorrelated(teacher, student, ops.ones_like(student), axis=-1)
    teacher, student = (ops.reshape(one, (-1, classes)) for one in (teacher, student))
    across = _uncorrelated(teacher, student, ops.reshape(rows, (-1, 1)), axis=0)
    total = beta * mean_over_examples(within, rows) + gamma * ops.mean(across)
    return temperature**2 * total


def _uncorrelated(first, second, weights, axis):
    """1 − the weighted Pearson correlation along `axis`."""
    total = ops.sum(weights, axis=axis, keepdims=True)

    def centred(values):
        mean = ops.divide_no_nan(ops.sum(weights * values, axis=axis, keepdims=True), total)
        return values - mean

    def varies(values, centred):
        # Beyond the rounding of float32.
        rounding = 1e-12 * ops.sum(weights * ops.square(values), axis=axis)
        return ops.sum(weights * ops.square(centred), axis=axis) > ops.maximum(rounding, 1e-36)

    a, b = centred(first), centred(second)
    a_varies, b_varies = varies(first, a), varies(second, b)
    both = ops.logical_and(a_varies, b_varies)

    def scale(values):  # 1 / norm; not of 0, whose gradient is none
        squares = ops.sum(weights * ops.square(values), axis=axis)
        return ops.rsqrt(ops.where(both, squares, 1.0))

    correlation = ops.sum(weights * a * b, axis=axis) * scale(a) * scale(b)
    either = ops.cast(ops.logical_or(a_varies, b_varies), "float32")
    return ops.where(both, ops.maximum(1.0 - correlation, 0.0), either)
