"""Teachers out of files: whatever was trained before, in the form in which it was kept.

teacher = kd.teachers.load("resnet.keras")              # a keras.Model
teacher = kd.teachers.load("vww_96.h5")                 # of Keras 2: a keras.Model too, where it can be had
teacher = kd.teachers.load("serving/resnet")            # a SavedModel
teacher = kd.teachers.load("mobilenet_quant.tflite")
kd.Distiller(teacher, student, kd.losses.SoftTargets())
"""

import os
import zipfile
from pathlib import Path

import keras

from keras_distill.teacher_files import saved_model
from keras_distill.teacher_files.base import FileTeacher
from keras_distill.teacher_files.fingerprint import fingerprint
from keras_distill.teacher_files.keras_file import TFKerasTeacher, load_keras
from keras_distill.teacher_files.saved_model import SavedModelTeacher
from keras_distill.teacher_files.tflite import TFLiteTeacher

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
    path: str | os.PathLike,
    *,
    custom_objects: dict | None = None,
    signature: str | None = None,
    num_threads: int | None = None,
    inputs=None,
    activation="auto",
) -> keras.Model | FileTeacher:
    """Return what `Distiller` takes as its teacher, out of a file.

    Args:
        path: a `.keras` or `.h5` model of Keras 3 or Keras 2, a SavedModel folder (or one with numbered
            versions, of which the highest is taken), or a `.tflite` file.
        custom_objects: for Keras's files: name → layer or function of your own.
        signature: for SavedModels: which function; `serving_default` when None, or the only one.
        num_threads: for `.tflite`: of the interpreter; None leaves the choice to it.
        inputs: for SavedModels and `.tflite`: a callable or a key into the batch, where the teacher sees
            other inputs than the student. For a `keras.Model`, give `teacher_inputs=` to the Distiller.
        activation: the same for what its outputs are: "auto" (the file shows it), "linear" (logits),
            "softmax" or "sigmoid". For a `keras.Model`, give `teacher_activation=` to the Distiller.

    Returns:
        A `keras.Model`; or a `SavedModelTeacher`, a `TFLiteTeacher`, or, for a model of Keras 2 that Keras 3
        cannot build, a `TFKerasTeacher`: these answer, and have no inner layers to read.

    Raises:
        FileNotFoundError: there is nothing at `path`.
        ValueError: a file of another kind, a damaged one, or one that carries code, which is never run.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no file or folder {path}.")
    kind = _kind(path)
    for argument, value, of in (
        ("custom_objects", custom_objects, "keras"),
        ("signature", signature, "saved_model"),
        ("num_threads", num_threads, "tflite"),
    ):
        if value is not None and kind != of:
            raise ValueError(f"{argument}= has no meaning for {path}.")
    if kind == "saved_model":
        return SavedModelTeacher(path, signature, inputs, activation)
    if kind == "tflite":
        return TFLiteTeacher(path, num_threads, inputs, activation)
    teacher = load_keras(path, custom_objects, inputs, activation)
    if isinstance(teacher, keras.Model):
        for argument, value in (("inputs", inputs), ("activation", activation)):
            if value not in (None, "auto"):
                raise ValueError(
                    f"{path} is loaded as a keras.Model: give teacher_{argument}= to the Distiller, "
                    f"in place of {argument}=."
                )
    return teacher


def _kind(path: Path) -> str:
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
