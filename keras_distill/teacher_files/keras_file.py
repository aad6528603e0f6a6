"""Teachers out of Keras's own files: `.keras` and `.h5`, of Keras 3 and of Keras 2.

load_keras("resnet.keras")       # a keras.Model
load_keras("vww_96.h5")          # of Keras 2: a keras.Model too, else a TFKerasTeacher
"""

import errno
import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

import keras

from keras_distill.activations import Head
from keras_distill.teacher_files import keras2, unsafe
from keras_distill.teacher_files.base import FileTeacher
from keras_distill.teacher_files.graph_ends import graph_ends


def load_keras(
    path: Path, custom_objects=None, inputs=None, activation="auto", stacklevel: int = 3
):
    """Return the `keras.Model` of a file, or a `TFKerasTeacher`, which is warned of.

    Raises:
        ValueError: the file is damaged, carries code, holds weights only, or lacks classes.
    """
    config, version = read_config(path)
    unsafe.refuse_code(config, path)
    unsafe.refuse_unknown(config, path, custom_objects)
    if not version.startswith(("1.", "2.")):
        return _load(keras, path, custom_objects)
    try:
        old = _load(_tf_keras(), path, custom_objects)
    except ValueError:
        if not custom_objects:
            raise
        return _load(
            keras, path, custom_objects
        )  # layers of one's own that were brought to Keras 3
    model, reason = keras2.modernized(old)
    if model is not None:
        return model
    warnings.warn(
        f"{path} is run by tf_keras: {reason}. Its answers are those of Keras 2; its inner layers "
        "cannot be read.",
        stacklevel=stacklevel,
    )
    return TFKerasTeacher(path, custom_objects, inputs, activation, model=old)


def read_config(path: Path) -> tuple[dict, str]:
    """Return the configuration of the model in a file, and the version of Keras that wrote it.

    Raises:
        ValueError: the file is damaged or has no configuration.
    """
    if zipfile.is_zipfile(path):
        return _of_zip(path)
    import h5py

    if not h5py.is_hdf5(path):
        raise ValueError(f"{path} is damaged, or no {path.suffix} file that Keras wrote.")
    try:
        with h5py.File(path) as file:
            written, version = (file.attrs.get(key) for key in ("model_config", "keras_version"))
            weights = (
                "layer_names" in file.attrs
                or "layers" in file
                or "_layer_checkpoint_dependencies" in file
            )
    except OSError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if written is None:
        raise ValueError(
            f"{path} holds weights without the network they belong to: build the network, call its "
            "load_weights, and pass the model."
            if weights
            else f"{path} is an HDF5 file, and no model of Keras."
        )
    version = version.decode() if isinstance(version, bytes) else str(version or "2.")
    return json.loads(written), version


def _of_zip(path: Path) -> tuple[dict, str]:
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
            version = json.loads(archive.read("metadata.json"))["keras_version"]
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} is damaged, or no .keras file that Keras wrote ({error})."
        ) from error
    if isinstance(config, dict):
        config.pop("compile_config", None)  # of its own training: it is not loaded
    return config, str(version)


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _load(library, path: Path, custom_objects):
    try:
        return library.models.load_model(
            path, custom_objects=custom_objects, compile=False, safe_mode=True
        )
    except Exception as error:  # what damage and missing classes lead to has no common class
        if getattr(error, "errno", None) in _NO_ROOM:
            raise  # Keras unpacks the weights into a temporary folder
        reason = str(error).strip().split("\n")[0][:300]
        raise ValueError(
            f"{path} cannot be loaded ({type(error).__name__}: {reason}). Layers and functions of your own "
            "are passed with teachers.load(..., custom_objects=); a damaged file has to be written again."
        ) from error


def _tf_keras() -> Any:
    try:
        import tf_keras
    except ImportError as error:
        raise ImportError("Models of Keras 2 need tf_keras: pip install tf_keras.") from error
    return tf_keras


@keras.saving.register_keras_serializable(package="keras_distill")
class TFKerasTeacher(FileTeacher):
    """A model of Keras 2 that Keras 3 cannot build, run by tf_keras in the graph of the training step.

    Args:
        path: the `.h5` or `.keras` file.
        custom_objects: name → class or function, for tf_keras.
        inputs, activation, sha256: as for `FileTeacher`.
        model: the tf_keras model, where it is loaded already.

    Raises:
        ValueError: the file is damaged or carries code.
    """

    def __init__(
        self, path, custom_objects=None, inputs=None, activation="auto", sha256=None, model=None
    ):
        super().__init__(path, inputs, activation, sha256)
        if model is None:
            config, _ = read_config(Path(self.path))
            unsafe.refuse_code(config, self.path)
            unsafe.refuse_unknown(config, self.path, custom_objects)
            model = _load(_tf_keras(), Path(self.path), custom_objects)
        self._model = model
        self._custom_objects = custom_objects
        self._ends: list[Head] = []

    @property
    def input_shapes(self) -> dict[str, tuple]:
        """Name → shape, with None where any size will do."""
        return {one.name.split(":")[0]: tuple(one.shape) for one in self._model.inputs}

    @property
    def input_dtypes(self) -> dict[str, str]:
        """Name → "float32", "uint8", …"""
        return {one.name.split(":")[0]: one.dtype.name for one in self._model.inputs}

    @property
    def output_shapes(self) -> dict[str, tuple]:
        """The same of the outputs."""
        pairs = zip(self._model.output_names, self._model.outputs, strict=True)
        return {name: tuple(one.shape) for name, one in pairs}

    def _shown(self) -> list[Head]:
        if not self._ends:
            import tensorflow as tf

            specs = tf.nest.map_structure(
                lambda one: tf.TensorSpec(one.shape, one.dtype), self._model.input
            )
            with tf.Graph().as_default():
                traced = tf.function(
                    lambda x: self._model(x, training=False)
                ).get_concrete_function(specs)
            self._ends = graph_ends(traced)
        return self._ends

    def _answer(self, x):
        flat = keras.tree.flatten(x)
        if len(flat) == len(self._model.inputs):
            for (name, shape), value in zip(self.input_shapes.items(), flat, strict=True):
                self.check_input(name, tuple(value.shape), shape)
        return self._model(x, training=False)

    def get_config(self) -> dict:
        """Return the arguments of the constructor.

        Raises:
            ValueError: it was made with custom_objects, which have no place in a file.
        """
        if self._custom_objects:
            raise ValueError(
                f"This distiller's teacher {self.path} was loaded with custom_objects=, which cannot be "
                "saved: save `distiller.student`, or register them with tf_keras.saving."
                "register_keras_serializable and import that module."
            )
        return super().get_config()
