"""Teachers out of SavedModel folders: of TF Serving, `model.export`, Keras 2, any TensorFlow program.

teacher = kd.teachers.load("serving/resnet")                      # the highest of the versions 1/, 2/, …
teacher = kd.teachers.load("resnet/3", signature="serve", activation="linear")
"""

import os
from pathlib import Path

import keras
from keras import ops

from keras_distill.activations import Head
from keras_distill.teacher_files.base import FileTeacher
from keras_distill.teacher_files.graph_ends import graph_ends

_FILES = ("saved_model.pb", "saved_model.pbtxt")
DEFAULT = "serving_default"


def find(path: str | os.PathLike) -> Path | None:
    """Return the SavedModel folder that `path` means: itself, or the highest version in it; None if none.

    TF Serving's folders are `<name>/<version>/saved_model.pb`, with whole numbers for versions.
    """
    path = Path(path)
    if path.name in _FILES:
        path = path.parent
    if any((path / name).is_file() for name in _FILES):
        return path
    versions = [one for one in path.glob("*") if one.name.isdecimal() and find(one) == one]
    return max(versions, key=lambda one: int(one.name), default=None)


@keras.saving.register_keras_serializable(package="keras_distill")
class SavedModelTeacher(FileTeacher):
    """One signature of a SavedModel. It runs in the graph of the training step; its variables never change.

    A SavedModel is a program: load one only from where you would also run a program from.

    Args:
        path: the folder with `saved_model.pb`, or one with numbered versions, of which the highest is taken.
        signature: which function; `serving_default` when None, or the only one that there is.
        inputs, activation, sha256: as for `FileTeacher`. Several inputs are a dict by the signature's names.

    Raises:
        ValueError: no SavedModel, a damaged one, or no such signature.
    """

    def __init__(self, path, signature=None, inputs=None, activation="auto", sha256=None):
        import tensorflow as tf

        folder = find(path)
        if folder is None:
            raise ValueError(
                f"{path} is no SavedModel: there is no saved_model.pb in it, nor a numbered version with one."
            )
        super().__init__(folder, inputs, activation, sha256)
        try:
            self._loaded = tf.saved_model.load(
                self.path
            )  # keeps the variables that the function reads
        except Exception as error:  # TensorFlow has no common class for what damage leads to
            reason = str(error).strip().split("\n")[0]
            raise ValueError(
                f"{self.path} is a damaged SavedModel, or needs more: {reason}"
            ) from error
        self.signature = _choose(self._loaded.signatures, signature, self.path)
        self._function = self._loaded.signatures[self.signature]
        self._specs = self._function.structured_input_signature[1]
        self._ends = graph_ends(self._function)
        self._heads()  # a wrong word is told now

    @property
    def input_shapes(self) -> dict[str, tuple]:
        """Name → shape, with None where any size will do."""
        return {name: _shape(spec) for name, spec in self._specs.items()}

    @property
    def input_dtypes(self) -> dict[str, str]:
        """Name → "float32", "uint8", …"""
        return {name: spec.dtype.name for name, spec in self._specs.items()}

    @property
    def output_shapes(self) -> dict[str, tuple]:
        """The same of the outputs."""
        return {name: _shape(spec) for name, spec in self._function.structured_outputs.items()}

    def _shown(self) -> list[Head]:
        return self._ends

    def _answer(self, x):
        import tensorflow as tf

        values = self._by_name(x)
        for name, value in values.items():
            self.check_input(name, tuple(value.shape), _shape(self._specs[name]))
        sizes = {shape[0] for shape in self.input_shapes.values() if shape and shape[0] is not None}
        if sizes == {1}:  # it takes one example at a time

            def one(row):
                answer = self._function(**{name: value[None] for name, value in row.items()})
                return {name: value[0] for name, value in answer.items()}

            kinds = {name: spec.dtype for name, spec in self._function.structured_outputs.items()}
            answers = tf.map_fn(one, values, fn_output_signature=kinds)
        elif sizes:
            raise ValueError(
                f"The signature '{self.signature}' of {self.path} takes batches of exactly {min(sizes)}: "
                "save it with an open batch size (None)."
            )
        else:
            answers = self._function(**values)
        return next(iter(answers.values())) if len(answers) == 1 else answers

    def _by_name(self, x) -> dict:
        """The batch as tensors by the signature's names, in its types."""
        names = sorted(self._specs)
        if not isinstance(x, dict):
            given = x if isinstance(x, list | tuple) else [x]
            if len(names) != 1 or len(given) != 1:
                raise ValueError(
                    f"The signature '{self.signature}' of {self.path} has the inputs {names}, and the batch "
                    f"is not a dict of these: pass teachers.load(..., inputs=), a callable that makes one."
                )
            x = {names[0]: given[0]}
        elif sorted(x) != names:
            raise ValueError(
                f"The signature '{self.signature}' of {self.path} has the inputs {names}, and the batch "
                f"{sorted(x)}: pass teachers.load(..., inputs=), a callable or a key into the batch."
            )
        return {name: _as_spec(value, self._specs[name]) for name, value in x.items()}

    def get_config(self) -> dict:
        """Return the arguments of the constructor."""
        return {"signature": self.signature, **super().get_config()}


def _choose(signatures, wanted: str | None, path) -> str:
    names = [name for name in signatures if not name.startswith("__")]
    if not names:
        raise ValueError(
            f"{path} has no signatures: save it with tf.saved_model.save(module, folder, signatures=…)."
        )
    if wanted is not None and wanted in names:
        return wanted
    if wanted is None and (DEFAULT in names or len(names) == 1):
        return DEFAULT if DEFAULT in names else names[0]
    what = "pass signature= to choose one" if wanted is None else f"there is no '{wanted}'"
    raise ValueError(f"{path} has the signatures {sorted(names)}: {what}.")


def _shape(spec) -> tuple:
    return () if spec.shape.rank is None else tuple(spec.shape)


def _as_spec(value, spec):
    import tensorflow as tf

    value = tf.convert_to_tensor(value)
    return value if value.dtype == spec.dtype else ops.cast(value, spec.dtype.name)
