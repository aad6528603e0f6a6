"""Classifiers of photos that are SavedModels or `.tflite` files: used as they are, never trained.

master = file_classifier(kd.teachers.load("mobilenet_quant.tflite"), ["cat", "dog"], None, None)
master.accuracy(validation)                 # of raw pixels, 0..255
kd.Distiller(student=student, distillation_losses="soft_targets", **master.as_teacher())
"""

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

import tflite_export as te
from keras_distill import card, students
from keras_distill.app import results
from keras_distill.app.classifier import Classifier
from keras_distill.teacher_files import FileTeacher, TFLiteTeacher


@dataclasses.dataclass(frozen=True)
class FileClassifier(Classifier):
    """A teacher out of a file, and how it takes pixels.

    Args:
        model: the teacher.
        normalization, image_size: as for `Classifier`.
        pixel_type: "uint8" or "int8" for a file that takes pixels as they are (int8: less 128); else None.
    """

    model: Any
    pixel_type: str | None = None

    def inputs(self, pixels):
        """Pixels 0..255 of any size, as the file takes them."""
        if self.pixel_type is None:
            return super().inputs(pixels)
        whole = keras.ops.clip(keras.ops.round(self.resized(pixels)), 0, 255)
        return keras.ops.cast(whole - (128 if self.pixel_type == "int8" else 0), self.pixel_type)

    def accuracy(self, dataset) -> float:
        """Share of right answers on a data set of pixels."""
        right = count = 0
        for pixels, labels in dataset:
            answers = np.asarray(self.model.targets(self.inputs(pixels)).outputs)
            right += int(np.sum(np.argmax(answers, axis=-1) == np.asarray(labels)))
            count += len(answers)
        return right / count

    def as_teacher(self) -> dict[str, Any]:
        """What to give to a `Distiller` of pixels."""
        teacher = copy.copy(self.model)
        teacher.inputs = self.inputs
        return {"teacher": teacher}

    @property
    def parameters(self) -> None:
        """None: a file does not say which of its constants were learned."""


def file_classifier(
    teacher: FileTeacher, class_names: Sequence[str], normalization, image_size: int | None
) -> FileClassifier:
    """The classifier of these classes that a file holds.

    Args:
        teacher: what `teachers.load` returned.
        class_names: of the photos, in order.
        normalization: (mean, std) if the user gives it; else what a `.tflite` file's metadata says, else
            pixels as they are for integers, and −1..1 for floats.
        image_size: for a file that takes any size.

    Raises:
        ValueError: it is no classifier of photos, or one of other classes.
    """
    inputs, outputs = list(teacher.input_shapes.items()), list(teacher.output_shapes.values())
    if len(inputs) != 1 or len(outputs) != 1:
        raise ValueError(
            f"A teacher of photos has one input and one output, and {teacher.path} has {len(inputs)} and "
            f"{len(outputs)}."
        )
    size = photo_size(teacher.path, inputs[0][1], image_size)
    said = _metadata(teacher)
    if outputs[0][1:] != (len(class_names),):
        known = f" ({_short(said.class_names)})" if said.class_names else ""
        raise ValueError(
            f"{teacher.path} answers with shape {outputs[0]}{known}, and the folders are "
            f"{_short(class_names)}: a file of this kind is used as it is. Pass a .keras or .h5 file to "
            "have it fine-tuned on these photos."
        )
    same_classes(teacher.path, said.class_names, class_names)
    kind = teacher.input_dtypes[inputs[0][0]]
    raw = kind in ("uint8", "int8") and normalization is None
    return FileClassifier(
        teacher,
        students.NORMALIZATION if raw else normalization_of(teacher.path, normalization, said),
        size,
        pixel_type=kind if raw else None,
    )


def normalization_of(
    file, given: card.Normalization | None, said: card.Card, role: str = "teacher"
) -> card.Normalization:
    """What is given, else what the file says, else −1..1, which is made known."""
    known = given or said.normalization
    if known:
        return known
    otherwise = {
        "teacher": "--teacher-normalization says otherwise (0 255 for 0..1, 0 1 for pixels as they are)",
        "student": "it learns from these, and its files will say so",
    }[role]
    results.say(f"{file} does not say how its input is normalised: −1..1 is taken; {otherwise}.")
    return students.NORMALIZATION


def _metadata(teacher: FileTeacher) -> card.Card:
    """What a `.tflite` file says of itself."""
    if not isinstance(teacher, TFLiteTeacher):
        return card.Card()
    try:
        said = te.read_metadata(teacher.path)
    except ValueError:  # a file without metadata
        return card.Card()
    found = said.inputs[0].normalization if said.inputs else None
    return card.Card(
        list(said.labels) if said.labels else None, (found.mean, found.std) if found else None
    )


def photo_size(file, shape: tuple, image_size: int | None = None) -> tuple[int, int]:
    """The height and width that a network takes.

    Raises:
        ValueError: `shape`, with the batch, is not that of photos, or open where `image_size` is not given.
    """
    if len(shape) != 4 or shape[-1] not in (3, None):
        raise ValueError(
            f"{file} takes inputs of shape {shape}, and photos are (batch, height, width, 3)."
        )
    if None in shape[1:3]:
        if image_size is None:
            raise ValueError(
                f"{file} takes photos of any size ({shape}): say which with --teacher-image-size."
            )
        return image_size, image_size
    return shape[1], shape[2]


def same_classes(file, names: Sequence[str] | None, folders: Sequence[str]) -> None:
    """Refuse a network whose labels are not the folders.

    Raises:
        ValueError: with both lists, or their beginnings.
    """
    if not names or list(names) == list(folders):
        return
    what = f"{file} knows the classes {_short(names)}, and the folders are {_short(folders)}"
    if sorted(names) == sorted(folders):
        raise ValueError(
            f"{what}, in another order: give the folders names that sort as the teacher's classes do, such "
            "as 0-cat, 1-dog."
        )
    raise ValueError(f"{what}: rename the folders, or pass a teacher of these classes.")


def _short(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown}, … ({len(names)} in all)"
