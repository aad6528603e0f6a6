"""Data sets whose every epoch can be made again: image folders, arrays, and scikit-learn's digits.

    folder = data.image_folder("photos", image_size=96, batch_size=32, seed=0, augment=data.Light())
    student.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    student.fit(folder.train, validation_data=folder.validation, callbacks=[epoch.SetEpoch()])

Order and augmentation are pure functions of (seed, epoch, index of the example): nothing is drawn
from a generator that remembers. A training that was killed goes on with the data it would have seen,
and a teacher can be asked about exactly the view that the student will get. The epoch is
`keras_distill.epoch.variable()`: `Distiller.fit` sets it by itself, a plain `fit` needs
`epoch.SetEpoch()`.

Pixels come out as float32 in 0..255, labels as int32.
"""

import dataclasses
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_distill import epoch
from keras_distill.augmentation import (
    Augmentation,
    CropAndFlip,
    Light,
    order_of_epoch,
    uniform_numbers,
)

__all__ = [
    "Augmentation",
    "CropAndFlip",
    "Digits",
    "ImageFolder",
    "Light",
    "Listing",
    "arrays",
    "digits",
    "image_folder",
    "list_folder",
    "photos",
    "read_photo",
]

PHOTO_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")
CACHE_BYTES = 2**30

# Pipelines


def _pipeline(
    fetch: Callable,
    labels: np.ndarray,
    image_shape: tuple[int, int, int],
    batch_size: int,
    seed: int,
    augment: Augmentation | None,
    shuffle: bool,
) -> tf.data.Dataset:
    """Batches of (images, labels), where `fetch(index)` gives the images of a batch of indices."""
    count = len(labels)
    labels = tf.constant(labels, tf.int32)

    def epoch_of_batches(_):
        number = tf.identity(epoch.variable())  # read once: an epoch stays one epoch to its end
        order = order_of_epoch(seed, number, count) if shuffle else tf.range(count, dtype=tf.int64)
        order = tf.data.Dataset.from_tensor_slices(tf.cast(order, tf.int64)).batch(batch_size)
        return order.map(lambda index: (number, index))

    def load(number, index):
        images = tf.cast(fetch(index), tf.float32)
        images.set_shape((None, *image_shape))
        if augment is not None:
            images = augment(images, lambda n: uniform_numbers(seed, number, index, n))
            images = tf.ensure_shape(images, (None, *image_shape))
        return images, tf.gather(labels, index)

    batches = tf.data.Dataset.from_tensors(0).flat_map(epoch_of_batches)
    batches = batches.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    batches = batches.apply(tf.data.experimental.assert_cardinality(math.ceil(count / batch_size)))
    return batches.prefetch(tf.data.AUTOTUNE)


def arrays(
    x,
    y,
    batch_size: int = 32,
    seed: int = 0,
    augment: Augmentation | None = None,
    shuffle: bool = True,
) -> tf.data.Dataset:
    """A data set of (float32 images, int32 labels) from arrays that lie in memory.

    Args:
        x: images (examples, height, width, channels); values are passed on as they are.
        y: class numbers (examples,) or (examples, 1), as `keras.datasets` gives them.
        seed: order and augmentation follow from this, the epoch and the index of the example.
        augment: `Light()`, `CropAndFlip()`, or a function with their arguments.
        shuffle: False for data that is measured on, in the order of the arrays.
    """
    x, y = np.asarray(x), np.asarray(y)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if x.ndim != 4 or y.shape != (len(x),):
        raise ValueError(
            f"Expected images (examples, height, width, channels) and one class number for each, "
            f"got x of shape {x.shape} and y of shape {y.shape}."
        )
    if not len(x):
        raise ValueError("There is no example in x.")
    images = tf.constant(x)
    return _pipeline(
        lambda index: tf.gather(images, index),
        y,
        x.shape[1:],
        batch_size=batch_size,
        seed=seed,
        augment=augment,
        shuffle=shuffle,
    )


