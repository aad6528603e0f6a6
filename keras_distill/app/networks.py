"""The two networks of `distill`, out of files and names.

pupil = student_network("MobileNetV2", listing, width=0.35, image_size=96, weights=None)
master, ready = teacher_network("teacher.keras", listing, None, None, None)
"""

import dataclasses
import zipfile
from pathlib import Path

import keras
import numpy as np

from keras_distill import card, data, students, teachers
from keras_distill.app import finetune, results, resume
from keras_distill.app.classifier import Classifier
from keras_distill.app.file_classifier import (
    file_classifier,
    normalization_of,
    photo_size,
    same_classes,
)
from keras_distill.teacher_files import applications


def card_of(network: Classifier, listing: data.Listing) -> card.Card:
    """What the file of this network is to say."""
    return card.Card(listing.class_names, network.normalization, network.image_size)


def keep(folder: Path, *files) -> None:
    """Refuse to write over a file that is read.

    Raises:
        ValueError: with the name of the file.
    """
    written = {(folder / name).resolve() for name in (*resume.MODELS, *resume.TEXTS)}
    for file in files:
        if file is not None and Path(file).resolve() in written:
            raise ValueError(
                f"{file} would be written over by this run: choose another output folder."
            )


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def student_network(student, listing, width, image_size, weights) -> Classifier:
    """The student that `student` names, with one output for each class."""
    classes = len(listing.class_names)
    if str(student).endswith(".keras"):
        for argument, value in (("width", width), ("student_weights", weights)):
            if value is not None:
                raise ValueError(f"{argument} is for students by name, and {student} is a file.")
        network = _load(student, listing, None, "student")
        if network.model.output_shape != (None, classes):
            body = finetune.features(network.model, image_size)
            model = finetune.with_new_head(body, classes)
            network = dataclasses.replace(network, model=model, image_size=model.input_shape[1:3])
        if image_size not in (None, network.image_size[0]):
            raise ValueError(f"{student} takes photos of {network.image_size}, not {image_size}.")
        return network
    name = students.find_name(str(student))
    side = image_size or (32 if name == "resnet8" else 96)
    model = students.build(name, (side, side, 3), classes, width=width, weights=weights)
    return Classifier(model, students.NORMALIZATION, (side, side))


def teacher_network(
    teacher, listing, weights, image_size, normalization
) -> tuple[Classifier, bool]:
    """The teacher, and whether it is ready as it is."""
    classes = len(listing.class_names)
    if _is_file(teacher):
        if weights is not None:
            raise ValueError(f"{teacher} has weights: teacher_weights is for teachers by name.")
        network = _load(teacher, listing, normalization, "teacher", image_size)
        if not isinstance(network.model, keras.Model) or network.model.output_shape == (
            None,
            classes,
        ):
            if image_size not in (None, network.image_size[0]):
                raise ValueError(
                    f"{teacher} is used as it is, on photos of {network.image_size}: leave "
                    f"teacher_image_size out."
                )
            return network, True
        results.say(
            f"{teacher} answers with shape {network.model.output_shape}, and there are {classes} class "
            f"folders: it gets a new head and is fine-tuned on them."
        )
        side = image_size or min(network.image_size[0], _photo_side(listing))
        body = finetune.features(network.model, side)
        normalization = network.normalization
    else:
        side = image_size or min(224, _photo_side(listing))
        body, normalization = finetune.application(str(teacher), weights or "imagenet", side)
    model = finetune.with_new_head(body, classes)
    return Classifier(model, normalization, tuple(model.input_shape[1:3])), False


def is_name(network) -> bool:
    """Whether it is a name: a folder that is called the same (the output's, say) does not change that."""
    names = ("imagenet", *students.STUDENTS, *applications.names())
    return str(network).lower() in map(str.lower, names)


def _is_file(network) -> bool:
    path = Path(network)
    suffixes = (".keras", ".h5", ".hdf5", ".tflite")
    return not is_name(network) and (path.suffix in suffixes or path.exists())


def _photo_side(listing: data.Listing) -> int:
    """The usual longer side of the photos, rounded up to a multiple of 32."""
    from PIL import Image

    step = max(1, len(listing.train_files) // 50)
    sides = []
    for file in listing.train_files[::step]:
        try:
            with Image.open(file) as image:
                sides.append(max(image.size))
        except OSError as error:
            raise ValueError(f"Cannot read {file} as a photo: {error}") from error
    return max(32, -(-int(np.median(sides)) // 32) * 32)


def _load(
    file, listing: data.Listing, normalization, role: str, image_size: int | None = None
) -> Classifier:
    if not Path(file).exists():
        raise ValueError(f"There is no {role} file {file}.")
    model = teachers.load(file)
    if not isinstance(model, keras.Model):
        return file_classifier(model, listing.class_names, normalization, image_size)
    shape = model.input_shape
    if not isinstance(shape, tuple):
        raise ValueError(f"{file} takes {len(shape)} inputs, and a {role} of photos has one.")
    if role == "student" and None in shape[1:]:
        raise ValueError(f"{file} takes inputs of shape {shape}, and a student's size is fixed.")
    size = photo_size(file, shape, image_size)
    said = card.read_card(file) if zipfile.is_zipfile(file) else None
    said = said or card.Card()
    if model.output_shape == (None, len(listing.class_names)):
        same_classes(file, said.class_names, listing.class_names)
    return Classifier(model, normalization_of(file, normalization, said, role), size)
