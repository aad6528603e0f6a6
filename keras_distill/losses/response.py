"""Responses: losses on what teacher and student finally answer.

loss = SoftTargets(temperature=4.0)
loss.compute_loss(teacher_logits, student_logits)       # one number; works in any training loop
kd.Distiller(teacher, student, distillation_losses=loss)
"""

import numbers

import keras
from keras import ops

from keras_distill.losses.base import DistillationLoss, mean_over_examples


class LogitLoss(DistillationLoss):
    """Base of the losses on logits `(batch, ..., classes)`; Distiller undoes a softmax at the end.

    Args:
        class_indices: for a teacher of more classes: for each class of the student, the teacher's column.
        output, name: see `DistillationLoss`.
    """

    def __init__(self, class_indices=None, output=None, name=None):
        super().__init__(name=name, output=output)
        self.class_indices = None if class_indices is None else [int(i) for i in class_indices]

    def per_example(self, teacher_logits, student_logits, labels, activation: str):
        """Return the loss of each example (and position): `(batch, ...)`, from float32 logits."""
        raise NotImplementedError

    def compute_loss(
        self,
        teacher_outputs,
        student_outputs,
        labels=None,
        sample_weight=None,
        activation="softmax",
    ):
        """Return the mean over the examples; for several outputs, the sum of their means.

        Args:
            teacher_outputs: logits `(batch, ..., classes)`, or a list or dict of such.
            student_outputs: the same of the student.
            labels: passed on to losses that need them.
            sample_weight: `(batch,)` or `(batch, ...)`, or None.
            activation: what the logits are for: `"softmax"` (one class is right) or `"sigmoid"` (each label
                by itself); or a structure with one for each output.

        Raises:
            ValueError: teacher and student end in different numbers of classes.
        """
        pairs = list(
            zip(
                keras.tree.flatten(teacher_outputs),
                keras.tree.flatten(student_outputs),
                strict=True,
            )
        )

        def each(value):
            values = keras.tree.flatten(value)
            return values if len(values) == len(pairs) else [value] * len(pairs)

        total = 0.0
        for (teacher, student), label, weight, kind in zip(
            pairs, each(labels), each(sample_weight), each(activation), strict=True
        ):
            teacher, student = ops.cast(teacher, "float32"), ops.cast(student, "float32")
            if self.class_indices is not None:
                self.check_classes(teacher.shape[-1], len(self.class_indices), student.shape[-1])
                teacher = ops.take(teacher, self.class_indices, axis=-1)
            else:
                self.check_classes(teacher.shape[-1], teacher.shape[-1], student.shape[-1])
            values = self.per_example(teacher, student, label, kind)
            total = total + mean_over_examples(values, weight)
        return total

    def check_classes(self, teacher: int | None, chosen: int | None, student: int | None) -> None:
        """Refuse a teacher whose classes are not the student's.

        Args:
            teacher: number of the teacher's columns.
            chosen: how many of them are used.
            student: number of the student's classes.
        """
        if self.class_indices and teacher is not None:
            outside = [i for i in self.class_indices if not 0 <= i < teacher]
            if outside:
                raise ValueError(
                    f"class_indices= names column {outside[0]}, and the teacher has {teacher} classes: "
                    f"give numbers from 0 to {teacher - 1}."
                )
        if None in (chosen, student) or chosen == student:
            return
        if self.class_indices is not None:
            raise ValueError(
                f"class_indices= has {chosen} columns and the student ends in {student} classes: "
                "give one column of the teacher for each class of the student, in the student's order."
            )
        raise ValueError(
            f"Teacher ends in {teacher} classes and student in {student}: pass class_indices= to choose the "
            "teacher's columns, or train a teacher on these classes."
        )

    def validate_model_compatibility(self, teacher, student) -> None:
        """Compare the numbers of classes, where both models show them and have one output."""
        if self.output_name is not None:
            return  # which outputs these are is known when the networks run
        outputs = [getattr(model, "outputs", None) or [] for model in (teacher, student)]
        if [len(each) for each in outputs] == [1, 1]:
            columns, classes = (each[0].shape[-1] for each in outputs)
            chosen = columns if self.class_indices is None else len(self.class_indices)
            self.check_classes(columns, chosen, classes)

    def validate_outputs(self, teacher_outputs, student_outputs) -> None:
        """Refuse outputs that cannot be paired."""
        try:
            keras.tree.assert_same_structure(teacher_outputs, student_outputs)
        except ValueError as error:
            raise ValueError(
                f"Teacher answers {_outline(teacher_outputs)} and student {_outline(student_outputs)}: "
                "pass output= to name the one output that this loss reads, or build the teacher anew "
                "with the student's names: keras.Model(teacher.input, {name: output, ...})."
            ) from error

    def get_config(self):
        """Return the arguments of the constructor."""
        return {"class_indices": self.class_indices, "output": self.output_name, "name": self.name}


