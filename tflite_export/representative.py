"""A few hundred examples that show a quantiser what the model will see.

    examples = read(train, signature.inputs, count=200)     # [{"image": (1, 32, 32, 3)}, …]

Takes what Keras users have at hand: a `tf.data.Dataset`, a `keras.utils.PyDataset` or any iterable
of batches (`x`, `(x, y)`, `(x, y, weights)`, dicts), arrays, or a folder of images. Never reads more
than it was asked.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tflite_export.normalization import Normalization
from tflite_export.photo import PHOTO_SUFFIXES, find_photos, read_photos
from tflite_export.signature import ModelInput


def read(
    dataset: Any,
    inputs: Sequence[ModelInput],
    count: int,
    normalization: Mapping[str, Normalization] | None = None,
    *,
    called: str = "representative_dataset",
    counted: str = "num_calibration_examples",
) -> list[dict[str, np.ndarray]]:
    """`count` examples, each a dict of arrays with a batch of 1, in float32 or integers.

    Of a data set or batches the first, so that no more is read. Of arrays, `count` spread evenly over
    their length, as they may be sorted by class; of a folder, images spread evenly over all of its
    sub-folders, whose pixels `normalization`, by input name, takes to the model's input.

    Raises:
        ValueError: there are none, their shape or type is not the model's, a value is not finite, or
            no photo can be read; one that cannot is left out with a warning. `called` and `counted` are
            what the sentence calls `dataset` and `count`.
    """
    if count < 1:
        raise ValueError(f"{counted}={count}: give 1 or more.")
    try:
        return _read(dataset, inputs, count, normalization)
    except ValueError as error:
        if called == "representative_dataset":
            raise
        raise ValueError(str(error).replace("representative_dataset", called)) from None


def _read(
    dataset: Any,
    inputs: Sequence[ModelInput],
    count: int,
    normalization: Mapping[str, Normalization] | None,
) -> list[dict[str, np.ndarray]]:
    if isinstance(dataset, (str, os.PathLike)):
        dataset = _folder(Path(dataset), inputs, count, normalization or {})
    examples: list[dict[str, np.ndarray]] = []
    batches = _batches(dataset, inputs)
    whole = isinstance(batches, list) and len(batches) == 1
    for batch in batches:
        arrays = _by_name(_features(batch, inputs), inputs)
        sizes = {n: len(a) for n, a in arrays.items()}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"representative_dataset: inputs of different lengths, {sizes}.")
        size = min(sizes.values())
        wanted = min(size, count - len(examples))
        for index in np.linspace(0, size - 1, wanted).astype(int) if whole else range(wanted):
            examples.append({n: a[index : index + 1] for n, a in arrays.items()})
        if len(examples) >= count:
            break
    if not examples:
        raise ValueError(
            "representative_dataset is empty: give a few hundred examples of the kind that the "
            "model will see."
        )
    for number, example in enumerate(examples):
        for name, array in example.items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise ValueError(
                    f"representative_dataset has values that are not finite in example {number}, "
                    f"input {name!r}: leave it out, or repair it."
                )
    return examples


def _folder(
    folder: Path,
    inputs: Sequence[ModelInput],
    count: int,
    normalization: Mapping[str, Normalization],
) -> Iterator[np.ndarray]:
    if not folder.is_dir():
        raise ValueError(f"representative_dataset={str(folder)!r} is no folder.")
    one = inputs[0]
    if len(inputs) != 1 or len(one.shape) != 4 or one.shape[-1] not in (1, 3):
        raise ValueError(
            "A folder of images is for a model with one image input; the inputs are "
            f"{[(i.name, i.shape) for i in inputs]}: give arrays or batches."
        )
    if one.name not in normalization:
        raise ValueError(
            "A folder of images needs normalization=(mean, std), to take pixels to the model's "
            "input; (0, 1) for a model that takes 0..255."
        )
    height, width = one.shape[1:3]
    if height is None or width is None:
        raise ValueError("A folder of images needs fixed sizes: pass input_shape=.")
    files = find_photos(folder)
    if not files:
        raise ValueError(
            f"representative_dataset: there are no photos in {folder} "
            f"({', '.join(PHOTO_SUFFIXES)}), nor in its sub-folders."
        )
    chosen = np.linspace(0, len(files) - 1, min(count, len(files))).astype(int)
    for _, pixels in read_photos([files[i] for i in chosen], (height, width), one.shape[-1]):
        yield normalization[one.name].apply(pixels[None])


def _batches(dataset: Any, inputs: Sequence[ModelInput]) -> Iterable[Any]:
    if dataset is None:
        raise ValueError(
            "This quantization measures ranges: pass representative_dataset= with a few hundred "
            "examples, in the form that the model takes."
        )
    if callable(dataset) and not hasattr(dataset, "__iter__") and not hasattr(dataset, "__array__"):
        dataset = dataset()  # TFLiteConverter's habit: a function that returns a generator
    if hasattr(dataset, "__array__") or isinstance(dataset, Mapping):
        return [dataset]
    if isinstance(dataset, (list, tuple)) and dataset and _is_array(dataset[0]):
        if len(inputs) > 1 and len(dataset) == len(inputs):
            return [tuple([list(dataset)])]  # one array for each input
        first = np.shape(dataset[0])
        if len(first) == len(inputs[0].shape) - 1:  # a list of examples
            return [np.stack([np.asarray(d) for d in dataset])]
        if isinstance(dataset, tuple):  # (x, y) as arrays
            return [dataset]
    if not hasattr(dataset, "__iter__") and hasattr(dataset, "__getitem__"):
        return _sequence(dataset)  # keras.utils.PyDataset
    if not hasattr(dataset, "__iter__"):
        raise ValueError(
            f"representative_dataset is a {type(dataset).__name__}: give a tf.data.Dataset, arrays "
            "or an iterable of batches."
        )
    return dataset


def _sequence(dataset: Any) -> Iterator[Any]:
    for index in range(len(dataset)):
        yield dataset[index]


def _is_array(value: Any) -> bool:
    return hasattr(value, "__array__") or (
        isinstance(value, list) and bool(value) and isinstance(value[0], (int, float, list))
    )


def _features(batch: Any, inputs: Sequence[ModelInput]) -> Any:
    """`x` of `x`, `(x,)`, `(x, y)` and `(x, y, weights)`; lists are inputs, tuples are batches."""
    if isinstance(batch, tuple) and 1 <= len(batch) <= 3:
        several = len(inputs) > 1 and len(batch) == len(inputs)
        if not (several and all(_is_array(b) for b in batch) and _fit(batch, inputs)):
            return batch[0]
    if isinstance(batch, list) and len(inputs) == 1 and batch:
        if len(batch) == 1:
            return batch[0]
        if np.ndim(batch[0]) == len(inputs[0].shape):
            raise ValueError(
                f"representative_dataset yields lists of {len(batch)} arrays, and the model has one "
                f"input, {inputs[0].name!r}: a list stands for several inputs. Yield x, or tuples "
                "(x, y)."
            )
    return batch


def _fit(batch: Sequence[Any], inputs: Sequence[ModelInput]) -> bool:
    return all(
        np.ndim(b) == len(i.shape) and np.shape(b)[1:] == i.shape[1:]
        for b, i in zip(batch, inputs, strict=True)
    )


def _by_name(features: Any, inputs: Sequence[ModelInput]) -> dict[str, np.ndarray]:
    names = [i.name for i in inputs]
    if isinstance(features, Mapping):
        missing = [n for n in names if n not in features]
        if missing:
            raise ValueError(
                f"representative_dataset has the inputs {sorted(features)}; the model's are {names}."
            )
        values = [features[n] for n in names]
    elif len(inputs) > 1:
        values = list(features)
    else:
        values = [features]
    if len(values) != len(inputs):
        raise ValueError(
            f"representative_dataset gives {len(values)} inputs and the model has {names}."
        )
    result = {}
    for one, value in zip(inputs, values, strict=True):
        try:
            array = np.asarray(value)
        except ValueError:
            raise ValueError(
                f"representative_dataset: input {one.name!r} is a list of arrays of different "
                "shapes. Yield one array for each input, or tuples (x, y)."
            ) from None
        want = one.shape[1:]
        if array.shape == want and None not in want:  # single examples, not batched
            array = array[None]
        fits = array.ndim == len(one.shape) and all(
            w in (None, h) for w, h in zip(want, array.shape[1:], strict=True)
        )
        if not fits:
            raise ValueError(
                f"representative_dataset has examples of shape {array.shape[1:]} for input "
                f"{one.name!r}, and the model takes {want}: resize them as in training."
            )
        if one.dtype == "string" and array.dtype.kind in "USO":
            result[one.name] = array
            continue
        if array.dtype.kind not in "fiub":
            raise ValueError(
                f"representative_dataset: input {one.name!r} holds {array.dtype}, and the model takes "
                f"{one.dtype}: give numbers."
            )
        cast = array.astype(one.dtype)
        if cast.dtype.kind in "iu" and not np.array_equal(cast, array):
            raise ValueError(
                f"representative_dataset: input {one.name!r} holds {array.dtype} values that the "
                f"model's {one.dtype} cannot hold: give the numbers that the model was trained on."
            )
        result[one.name] = cast
    return result
