"""What every teacher can do: answer a batch.

A teacher of your own is a class with one function:

    class Rule(kd.teachers.Teacher):
        def targets(self, x, labels=None):
            logits = ...
            return kd.teachers.Answer(logits, logits, "linear")
"""

from collections.abc import Sequence
from typing import Any

import keras

from keras_distill.network import Answer


class Teacher:
    """What every teacher can do. Subclass it for a teacher of your own."""

    @property
    def compilable(self) -> bool:
        """Whether `targets` can be compiled into the training step by XLA."""
        return True

    def targets(self, x, labels=None) -> Answer:
        """Return what the teacher answers to a batch; never called inside the gradient.

        Args:
            x: the inputs, as `fit` gets them.
            labels: the hard labels, or None where there are none.
        """
        raise NotImplementedError

    # How many views of each example it can answer; None for any number.
    views: int | None = None

    def follow(self, student: keras.Model) -> None:
        """Called by the Distiller that it is to teach in, with the student."""

    def begin(self) -> None:
        """Called when a new training begins, before the weights of one that goes on are read."""

    def tap(self, layer_names: Sequence[str]) -> None:
        """Let the answers hold these inner layers too, `Answer.inner`.

        Raises:
            ValueError: it has no such layers, or shows none.
        """
        if layer_names:
            raise ValueError(
                f"Layers {list(layer_names)} of the teacher are wanted, and {type(self).__name__} has no "
                "layers: use losses on its outputs, or a keras.Model as teacher."
            )

    def fingerprint(self) -> str:
        """Return what tells this teacher from others, for labels that are stored."""
        return f"{type(self).__name__} {self.get_config()}"

    def spec(self) -> Answer | None:
        """Return the answer to any batch as `keras.KerasTensor`s, or None where it is not known."""

    def find_layer(self, name: str) -> Any:
        """Return the inner layer of this name, or None."""

    @property
    def folding_pays(self) -> bool:
        """Whether `fold` makes a training faster."""
        return False

    def fold(self, if_pays: bool = False) -> bool:
        """Called before a training: nobody is going to change the teacher's weights.

        Args:
            if_pays: of several teachers, whether only those are to be folded of which `folding_pays`.

        Returns:
            Whether `targets` has to be traced again.

        Raises:
            ValueError: why it cannot be folded.
        """
        raise ValueError(
            f"fold_teacher=True is for a keras.Model as teacher, got {type(self).__name__}."
        )

    def unfold(self, if_set: bool = False) -> bool:
        """Undo `fold`, or only if the weights were set since; return what `fold` returns."""
        return False

    def update(self, x, answer: Answer) -> None:
        """Called after each training step, for teachers that follow the student.

        Args:
            x: the inputs of the batch.
            answer: what the student answered to it, before the step.
        """

    @property
    def state(self) -> list[keras.Layer]:
        """Layers whose variables follow the student, and are saved beside it."""
        return []

    @property
    def models(self) -> list:
        """Those `ModelTeacher`s that it is, or is made of."""
        return []

    def of_loss(self, number: int) -> "Teacher":
        """Return who teaches the loss of this number: itself, see `PerLoss`."""
        return self

    @property
    def known(self) -> bool:
        """Whether it is known that the answers are logits or probabilities."""
        return True

    def check_looks(self, x) -> None:
        """Refuse answers to one batch that look like probabilities where logits are assumed."""

    def save_assets(self, folder: str) -> None:
        """Write what `get_config` does not hold into `folder`."""

    def load_assets(self, folder: str) -> None:
        """Read what `save_assets` wrote."""

    def get_config(self) -> dict:
        """Return the arguments of the constructor."""
        return {}

    @classmethod
    def from_config(cls, config):
        """Return the teacher that `get_config` describes."""
        return cls(**config)


class NoTeacher(Teacher):
    """Nobody: for losses that read no teacher, such as `losses.VirtualTeacher`."""

    def targets(self, x, labels=None) -> Answer:
        """Return an answer without anything in it."""
        return Answer(None, None, None)

    def spec(self) -> Answer:
        """Return the same."""
        return self.targets(None)