def _outline(outputs) -> str:
    """One output, or how many, or their names."""
    if isinstance(outputs, dict):
        return f"the outputs {sorted(outputs)}"
    return f"{len(outputs)} outputs" if isinstance(outputs, list | tuple) else "one output"


@keras.saving.register_keras_serializable(package="keras_distill")
class SoftTargets(LogitLoss):
    """Soft targets: the student learns the teacher's probabilities at a temperature.

    `T² · mean_i KL(softmax(z_t / T) ‖ softmax(z_s / T))`; the T² keeps the gradient's size when T changes.
    For sigmoid outputs, the KL of each label's two outcomes, summed over the labels.

    Args:
        temperature: T, 0.01 to 1000; the higher, the more the order of the wrong classes counts. 4 is
            customary.
        class_indices: for a teacher of more classes: for each class of the student, the teacher's column.
        output: for networks with several outputs, the name (or position) of the one it reads; else all.
        name: the metric's name.

    `Distiller` undoes a softmax or sigmoid at the end of the networks. `keras.distillation.Distiller` hands
    over the outputs as they are: there, both networks must end in logits.

    Customary weights: 0.1 for the hard labels, 0.9 for this loss.
    Source: Hinton, Vinyals, Dean 2015, arXiv 1503.02531.
    """

    customary_weights = (0.1, 0.9)

    def __init__(self, temperature=4.0, class_indices=None, output=None, name=None):
        super().__init__(class_indices, output, name)
        self.temperature = _positive(temperature)

    def per_example(self, teacher_logits, student_logits, labels, activation):
        """Return `soft_targets` of each example."""
        return soft_targets(teacher_logits, student_logits, self.temperature, activation)

    def get_config(self):
        """Return the arguments of the constructor."""
        return {"temperature": self.temperature, **super().get_config()}


def soft_targets(teacher_logits, student_logits, temperature=4.0, activation="softmax"):
    """Return `T² · KL(teacher ‖ student)` of each example, float32 `(batch, ...)`.

    Args:
        teacher_logits: `(batch, ..., classes)`.
        student_logits: `(batch, ..., classes)`.
        temperature: T > 0.
        activation: `"softmax"`: classes exclude each other; `"sigmoid"`: each label by itself, summed.
    """
    teacher = ops.cast(teacher_logits, "float32") / temperature
    student = ops.cast(student_logits, "float32") / temperature
    if activation == "sigmoid":
        divergence = _divergence(ops.log_sigmoid(teacher), ops.log_sigmoid(student))
        divergence += _divergence(ops.log_sigmoid(-teacher), ops.log_sigmoid(-student))
    else:
        divergence = _divergence(
            ops.log_softmax(teacher, axis=-1), ops.log_softmax(student, axis=-1)
        )
    return temperature**2 * ops.sum(divergence, axis=-1)


def _divergence(log_p, log_q):
    # A class that the teacher excludes (logit −∞) counts 0, not 0·∞.
    log_p, log_q = ops.maximum(log_p, -1e30), ops.maximum(log_q, -1e30)
    return ops.exp(log_p) * (log_p - log_q)


def _positive(temperature):
    number = isinstance(temperature, numbers.Real) and not isinstance(temperature, bool)
    # T² times the rounding of probabilities in float32: beyond 1000 that is all that is left.
    if not number or not 0.01 <= temperature <= 1000:
        raise ValueError(
            f"temperature must be a positive number, 0.01 to 1000, got {temperature!r}; 4.0 is customary."
        )
    return float(temperature)
