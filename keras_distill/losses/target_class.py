"""Responses, with the true class apart from the others: DKD and NKD.

What a teacher says of the true class is mostly known from the label; what it says of the others is not. Plain
soft targets weigh the second by how unsure the teacher is; here the two have weights of their own.

loss = DecoupledKD(alpha=1.0, beta=8.0, temperature=4.0)
loss.compute_loss(teacher_logits, student_logits, labels)
"""

import keras
from keras import ops

from keras_distill import schedules
from keras_distill.losses.base import frozen
from keras_distill.losses.logit_loss import LogitLoss, one_hot
from keras_distill.losses.response import checked_temperature, divergences


@keras.saving.register_keras_serializable(package="keras_distill")
class DecoupledKD(LogitLoss):
    """Decoupled distillation (DKD): soft targets split into the true class and the others.

    `α·TCKD + β·NCKD`, where `TCKD = T² · mean_i KL` of the two outcomes "true class" and "any other" at
    temperature T, and `NCKD = T² · mean_i KL` of the softmax over the other classes alone (0 for two
    classes).

    When: the teacher is nearly always right on the training data, so that plain soft targets carry
    little.

    Args:
        alpha: α, a number or a schedule.
        beta: β, a number or a schedule; 8 on CIFAR-100, 2 or 6 for some pairs of networks.
        temperature: T, a number or a schedule.
        standardize, class_indices, output, name: see `LogitLoss`.

    Customary weights: 1 for the hard labels, 1 for this loss, with a linear warm-up of 20 epochs
    (`schedules.warm_up(20)` as its weight).
    Source: Zhao et al. 2022, arXiv 2203.08679, equation 7.
    """

    needs_labels = True

    def __init__(
        self,
        alpha=1.0,
        beta=8.0,
        temperature=4.0,
        standardize=False,
        class_indices=None,
        output=None,
        name=None,
    ):
        super().__init__(standardize, class_indices, output, name)
        self.alpha = schedules.checked("alpha", alpha)
        self.beta = schedules.checked("beta", beta)
        self.temperature = checked_temperature(temperature)

    def per_example(self, teacher_logits, student_logits, labels, activation):
        """Return `decoupled_kd` of each example."""
        numbers = (schedules.value(one) for one in (self.alpha, self.beta, self.temperature))
        return decoupled_kd(teacher_logits, student_logits, labels, *numbers)

    def get_config(self):
        """Return the arguments of the constructor."""
        return {**self.config_of("alpha", "beta", "temperature"), **super().get_config()}


def decoupled_kd(teacher_logits, student_logits, labels, alpha=1.0, beta=8.0, temperature=4.0):
    """Return `α·TCKD + β·NCKD` of each example, float32 `(batch, ...)`.

    Args:
        teacher_logits: `(batch, ..., classes)`.
        student_logits: `(batch, ..., classes)`.
        labels: integers `(batch, ...)`, or one-hot.
        alpha, beta, temperature: see `DecoupledKD`.
    """
    is_true = one_hot(labels, student_logits) > 0
    teacher = frozen(teacher_logits) / temperature
    student = ops.cast(student_logits, "float32") / temperature
    binary = divergences(_true_or_not(teacher, is_true), _true_or_not(student, is_true))
    others = divergences(_of_others(teacher, is_true), _of_others(student, is_true))
    return temperature**2 * (alpha * ops.sum(binary, axis=-1) + beta * ops.sum(others, axis=-1))


def _true_or_not(logits, is_true):
    """Log probabilities of the true class and of all others together: `(batch, ..., 2)`."""
    log_p = ops.maximum(ops.log_softmax(logits, axis=-1), -1e30)
    true = ops.sum(ops.where(is_true, log_p, 0.0), axis=-1)
    rest = ops.logsumexp(ops.where(is_true, -1e30, log_p), axis=-1)
    return ops.stack([true, rest], axis=-1)


def _of_others(logits, is_true):
    """Log probabilities of the other classes among themselves; of the true one, about −∞."""
    return ops.log_softmax(ops.where(is_true, -1e30, logits), axis=-1)


@keras.saving.register_keras_serializable(package="keras_distill")
class NormalizedKD(LogitLoss):
    """Normalised distillation (NKD): a cross-entropy for the true class and one for the others.

    `mean_i [−p_t[y]·log p_s[y] − γ·T²·Σ_{c≠y} p̂_t[c]·log p̂_s[c]]`, where p is at temperature 1 and p̂ is the
    softmax at temperature T over the classes other than y. It is not 0 where student and teacher agree.

    When: as for DecoupledKD; it needs no warm-up and works at temperature 1.

    Args:
        gamma: γ, a number or a schedule.
        temperature: T, a number or a schedule.
        standardize, class_indices, output, name: see `LogitLoss`.

    Customary weights: 1 for the hard labels, 1 for this loss.
    Source: Yang et al. 2023, arXiv 2303.13005.
    """

    needs_labels = True

    def __init__(
        self,
        gamma=1.5,
        temperature=1.0,
        standardize=False,
        class_indices=None,
        output=None,
        name=None,
    ):
        super().__init__(standardize, class_indices, output, name)
        self.gamma = schedules.checked("gamma", gamma)
        self.temperature = checked_temperature(temperature)

    def per_example(self, teacher_logits, student_logits, labels, activation):
        """Return `normalized_kd` of each example."""
        numbers = (schedules.value(one) for one in (self.gamma, self.temperature))
        return normalized_kd(teacher_logits, student_logits, labels, *numbers)

    def get_config(self):
        """Return the arguments of the constructor."""
        return {**self.config_of("gamma", "temperature"), **super().get_config()}


def normalized_kd(teacher_logits, student_logits, labels, gamma=1.5, temperature=1.0):
    """Return the NKD loss of each example, float32 `(batch, ...)`; arguments as `NormalizedKD`.

    Args:
        teacher_logits: `(batch, ..., classes)`.
        student_logits: `(batch, ..., classes)`.
        labels: integers `(batch, ...)`, or one-hot.
        gamma, temperature: see `NormalizedKD`.
    """
    true = one_hot(labels, student_logits)
    teacher, student = frozen(teacher_logits), ops.cast(student_logits, "float32")
    target = true * _crossentropies(ops.log_softmax(teacher), ops.log_softmax(student))
    others = (1.0 - true) * _crossentropies(
        _of_others(teacher / temperature, true > 0), _of_others(student / temperature, true > 0)
    )
    return ops.sum(target, axis=-1) + gamma * temperature**2 * ops.sum(others, axis=-1)


def _crossentropies(log_p, log_q):
    return -ops.exp(log_p) * ops.maximum(log_q, -1e30)
