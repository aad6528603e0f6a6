"""The photos of a folder, by class, checked and split.

    listing = list_folder("photos", seed=0, validation_split=0.2)
    listing.train_files, listing.train_labels, listing.class_names
    print(listing.skipped)                 # which photos cannot be read, and why; "" if all can

Each photo is decoded once here, small and in threads, before anything is trained on it: a file whose
header is whole may still be cut off, and a training that stops on it hours later is dearer than this
pass, which takes about half the time in which an epoch is decoded.
"""

import collections
import dataclasses
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from tflite_export.photo import (
    PHOTO_SUFFIXES,
    Unreadable,
    UnreadablePhoto,
    cannot_be_read,
    find_photos,
    read_photo,
    visible_files,
)

# Folders of a split, by name; the first that is there counts.
TRAIN, VALIDATION = ("train",), ("validation", "val")


@dataclasses.dataclass(frozen=True)
class Listing:
    """The photos of a folder, split; labels are positions in `class_names`.

    Attributes:
        class_names: the sub-folders, sorted.
        train_files, validation_files: paths, by class, sorted within each.
        train_labels, validation_labels: int32 (photos,).
        unreadable: the files that are left out because they cannot be read.
    """

    class_names: list[str]
    train_files: list[Path]
    train_labels: np.ndarray
    validation_files: list[Path]
    validation_labels: np.ndarray
    unreadable: list[Unreadable] = dataclasses.field(default_factory=list, kw_only=True)

    @property
    def skipped(self) -> str:
        """One sentence about the photos that are left out; "" where there are none."""
        if not self.unreadable:
            return ""
        readable = len(self.train_files) + len(self.validation_files)
        return f"{cannot_be_read(self.unreadable, readable)}. The training goes without them."


def list_folder(
    path: str | os.PathLike,
    seed: int = 0,
    validation_split: float = 0.2,
    strict: bool = False,
) -> Listing:
    """Find the photos: one sub-folder per class, sorted by name, as Keras does.

    Where the folder holds `train/` and `validation/` (or `val/`), these are the split. Else
    `validation_split` of each class is held out, at least one photo. Which ones is a function of
    `seed` and of the readable photos of the class, sorted by path: a photo that cannot be read is as
    good as absent, and the same folder is split the same way again.

    Args:
        strict: refuse a folder with photos that cannot be read; else they are left out, and
            `Listing.unreadable` and `Listing.skipped` say which.

    Raises:
        ValueError: no folder, no photos, one class only, a class with too few photos or none that
            can be read, other classes in validation than in training; with `strict`, any photo that
            cannot be read.
    """
    if not 0 < validation_split < 1:
        raise ValueError(f"validation_split lies between 0 and 1, got {validation_split}.")
    root = Path(path)
    if not root.is_dir():
        raise ValueError(f"There is no folder {root}.")
    train_root = find_part(root, *TRAIN) or root
    classes = _list_classes(train_root)
    held_out: dict[str, list[Path]] = {}
    validation_root = None if train_root == root else find_part(root, *VALIDATION)
    if validation_root:
        held_out = _list_classes(validation_root)
        if odd := sorted(set(held_out) ^ set(classes)):
            raise ValueError(
                f"{train_root} and {validation_root} hold different classes: "
                f"{', '.join(odd)} {'are' if len(odd) > 1 else 'is'} in one of them only."
            )

    unreadable = _unreadable([*_all(classes), *_all(held_out)])
    if unreadable and strict:
        readable = len(_all(classes)) + len(_all(held_out)) - len(unreadable)
        raise ValueError(
            f"{cannot_be_read(unreadable, readable)}. Replace or remove them, or leave strict out "
            "to train without them."
        )
    reasons = {one.path: one for one in unreadable}
    classes, held_out = _readable(classes, reasons), _readable(held_out, reasons)
    if not held_out:
        classes, held_out = _split(classes, seed, validation_split, unreadable)
    return Listing(
        list(classes),
        _all(classes),
        _labels(classes),
        _all(held_out),
        _labels(held_out),
        unreadable=unreadable,
    )


def find_part(root: Path, *names: str) -> Path | None:
    """The first of these folders that is there."""
    return next((root / name for name in names if (root / name).is_dir()), None)


def _all(classes: dict[str, list[Path]]) -> list[Path]:
    return [file for files in classes.values() for file in files]


def _labels(classes: dict[str, list[Path]]) -> np.ndarray:
    return np.repeat(np.arange(len(classes), dtype=np.int32), [len(f) for f in classes.values()])


