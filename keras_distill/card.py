"""What a `.keras` file says about its pictures: class names, normalisation, image size.

    card.save(student, "student.keras", card.Card(class_names=["cat", "dog"]))
    card.read_card("student.keras").class_names        # ["cat", "dog"]

The card is one more entry, `keras_distill.json`, in the zip that a `.keras` file is. Keras does not
look at it, so `keras.models.load_model` reads the file as before.
"""

import dataclasses
import json
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

# (mean, std): one number each, or one for each channel.
Normalization = tuple[float, float] | tuple[Sequence[float], Sequence[float]]

ENTRY = "keras_distill.json"


@dataclasses.dataclass(frozen=True)
class Card:
    """What belongs to a classifier of pictures and is not in its weights.

    Args:
        class_names: in the order of the model's outputs.
        normalization: (mean, std); the model's input is (pixel − mean) / std for pixels 0..255;
            numbers, or a list for each with one number for each channel.
        image_size: (height, width) that the model was trained at.
    """

    class_names: list[str] | None = None
    normalization: Normalization | None = None
    image_size: tuple[int, int] | None = None


def save(model, path: str | os.PathLike, card: Card) -> Path:
    """Save a Keras model with its card. The file appears whole or not at all.

    Raises:
        OSError: it cannot be written, as on a full disk; `filename` is `path`.
    """
    path = Path(path)
    beside = path.with_name(f".{path.stem}.{os.getpid()}.keras")
    try:
        model.save(beside)
        with zipfile.ZipFile(beside, "a") as archive:
            archive.writestr(ENTRY, _to_json(card))
        os.replace(beside, path)
    except OSError as error:
        if error.errno is not None:
            error.filename = str(path)  # a full disk names no file, others the temporary one
        raise
    finally:
        beside.unlink(missing_ok=True)
    return path


def write_card(path: str | os.PathLike, card: Card) -> None:
    """Put a card into a `.keras` file that is there, in place of the one it may have."""
    path = Path(path)
    beside = path.with_name(f".{path.stem}.{os.getpid()}.keras")
    try:
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(beside, "w") as new:
            for entry in old.infolist():
                if entry.filename != ENTRY:
                    new.writestr(entry, old.read(entry))
            new.writestr(ENTRY, _to_json(card))
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def read_card(path: str | os.PathLike) -> Card | None:
    """The card of a `.keras` file, or None where it has none or is no such file."""
    try:
        with zipfile.ZipFile(path) as archive:
            fields = json.loads(archive.read(ENTRY))
    except (KeyError, zipfile.BadZipFile):
        return None
    pair = fields.get("normalization")
    size = fields.get("image_size")
    return Card(
        class_names=fields.get("class_names"),
        normalization=tuple(pair) if pair else None,
        image_size=tuple(size) if size else None,
    )


def _to_json(card: Card) -> str:
    return json.dumps(dataclasses.asdict(card), indent=2, ensure_ascii=False)
