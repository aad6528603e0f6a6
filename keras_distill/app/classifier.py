"""A classifier of photos together with how it takes pixels, and what is written when it is trained.

pupil = Classifier(model, students.NORMALIZATION, (96, 96))
pupil.accuracy(validation)                              # of raw pixels, 0..255
write_student(pupil, folder, names, train, validation, quantization="int8")
"""

import dataclasses
from pathlib import Path
from typing import Any

import keras
import numpy as np

import tflite_export as te
from keras_distill import card
from keras_distill.app import results
from tflite_export.quantize import needs_examples


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A classifier, and how it takes pixels: (pixel − mean) / std, at its own image size."""

    model: keras.Model
    normalization: card.Normalization
    image_size: tuple[int, int]

    def inputs(self, pixels):
        """Pixels 0..255 of any size, as this model takes them."""
        mean, std = (np.asarray(value, "float32") for value in self.normalization)
        return (self.resized(pixels) - mean) / std

    def resized(self, pixels):
        """Pixels of any size, at this model's."""
        if tuple(pixels.shape[1:3]) == self.image_size:
            return pixels
        return keras.ops.image.resize(pixels, self.image_size, antialias=True)

    def prepared(self, dataset):
        """A data set of pixels, as one of this model's inputs."""
        return dataset.map(lambda pixels, labels: (self.inputs(pixels), labels))

    def accuracy(self, dataset) -> float:
        """Share of right answers on a data set of pixels."""
        labels = np.concatenate([labels for _, labels in dataset])
        inputs = dataset.map(lambda pixels, labels: self.inputs(pixels))
        answers = np.argmax(self.model.predict(inputs, verbose=0), axis=-1)
        return float(np.mean(answers == labels))

    def as_teacher(self) -> dict[str, Any]:
        """What to give to a `Distiller` of pixels."""
        return {"teacher": self.model, "teacher_inputs": self.inputs}

    @property
    def parameters(self) -> int | None:
        """How many numbers were learned, where that is known."""
        return self.model.count_params()


def write_student(
    pupil: Classifier,
    folder: Path,
    class_names: list[str],
    train,
    validation,
    quantization: str | None,
    exported: te.Exported | None = None,
) -> dict:
    """Write `student.keras`, `student.tflite` and `labels.txt`, and measure the two models.

    Args:
        train: data set of pixels that the activation ranges are read from.
        validation: data set of (pixels, class numbers) that both are measured on.
        exported: `student.tflite`, where it is there already.

    Returns:
        {"student": …, "exported": …}, as in `summary.json`.
    """
    results.write_text(folder / "labels.txt", "".join(f"{name}\n" for name in class_names))
    keras_file = card.save(
        pupil.model,
        folder / "student.keras",
        card.Card(class_names, pupil.normalization, pupil.image_size),
    )
    results.say("Exporting and verifying …")
    if exported is None:
        exported = te.export(
            pupil.model,
            folder / "student.tflite",
            quantization=quantization,
            representative_dataset=pupil.prepared(train) if needs_examples(quantization) else None,
            inference_input_type="uint8" if quantization == "int8" else "float32",
            labels=class_names,
            normalization=pupil.normalization,
        )
    verified = te.verify(pupil.model, exported, pupil.prepared(validation))
    timed = te.benchmark(exported, measure_memory=False)
    parameters = pupil.model.count_params()
    return {
        "student": {
            "accuracy": pupil.accuracy(validation),
            "parameters": parameters,
            "size_bytes": keras_file.stat().st_size,
        },
        "exported": {
            "accuracy": verified.accuracy,
            "parameters": parameters,
            "size_bytes": exported.size_bytes,
            "quantization": exported.quantization,
            "agreement": verified.agreement,
            "latency_ms": timed.median_ms,
        },
    }