def _split(
    classes: dict[str, list[Path]], seed: int, share: float, unreadable: Sequence[Unreadable]
) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
    kept, held_out = {}, {}
    besides = {one.path.parent.name: f" that can be read (not {one})" for one in unreadable}
    for label, (name, files) in enumerate(classes.items()):
        if len(files) < 2:
            raise ValueError(
                f"Class {name} has one photo only{besides.get(name, '')}, and it takes two: one to "
                "learn from and one to measure on."
            )
        count = min(max(1, round(len(files) * share)), len(files) - 1)
        chosen = set(np.random.default_rng([seed, label]).permutation(len(files))[:count].tolist())
        kept[name] = [file for i, file in enumerate(files) if i not in chosen]
        held_out[name] = [file for i, file in enumerate(files) if i in chosen]
    return kept, held_out


# Photos that cannot be read


def _unreadable(files: Sequence[Path]) -> list[Unreadable]:
    def check(some: Sequence[Path]) -> list[Unreadable]:
        found = []
        for file in some:
            try:
                read_photo(
                    file, (1, 1)
                )  # a JPEG is parsed to its end, an eighth of it made to pixels
            except UnreadablePhoto as error:
                found.append(Unreadable(file, error.reason))
            except FileNotFoundError:
                found.append(Unreadable(file, "it is a link to nothing"))
        return found

    parts = [files[start : start + 64] for start in range(0, len(files), 64)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes outside Python's lock
        return [one for found in pool.map(check, parts) for one in found]


def _readable(
    classes: dict[str, list[Path]], unreadable: dict[Path, Unreadable]
) -> dict[str, list[Path]]:
    for name, files in classes.items():
        if all(file in unreadable for file in files):
            raise ValueError(
                f"None of the {len(files)} photos of the class {name} can be read; the first is "
                f"{unreadable[files[0]]}. Replace them, or remove the class's folder."
            )
    return {n: [file for file in files if file not in unreadable] for n, files in classes.items()}


# Names


def _list_classes(root: Path) -> dict[str, list[Path]]:
    """The photos of each class, all sorted."""
    names = sorted(
        entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )
    _refuse_splits(root, names)
    _refuse_odd_names(names)
    classes = {name: find_photos(root / name) for name in names}
    if not any(classes.values()):
        raise ValueError(
            f"No photos in {root}: expected one sub-folder for each class, with "
            f"{', '.join(PHOTO_SUFFIXES)} files in it.{_what_else(root)}"
        )
    for name, files in classes.items():
        if not files:
            folder = root / name
            raise ValueError(
                f"No photos in the class folder {folder}: fill it or remove it.{_what_else(folder)}"
            )
    if len(classes) < 2:
        raise ValueError(
            f"{root} holds one class only ({names[0]}): a classifier needs two or more, each in a "
            "sub-folder of its own."
        )
    return classes


def _refuse_odd_names(class_names: list[str]) -> None:
    """A class's name is a line of text, in the files of labels: found before the training, not after."""
    for name in class_names:
        try:
            name.encode()
        except UnicodeEncodeError:
            odd = "is not in UTF-8"
        else:
            odd = "" if name.splitlines() == [name] else "has a line break"
        if odd:
            raise ValueError(f"The name of the class folder {name!r} {odd}: rename it.")


def _what_else(folder: Path) -> str:
    """What a folder without photos in classes does hold, as a sentence."""
    loose = sum(f.suffix.lower() in PHOTO_SUFFIXES for f in folder.iterdir() if f.is_file())
    if loose:
        return f" It holds photos itself ({loose}): move each into the sub-folder of its class."
    suffixes = collections.Counter(f.suffix.lower() or f.name for f in visible_files(folder))
    if not suffixes:
        return ""
    found = ", ".join(f"{count} {suffix}" for suffix, count in suffixes.most_common(3))
    return f" It holds other files ({found}), which are not read: convert photos to JPEG or PNG."


def _refuse_splits(root: Path, class_names: list[str]) -> None:
    """A folder of training_set/ and test_set/ is not one of two classes."""
    inside = [
        (
            {entry.name for entry in (root / name).iterdir() if entry.is_dir()},
            any(entry.suffix.lower() in PHOTO_SUFFIXES for entry in (root / name).iterdir()),
        )
        for name in class_names
    ]
    names = inside[0][0] if inside else set()
    if len(names) > 1 and all(folders == names and not photos for folders, photos in inside):
        raise ValueError(
            f"{root} holds {', '.join(class_names)}, and each of them the same folders "
            f"({', '.join(sorted(names)[:3])}…): if these are splits, name them train/ and "
            f"validation/, or give the folder of one of them."
        )
