"""Responses: losses on what teacher and student finally answer.

loss = SoftTargets(temperature=4.0)
loss.compute_loss(teacher_logits, student_logits)       # one number; works in any training loop
kd.Distiller(teacher, student, distillation_losses=loss)
"""

import keras
from keras import ops

from keras_distill import schedules
from keras_distill.losses.base import frozen
from keras_distill.losses.logit_loss import LogitLoss, one_hot


@keras.saving.register_keras_serializable(package="keras_distill")
class SoftTargets(LogitLoss):
    """Soft targets: the student learns the teacher's probabilities at a temperature.

    `T² · mean_i KL(softmax(z_t / T) ‖ softmax(z_s / T))`; the T² keeps the gradient's size when T changes.
    For sigmoid outputs, the KL of each label's two outcomes, summed over the labels.

    When: first of all; it is what the others are measured against.

    Args:
        temperature: T, 0.01 to 1000; the higher, the more the order of the wrong classes counts. None for
            what is customary: 4, or 2 with `standardize`.
        standardize: whether to compare standardised logits, see `LogitLoss` (then 0.1 for the hard labels
            and 9 for this loss are customary).
        class_indices: for a teacher of more classes: for each class of the student, the teacher's column.
        output: for networks with several outputs, the name (or position) of the one it reads; else all.
        name: the metric's name.

    `Distiller` undoes a softmax or sigmoid at the end of the networks. `keras.distillation.Distiller` hands
    over the outputs as they are: there, both networks must end in logits.

    Customary weights: 0.1 for the hard labels, 0.9 for this loss.
    Source: Hinton, Vinyals, Dean 2015, arXiv 1503.02531.
    """

    of_independent_labels = True

    def __init__(
        self, temperature=None, standardize=False, class_indices=None, output=None, name=None
    ):
        super().__init__(standardize, class_indices, output, name)
        if temperature is None:
            temperature = 2.0 if self.standardize else 4.0
        self.temperature = checked_temperature(temperature)
        self.customary_weights = (0.1, 9.0) if self.standardize else (0.1, 0.9)

    def per_example(self, teacher_logits, student_logits, labels, activation):
        """Return `soft_targets` of each example."""
        temperature = schedules.value(self.temperature)
        return soft_targets(teacher_logits, student_logits, temperature, activation)

    def get_config(self):
        """Return the arguments of the constructor."""
        return {**self.config_of("temperature"), **super().get_config()}


def soft_targets(teacher_logits, student_logits, temperature=4.0, activation="softmax"):
    """Return `T² · KL(teacher ‖ student)` of each example, float32 `(batch, ...)`.

    Args:
        teacher_logits: `(batch, ..., classes)`.
        student_logits: `(batch, ..., classes)`.
        temperature: T > 0.
        activation: `"softmax"`: classes exclude each other; `"sigmoid"`: each label by itself, summed.
    """
    teacher = frozen(teacher_logits) / temperature
    student = ops.cast(student_logits, "float32") / temperature
    if activation == "sigmoid":
        divergence = divergences(ops.log_sigmoid(teacher), ops.log_sigmoid(student))
        divergence += divergences(ops.log_sigmoid(-teacher), ops.log_sigmoid(-student))
    else:
        divergence = divergences(
            ops.log_softmax(teacher, axis=-1), ops.log_softmax(student, axis=-1)
        )
    return temperature**2 * ops.sum(divergence, axis=-1)


def divergences(log_p, log_q):
    """Return the terms `p · (log p − log q)` of a KL divergence, of the shape of the arguments."""
    # A class that the teacher excludes (logit −∞) counts 0, not 0·∞.
    log_p, log_q = ops.maximum(log_p, -1e30), ops.maximum(log_q, -1e30)
    return ops.exp(log_p) * (log_p - log_q)


def checked_temperature(temperature):
    """Return a temperature that is a number (or a schedule) from 0.01 to 1000."""
    # T² times the rounding of probabilities in float32: beyond 1000 that is all that is left.
    return schedules.checked("temperature", temperature, 0.01, 1000, "4.0 is customary")


