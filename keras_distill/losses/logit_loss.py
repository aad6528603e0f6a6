"""Base of the losses on logits: which classes and outputs are compared, and how they are prepared.

class Absolute(LogitLoss):
    def per_example(self, teacher_logits, student_logits, labels, activation):
        return ops.sum(ops.abs(teacher_logits - student_logits), axis=-1)
"""

import keras
from keras import ops

from keras_distill.losses.base import DistillationLoss, frozen, mean_over_examples
from keras_distill.losses.weights import Weights, where_kept


class LogitLoss(DistillationLoss):
    """Base of the losses on logits `(batch, ..., classes)`; Distiller undoes a softmax at the end.

    Args:
        standardize: whether each row of logits, the teacher's and the student's, first becomes
            `(z − mean(z)) / (std(z) + 1e-7)`, so that the student need not match the size of the teacher's
            logits; see `standardized`. It takes 3 classes at least.
        class_indices: for a teacher of more classes: for each class of the student, the teacher's column.
        output, name: see `DistillationLoss`.
    """

    reads = "logits"
    # Whether it is also defined for labels that are each right or wrong by itself (a sigmoid's).
    of_independent_labels = False

    def __init__(self, standardize=False, class_indices=None, output=None, name=None):
        super().__init__(name=name, output=output)
        self.standardize = bool(standardize)
        self.class_indices = None if class_indices is None else [int(i) for i in class_indices]

    def per_example(self, teacher_logits, student_logits, labels, activation: str):
        """Return the loss of each example (and position): `(batch, ...)`, from float32 logits."""
        raise NotImplementedError

    def of_output(self, teacher_logits, student_logits, labels, sample_weight, activation: str):
        """Return the loss of one output, a scalar, from float32 logits."""
        values = self.per_example(teacher_logits, student_logits, labels, activation)
        if self.needs_labels:
            # A number that is no class, such as −1, marks what is not to be learned.
            values = values * ops.sum(one_hot(labels, student_logits), axis=-1)
        return mean_over_examples(values, sample_weight)

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
            labels: integers `(batch, ...)` or one-hot `(batch, ..., classes)`, for losses that need them.
            sample_weight: `(batch,)` or `(batch, ...)`, or None.
            activation: what the logits are for: `"softmax"` (one class is right) or `"sigmoid"` (each label
                by itself); or a structure with one for each output.

        Raises:
            ValueError: teacher and student end in different numbers of classes, labels are needed and
                missing, or the loss is not defined for outputs of this kind.
        """
        if not self.needs_teacher:
            teacher_outputs = student_outputs
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
            teacher, student = frozen(teacher), ops.cast(student, "float32")
            if self.needs_labels:
                self.need_labels(label)
            for one in (teacher, student):
                if len(one.shape) < 2:
                    raise ValueError(
                        f"{type(self).__name__} compares logits (batch, ..., classes), got the shape "
                        f"{tuple(one.shape)}: for one number of each example give (batch, 1)."
                    )
            if self.class_indices is not None:
                self.check_classes(teacher.shape[-1], len(self.class_indices), student.shape[-1])
                teacher = ops.take(teacher, self.class_indices, axis=-1)
            else:
                self.check_classes(teacher.shape[-1], teacher.shape[-1], student.shape[-1])
            if kind == "sigmoid" and not self.of_independent_labels:
                name = type(self).__name__
                teacher, student = (as_classes(z, name) for z in (teacher, student))
                kind = "softmax"
            if weight is not None:
                kept = Weights(weight).at(student).kept
                teacher, student = where_kept(teacher, kept), where_kept(student, kept)
            if self.standardize:
                teacher, student = standardized(teacher), standardized(student)
            total = total + self.of_output(teacher, student, label, weight, kind)
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
        if self.output_name is not None or not self.needs_teacher:
            return  # which outputs these are is known when the networks run
        outputs = [getattr(model, "outputs", None) or [] for model in (teacher, student)]
        if [len(each) for each in outputs] == [1, 1]:
            columns, classes = (each[0].shape[-1] for each in outputs)
            chosen = columns if self.class_indices is None else len(self.class_indices)
            self.check_classes(columns, chosen, classes)

    def validate_outputs(self, teacher_outputs, student_outputs) -> None:
        """Refuse outputs that cannot be paired."""
        if not self.needs_teacher:
            return
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
        return {
            "standardize": self.standardize,
            "class_indices": self.class_indices,
            "output": self.output_name,
            "name": self.name,
        }


def _outline(outputs) -> str:
    """One output, or how many, or their names."""
    if isinstance(outputs, dict):
        return f"the outputs {sorted(outputs)}"
    return f"{len(outputs)} outputs" if isinstance(outputs, list | tuple) else "one output"


def as_classes(logits, whose: str):
    """Return the logits of the two classes "no" and "yes" for the one unit of a yes-or-no question.

    Raises:
        ValueError: there are several units; the sentence names `whose` logits they are.
    """
    if logits.shape[-1] != 1:
        raise ValueError(
            f"{whose} is for classes of which one is right, and these {logits.shape[-1]} labels are each "
            "right or wrong by itself (sigmoid): use SoftTargets or LogitMSE, and no weighting by rule."
        )
    return ops.concatenate([ops.zeros_like(logits), logits], axis=-1)


def standardized(logits):
    """Return `(z − mean(z)) / (std(z) + 1e-7)` of each row, with the unbiased standard deviation.

    Constant rows become 0; classes that are excluded (−∞) stay so, and the others are standardised.

    Args:
        logits: `(batch, ..., classes)`, 3 classes at least: of two, only which is larger would be left.

    Raises:
        ValueError: there are fewer than 3 classes.

    Source: Sun et al. 2024, arXiv 2403.01427.
    """
    classes = logits.shape[-1]
    if classes < 3:
        raise ValueError(
            f"standardize=True is for 3 classes or more, and there are {classes}: standardised, two logits "
            "are always +0.7 and −0.7."
        )
    logits = ops.cast(logits, "float32")
    counted = ops.cast(ops.isfinite(logits), "float32")
    finite = ops.where(ops.isfinite(logits), logits, 0.0)
    count = ops.sum(counted, axis=-1, keepdims=True)
    centred = (finite - ops.divide_no_nan(ops.sum(finite, axis=-1, keepdims=True), count)) * counted
    squares = ops.sum(ops.square(centred), axis=-1, keepdims=True)
    # Beyond the rounding of float32; and the root of 0 has no gradient.
    varies = squares > 1e-12 * ops.sum(ops.square(finite), axis=-1, keepdims=True)
    variance = ops.where(varies, squares, 1.0) / ops.maximum(count - 1.0, 1.0)
    scaled = ops.where(varies, centred / (ops.sqrt(variance) + 1e-7), 0.0)
    return ops.where(ops.isfinite(logits), scaled, logits)


def cross_entropy(truth, logits):
    """Return `−Σ truth·log softmax(logits)` over the classes, `(batch, ...)`; 0·log 0 = 0."""
    return -ops.sum(truth * ops.maximum(ops.log_softmax(logits, axis=-1), -1e30), axis=-1)


def one_hot(labels, logits):
    """Return the labels as float32 `(batch, ..., classes)`, 1 at the true class, like `logits`.

    Args:
        labels: integers `(batch, ...)` or `(batch, ..., 1)`, or for each class a number `(batch, ...,
            classes)`, of which the largest counts. A number that is no class gives zeros.
        logits: `(batch, ..., classes)`.

    Raises:
        ValueError: labels of another shape.
    """
    labels = ops.convert_to_tensor(labels)
    classes, rank = logits.shape[-1], len(logits.shape)
    if len(labels.shape) == rank and labels.shape[-1] == classes:
        labels = ops.argmax(labels, axis=-1)
    elif len(labels.shape) == rank and labels.shape[-1] == 1:
        labels = ops.squeeze(labels, axis=-1)
    elif len(labels.shape) != rank - 1:
        raise ValueError(
            f"Labels of shape {tuple(labels.shape)} do not fit logits of shape {tuple(logits.shape)}: give "
            "integers without the last axis, or one number for each class."
        )
    labels = ops.cast(ops.round(ops.cast(labels, "float32")), "int32")
    return ops.one_hot(labels, classes, dtype="float32")
