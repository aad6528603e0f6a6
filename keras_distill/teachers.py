"""Who teaches: where the targets of a batch come from.

A `keras.Model` is a teacher as it is. Anything else that can answer a batch becomes one here:

    kd.Distiller(teacher=resnet, ...)                                   # a Keras model
    kd.Distiller(teacher=kd.teachers.CallableTeacher(ask_service), ...)  # any function of NumPy arrays
    kd.Distiller(teacher=kd.teachers.load("old.h5"), ...)               # a file, see `teacher_files`
"""

import hashlib
import importlib
import os
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_distill import activations
from keras_distill.folded import FoldedNetwork, pays
from keras_distill.layer_tree import all_layers, named_layers
from keras_distill.network import Answer, Network, select
from keras_distill.train_step import call_numpy

_FROM_FILES = ("FileTeacher", "SavedModelTeacher", "TFKerasTeacher", "TFLiteTeacher", "load")
_WEIGHTS, _INPUTS = "teacher.weights.h5", "teacher_inputs.weights.h5"


def __getattr__(name: str) -> Any:
    if name in _FROM_FILES:  # they are Teachers, so they import this module
        return getattr(importlib.import_module("keras_distill.teacher_files"), name)
    raise AttributeError(f"module 'keras_distill.teachers' has no attribute '{name}'")


class Teacher:
    """What every teacher can do. Subclass it for a teacher of your own."""

    @property
    def compilable(self) -> bool:
        """Whether `targets` can be compiled into the training step by XLA."""
        return True

    def targets(self, x) -> Answer:
        """Return what the teacher answers to the batch `x`; never called inside the gradient."""
        raise NotImplementedError

    # How many views of each example it can answer, and its inner layers that a loss may read.
    views: int | None = None
    layer_names: Sequence[str] = ()

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

    def fold(self) -> bool:
        """Called before a training: nobody is going to change the teacher's weights.

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

    def update(self) -> None:
        """Called after each training step, for teachers that follow the student."""

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

    def targets(self, x) -> Answer:
        """Return an answer without anything in it."""
        return Answer(None, None, None)

    def spec(self) -> Answer:
        """Return the same."""
        return self.targets(None)


class ModelTeacher(Teacher):
    """A trained Keras model that teaches; the Distiller makes one of the model that it is given.

    It always runs with `training=False`, and none of its variables ever changes.

    Args:
        model: the trained `keras.Model`. Its `trainable` is set to False, as `keras.distillation` does.
        inputs: a callable or a key into the batch, for a teacher that sees other inputs than the student.
        activation: what its outputs are: `"auto"`, `"linear"` (logits), `"softmax"` or `"sigmoid"`.
        layer_names: the inner layers whose outputs are wanted.
    """

    def __init__(self, model: keras.Model, inputs=None, activation="auto", layer_names=()):
        self.model = model
        self.network = Network(model, inputs, activation, layer_names, role="teacher")
        model.trainable = False
        self._folded: FoldedNetwork | None = None

    @property
    def compilable(self) -> bool:
        """Whether XLA can compile all of the model's layers."""
        return all(getattr(layer, "supports_jit", True) for layer in all_layers(self.model))

    def targets(self, x) -> Answer:
        """Return the model's answer to the batch `x`."""
        if self._folded is None:
            return self.network(x, training=False)
        return self._folded.answer(self.network.select(x))

    def spec(self) -> Answer | None:
        """Return the model's symbolic answer."""
        return self.network.spec()

    def fingerprint(self) -> str:
        """Return a digest of the model, its weights and how it is read."""
        digest = hashlib.sha256()
        for variable in self.model.variables:
            digest.update(np.ascontiguousarray(variable.numpy()).tobytes())
        kinds = [head.activation for head in self.network.heads]
        return f"{type(self.model).__name__} {kinds} {digest.hexdigest()}"

    def find_layer(self, name: str) -> Any:
        """Return the model's inner layer of this name."""
        return self.network.layer(name)

    @property
    def folding_pays(self) -> bool:
        """Whether the model's weights are worth making constants."""
        return pays(self.model)

    def fold(self) -> bool:
        """Make the model's weights constants of the step, see `folded.FoldedNetwork`."""
        if self._folded is not None:
            return False
        self._folded = FoldedNetwork(self.network)
        return True

    def unfold(self, if_set: bool = False) -> bool:
        """Let the model's variables count again."""
        if self._folded is None or (if_set and self._folded.current()):
            return False
        self._folded.retire()  # another Distiller may have it in its graph
        self._folded = None
        return True

    @property
    def known(self) -> bool:
        """Whether the model shows how it ends, or was declared."""
        return all(head.known for head in self.network.heads)

    def check_looks(self, x) -> None:
        """Look at one batch."""
        self.network.check_looks(self.targets(x).outputs)

    def save_assets(self, folder: str) -> None:
        """Write the model's weights, and the files of layers that have some (vocabularies)."""
        if self.model.built:
            self.model.save_weights(os.path.join(folder, _WEIGHTS))
        if isinstance(self.network.inputs, keras.Layer):
            _holder(self.network.inputs).save_weights(os.path.join(folder, _INPUTS))
        for path, layer in _layers_with_files(self.model):
            os.makedirs(os.path.join(folder, path))
            layer.save_assets(os.path.join(folder, path))

    def load_assets(self, folder: str) -> None:
        """Read what `save_assets` wrote."""
        for path, layer in _layers_with_files(self.model):
            if os.path.isdir(os.path.join(folder, path)):
                layer.load_assets(os.path.join(folder, path))
        if isinstance(self.network.inputs, keras.Layer):
            _holder(self.network.inputs).load_weights(os.path.join(folder, _INPUTS))
        weights = os.path.join(folder, _WEIGHTS)
        if os.path.exists(weights):
            self.model.load_weights(weights)


