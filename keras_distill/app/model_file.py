"""A model in a file, with what the file says of its pictures: class names and normalisation.

    found = read("student.keras")                 # or a .tflite file, without TensorFlow
    found.shape, found.class_names, found.normalization
    found.answer(found.inputs(pixels))            # of raw pixels, 0..255

A `.keras` file says it on its card (`keras_distill.card`), a `.tflite` file in its metadata.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from keras_distill import card
from tflite_export.chatter import hushed
from tflite_export.normalization import Normalization

MINUS_ONE_TO_ONE = (127.5, 127.5)


@dataclasses.dataclass(frozen=True)
class ModelFile:
    """A model and what is known of it.

    Attributes:
        path: of the file.
        model: a `keras.Model`, or a `tflite_export.Interpreter`.
        shape: of one example, None where a size is open; () where there are several inputs.
        dtype: "float32", or what a `.tflite` file takes; "uint8" and "int8" stand for pixels.
        class_names: as the file says; else None.
        normalization: (mean, std) that takes pixels 0..255 to the input; None where nothing says so.
        classes: length of what it answers; None where that is no vector.
    """

    path: Path
    model: Any
    shape: tuple
    dtype: str
    class_names: list[str] | None
    normalization: card.Normalization | None
    classes: int | None = None

    @property
    def is_keras(self) -> bool:
        """Whether it is a `keras.Model`."""
        return self.path.suffix != ".tflite"

    @property
    def takes_pixels(self) -> bool:
        """Whether the file takes pixels as they are, as integers."""
        return self.dtype in ("uint8", "int8")

    def inputs(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels 0..255 as the model takes them; −1..1 where nothing says how."""
        if self.takes_pixels:
            shifted = np.asarray(pixels, "int16") - (128 if self.dtype == "int8" else 0)
            return shifted.astype(self.dtype)
        pair = self.normalization or MINUS_ONE_TO_ONE
        mean, std = (np.asarray(value, "float32") for value in pair)
        return (pixels - mean) / std

    def answer(self, inputs: np.ndarray) -> np.ndarray:
        """What the model answers to a batch."""
        if self.is_keras:
            return np.asarray(self.model(inputs, training=False))
        return self.model.run(inputs)


def read(path: str | Path, normalization: card.Normalization | None = None) -> ModelFile:
    """Read a `.keras`, `.h5` or `.tflite` file.

    Args:
        path: of the file.
        normalization: in place of what the file says.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is of another kind, or damaged; the normalisation is no pair of finite numbers.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no model file {path}.")
    if normalization is not None:
        Normalization.parse(normalization)
    if path.suffix in (".keras", ".h5"):
        found = _keras(path)
    elif path.suffix == ".tflite":
        found = _tflite(path)
    else:
        raise ValueError(f"{path} is no .keras, .h5 or .tflite file.")
    return (
        found if normalization is None else dataclasses.replace(found, normalization=normalization)
    )


def _keras(path: Path) -> ModelFile:
    with hushed():
        import keras

        from keras_distill import teachers
    model = teachers.load(path)
    if not isinstance(model, keras.Model):
        raise ValueError(f"{path} is a model of Keras 2 that Keras 3 cannot build.")
    said = card.read_card(path) or card.Card()
    shape = model.input_shape if isinstance(model.input_shape, tuple) else ()
    classes = _vector(model.output_shape)
    return ModelFile(
        path, model, shape[1:], "float32", said.class_names, said.normalization, classes
    )


def _tflite(path: Path) -> ModelFile:
    import tflite_export as te

    interpreter = te.load(path)
    try:
        said = te.read_metadata(path)
    except ValueError:  # a file of somebody else, without metadata
        said = None
    names = list(said.labels) if said and said.labels else None
    normalization = None
    if said and said.inputs and said.inputs[0].normalization is not None:
        found = said.inputs[0].normalization
        normalization = (found.mean, found.std)
    first = interpreter.inputs[0]
    shape = tuple(first.shape[1:]) if len(interpreter.inputs) == 1 else ()
    outputs = interpreter.outputs
    classes = _vector(outputs[0].shape) if len(outputs) == 1 else None
    return ModelFile(path, interpreter, shape, first.dtype, names, normalization, classes)


def _vector(shape: Any) -> int | None:
    """n of (batch, n)."""
    return shape[1] if isinstance(shape, tuple) and len(shape) == 2 else None
