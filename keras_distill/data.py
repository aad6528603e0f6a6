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
import re
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorflow as tf

from keras_distill import mixup as mixing
from keras_distill.augmentation import (
    Augmentation,
    CropAndFlip,
    Light,
    one_after_another,
    uniform_numbers,
)
from keras_distill.digits import Digits, digits
from keras_distill.folder import Listing, Unreadable, list_folder
from keras_distill.indexed import Indexed
from keras_distill.rand_augment import RandAugment
from tflite_export.photo import PHOTO_SUFFIXES, UnreadablePhoto, read_photo

__all__ = [
    "PHOTO_SUFFIXES",
    "Augmentation",
    "CropAndFlip",
    "Digits",
    "ImageFolder",
    "Light",
    "Listing",
    "RandAugment",
    "Unreadable",
    "UnreadablePhoto",
    "arrays",
    "digits",
    "image_folder",
    "list_folder",
    "photos",
    "read_photo",
    "stopped_by",
]

CACHE_BYTES = 2**30

# Pipelines


def _pipeline(
    fetch: Callable,
    labels: np.ndarray,
    image_shape: tuple[int, int, int],
    batch_size: int,
    seed: int,
    augment: Augmentation | Sequence[Augmentation] | None,
    mixup: float,
    shuffle: bool,
) -> tf.data.Dataset:
    """Batches of (images, labels), where `fetch(index)` gives the images of a batch of indices."""
    labels = tf.constant(labels, tf.int32)
    count = len(labels)
    changes = one_after_another(augment)
    if not 0 <= mixup < math.inf:
        raise ValueError(f"mixup={mixup} must be the alpha of a Beta distribution, or 0 for none.")

    def seen(view, index):
        images = tf.cast(fetch(index), tf.float32)
        images.set_shape((None, *image_shape))
        images = changes(images, lambda n: uniform_numbers(seed, view, index, n))
        return tf.ensure_shape(images, (None, *image_shape))

    def make(view, index):
        images = seen(view, index)
        if mixup > 0:
            drawn = uniform_numbers(seed + 1, view, index, 2)
            own = mixing.shares(drawn[:, 0], mixup)[:, None, None, None]
            images = own * images + (1.0 - own) * seen(view, mixing.partners(drawn[:, 1], count))
        return images, tf.gather(labels, index)

    return Indexed(make, count, batch_size, seed, shuffle).dataset()


def arrays(
    x,
    y,
    batch_size: int = 32,
    seed: int = 0,
    augment: Augmentation | Sequence[Augmentation] | None = None,
    shuffle: bool = True,
    mixup: float = 0.0,
) -> tf.data.Dataset:
    """A data set of (float32 images, int32 labels) from arrays that lie in memory.

    Args:
        x: images (examples, height, width, channels); values are passed on as they are.
        y: class numbers (examples,) or (examples, 1), as `keras.datasets` gives them.
        seed: order and augmentation follow from this, the epoch and the index of the example.
        augment: `Light()`, `CropAndFlip()`, `RandAugment()`, a function with their arguments, or a list of
            these, one after the other.
        shuffle: False for data that is measured on, in the order of the arrays.
        mixup: 0, or the alpha of mixup: each image is mixed with another one, of which it keeps at least
            half. The label is that of the larger share; the teacher sees the mixture.
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
        mixup=mixup,
        shuffle=shuffle,
    )


def photos(
    files: Sequence[str | os.PathLike],
    labels,
    image_size: int | tuple[int, int],
    batch_size: int = 32,
    seed: int = 0,
    augment: Augmentation | Sequence[Augmentation] | None = None,
    shuffle: bool = True,
    cache_bytes: int = CACHE_BYTES,
    mixup: float = 0.0,
) -> tf.data.Dataset:
    """A data set of (float32 photos 0..255, int32 labels) from files.

    The photos are decoded and resized here, once, and held as uint8 where that takes no more than
    `cache_bytes`; else they are decoded anew in every epoch, several batches at a time.

    Raises:
        UnreadablePhoto: a ValueError; with the file's name. Where photos are decoded anew, the
            training stops with a `tf.errors.InvalidArgumentError` that holds this sentence, and
            `stopped_by` finds it.
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

        def decode_batch(chosen):
            batch = np.empty((len(chosen), *shape), np.uint8)
            for place, i in enumerate(chosen):
                batch[place] = read_photo(names[i], size)
            return batch

        @tf.autograph.experimental.do_not_convert  # it would rewrite the reading of photos
        def fetch(index):
            return tf.numpy_function(decode_batch, [index], tf.uint8, stateful=False)

    return _pipeline(
        fetch,
        np.asarray(labels),
        shape,
        batch_size=batch_size,
        seed=seed,
        augment=augment,
        mixup=mixup,
        shuffle=shuffle,
    )


def stopped_by(error: BaseException) -> str | None:
    """The sentence about the photo that went bad in mid-training, in what `fit` raised then."""
    found = re.search(r"(?:UnreadablePhoto|FileNotFoundError): (.+)", str(error))
    return found[1].strip() if found and isinstance(error, tf.errors.OpError) else None


# Image folders


@dataclasses.dataclass(frozen=True)
class ImageFolder(Listing):
    """A listing with its two data sets."""

    train: tf.data.Dataset
    validation: tf.data.Dataset


def image_folder(
    path: str | os.PathLike,
    image_size: int | tuple[int, int],
    batch_size: int = 32,
    seed: int = 0,
    validation_split: float = 0.2,
    augment: Augmentation | Sequence[Augmentation] | None = None,
    strict: bool = False,
    cache_bytes: int = CACHE_BYTES,
    mixup: float = 0.0,
) -> ImageFolder:
    """Data sets of a folder of photos, listed as `list_folder` says and read as `photos` says.

    Args:
        path: one sub-folder for each class, or `train/` and `validation/` with these in them.
        image_size: height and width in pixels, or one number for both; photos are stretched to it.
        augment: changes the training photos; `Light()` is a good start. Validation is left alone.
        mixup: as in `arrays`, for the training photos.
        strict: refuse a folder with photos that cannot be read; else they are left out with a
            warning that names them, and stand in `unreadable`.
        cache_bytes: as in `photos`, for each of the two data sets.

    Raises:
        ValueError: as `list_folder`.
    """
    listing = list_folder(path, seed=seed, validation_split=validation_split, strict=strict)
    if listing.skipped:
        warnings.warn(listing.skipped, stacklevel=2)
    train = photos(
        listing.train_files,
        listing.train_labels,
        image_size,
        batch_size=batch_size,
        seed=seed,
        augment=augment,
        mixup=mixup,
        cache_bytes=cache_bytes,
    )
    validation = photos(
        listing.validation_files,
        listing.validation_labels,
        image_size,
        batch_size=batch_size,
        shuffle=False,
        cache_bytes=cache_bytes,
    )
    # Not dataclasses.asdict, which would copy every path.
    return ImageFolder(**vars(listing), train=train, validation=validation)
