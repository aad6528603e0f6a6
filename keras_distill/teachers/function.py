"""Any function of NumPy arrays as a teacher."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_distill import activations, schedules
from keras_distill.network import Answer, select
from keras_distill.teachers.base import Teacher
from keras_distill.train_step import call_numpy


class CallableTeacher(Teacher):
    """Any function from NumPy arrays to NumPy arrays: a model of another framework, a service, a rule.

    It runs in Python once per training step, outside the compiled graph, so it suits small or remote
    teachers; for a slow one, store its answers first.

    Args:
        function: takes the batch (an array, or a list or dict of them) and returns an array
            `(batch, ..., classes)`.
        output_shape: the shape of one example's answer, for instance `(10,)` or, of one axis, `10`.
        activation: what it answers: `"linear"` (logits), `"softmax"` or `"sigmoid"`; `"auto"` takes it for
            logits, and refuses one batch that looks like probabilities.
        inputs: a callable or a key into the batch.

    Raises:
        ValueError: an argument that cannot be meant; in use: an answer of another shape.
    """

    def __init__(
        self,
        function: Callable,
        output_shape: int | Sequence[int],
        activation: str = "auto",
        inputs=None,
    ):
        if not callable(function):
            raise ValueError(f"function must be callable, got {function!r}.")
        if activation not in ("auto", *activations.ACTIVATIONS):
            raise ValueError(
                f"activation={activation!r} is not known: give 'auto', 'linear', 'softmax' or 'sigmoid'."
            )
        self.function = function
        self.output_shape = _shape(output_shape)
        self.activation = "linear" if activation == "auto" else activation
        self._known = activation != "auto"
        self.inputs = inputs

    @classmethod
    def asked(cls, function: Callable, x, activation="auto", inputs=None) -> "CallableTeacher":
        """Return the teacher that `function` is, after asking it about a batch.

        Args:
            function, activation, inputs: as above.
            x: the inputs.

        Raises:
            ValueError: it does not answer with one row for each example.
        """
        x = select(x, inputs, "inputs")
        answer = np.asarray(function(keras.tree.map_structure(ops.convert_to_numpy, x)))
        rows = len(keras.tree.flatten(x)[0])
        if answer.ndim < 2 or len(answer) != rows:
            raise ValueError(
                f"The teacher's function answered {rows} examples with an array of shape {answer.shape}; "
                f"expected ({rows}, ..., classes)."
            )
        return cls(function, answer.shape[1:], activation, inputs)

    def targets(self, x, labels=None) -> Answer:
        """Return the function's answer to the batch `x`."""
        outputs = call_numpy(
            self._ask, select(x, self.inputs, "inputs"), (None, *self.output_shape)
        )
        logits = activations.to_logits(outputs, self.activation)
        return Answer(outputs, logits, self.activation)

    def fingerprint(self) -> str:
        """Return the function's name, and what it answers."""
        name = getattr(self.function, "__qualname__", type(self.function).__name__)
        return f"{name} {self.output_shape} {self.activation}"

    def _ask(self, x) -> np.ndarray:
        rows = len(keras.tree.flatten(x)[0])
        answer = np.asarray(self.function(x), dtype="float32")
        if answer.shape != (rows, *self.output_shape):
            raise ValueError(
                f"The teacher's function answered {rows} examples with an array of shape {answer.shape}; "
                f"expected {(rows, *self.output_shape)}. Correct the function or output_shape=."
            )
        return answer

    @property
    def compilable(self) -> bool:
        """False: it runs in Python."""
        return False

    @property
    def known(self) -> bool:
        """Whether somebody has said what it answers."""
        return self._known

    def check_looks(self, x) -> None:
        """Look at one batch."""
        batch = keras.tree.map_structure(ops.convert_to_numpy, select(x, self.inputs, "inputs"))
        found = activations.look_like(ops.convert_to_tensor(self._ask(batch)))
        if found:
            raise ValueError(
                f"The teacher's answers were taken for logits, but one batch of them looks like "
                f"probabilities ({found}): pass CallableTeacher(..., activation='{found}'), or "
                "activation='linear' if they are logits (to SoftLabels.build, teacher_activation=)."
            )

    def get_config(self) -> dict:
        """A Python function has no config.

        Raises:
            ValueError: always, with what to save in its place.
        """
        raise ValueError(
            "This distiller's teacher is a Python callable, which cannot be saved: save `distiller.student`, "
            "or use `save_weights` and build the distiller again with the same teacher."
        )


def is_function(teacher: Any) -> bool:
    """Whether it is called with arrays, and neither a teacher nor a network."""
    return callable(teacher) and not isinstance(teacher, Teacher | keras.Layer | type)


def _shape(given) -> tuple[int, ...]:
    sizes = given if isinstance(given, list | tuple) else (given,)
    return tuple(schedules.whole("Each size in output_shape", size) for size in sizes)