def read_photo(path: str | os.PathLike, image_size: tuple[int, int], channels: int = 3):
    """Read one photo as uint8 (height, width, channels), stretched to `image_size`.

    Upright as its EXIF says; greyscale, palette, CMYK and 16-bit files in the wanted channels;
    transparency over white; of an animation the first frame.
    """
    from PIL import Image, ImageOps

    height, width = image_size
    try:
        with Image.open(path) as file:
            # Lets libjpeg decode a large photo at a half, a quarter or an eighth of its size.
            file.draft("RGB", (2 * max(width, height),) * 2)
            image = ImageOps.exif_transpose(file)
            if image.mode.startswith("I"):
                sixteen_bits = np.asarray(image).astype(np.uint32)
                image = Image.fromarray((sixteen_bits >> 8).clip(0, 255).astype(np.uint8))
            if "A" in image.mode or "transparency" in image.info:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            image = image.convert("L" if channels == 1 else "RGB")
            image = image.resize((width, height), Image.Resampling.BILINEAR)
    except FileNotFoundError:
        raise FileNotFoundError(f"There is no file {path}.") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"Cannot read {path} as a photo: {error}") from error
    return np.asarray(image).reshape(height, width, channels)


def photos(
    files: Sequence[str | os.PathLike],
    labels,
    image_size: int | tuple[int, int],
    batch_size: int = 32,
    seed: int = 0,
    augment: Augmentation | None = None,
    shuffle: bool = True,
    cache_bytes: int = CACHE_BYTES,
) -> tf.data.Dataset:
    """A data set of (float32 photos 0..255, int32 labels) from files.

    The photos are decoded and resized here, once, and held as uint8 where that takes no more than
    `cache_bytes`; else they are decoded anew in every epoch, several batches at a time.
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    size, shape = (height, width), (height, width, 3)
    names = [os.fspath(file) for file in files]

    if len(names) * math.prod(shape) <= cache_bytes:
        pixels = np.empty((len(names), *shape), np.uint8)

        def decode(i):
            pixels[i] = read_photo(names[i], size)

        with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes outside Python's lock
            list(pool.map(decode, range(len(names))))
        held = tf.constant(pixels)

        def fetch(index):
            return tf.gather(held, index)
    else:

        def fetch(index):
            return tf.numpy_function(
                lambda chosen: np.stack([read_photo(names[i], size) for i in chosen]),
                [index],
                tf.uint8,
                stateful=False,
            )

    return _pipeline(
        fetch,
        np.asarray(labels),
        shape,
        batch_size=batch_size,
        seed=seed,
        augment=augment,
        shuffle=shuffle,
    )


# Image folders


@dataclasses.dataclass(frozen=True)
class Listing:
    """The photos of a folder, split; labels are positions in `class_names`."""

    class_names: list[str]
    train_files: list[Path]
    train_labels: np.ndarray
    validation_files: list[Path]
    validation_labels: np.ndarray


@dataclasses.dataclass(frozen=True)
class ImageFolder(Listing):
    """A listing with its two data sets."""

    train: tf.data.Dataset
    validation: tf.data.Dataset


def list_folder(path: str | os.PathLike, seed: int = 0, validation_split: float = 0.2) -> Listing:
    """Find the photos: one sub-folder per class, sorted by name, as Keras does.

    Where the folder holds `train/` and `validation/` (or `val/`), these are the split. Else
    `validation_split` of each class is held out, at least one photo, chosen by `seed`.

    Raises:
        ValueError: no folder, no photos, one class only, a class with too few photos, or other
            classes in validation than in training.
    """
    root = Path(path)
    if not root.is_dir():
        raise ValueError(f"There is no folder {root}.")
    train_root = root / "train"
    if train_root.is_dir():
        validation_roots = [root / name for name in ("validation", "val") if (root / name).is_dir()]
        class_names, files, labels = _list_classes(train_root)
        if validation_roots:
            names, validation_files, validation_labels = _list_classes(validation_roots[0])
            if names != class_names:
                odd = sorted(set(names) ^ set(class_names))
                raise ValueError(
                    f"{train_root} and {validation_roots[0]} hold different classes: "
                    f"{', '.join(odd)} is in one of them only."
                )
            return Listing(class_names, files, labels, validation_files, validation_labels)
    else:
        class_names, files, labels = _list_classes(root)

    if not 0 < validation_split < 1:
        raise ValueError(f"validation_split lies between 0 and 1, got {validation_split}.")
    held_out = np.zeros(len(files), bool)
    for label, name in enumerate(class_names):
        members = np.flatnonzero(labels == label)
        if len(members) < 2:
            raise ValueError(
                f"Class {name} has one photo only, and it takes two: one to learn from and one "
                f"to measure on."
            )
        count = min(max(1, round(len(members) * validation_split)), len(members) - 1)
        chosen = np.random.default_rng([seed, label]).permutation(len(members))[:count]
        held_out[members[chosen]] = True
    chosen = np.flatnonzero(held_out)
    kept = np.flatnonzero(~held_out)
    return Listing(
        class_names,
        [files[i] for i in kept],
        labels[kept],
        [files[i] for i in chosen],
        labels[chosen],
    )


def _list_classes(root: Path) -> tuple[list[str], list[Path], np.ndarray]:
    class_names = sorted(
        entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )
    _refuse_splits(root, class_names)
    files: list[Path] = []
    labels: list[int] = []
    empty = []
    for label, name in enumerate(class_names):
        found = sorted(
            Path(folder) / file
            for folder, _, file_names in os.walk(root / name, followlinks=True)
            for file in file_names
            if file.lower().endswith(PHOTO_SUFFIXES) and not file.startswith(".")
        )
        if not found:
            empty.append(name)
        files += found
        labels += [label] * len(found)
    if not files:
        raise ValueError(
            f"No photos in {root}: expected one sub-folder for each class, with "
            f"{', '.join(PHOTO_SUFFIXES)} files in it."
        )
    if empty:
        raise ValueError(f"No photos in the class folder {root / empty[0]}: fill it or remove it.")
    if len(class_names) < 2:
        raise ValueError(
            f"{root} holds one class only ({class_names[0]}): a classifier needs two or more."
        )
    return class_names, files, np.array(labels, np.int32)


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


def image_folder(
    path: str | os.PathLike,
    image_size: int | tuple[int, int],
    batch_size: int = 32,
    seed: int = 0,
    validation_split: float = 0.2,
    augment: Augmentation | None = None,
) -> ImageFolder:
    """Data sets of a folder of photos, listed as `list_folder` says and read as `photos` says.

    Args:
        path: one sub-folder for each class, or `train/` and `validation/` with these in them.
        image_size: height and width in pixels, or one number for both; photos are stretched to it.
        augment: changes the training photos; `Light()` is a good start. Validation is left alone.
    """
    listing = list_folder(path, seed=seed, validation_split=validation_split)
    train = photos(
        listing.train_files,
        listing.train_labels,
        image_size,
        batch_size=batch_size,
        seed=seed,
        augment=augment,
    )
    validation = photos(
        listing.validation_files,
        listing.validation_labels,
        image_size,
        batch_size=batch_size,
        shuffle=False,
    )
    # Not dataclasses.asdict, which would copy every path.
    return ImageFolder(**vars(listing), train=train, validation=validation)


# Digits


@dataclasses.dataclass(frozen=True)
class Digits:
    """scikit-learn's digits as images: x (examples, 8, 8, 1) uint8 0..255, y int32."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    class_names: list[str]


def digits(test_size: float = 0.25, seed: int = 0) -> Digits:
    """1,797 handwritten digits of 8×8 pixels (UCI, Alpaydin and Kaynak 1998), stratified split.

    They come with scikit-learn: nothing is downloaded.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    loaded = load_digits()
    images = np.round(loaded.images[..., None] * (255 / 16)).astype(np.uint8)
    x_train, x_test, y_train, y_test = train_test_split(
        images,
        loaded.target.astype(np.int32),
        test_size=test_size,
        random_state=seed,
        stratify=loaded.target,
    )
    return Digits(x_train, y_train, x_test, y_test, [str(i) for i in range(10)])
