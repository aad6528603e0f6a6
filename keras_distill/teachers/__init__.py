"""Who teaches: where the targets of a batch come from.

A `keras.Model` is a teacher as it is. Anything else that can answer a batch becomes one here:

    kd.Distiller(teacher=resnet, ...)                                   # a Keras model
    kd.Distiller(teacher=kd.teachers.Ensemble([resnet, vit]), ...)      # several, as one
    kd.Distiller(teacher=kd.teachers.CallableTeacher(ask_service), ...)  # any function of NumPy arrays
    kd.Distiller(teacher=kd.teachers.load("old.h5"), ...)               # a file, see `teacher_files`
"""

import importlib
from typing import Any

from keras_distill.network import Answer
from keras_distill.teachers.average import EMATeacher
from keras_distill.teachers.base import NoTeacher, Teacher
from keras_distill.teachers.ensemble import Ensemble
from keras_distill.teachers.function import CallableTeacher
from keras_distill.teachers.model import ModelTeacher, as_teacher
from keras_distill.teachers.past_predictions import PastPredictions
from keras_distill.teachers.several import PerLoss

__all__ = [
    "Answer",
    "CallableTeacher",
    "EMATeacher",
    "Ensemble",
    "ModelTeacher",
    "NoTeacher",
    "PastPredictions",
    "PerLoss",
    "Teacher",
    "as_teacher",
]

_FROM_FILES = ("FileTeacher", "SavedModelTeacher", "TFKerasTeacher", "TFLiteTeacher", "load")


def __getattr__(name: str) -> Any:
    if name in _FROM_FILES:  # they are Teachers, so they import this module
        return getattr(importlib.import_module("keras_distill.teacher_files"), name)
    raise AttributeError(f"module 'keras_distill.teachers' has no attribute '{name}'")
