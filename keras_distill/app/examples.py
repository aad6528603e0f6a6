"""Examples out of a folder of photos, or of a `.npy` or `.npz` file, in the form that a model takes.

    for x, y in batches("photos/", model): ...      # y is None where nothing says what they are
    x, y = arrays("digits.npz", prefer="test")

Pixels, which are photos and arrays of uint8, are normalised as the model's file says; other arrays are
taken as they are. Labels are class numbers: `y`, or the places of the sub-folders among the model's
class names.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_distill.app import results
from keras_distill.app.model_file import ModelFile
from keras_distill.folder import TRAIN, VALIDATION, find_part
from tflite_export.photo import find_photos, read_photos

PAIRS = (("x", "y"), ("images", "labels"))
PARTS = {"test": ("test", "val", "validation", "", "train"), "train": ("train", "", "test")}
BATCH = 64


def arrays(path: Path, prefer: str) -> tuple[np.ndarray, np.ndarray | None]:
    """The examples and labels of a `.npy` or `.npz` file.

    Args:
        path: of the file; an `.npz` file holds x and y (or images and labels), perhaps with _train and
            _test behind, or one array.
        prefer: "test" or "train": which part is taken where there are several.

    Raises:
        ValueError: it is damaged, or does not say which array is what.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There are no data {path}: neither a folder nor a file.")
    if path.suffix not in (".npy", ".npz"):
        raise ValueError(f"{path} is neither a folder of photos nor a .npy or .npz file.")
    found = _loaded(path, lambda: np.load(path, allow_pickle=False))
    if isinstance(found, np.ndarray) != (path.suffix == ".npy"):
        raise ValueError(f"{path} is no {path.suffix} file: give it the suffix of what it is.")
    if path.suffix == ".npy":
        return _numbers(found, path), None
    with found:
        examples, labels = _names(list(found.files), prefer, path)
        x = _numbers(_loaded(path, lambda: found[examples]), path)
        y = None if labels is None else _loaded(path, lambda: found[labels])
    if y is not None and (y.ndim == 0 or len(y) != len(x)):
        raise ValueError(f"{path} holds {len(x)} examples, and labels of shape {y.shape}.")
    return x, y


def _loaded(path: Path, read: Callable) -> Any:
    """What `read` gives; NumPy and zipfile raise whatever they stumble over in a damaged file."""
    try:
        return read()
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:  # it may not be read at all
            raise
        if "allow_pickle" in str(error):
            raise ValueError(
                f"{path} holds Python objects, or is no {path.suffix} file: save arrays of numbers."
            ) from None
        raise ValueError(
            f"{path} is damaged, or no {path.suffix} file: write or download it again."
        ) from error


def _names(keys: list[str], prefer: str, path: Path) -> tuple[str, str | None]:
    """Which of the arrays are x and y."""
    for part in PARTS[prefer]:
        for pair in PAIRS:
            x, y = (f"{name}_{part}" if part else name for name in pair)
            if x in keys:
                return x, y if y in keys else None
    if len(keys) == 1:
        return keys[0], None
    raise ValueError(
        f"{path} holds {', '.join(keys) or 'nothing'}, and nothing says which are the examples: name "
        f"them x and y, or x_train, y_train, x_test and y_test."
    )


def _numbers(x: np.ndarray, path: Path) -> np.ndarray:
    if x.dtype.kind not in "fiub" or x.ndim < 2 or not len(x):
        raise ValueError(
            f"{path} holds {x.dtype} of shape {x.shape}: expected numbers (examples, …)."
        )
    return x


def taken(x: np.ndarray, model: ModelFile, path: Path) -> np.ndarray:
    """Some examples of an array as the model takes them: of uint8 as pixels, else as they are.

    Raises:
        ValueError: they are pixels, and nothing says how the model takes them.
    """
    if x.ndim == len(model.shape) and model.shape[-1:] == (1,):
        x = x[..., None]  # grey pictures without their channel, as MNIST has them
    if x.dtype != np.uint8:
        return x
    require_normalization(model, path)
    return model.inputs(x)


