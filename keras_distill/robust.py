"""A student that stays right where its inputs are made to mislead it: adversarially robust distillation.

distiller = kd.RobustDistiller(robust_teacher, student, epsilon=8 / 255)
distiller.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
distiller.fit(x, y, validation_data=validation, epochs=30)      # val_accuracy and val_robust_accuracy
"""

import keras
from keras import ops

from keras_distill import losses, schedules, train_step
from keras_distill.distiller import Distiller
from keras_distill.losses.logit_loss import cross_entropy, one_hot
from keras_distill.network import Answer
from keras_distill.soft_loss import Batch


class _Attacked(Answer):
    """What the teacher says of a batch, and the batch made to mislead the student."""

    def __init__(self, answer: Answer, x):
        super().__init__(
            answer.outputs, answer.logits, answer.activations, answer.inner, answer.names
        )
        self.x = x


@keras.saving.register_keras_serializable(package="keras_distill")
class RobustDistiller(Distiller):
    """The student learns on attacked inputs what the teacher says of clean ones (ARD).

    `s·CE(student(x), y) + (1 − s)·Σ wᵢ·lossᵢ(teacher(x), student(x′))`, where x′ is the input within ±ε of x
    that misleads the student most: projected gradient descent (PGD) from a random start, on the student's
    cross-entropy, in inference. Use it with a teacher that is robust itself: a student inherits robustness
    from such a one. A step costs about `steps + 2` forward and backward passes of the student.

    The history and `evaluate` show `robust_accuracy`, on attacked inputs, beside the metrics on clean ones.

    Args:
        teacher, student: as for `Distiller`; the student takes one input of numbers and has one output.
        distillation_losses: as for `Distiller`; None for `SoftTargets(temperature=30.0)`.
        distillation_loss_weights: as for `Distiller`.
        student_loss_weight: s, of the clean inputs; 0 as in the paper.
        epsilon: ε, the largest change of a number of the input, in its own units: 8/255 for images 0..1, 8
            for images 0..255.
        step_size: of an attack; None for ε/4.
        steps: of an attack.
        bounds: the lowest and highest value that an input can have; None for no bounds.
        name, **kwargs: as for `Distiller`.

    Raises:
        ValueError: a number that cannot be meant, or a student of several inputs or outputs.

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
        self.bounds = None if bounds is None else tuple(float(one) for one in bounds)
        if self.bounds is not None and (len(self.bounds) != 2 or self.bounds[0] >= self.bounds[1]):
            raise ValueError(f"bounds={bounds!r} must be (lowest, highest), or None.")
        for of, tensors in (("input", "inputs"), ("output", "outputs")):
            if len(getattr(student, tensors, None) or [0]) > 1:
                raise ValueError(f"RobustDistiller takes a student of one {of}, got several.")
        self._seed = keras.random.SeedGenerator()
        self.robust_accuracy_tracker = keras.metrics.Mean(name="robust_accuracy")

    def attack(self, x, y=None):
        """Return inputs within ±ε of `x` that mislead the student.

        Args:
            x: inputs `(batch, ...)`, floats.
            y: labels; None for the student's own answers to `x`.
        """
        x = ops.cast(x, "float32")
        start = self._network.answer(x, training=False).logits
        labels = ops.argmax(start, axis=-1) if y is None else y

        def error(changed):
            logits = self._network.answer(changed, training=False).logits
            return ops.sum(cross_entropy(one_hot(labels, logits), logits))

        noise = keras.random.uniform(ops.shape(x), -self.epsilon, self.epsilon, seed=self._seed)
        found = self._within(x + noise, x)

        def step(_, found):
            slope = train_step.gradient_of_input(error, found)
            return self._within(found + self.step_size * ops.sign(slope), x)

        return ops.stop_gradient(ops.fori_loop(0, self.steps, step, found))

    def _within(self, changed, x):
        changed = ops.clip(changed, x - self.epsilon, x + self.epsilon)
        return changed if self.bounds is None else ops.clip(changed, *self.bounds)

    def targets(self, x, y=None):
        """Return the teacher's answer to clean inputs, with the attacked ones."""
        answer = super().targets(x, y)
        return answer and _Attacked(answer, self.attack(self._network.select(x, True), y))

    def soft(self, batch: Batch, answer, targets) -> list:
        """Return what the student is to learn on attacked inputs."""
        attacked = self._network.answer(targets.x, training=True)
        self._note(attacked.logits, batch.labels)
        return super().soft(batch, attacked, targets)

    def test_step(self, data):
        """Evaluate the student on clean inputs and on attacked ones."""
        logs = super().test_step(data)
        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        if y is not None:
            attacked = self.attack(self._network.select(x), y)
            self._note(self._network.answer(attacked, training=False).logits, y)
        return {**logs, "robust_accuracy": self.robust_accuracy_tracker.result()}

    def _note(self, logits, labels) -> None:
        if labels is None:
            return
        truth = one_hot(labels, logits)
        right = ops.sum(truth * one_hot(ops.argmax(logits, axis=-1), logits), axis=-1)
        known = ops.sum(truth, axis=-1)
        self.robust_accuracy_tracker.update_state(right, sample_weight=known)

    def get_config(self):
        """Return the arguments of the constructor, serialised."""
        own = {name: getattr(self, name) for name in ("epsilon", "step_size", "steps", "bounds")}
        return {**super().get_config(), **own}