class CallableTeacher(Teacher):
    """Any function from NumPy arrays to NumPy arrays: a model of another framework, a service, a rule.

    It runs in Python once per training step, outside the compiled graph, so it suits small or remote
    teachers; for a slow one, store its answers first.

    Args:
        function: takes the batch (an array, or a list or dict of them) and returns an array
            `(batch, ..., classes)`.
        output_shape: the shape of one example's answer, for instance `(10,)`.
        activation: `"linear"` (logits, the default), `"softmax"` or `"sigmoid"`.
        inputs: a callable or a key into the batch.
    """

    def __init__(
        self, function: Callable, output_shape: tuple, activation: str = "linear", inputs=None
    ):
        if not callable(function):
            raise ValueError(f"function must be callable, got {function!r}.")
        if activation not in activations.ACTIVATIONS:
            raise ValueError(
                f"activation={activation!r} is not known: give 'linear', 'softmax' or 'sigmoid'."
            )
        self.function = function
        self.output_shape = tuple(output_shape)
        self.activation = activation
        self.inputs = inputs

    def targets(self, x) -> Answer:
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
        """False for "linear", which is also what is taken when nothing is said."""
        return self.activation != "linear"

    def check_looks(self, x) -> None:
        """Look at one batch."""
        batch = keras.tree.map_structure(ops.convert_to_numpy, select(x, self.inputs, "inputs"))
        found = activations.look_like(ops.convert_to_tensor(self._ask(batch)))
        if found:
            raise ValueError(
                f"The teacher's answers were taken for logits, but one batch of them looks like "
                f"probabilities ({found}): pass CallableTeacher(..., activation='{found}')."
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


def _holder(layer: keras.Layer) -> keras.Model:
    """A model of nothing but `layer`, to save and load its weights."""
    holder = keras.Sequential([layer])
    holder.built = True  # as far as weights go: the layer has them already
    return holder


def _layers_with_files(model) -> list[tuple[str, keras.Layer]]:
    return [(path, layer) for path, layer in named_layers(model) if hasattr(layer, "save_assets")]


def as_teacher(teacher: Any, inputs=None, activation="auto", layer_names=()) -> Teacher:
    """Return `teacher` as a `Teacher`.

    Raises:
        ValueError: it is neither a `keras.Model` nor a `Teacher`.
    """
    if isinstance(teacher, keras.Model):
        return ModelTeacher(teacher, inputs, activation, layer_names)
    if isinstance(teacher, Teacher):
        if inputs is not None or activation != "auto":
            raise ValueError(
                "teacher_inputs= and teacher_activation= are for a keras.Model as teacher: give them to "
                f"{type(teacher).__name__} itself."
            )
        missing = [name for name in layer_names if name not in teacher.layer_names]
        if missing:
            has = (
                f"has only {list(teacher.layer_names)}" if teacher.layer_names else "has no layers"
            )
            raise ValueError(
                f"Layers {missing} of the teacher are wanted, and {type(teacher).__name__} {has}: use losses "
                "on its outputs, or a keras.Model as teacher."
            )
        return teacher
    raise ValueError(
        f"Teacher must be a keras.Model or one of keras_distill.teachers, got {type(teacher)}. "
        "Load a file with teachers.load; wrap a function with teachers.CallableTeacher."
    )
