"""What the student said of each example an epoch ago as its teacher.

past = kd.teachers.PastPredictions(examples=50_000, classes=10, epochs=30)
loss = kd.losses.SoftTargets(temperature=1.0)
distiller = kd.Distiller(past, student, loss, student_loss_weight=0, student_inputs="x")
distiller.fit({"x": x, "index": np.arange(50_000)}, y, epochs=30)
"""

import os

import keras
from keras import ops

from keras_distill import activations, epoch, kinds, schedules
from keras_distill.network import Answer, select
from keras_distill.teachers.base import Teacher
from keras_distill.teachers.past_tables import InMemory, OnDisk
from keras_distill.train_step import replicas

_SEEN = 1e-7  # the least probability that is kept: of a sigmoid 0, which float16 makes of less, means unseen


@keras.saving.register_keras_serializable(package="keras_distill")
class PastPredictions(Teacher):
    """What the student said of each example an epoch ago softens its label (PS-KD).

    The target is (1 − αₜ)·label + αₜ·p of the epoch before (or the last one that saw the example), with αₜ =
    share·(t + 1)/epochs in epoch t. The label is a class, or a probability of each. An example that was not
    seen yet has its label alone, one without a label (−1) what was said of it. Give it
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
        self._memory = InMemory(examples, classes) if self.folder is None else None
        self._files = None if self.folder is None else OnDisk(self.folder, examples, classes)

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
        truth, known = self._truth(labels, past, kind)
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

    def _truth(self, labels, past, kind: str):
        """As `kinds.truth`, but with a probability for each class as it is given."""
        labels = ops.convert_to_tensor(labels)
        if kind == "softmax" and len(labels.shape) == 2 and labels.shape[-1] == self.classes:
            given = ops.cast(labels, "float32")
            known = ops.sum(given, axis=-1, keepdims=True) > 0
            return ops.where(known, given, 0.0), known
        return kinds.truth(labels, past, kind)

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