@keras.saving.register_keras_serializable(package="keras_distill")
class LogitMSE(LogitLoss):
    """Logit MSE: the student regresses the teacher's logits.

    `mean_i Σ_c (z_s − z_t)²`. Soft targets at a high temperature come to the same but for the size and for
    the mean of each row of logits, which this loss teaches too.

    When: there is no temperature to be chosen, labels are missing, or the outputs are no classes
    (boxes, scores).

    Args:
        standardize, class_indices, output, name: see `LogitLoss`.

    Customary weights: 1 for the hard labels, 1 for this loss.
    Source: Ba & Caruana 2014, arXiv 1312.6184; Kim et al. 2021, arXiv 2105.08919.
    """

    of_independent_labels = True

    def per_example(self, teacher_logits, student_logits, labels, activation):
        """Return `logit_mse` of each example."""
        return logit_mse(teacher_logits, student_logits)


def logit_mse(teacher_logits, student_logits):
    """Return `Σ_c (z_s − z_t)²` of each example, float32 `(batch, ...)`.

    Args:
        teacher_logits: `(batch, ..., classes)`.
        student_logits: `(batch, ..., classes)`.
    """
    teacher, student = frozen(teacher_logits), ops.cast(student_logits, "float32")
    # Classes that both exclude (−∞) are equal.
    difference = ops.where(ops.equal(teacher, student), 0.0, student - teacher)
    return ops.sum(ops.square(difference), axis=-1)


@keras.saving.register_keras_serializable(package="keras_distill")
class VirtualTeacher(LogitLoss):
    """Teacher-free distillation: the soft targets of a made-up teacher that is nearly always right.

    `T² · mean_i KL(u^T ‖ softmax(z_s / T))`, where u is `correct_probability` on the true class and even on
    the others, and `u^T = softmax(log(u) / T)`. (The authors' code softens u alone and leaves the student at
    temperature 1; this is the paper's formula, which softens both.) Label smoothing itself is Keras's:
    `CategoricalCrossentropy(label_smoothing=0.1)`.

    It needs labels and reads no teacher: `Distiller(None, student, VirtualTeacher())`.

    When: there is no teacher.

    Args:
        temperature: T.
        correct_probability: u of the true class, between 0 and 1.
        standardize, output, name: see `LogitLoss`.

    Customary weights: 0.9 for the hard labels, 0.1 for this loss (0.1 to 0.95 in the paper).
    Source: Yuan et al. 2020, arXiv 1909.11723.
    """

    needs_labels = True
    needs_teacher = False
    customary_weights = (0.9, 0.1)

    def __init__(
        self,
        temperature=20.0,
        correct_probability=0.99,
        standardize=False,
        output=None,
        name=None,
    ):
        super().__init__(standardize, None, output, name)
        self.temperature = checked_temperature(temperature)
        if not isinstance(correct_probability, float) or not 0 < correct_probability < 1:
            raise ValueError(
                f"correct_probability must lie between 0 and 1, got {correct_probability!r}; 0.99 is "
                "customary."
            )
        self.correct_probability = correct_probability

    def per_example(self, teacher_logits, student_logits, labels, activation):
        """Return `virtual_teacher` of each example."""
        temperature = schedules.value(self.temperature)
        return virtual_teacher(student_logits, labels, temperature, self.correct_probability)

    def get_config(self):
        """Return the arguments of the constructor."""
        config = {**self.config_of("temperature", "correct_probability"), **super().get_config()}
        config.pop("class_indices")  # it has no teacher to choose of
        return config


def virtual_teacher(student_logits, labels, temperature=20.0, correct_probability=0.99):
    """Return `T² · KL(u^T ‖ student)` of each example, float32 `(batch, ...)`.

    Args:
        student_logits: `(batch, ..., classes)`.
        labels: integers `(batch, ...)`, or one-hot.
        temperature: T > 0.
        correct_probability: u of the true class.
    """
    true = one_hot(labels, student_logits)
    rest = (1.0 - correct_probability) / max(student_logits.shape[-1] - 1, 1)
    teacher = ops.log(true * correct_probability + (1.0 - true) * rest)
    return soft_targets(teacher, student_logits, temperature)
