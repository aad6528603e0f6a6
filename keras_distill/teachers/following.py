"""Teachers that are made of the student itself: its average, or what it said before."""

import math
import os
from typing import cast

import keras
import numpy as np
from keras import ops

from keras_distill import activations, epoch, kinds, schedules
from keras_distill.network import Answer, select
from keras_distill.teachers.base import Teacher
from keras_distill.teachers.model import ModelTeacher
from keras_distill.train_step import (
    call_numpy_flat,
    read_rows,
    replicas,
    required,
    write_rows,
)

_SEEN = 1e-7  # the least probability that is kept: of a sigmoid 0, which float16 makes of less, means unseen


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
        copy = keras.models.clone_model(student)
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

    def fold(self) -> bool:
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


@keras.saving.register_keras_serializable(package="keras_distill")
class PastPredictions(Teacher):
    """What the student said of each example an epoch ago softens its label (PS-KD).

    The target is (1 − αₜ)·onehot + αₜ·p of the epoch before, with αₜ = share·(t + 1)/epochs in epoch t; an
    example that was not seen yet has its label alone, one without a label (−1) what was said of it. Give it
    to a Distiller with `losses.SoftTargets(temperature=1.0)` and `student_loss_weight=0`; `compile` takes the
    hard loss all the same, which validation shows. Use it to train without any teacher where a network is too
    sure of its labels: it costs no second network. Each training begins with nothing said, on one device.

    Of one class, or of a student that ends in a sigmoid, each label is softened by itself.

    Args:
        examples: how many there are.
        classes: of the student.
        epochs: how many the training has.
        share: α in the last epoch.
        index: key of the examples' numbers 0..examples−1 in the batch, or a callable that gives them; let the
            student read the rest with `student_inputs=`.
        folder: where the predictions are kept as float16; None to keep them in memory, as float32.
        independent_labels: whether logits without a sigmoid are of labels that are each right or wrong.

    Raises:
        ValueError: an argument that cannot be meant; in a training, labels are missing or an example's
            number lies outside, or the student turns out to end in a sigmoid.

    Source: Kim et al. 2021, Self-Knowledge Distillation with Progressive Refinement of Targets, arXiv
        2006.12000.
    """

    def __init__(
        self,
        examples: int,
        classes: int,
        epochs: int,
        share: float = 0.8,
        index="index",
        folder: str | os.PathLike | None = None,
        independent_labels: bool = False,
    ):
        for name, value in (("examples", examples), ("classes", classes), ("epochs", epochs)):
            schedules.whole(name, value)
        self.examples, self.classes, self.epochs = examples, classes, epochs
        self.share, self.index = schedules.fixed("share", share, highest=1.0), index
        self.independent_labels = bool(independent_labels)
        self._ends: list[str] = []  # the student's, once it is known
        self.folder = None if folder is None else os.fspath(folder)
        self._memory = _InMemory(examples, classes) if self.folder is None else None
        self._files = None if self.folder is None else _OnDisk(self.folder, examples, classes)

    @property
    def state(self) -> list[keras.Layer]:
        """The predictions, where they are kept in memory."""
        return [] if self._memory is None else [self._memory]

    @property
    def compilable(self) -> bool:
        """Whether they are kept in memory."""
        return self._memory is not None

    def targets(self, x, labels=None) -> Answer:
        """Return the softened labels."""
        if labels is None:
            raise ValueError("PastPredictions softens labels, and there are none: give (x, y).")
        past = self._table.read(self._indices(x))
        kind = self._kind(past)
        seen = ops.any(past > 0, axis=-1, keepdims=True)
        truth, known = kinds.truth(labels, past, kind)
        now = ops.cast(epoch.variable(), "float32")
        share = ops.minimum(self.share * (now + 1.0) / self.epochs, self.share)
        share = ops.where(seen, ops.where(known, share, 1.0), 0.0)
        target = (1.0 - share) * truth + share * past
        # Of an example without label and past nothing is known.
        nothing = 1.0 / self.classes if kind == "softmax" else 0.5
        target = ops.where(seen | known, target, nothing)
        if kind == "softmax":
            target = target / ops.sum(target, axis=-1, keepdims=True)
            return Answer(target, ops.log(ops.maximum(target, 1e-30)), kind)
        return Answer(target, activations.to_logits(target, kind), kind)

    def follow(self, student: keras.Model) -> None:
        """See how the student ends.

        Raises:
            ValueError: on several devices, each of which would remember what it saw itself.
        """
        if replicas() > 1:
            raise ValueError(
                f"PastPredictions is for one device, and this strategy has {replicas()}: make the Distiller "
                "outside of its scope."
            )
        self._ends = [head.activation for head in activations.heads(student)]

    def update(self, x, answer: Answer) -> None:
        """Remember what the student said."""
        kind = self._kind(answer.logits)
        if kind == "softmax" and "sigmoid" in keras.tree.flatten(answer.activations):
            raise ValueError(
                "PastPredictions softens classes of which one is right, and the student ends in a sigmoid: "
                "pass independent_labels=True."
            )
        said = kinds.probabilities(answer.logits, kind)
        if kind == "sigmoid":
            said = ops.maximum(said, _SEEN)
        self._table.write(self._indices(x), said)

    def _kind(self, logits) -> str:
        return kinds.of(logits, self._ends, independent_labels=self.independent_labels)

    def begin(self) -> None:
        """Forget what was said in an earlier training."""
        self._table.begin()

    def spec(self) -> Answer:
        """Return the answer to any batch, symbolically."""
        one = keras.KerasTensor((None, self.classes), "float32")
        return Answer(one, one, self._kind(one))

    @property
    def _table(self):
        return self._files or self._memory

    def _indices(self, x):
        return ops.cast(ops.reshape(select(x, self.index, "index"), (-1,)), "int32")

    def fingerprint(self) -> str:
        """Refuse: it has no answers that could be kept."""
        raise ValueError("The answers of PastPredictions change: they cannot be stored.")

    def get_config(self) -> dict:
        """Return the arguments of the constructor, serialised."""
        return {
            "examples": self.examples,
            "classes": self.classes,
            "epochs": self.epochs,
            "share": self.share,
            "index": keras.saving.serialize_keras_object(self.index),
            "folder": self.folder,
            "independent_labels": self.independent_labels,
        }

    @classmethod
    def from_config(cls, config):
        """Return the teacher that `get_config` describes."""
        return cls(**{**config, "index": keras.saving.deserialize_keras_object(config["index"])})


