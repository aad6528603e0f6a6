"""The student's average as its teacher.

distiller = kd.Distiller(kd.teachers.EMATeacher(momentum=0.999), student, kd.losses.SoftTargets())
distiller.fit(x, y, epochs=30)
distiller.teacher.model.save("average.keras")
"""

import math
from typing import cast

import keras
from keras import ops

from keras_distill import schedules
from keras_distill.network import Answer
from keras_distill.teachers.base import Teacher
from keras_distill.teachers.model import ModelTeacher


class _Average(keras.layers.Layer):
    """A network that follows another one, and how many steps it has followed; saved with the training."""

    def __init__(self, network: keras.Model):
        super().__init__(name="average", trainable=False)
        self.network = network
        self.steps = self.add_weight(
            shape=(), initializer="zeros", trainable=False, name="steps", dtype="float32"
        )
        self.built = True


@keras.saving.register_keras_serializable(package="keras_distill")
class EMATeacher(ModelTeacher):
    """The moving average of the student's weights teaches the student (mean teacher).

    After each step θ' ← m·θ' + (1 − m)·θ, with m = min(momentum, 1 − 1/(step + 1)), so that the beginning is
    soon forgotten; statistics of BatchNormalization are averaged likewise. Use it where labels are few and
    unlabelled examples many, with another view for each network (`student_inputs=` a layer that changes the
    images) and a weight that grows: `schedules.warm_up(30)`. The average is often the better model:
    `distiller.teacher.model`.

    Args:
        momentum: m, 0 ≤ m < 1.
        inputs: None, a key into the batch or a callable, as `teacher_inputs` of `Distiller`.
        activation: as `teacher_activation` of `Distiller`.

    Raises:
        ValueError: `momentum` lies outside; or the student has no weights yet.

    Source: Tarvainen & Valpola 2017, Mean teachers are better role models, arXiv 1703.01780.
    """

    def __init__(self, momentum: float = 0.999, inputs=None, activation="auto"):
        below_1 = math.nextafter(1.0, 0.0)
        advice = "below 1, 0.999 is usual"
        self.momentum = schedules.fixed("momentum", momentum, highest=below_1, advice=advice)
        self._given = inputs, activation
        self._student: keras.Model | None = None
        self._folded = None

    def follow(self, student: keras.Model) -> None:
        """Begin as a copy of the student."""
        if self._student is student:
            return
        if self._student is not None:
            raise ValueError("This EMATeacher follows another student: make a new one.")
        if not student.built:
            raise ValueError(
                "EMATeacher copies the student, which has no weights yet: call it on a batch first."
            )
        if type(student).__module__.partition(".")[0] == "keras":
            copy = keras.models.clone_model(student)
        else:  # which would make a plain model of a class that is functional and does more
            copy = type(student).from_config(student.get_config())
        if not copy.built:  # a subclassed model
            copy.build_from_config(student.get_build_config())
        copy.set_weights(student.get_weights())
        super().__init__(copy, *self._given)
        self._student, self._average = student, _Average(copy)

    @property
    def state(self) -> list[keras.Layer]:
        """The average."""
        return [self._average]

    @property
    def models(self) -> list[ModelTeacher]:
        """None that is not made here."""
        return []

    @property
    def folding_pays(self) -> bool:
        """False: its weights change in every step."""
        return False

    def fold(self, if_pays: bool = False) -> bool:
        """Refuse."""
        return Teacher.fold(self)

    def update(self, x, answer: Answer) -> None:
        """Follow the student by a step."""
        steps = self._average.steps
        steps.assign_add(1.0)
        momentum = ops.minimum(self.momentum, 1.0 - 1.0 / (steps + 1.0))
        pairs = zip(self.model.weights, cast(keras.Model, self._student).weights, strict=True)
        for mine, theirs in pairs:
            if not keras.backend.is_float_dtype(mine.dtype):
                mine.assign(theirs)
                continue
            kept = ops.cast(momentum, mine.dtype)
            mine.assign(kept * mine + (1 - kept) * ops.cast(theirs, mine.dtype))

    def save_assets(self, folder: str) -> None:
        """Nothing: the average is saved with the training."""

    def load_assets(self, folder: str) -> None:
        """Nothing."""

    def fingerprint(self) -> str:
        """Refuse: it has no answers that could be kept."""
        raise ValueError(
            "The answers of an EMATeacher change in every step: they cannot be stored."
        )

    def get_config(self) -> dict:
        """Return the arguments of the constructor, serialised."""
        inputs, activation = self._given
        return {
            "momentum": self.momentum,
            "inputs": keras.saving.serialize_keras_object(inputs),
            "activation": activation,
        }

    @classmethod
    def from_config(cls, config):
        """Return the teacher that `get_config` describes."""
        return cls(**{**config, "inputs": keras.saving.deserialize_keras_object(config["inputs"])})
