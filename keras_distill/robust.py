"""A student that stays right where its inputs are made to mislead it: adversarially robust distillation.

distiller = kd.RobustDistiller(robust_teacher, student, epsilon=8 / 255)
distiller.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
distiller.fit(x, y, validation_data=validation, epochs=30)      # val_accuracy and val_robust_accuracy
"""

import keras
from keras import ops

from keras_distill import kinds, losses, schedules, train_step
from keras_distill.distiller import Distiller
from keras_distill.losses.base import of_rank
from keras_distill.network import Answer
from keras_distill.soft_loss import Batch, Outputs


class _Attacked(Answer):
    """What the teacher says of a batch, and the batch made to mislead the student."""

    def __init__(self, answer: Answer, x):
        super().__init__(
            answer.outputs, answer.logits, answer.activations, answer.inner, answer.names
        )
        self.x = x
        self._clean = answer

    def of_loss(self, number: int) -> Answer:
        """Return what the loss of this number reads."""
        return self._clean.of_loss(number)


@keras.saving.register_keras_serializable(package="keras_distill")
class RobustDistiller(Distiller):
    """The student learns on attacked inputs what the teacher says of clean ones (ARD).

    `s·CE(student(x), y) + (1 − s)·Σ wᵢ·lossᵢ(teacher(x), student(x′))`, where x′ is the input within ±ε of x
    that misleads the student most: projected gradient descent (PGD) from a random start, on the student's
    cross-entropy (of a student that ends in a sigmoid, the sum over its labels), in inference. Use it with a
    teacher that is robust itself: a student inherits robustness from such a one. A step costs about
    `steps + 2` forward and backward passes of the student.

    The history and `evaluate` show `robust_accuracy`, on attacked inputs, beside the metrics on clean ones:
    the share of examples (or labels) that are right, weighted by `sample_weight`. It is there where attacked
    inputs and labels are.

    Args:
        teacher, student: as for `Distiller`; the student takes one input of numbers and has one output.
        distillation_losses: as for `Distiller`; None for `SoftTargets(temperature=30.0)`.
        distillation_loss_weights: as for `Distiller`.
        student_loss_weight: s, of the clean inputs; 0 as in the paper.
        epsilon: ε, the largest change of a number of the input, in its own units: 8/255 for images 0..1, 8
            for images 0..255.
        step_size: of an attack; None for ε/4.
        steps: of an attack.
        bounds: the lowest and highest value that an input can have, (0, 255) for images 0..255; None for no
            bounds. Each `fit` looks at its first batch.
        name, **kwargs: as for `Distiller`.

    Raises:
        ValueError: a number that cannot be meant, or a student of several inputs or outputs, or of integers;
            in a training, inputs outside of `bounds`.

    Source: Goldblum et al. 2020, Adversarially Robust Distillation, arXiv 1905.09747; PGD: Madry et al. 2018,
    arXiv 1706.06083.
    """

    def __init__(
        self,
        teacher,
        student,
        distillation_losses=None,
        distillation_loss_weights=None,
        student_loss_weight=0.0,
        epsilon=8 / 255,
        step_size=None,
        steps=10,
        bounds=(0.0, 1.0),
        name="robust_distiller",
        **kwargs,
    ):
        if distillation_losses is None:
            distillation_losses = losses.SoftTargets(temperature=30.0)
        super().__init__(
            teacher,
            student,
            distillation_losses,
            distillation_loss_weights,
            student_loss_weight,
            name=name,
            **kwargs,
        )
        self.epsilon = schedules.fixed("epsilon", epsilon, above=True)
        self.step_size = schedules.fixed(
            "step_size", self.epsilon / 4 if step_size is None else step_size, above=True
        )
        self.steps = schedules.whole("steps", steps)
        self.bounds = _checked(bounds)
        for of, tensors in (("input", "inputs"), ("output", "outputs")):
            if len(getattr(student, tensors, None) or [0]) > 1:
                raise ValueError(f"RobustDistiller takes a student of one {of}, got several.")
        for one in getattr(student, "inputs", None) or []:
            if not keras.backend.is_float_dtype(one.dtype):
                raise ValueError(_no_slope(one.dtype))
        self._seed = keras.random.SeedGenerator()
        self.robust_accuracy_tracker = keras.metrics.Mean(name="robust_accuracy")

    def attack(self, x, y=None):
        """Return inputs within ±ε of `x` that mislead the student.

        Args:
            x: inputs `(batch, ...)`, floats.
            y: labels; None, and where one is no class, for the student's own answers to `x`.

        Raises:
            ValueError: the student's answer has no slope in its input.
        """
        x = ops.cast(x, "float32")
        start = self._network.answer(x, training=False)
        logits, label, kind = self._read(start, y)
        truth = kinds.decided(logits, kind)
        if label is not None:
            given, known = kinds.truth(label, logits, kind)
            truth = ops.where(known, given, truth)

        def error(changed):
            answer = self._network.answer(changed, training=False)
            return ops.sum(kinds.cross_entropy(truth, self._read(answer)[0], kind))

        noise = keras.random.uniform(ops.shape(x), -self.epsilon, self.epsilon, seed=self._seed)
        found = self._within(x + noise, x)

        def step(_, found):
            slope = train_step.gradient_of_input(error, found)
            if slope is None:
                raise ValueError(_no_slope())
            return self._within(found + self.step_size * ops.sign(slope), x)

        return ops.stop_gradient(ops.fori_loop(0, self.steps, step, found))

    def _read(self, answer: Answer, labels=None):
        """The logits of the one output, its labels, and their kind."""
        ours = Outputs(answer, None, "student")
        logits, label, end, loss = (
            ours.of(one)[0] for one in (answer.logits, labels, answer.activations, self._hard_loss)
        )
        return logits, label, kinds.of(logits, [end], loss)

    def _within(self, changed, x):
        """`changed`, within ±ε of `x` and within the bounds, or the side of them on which `x` lies."""
        lowest, highest = x - self.epsilon, x + self.epsilon
        if self.bounds is not None:
            lowest = ops.maximum(lowest, ops.minimum(x, self.bounds[0]))
            highest = ops.minimum(highest, ops.maximum(x, self.bounds[1]))
        return ops.clip(changed, lowest, highest)

    def wants_batch(self) -> bool:
        """Whether no batch of this training has been looked at."""
        return self.compiled and not self._checked

    def look(self, x, y=None) -> None:
        """Refuse inputs outside of the bounds too."""
        super().look(x, y)
        if self.bounds is None:
            return
        seen = ops.convert_to_numpy(self._network.select(x))
        lowest, highest = float(seen.min()), float(seen.max())
        slack = 1e-3 * (self.bounds[1] - self.bounds[0])  # of rounding and resizing
        if lowest < self.bounds[0] - slack or highest > self.bounds[1] + slack:
            self._checked = False
            raise ValueError(
                f"Attacks are kept within bounds={self.bounds}, and the first batch has inputs from "
                f"{lowest:g} to {highest:g}: give their bounds, such as bounds=(0, 255) with epsilon=8 for "
                "images 0..255, or bounds=None for inputs without any."
            )

    def begin(self, anew: bool) -> None:
        """As of any Distiller; the data of the next `fit` may be others, and are looked at again."""
        super().begin(anew)
        self._checked = False

    def targets(self, x, y=None):
        """Return the teacher's answer to clean inputs, with the attacked ones."""
        answer = super().targets(x, y)
        return answer and _Attacked(answer, self.attack(self._network.select(x, True), y))

    def soft(self, batch: Batch, answer, targets) -> list:
        """Return what the student is to learn on attacked inputs."""
        attacked = self._network.answer(targets.x, training=True)
        self._note(attacked, batch.labels, batch.sample_weight)
        return super().soft(batch, attacked, targets)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """Compare clean outputs with the labels; `robust_accuracy` is there if something was attacked."""
        logs = super().compute_metrics(x, y, y_pred, sample_weight)
        if y is None or self.student_loss_weight == 1:
            logs.pop(self.robust_accuracy_tracker.name)
        return logs

    def test_step(self, data):
        """Evaluate the student on clean inputs and on attacked ones."""
        logs = super().test_step(data)
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if y is None:
            return logs
        attacked = self.attack(self._network.select(x), y)
        self._note(self._network.answer(attacked, training=False), y, sample_weight)
        tracker = self.robust_accuracy_tracker
        return {**logs, tracker.name: tracker.result()}

    def _note(self, answer: Answer, labels, sample_weight) -> None:
        """Count which labels the student still knows on attacked inputs."""
        if labels is None:
            return
        logits, label, kind = self._read(answer, labels)
        truth, known = kinds.truth(label, logits, kind)
        same = kinds.decided(logits, kind) == ops.round(truth)
        if kind == "softmax":
            same = ops.all(same, axis=-1, keepdims=True)
        weight = ops.cast(known, "float32")
        given = Outputs(answer, None, "student").of(sample_weight)[0]
        if given is not None:
            weight = weight * of_rank(len(weight.shape), ops.cast(given, "float32"))
        self.robust_accuracy_tracker.update_state(same, sample_weight=weight)

    def get_config(self):
        """Return the arguments of the constructor, serialised."""
        own = {name: getattr(self, name) for name in ("epsilon", "step_size", "steps", "bounds")}
        return {**super().get_config(), **own}


def _checked(bounds) -> tuple[float, float] | None:
    if bounds is None:
        return None
    try:
        lowest, highest = (float(one) for one in bounds)
    except (TypeError, ValueError):
        lowest, highest = 0.0, 0.0
    if not lowest < highest:
        raise ValueError(f"bounds={bounds!r} must be (lowest, highest), or None.")
    return lowest, highest


def _no_slope(dtype="") -> str:
    of_integers = f" of {dtype}" if dtype else ""
    return (
        f"RobustDistiller changes the student's inputs by fractions, and its answer has no slope in inputs"
        f"{of_integers}: give a student that takes floats (of tokens, one that begins behind the embedding)."
    )
