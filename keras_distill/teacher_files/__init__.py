"""Whatever was trained before as a teacher, in the form in which it was kept.

teacher = kd.teachers.load("resnet.keras")              # a keras.Model
teacher = kd.teachers.load("vww_96.h5")                 # of Keras 2: a keras.Model too, where it can be had
teacher = kd.teachers.load("serving/resnet")            # a SavedModel
teacher = kd.teachers.load("mobilenet_quant.tflite")
teacher = kd.teachers.load("MobileNetV2")               # of keras.applications, with ImageNet's weights
teacher = kd.teachers.load(ask_service, output_shape=(10,))
kd.Distiller(teacher, student, kd.losses.SoftTargets())
"""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import keras

from keras_distill.teacher_files import applications, saved_model
from keras_distill.teacher_files.base import FileTeacher
from keras_distill.teacher_files.fingerprint import fingerprint
from keras_distill.teacher_files.keras_file import TFKerasTeacher, load_keras
from keras_distill.teacher_files.saved_model import SavedModelTeacher
from keras_distill.teacher_files.tflite import TFLiteTeacher
from keras_distill.teachers import CallableTeacher, Teacher

__all__ = [
    "FileTeacher",
    "SavedModelTeacher",
    "TFKerasTeacher",
    "TFLiteTeacher",
    "fingerprint",
    "load",
]

_KERAS, _TFLITE = (".keras", ".h5", ".hdf5"), ".tflite"


def load(
    path: str | os.PathLike | Callable,
    *,
    custom_objects: dict | None = None,
    signature: str | None = None,
    num_threads: int | None = None,
    weights: str | os.PathLike | None = "imagenet",
    output_shape: tuple | None = None,
    inputs=None,
    activation="auto",
) -> keras.Model | Teacher:
    """Return what `Distiller` takes as its teacher, out of a file, by name, or of a function.

    Args:
        path: a `.keras` or `.h5` model of Keras 3 or Keras 2, a SavedModel folder (or one with numbered
            versions, of which the highest is taken), or a `.tflite` file; where there is no such file, the
            name of a network of `keras.applications`; or a function of NumPy arrays.
        custom_objects: for Keras's files: name → layer or function of your own.
        signature: for SavedModels: which function; `serving_default` when None, or the only one.
        num_threads: for `.tflite`: of the interpreter; None leaves the choice to it.
        weights: for a name: "imagenet" (downloaded by Keras), a file of weights, or None (random). The
            network wants what the `preprocess_input` beside it in keras.applications makes of pixels: give
            that to the Distiller as `teacher_inputs=`.
        output_shape: for a function: the shape of its answer to one example, for instance `(10,)`.
        inputs: for SavedModels, `.tflite` and functions: a callable or a key into the batch, where the
            teacher sees other inputs than the student. For a `keras.Model`, give `teacher_inputs=` to the
            Distiller.
        activation: the same for what its outputs are: "auto" (the file shows it; of a function, logits),
            "linear" (logits), "softmax" or "sigmoid". For a `keras.Model`, give `teacher_activation=` to the
            Distiller.

    Returns:
        A `keras.Model`; or a `SavedModelTeacher`, a `TFLiteTeacher`, a `CallableTeacher` or, for a model of
        Keras 2 that Keras 3 cannot build, a `TFKerasTeacher`: these answer, and have no inner layers to read.

    Raises:
        FileNotFoundError: there is nothing at `path`, and it is no name.
        ValueError: a file of another kind, a damaged one, or one that carries code, which is never run;
            weights that cannot be had; a function without `output_shape`.
    """
    kind = _kind(path)
    for argument, value, unset, of in (
        ("custom_objects", custom_objects, None, "keras"),
        ("signature", signature, None, "saved_model"),
        ("num_threads", num_threads, None, "tflite"),
        ("weights", weights, "imagenet", "application"),
        ("output_shape", output_shape, None, "function"),
    ):
        if value != unset and kind != of:
            raise ValueError(f"{argument}= has no meaning for {path}.")
    if callable(path):
        if output_shape is None:
            raise ValueError(
                f"{path} is a function: give output_shape=, the shape of its answer to one example, for "
                "instance (10,)."
            )
        return CallableTeacher(path, output_shape, activation, inputs)
    path = Path(path)
    if kind == "saved_model":
        return SavedModelTeacher(path, signature, inputs, activation)
    if kind == "tflite":
        return TFLiteTeacher(path, num_threads, inputs, activation)
    if kind == "application":
        teacher = applications.build(str(applications.find(str(path))), weights)
    else:
        teacher = load_keras(path, custom_objects, inputs, activation)
    if isinstance(teacher, keras.Model):
        for argument, value in (("inputs", inputs), ("activation", activation)):
            if value not in (None, "auto"):
                raise ValueError(
                    f"{path} is loaded as a keras.Model: give teacher_{argument}= to the Distiller, "
                    f"in place of {argument}=."
                )
    return teacher


def _kind(path) -> str:
    if isinstance(path, keras.Model):
        raise ValueError(f"{path.name} is a keras.Model: it is a teacher as it is.")
    if callable(path):
        return "function"
    path = Path(path)
    if not path.exists():
        if applications.find(str(path)):
            return "application"
        name = (
            "" if path.suffix or len(path.parts) > 1 else ", nor such a name in keras.applications"
        )
        raise FileNotFoundError(
            f"There is no file or folder {path}{name and name + applications.near(str(path))}."
        )
    if saved_model.find(path) is not None:
        return "saved_model"
    if path.suffix == _TFLITE and path.is_file():
        return "tflite"
    if path.suffix in _KERAS and path.is_file():
        if path.suffix == ".keras" and path.stat().st_size and not zipfile.is_zipfile(path):
            import h5py

            if h5py.is_hdf5(path):
                raise ValueError(
                    f"{path} is an HDF5 file: rename it to {path.with_suffix('.h5').name}."
                )
        return "keras"
    what = (
        f"The folder {path} has no saved_model.pb, nor a numbered version with one"
        if path.is_dir()
        else f"{path} is of no kind that can be loaded"
    )
    raise ValueError(
        f"{what}: give a .keras or .h5 file, a SavedModel folder or a .tflite file; for anything else, wrap "
        "a function that runs it with teachers.CallableTeacher."
    )
