"""Label photos with a `.keras` or `.tflite` file.

    for answer in run("student.tflite", ["cat.jpg"]):
        print(answer.photo, answer.label, answer.score)

Labels and normalisation come from the file itself: the card of a `.keras` file, the metadata of a
`.tflite` file. A `.tflite` file is run without TensorFlow.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_distill import card
from keras_distill.app import results

MINUS_ONE_TO_ONE = (127.5, 127.5)


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a classifier says of one photo; `scores` has every class, in the model's order."""

    photo: str
    label: str
    score: float
    scores: dict[str, float]


def run(file: str | Path, photos: Sequence[str | Path]) -> list[Answer]:
    """Label photos, in their order.

    Args:
        file: a `.keras` or `.tflite` classifier. One that does not say how its input is normalised
            gets −1..1, and classes without names are "class 0", "class 1", … Of logits the softmax
            is given.
        photos: image files, or folders of them.

    Raises:
        ValueError, OSError: a file that cannot be read, or a model that is no classifier of photos.
    """
    path = Path(file)
    if not path.is_file():
        raise FileNotFoundError(f"There is no model file {path}.")
    if path.suffix == ".keras":
        classify, shape, labels = _keras(path)
    elif path.suffix == ".tflite":
        classify, shape, labels = _tflite(path)
    else:
        raise ValueError(f"{path} is neither a .keras nor a .tflite file.")
    if len(shape) != 3 or shape[-1] not in (1, 3) or None in shape:
        raise ValueError(
            f"{path} takes inputs of shape {shape}, and photos are (height, width, 3)."
        )

    from keras_distill import data

    listed = _files(photos)
    answers = []
    for photo in listed:
        pixels = data.read_photo(photo, shape[:2], channels=shape[-1])
        scores = _probabilities(classify(pixels[None])[0])
        if scores.ndim != 1:
            raise ValueError(f"{path} is no classifier: it answers with shape {scores.shape}.")
        names = labels or [f"class {i}" for i in range(len(scores))]
        if len(names) != len(scores):
            raise ValueError(f"{path} has {len(names)} labels for {len(scores)} scores.")
        best = int(np.argmax(scores))
        answers.append(
            Answer(
                photo=str(photo),
                label=names[best],
                score=float(scores[best]),
                scores={name: float(score) for name, score in zip(names, scores, strict=True)},
            )
        )
    return answers


def _files(photos: Sequence[str | Path]) -> list[Path]:
    """The photos, those in folders included; all are there before the first is read."""
    from keras_distill.data import PHOTO_SUFFIXES

    files: list[Path] = []
    for photo in map(Path, photos):
        if photo.is_dir():
            found = [one for one in photo.iterdir() if one.suffix.lower() in PHOTO_SUFFIXES]
            if not found:
                raise ValueError(f"There are no photos in the folder {photo}.")
            files += sorted(found)
        elif photo.exists():
            files.append(photo)
        else:
            raise FileNotFoundError(f"There is no file {photo}.")
    return files


def _probabilities(scores: np.ndarray) -> np.ndarray:
    """Scores as they are if they lie in 0..1, else the softmax of what must be logits."""
    slack = 1e-3
    if scores.ndim != 1 or (scores.min() >= -slack and scores.max() <= 1 + slack):
        return scores
    shifted = np.exp(scores - scores.max())
    return shifted / shifted.sum()


def show(answers: Sequence[Answer]) -> None:
    """Print one line for each photo."""
    results.show(
        "",
        ("photo", "label", "score"),
        [(answer.photo, answer.label, results.percent(answer.score)) for answer in answers],
    )


Classify = Callable[[np.ndarray], Any]


def _keras(path: Path) -> tuple[Classify, tuple, Sequence[str] | None]:
    import keras

    from keras_distill import activations

    model = keras.models.load_model(path, compile=False)
    said = card.read_card(path) or card.Card()
    if said.normalization is None:
        results.say(f"{path} does not say how its input is normalised: −1..1 is taken.")
    logits = activations.heads(model)[0] == activations.Head()

    def classify(pixels):
        pixels = _normalised(pixels, said.normalization)
        outputs = model(pixels, training=False)
        return np.asarray(keras.ops.softmax(outputs) if logits else outputs)

    shape = model.input_shape
    return classify, shape[1:] if isinstance(shape, tuple) else (), said.class_names


def _tflite(path: Path) -> tuple[Classify, tuple, Sequence[str] | None]:
    import tflite_export as te

    interpreter = te.load(path)
    try:
        said = te.read_metadata(path)
    except ValueError:  # a file of somebody else, without metadata
        said = None
    inputs = interpreter.inputs[0]
    normalization = None
    if said and said.inputs and said.inputs[0].normalization is not None:
        found = said.inputs[0].normalization
        normalization = (found.mean, found.std)
    if normalization is None and np.dtype(inputs.dtype).kind == "f":
        results.say(f"{path} does not say how its input is normalised: −1..1 is taken.")

    def classify(pixels):
        kind = np.dtype(inputs.dtype)
        if kind == np.int8:
            pixels = (pixels.astype("int16") - 128).astype("int8")
        elif kind != np.uint8:  # a file that takes integers takes pixels as they are
            pixels = _normalised(pixels, normalization)
        return interpreter.run(pixels)

    return classify, tuple(inputs.shape[1:]), said.labels if said else None


def _normalised(pixels: np.ndarray, normalization: card.Normalization | None) -> np.ndarray:
    mean, std = (np.asarray(value, "float32") for value in normalization or MINUS_ONE_TO_ONE)
    return (pixels - mean) / std
