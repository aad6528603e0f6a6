"""A Keras model that teaches: frozen, in inference, once per step."""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_distill.folded import FoldedNetwork, pays
from keras_distill.layer_tree import all_layers, named_layers
from keras_distill.network import Answer, Network
from keras_distill.teachers.base import Teacher

_WEIGHTS, _INPUTS = "teacher.weights.h5", "teacher_inputs.weights.h5"


class ModelTeacher(Teacher):
    """A trained Keras model that teaches; the Distiller makes one of the model that it is given.

    It always runs with `training=False`, and none of its variables ever changes.

    Args:
        model: the trained `keras.Model`. Its `trainable` is set to False, as `keras.distillation` does.
        inputs: a callable or a key into the batch, for a teacher that sees other inputs than the student.
        activation: what its outputs are: `"auto"`, `"linear"` (logits), `"softmax"` or `"sigmoid"`.
    """

    def __init__(self, model: keras.Model, inputs=None, activation="auto"):
        self.model = model
        self.network = Network(model, inputs, activation, role="teacher")
        model.trainable = False
        self._folded: FoldedNetwork | None = None

    @property
    def compilable(self) -> bool:
        """Whether XLA can compile all of the model's layers."""
        return all(getattr(layer, "supports_jit", True) for layer in all_layers(self.model))

    def targets(self, x, labels=None) -> Answer:
        """Return the model's answer to the batch `x`."""
        if self._folded is None:
            return self.network(x, training=False)
        return self._folded.answer(self.network.select(x))

    @property
    def models(self) -> "list[ModelTeacher]":
        """Itself."""
        return [self]

    def tap(self, layer_names) -> None:
        """Read these inner layers too."""
        before = self.network
        names = [*before.layer_names, *layer_names]
        if names != before.layer_names:
            self.network = Network(
                before.model, before.inputs, before.activation, names, role="teacher"
            )

    def spec(self) -> Answer | None:
        """Return the model's symbolic answer."""
        return self.network.spec()

    def fingerprint(self) -> str:
        """Return a digest of the model's weights, and how it is read."""
        digest = hashlib.sha256()
        for (
            variable
        ) in self.model.weights:  # not the seeds of its Dropout, which are new in each process
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

    def fold(self, if_pays: bool = False) -> bool:
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


def as_teacher(teacher: Any, inputs=None, activation="auto") -> Teacher:
    """Return `teacher` as a `Teacher`.

    Raises:
        ValueError: it is neither a `keras.Model` nor a `Teacher`.
    """
    if isinstance(teacher, keras.Model):
        teacher, inputs, activation = ModelTeacher(teacher, inputs, activation), None, "auto"
    if isinstance(teacher, Teacher):
        if inputs is not None or activation != "auto":
            raise ValueError(
                "teacher_inputs= and teacher_activation= are for a keras.Model as teacher: give them to "
                f"{type(teacher).__name__} itself."
            )
        return teacher
    raise ValueError(
        f"Teacher must be a keras.Model or one of keras_distill.teachers, got {type(teacher)}. "
        "Load a file with teachers.load; wrap a function with teachers.CallableTeacher."
    )


@contextlib.contextmanager
def as_it_was(teacher: Any) -> Iterator[None]:
    """Within it a model may become a teacher, which freezes it; then all of it is as trainable as before."""
    parts: list[Any] = []
    if isinstance(teacher, keras.Model):
        parts = [*all_layers(teacher), *teacher.weights]  # the outer before the inner
    before = [(part, part.trainable) for part in parts]
    try:
        yield
    finally:
        for part, trainable in before:
            part.trainable = trainable


def _holder(layer: keras.Layer) -> keras.Model:
    """A model of nothing but `layer`, to save and load its weights."""
    holder = keras.Sequential([layer])
    holder.built = True  # as far as weights go: the layer has them already
    return holder


def _layers_with_files(model) -> list[tuple[str, keras.Layer]]:
    return [(path, layer) for path, layer in named_layers(model) if hasattr(layer, "save_assets")]