class _InMemory(keras.layers.Layer):
    """A table of predictions `(examples, classes)`, saved with the training; 0 for what is not known."""

    def __init__(self, examples: int, classes: int):
        super().__init__(name="past_predictions", trainable=False)
        self.table = self.add_weight(
            shape=(examples, classes), initializer="zeros", trainable=False, name="table"
        )
        self.built = True

    def begin(self) -> None:
        self.table.assign(ops.zeros_like(self.table))

    def read(self, indices):
        examples = self.table.shape[0]
        inside = ops.all((indices >= 0) & (indices < examples))
        return read_rows(self.table, required(indices, inside, _outside(examples)))

    def write(self, indices, predictions) -> None:
        write_rows(self.table, indices, predictions)


class _OnDisk:
    """Two tables in files: an epoch reads one and writes the other, so that it can be trained again."""

    def __init__(self, folder: str, examples: int, classes: int):
        os.makedirs(folder, exist_ok=True)
        self._shape = (examples, classes)
        self._tables = [
            _table(os.path.join(folder, f"predictions-{i}.npy"), self._shape) for i in (0, 1)
        ]
        self._anew = False

    def begin(self) -> None:
        self._anew = True  # if its first epoch is the first: one that goes on needs what is there

    def read(self, indices):
        shape = (None, self._shape[1])
        return call_numpy_flat(self._read, [epoch.variable(), indices], [(shape, "float32")])[0]

    def write(self, indices, predictions) -> None:
        inputs = [epoch.variable(), indices, predictions]
        call_numpy_flat(self._write, inputs, [((), "int32")])

    def _read(self, number, indices):
        self._check(indices)
        if self._anew and number == 0:
            for table in self._tables:
                table[:] = 0
        self._anew = False
        if number == 0:
            return [np.zeros((len(indices), self._shape[1]), "float32")]
        return [self._tables[(number + 1) % 2][indices].astype("float32")]

    def _write(self, number, indices, predictions):
        self._check(indices)
        self._tables[number % 2][indices] = predictions
        return [np.int32(0)]

    def _check(self, indices) -> None:
        if ((indices < 0) | (indices >= self._shape[0])).any():
            raise ValueError(_outside(self._shape[0]))


def _outside(examples: int) -> str:
    return (
        f"PastPredictions has examples={examples}, and a number in the batch is not from 0 to "
        f"{examples - 1}: number the examples from 0."
    )


def _table(path: str, shape: tuple[int, int]) -> np.ndarray:
    if os.path.exists(path):
        table = np.lib.format.open_memmap(path, "r+")
        if table.shape != shape or table.dtype != np.float16:
            raise ValueError(
                f"{path} holds {table.shape} {table.dtype} and not the predictions of {shape[0]} examples "
                f"and {shape[1]} classes: give another folder."
            )
        return table
    return np.lib.format.open_memmap(path, "w+", np.float16, shape)
