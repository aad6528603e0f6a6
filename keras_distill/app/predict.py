"""Label photos with a `.keras` or `.tflite` file.

    for answer in run("student.tflite", ["cat.jpg"]):
        print(answer.photo, answer.label, answer.score)

Labels and normalisation come from the file itself: the card of a `.keras` file, the metadata of a
`.tflite` file. A `.tflite` file is run without TensorFlow.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from keras_distill.app import examples, model_file, results
from tflite_export.photo import find_photos


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a classifier says of one photo; `scores` has every class, in the model's order."""

    photo: str
    label: str
    score: float
    scores: dict[str, float]


def run(file: str | Path, photos: Sequence[str | Path], strict: bool = False) -> list[Answer]:
    """Label photos, in their order.

    Args:
        file: a `.keras` or `.tflite` classifier. One that does not say how its input is normalised
            gets −1..1, and classes without names are "class 0", "class 1", … Of logits the softmax
            is given.
        photos: image files, or folders of them.
        strict: refuse photos that cannot be read; else they are left out, and named.

    Raises:
        ValueError, OSError: a file that cannot be read, or a model that is no classifier of photos;
            photos of which none can be read.
    """
    found = model_file.read(file)
    path, shape = found.path, found.shape
    if len(shape) != 3 or shape[-1] not in (1, 3) or None in shape:
        raise ValueError(
            f"{path} takes inputs of shape {shape}, and photos are (height, width, 3)."
        )
    if found.normalization is None and not found.takes_pixels:
        results.say(f"{path} does not say how its input is normalised: −1..1 is taken.")

    listed = _files(photos)
    logits = found.is_keras and _ends_in_logits(found.model)
    answers = []
    for place, pixels in examples.readable(listed, found, strict):
        scores = _probabilities(found.answer(found.inputs(pixels[None]))[0], logits)
        if scores.ndim != 1:
            raise ValueError(f"{path} is no classifier: it answers with shape {scores.shape}.")
        names = found.class_names or [f"class {i}" for i in range(len(scores))]
        if len(names) != len(scores):
            raise ValueError(f"{path} has {len(names)} labels for {len(scores)} scores.")
        best = int(np.argmax(scores))
        answers.append(
            Answer(
                photo=str(listed[place]),
                label=names[best],
                score=float(scores[best]),
                scores={name: float(score) for name, score in zip(names, scores, strict=True)},
            )
        )
    return answers


def _files(photos: Sequence[str | Path]) -> list[Path]:
    """The photos, those in folders included; all are there before the first is read."""
    files: list[Path] = []
    for photo in map(Path, photos):
        if photo.is_dir():
            found = find_photos(photo)
            if not found:
                raise ValueError(f"There are no photos in the folder {photo}.")
            files += found
        elif photo.exists():
            files.append(photo)
        else:
            raise FileNotFoundError(f"There is no file {photo}.")
    return files


def _ends_in_logits(model) -> bool:
    """Whether a Keras model shows that its last layer has no activation."""
    from keras_distill import activations

    return activations.heads(model)[0] == activations.Head()


def _probabilities(scores: np.ndarray, logits: bool) -> np.ndarray:
    """Scores as they are if they lie in 0..1, else the softmax of what are, or must be, logits."""
    slack = 1e-3
    within = scores.ndim == 1 and scores.min() >= -slack and scores.max() <= 1 + slack
    if scores.ndim != 1 or (within and not logits):
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
