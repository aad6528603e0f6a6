"""Examples and labels in batches, from the forms of data that `fit` and `evaluate` take.

for x, y in batches((photos, labels), None, batch_size=64, max_examples=None): ...
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np


def batches(
    data: Any, labels: Any, batch_size: int, max_examples: int | None
) -> Iterator[tuple[Any, Any]]:
    """(x, y or None) in batches, at most `max_examples` examples in all.

    Raises:
        ValueError: examples and labels differ in number, or `data` is a list `[x, y]`.
    """
    left = max_examples
    given = None if labels is None else np.asarray(labels)
    start = 0
    for x, y in _raw_batches(data, batch_size):
        size = length(x)
        if given is not None:
            y = given[start : start + size]
            if len(y) != size:
                raise ValueError(f"{len(given)} labels were given, and there are more examples.")
        start += size
        if left is not None and size > left:
            x, y, size = _cut(x, slice(0, left)), _cut(y, slice(0, left)), left
        if size:
            yield x, y
        if left is not None:
            left -= size
            if left <= 0:
                return
    if given is not None and start < len(given):
        raise ValueError(f"{len(given)} labels were given, and {start} examples.")


def length(x: Any) -> int:
    """Number of examples in a batch."""
    first = leaves(x)[0]
    if np.ndim(first) == 0:
        raise ValueError(f"An example is {first!r}: give arrays (examples, …), or batches of them.")
    return len(first)


def leaves(structure: Any) -> list[Any]:
    """The arrays of a batch."""
    if isinstance(structure, Mapping):
        return [leaf for value in structure.values() for leaf in leaves(value)]
    if isinstance(structure, (list, tuple)) and structure and hasattr(structure[0], "__array__"):
        return list(structure)
    return [structure]


def refuse_nan(x: Any, before: int) -> None:
    """Raise ValueError for NaN in a batch: a ReLU makes 0 of it and an integer input some pixel, so that the
    answers would not tell."""
    for array in leaves(x):
        values = np.asarray(array)
        if values.dtype.kind != "f" or not np.isnan(values).any():
            continue
        number = int(np.isnan(values).reshape(len(values), -1).any(1).argmax())
        raise ValueError(
            f"The data hold NaN in example {before + number}: leave it out, or repair it."
        )


def _raw_batches(data: Any, batch_size: int) -> Iterator[tuple[Any, Any]]:
    x, y = data, None
    whole = isinstance(data, Mapping) or hasattr(data, "__array__")
    if isinstance(data, (tuple, list)) and 1 <= len(data) <= 3:
        whole = isinstance(data, tuple) and all(_is_arrays(d) for d in data[:2])
        x, y = data[0], data[1] if len(data) > 1 else None
    if whole:
        count = length(x)
        if any(length(leaf) != count for leaf in leaves(x)):
            raise ValueError(
                f"Inputs of different lengths: {[length(leaf) for leaf in leaves(x)]}."
            )
        for leaf in [] if y is None else leaves(y):
            if len(leaf) != count:
                raise ValueError(f"{len(leaf)} labels were given, and {count} examples.")
        for start in range(0, count, batch_size):
            part = slice(start, start + batch_size)
            yield _cut(x, part), _cut(y, part)
        return
    if isinstance(data, list):
        _require_batches(data)
    if not hasattr(data, "__iter__") and hasattr(data, "__getitem__"):  # keras.utils.PyDataset
        data = (data[i] for i in range(len(data)))
    if not hasattr(data, "__iter__"):
        raise ValueError(
            f"The data are a {type(data).__name__}: give arrays, or an iterable of batches."
        )
    for batch in data:
        if isinstance(batch, tuple):
            yield _cut(batch[0]), _cut(batch[1]) if len(batch) > 1 else None
        else:
            yield _cut(batch), None


def _require_batches(data: list[Any]) -> None:
    shapes = [np.shape(d) for d in data if hasattr(d, "__array__")]
    if len(shapes) == len(data) and len({s[1:] for s in shapes}) > 1:
        raise ValueError(
            f"A list is read as batches, and these arrays have the shapes {shapes}: give x and y as "
            "the tuple (x, y), and several inputs as a dict by name or as ([a, b], y)."
        )


def _is_arrays(value: Any) -> bool:
    return value is None or hasattr(value, "__array__") or isinstance(value, (Mapping, list))


def _cut(structure: Any, part: slice = slice(None)) -> Any:
    """The rows `part` of every array, as NumPy arrays."""
    if structure is None:
        return None
    if isinstance(structure, Mapping):
        return {k: _cut(v, part) for k, v in structure.items()}
    if isinstance(structure, (list, tuple)) and structure and hasattr(structure[0], "__array__"):
        return [_cut(v, part) for v in structure]
    array = np.asarray(structure)
    return array[part] if array.ndim else array