def require_normalization(model: ModelFile, path: Path) -> None:
    """Refuse pixels for a model of which nothing says how it takes them."""
    if model.normalization is None and not model.takes_pixels:
        raise ValueError(
            f"{path} holds pixels, and {model.path} does not say how it takes them: give "
            f"--normalization MEAN STD (127.5 127.5 for −1..1, 0 255 for 0..1, 0 1 for pixels as "
            f"they are)."
        )


def require_photos(model: ModelFile, path: Path) -> None:
    """Refuse a folder for a model that takes no photos of one size, or does not say how."""
    require_normalization(model, path)
    if len(model.shape) != 3 or model.shape[-1] not in (1, 3) or None in model.shape:
        raise ValueError(
            f"{model.path} takes inputs of shape {model.shape}, and photos are (height, width, 3) "
            f"of a known size: give arrays in a .npy or .npz file."
        )


def some_photos(folder: Path, model: ModelFile, count: int, strict: bool = False) -> np.ndarray:
    """`count` photos from everywhere in a folder and its sub-folders, as the model takes them."""
    require_photos(model, folder)
    files = find_photos(folder)
    if not files:
        raise ValueError(f"There are no photos in {folder}.")
    chosen = np.linspace(0, len(files) - 1, min(count, len(files))).astype(int)
    found = readable([files[place] for place in chosen], model, strict)
    return model.inputs(np.stack([pixels for _, pixels in found]))


def readable(
    files: Sequence[Path], model: ModelFile, strict: bool
) -> Iterator[tuple[int, np.ndarray]]:
    """(place in `files`, pixels) of the photos that can be read; see `tflite_export.photo.read_photos`."""
    height, width, channels = model.shape
    return read_photos(files, (height, width), channels, strict, results.say)


def batches(
    path: Path, model: ModelFile, strict: bool = False
) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Batches of (x, y), to measure `model` on; y is None where there are no labels.

    Args:
        path: a folder of photos, or one with a sub-folder for each class (if there is `validation/`
            beside `train/`, the photos in there); or a file, see `arrays`.
        strict: refuse photos that cannot be read; else they are left out, and named.
    """
    if not path.is_dir():
        x, y = arrays(path, prefer="test")
        for start in range(0, len(x), BATCH):
            part = slice(start, start + BATCH)
            yield taken(x[part], model, path), None if y is None else y[part]
        return
    require_photos(model, path)
    files, labels = _photos(path, model)
    found = readable(files, model, strict)
    while some := list(itertools.islice(found, BATCH)):
        places, pixels = zip(*some, strict=True)
        yield model.inputs(np.stack(pixels)), None if labels is None else labels[list(places)]


def _photos(root: Path, model: ModelFile) -> tuple[list[Path], np.ndarray | None]:
    """The photos of a folder, and the class number of each where there are sub-folders."""
    if train := find_part(root, *TRAIN):
        root = find_part(root, *VALIDATION, "test") or train
    folders = sorted(f for f in root.iterdir() if f.is_dir() and not f.name.startswith("."))
    found = [find_photos(folder) for folder in folders or [root]]
    files = [file for one in found for file in one]
    if not files:
        raise ValueError(f"There are no photos in {root}.")
    if not folders:
        return files, None
    numbers = _numbers_of([folder.name for folder in folders], root, model)
    return files, np.repeat(numbers, [len(one) for one in found])


def _numbers_of(folders: list[str], root: Path, model: ModelFile) -> list[int]:
    names = model.class_names
    if names is None:
        if model.classes not in (None, 1, len(folders)):
            raise ValueError(
                f"{root} has {len(folders)} folders ({', '.join(folders[:5])}…), and {model.path} knows "
                f"{model.classes} classes and not their names: give a folder for each, or photos without "
                f"sub-folders."
            )
        return list(range(len(folders)))  # sorted, as Keras numbers them
    unknown = [name for name in folders if name not in names]
    if unknown:
        raise ValueError(
            f"{root} has the folders {', '.join(folders)}, and {model.path} knows the classes "
            f"{', '.join(names)}: give the folders these names, or photos without sub-folders."
        )
    return [names.index(name) for name in folders]
