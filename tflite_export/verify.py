"""Does the file answer as the Keras model does?

    result = verify(model, exported, test)        # test yields x, (x, y) or (x, y, weights)
    print(result)
    result.raise_if_worse(agreement=0.99, accuracy_drop=0.01)

Works for any two of: a Keras model, what `export` returned, the path or bytes of a `.tflite` from
anywhere. The data are in the form that the *model* takes; where the file takes raw pixels, they are
mapped back to pixels by the normalisation that the file carries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tflite_export import metadata
from tflite_export.normalization import Normalization
from tflite_export.runtime import Interpreter, content_of
from tflite_export.verification import Comparison, Verification, VerificationError

__all__ = ["Comparison", "Verification", "VerificationError", "verify"]

_Answers = dict[str, np.ndarray]


def verify(
    model: Any,
    exported: Any,
    data: Any,
    labels: Any = None,
    *,
    output: str | None = None,
    threshold: float | None = None,
    normalization: Any = None,
    batch_size: int = 64,
    max_examples: int | None = None,
    num_threads: int | None = None,
) -> Verification:
    """Compares the outputs of two models on the same examples.

    Args:
        model: the reference: a Keras model, or a file as below.
        exported: what `export` returned, a path, bytes, an `Interpreter`, or a Keras model.
        data: arrays `(examples, …)`, a dict of them by input name, a pair `(x, y)` of them, or an
            iterable of batches `x`, `(x, y)` or `(x, y, weights)`; as the model takes it.
        labels: true classes `(examples,)` or one-hot, where `data` does not yield them.
        output: name of the output that the headline figures speak of; the first by default.
        threshold: where the last axis has one unit, an answer is "yes" above it. Without it, such
            an output is a plain number: errors are given, and no agreement.
        normalization: overrides the one that the file carries.
        batch_size: for arrays, and for files with an open batch.
        max_examples: stops after so many.

    Returns:
        A Verification. Top-1 is over the last axis, so that segmentation counts each pixel.

    Raises:
        ValueError: no examples; outputs that differ in number or shape; labels that do not fit.
    """
    reference = _runner(model, normalization, batch_size, num_threads)
    other = _runner(exported, normalization, batch_size, num_threads)
    comparisons: dict[str, Comparison] = {}
    examples = 0
    for x, y in _batches(data, labels, batch_size, max_examples):
        ours, theirs = reference(x), other(x)
        if len(ours) != len(theirs):
            raise ValueError(
                f"The reference has the outputs {list(ours)}, and the other {list(theirs)}."
            )
        for position, (name, want) in enumerate(ours.items()):
            there, have = list(theirs.items())[position]
            # A file's names are the ones that people see; Keras's predict has none for lists.
            name = name if hasattr(exported, "predict_on_batch") else there
            comparison = comparisons.setdefault(name, Comparison(name, threshold))
            comparison.add(want, have, _labels_of(y, name, position, len(ours)))
        examples += len(next(iter(ours.values())))
    if not examples:
        raise ValueError("verify was given no examples: an empty proof proves nothing.")
    if output is not None and output not in comparisons:
        raise ValueError(f"output={output!r}: the outputs are {list(comparisons)}.")
    return Verification(
        examples=examples,
        outputs=comparisons,
        output=output or next(iter(comparisons)),
        labels=_class_names(exported),
    )


def _runner(
    model: Any, normalization: Any, batch_size: int, num_threads: int | None
) -> Callable[[Any], _Answers]:
    if hasattr(model, "predict_on_batch"):
        return _keras(model)
    if not isinstance(model, Interpreter):
        interpreter = Interpreter(model, num_threads=num_threads)
        notes = metadata.own_notes(content_of(model)[0])
    else:
        interpreter, notes = model, {}
    pixels = {n: Normalization.parse(p) for n, p in notes.get("normalized_in_graph", {}).items()}
    if normalization is not None:
        given = normalization
        if not isinstance(given, Mapping):
            given = {interpreter.inputs[0].name: given}
        integer = {i.name for i in interpreter.inputs if i.dtype in ("uint8", "int8")}
        pixels = {n: Normalization.parse(p) for n, p in given.items() if n in integer}
    dtypes = {i.name: i.dtype for i in interpreter.inputs}

    def to_pixels(name: str, value: Any) -> np.ndarray:
        value = np.asarray(value)
        if name not in pixels:
            return value
        steps = np.round(pixels[name].invert(value))
        if dtypes[name] == "int8":
            steps = steps - 128
        return steps.astype(dtypes[name])

    def run(x: Any) -> _Answers:
        names = list(dtypes)
        if isinstance(x, Mapping):
            x = {name: to_pixels(name, x[name]) for name in names if name in x}
        elif isinstance(x, (list, tuple)) and len(names) > 1:
            x = [to_pixels(n, v) for n, v in zip(names, x, strict=True)]
        elif isinstance(x, (list, tuple)) and len(x) == 1:
            x = to_pixels(names[0], x[0])
        else:
            x = to_pixels(names[0], x)
        if isinstance(x, dict) and len(x) != len(names):
            raise ValueError(f"The data lack the inputs {[n for n in names if n not in x]}.")
        answer = interpreter.run(x, batch_size=batch_size)
        return answer if isinstance(answer, dict) else {interpreter.outputs[0].name: answer}

    return run


def _keras(model: Any) -> Callable[[Any], _Answers]:
    import keras

    def run(x: Any) -> _Answers:
        answer = model.predict_on_batch(x)
        paths = keras.tree.flatten_with_path(answer)
        return {"/".join(map(str, path)) or "output": np.asarray(value) for path, value in paths}

    return run


def _batches(
    data: Any, labels: Any, batch_size: int, max_examples: int | None
) -> Iterator[tuple[Any, Any]]:
    """(x, y or None) in batches, at most `max_examples` examples in all."""
    left = max_examples
    given = None if labels is None else np.asarray(labels)
    start = 0
    for x, y in _raw_batches(data, batch_size):
        size = len(_leaves(x)[0])
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


def _raw_batches(data: Any, batch_size: int) -> Iterator[tuple[Any, Any]]:
    x, y = data, None
    whole = isinstance(data, Mapping) or hasattr(data, "__array__")
    if isinstance(data, (tuple, list)) and 1 <= len(data) <= 3:
        whole = isinstance(data, tuple) and all(_is_arrays(d) for d in data[:2])
        x, y = data[0], data[1] if len(data) > 1 else None
    if whole:
        for start in range(0, len(_leaves(x)[0]), batch_size):
            part = slice(start, start + batch_size)
            yield _cut(x, part), _cut(y, part)
        return
    if not hasattr(data, "__iter__") and hasattr(data, "__getitem__"):  # keras.utils.PyDataset
        data = (data[i] for i in range(len(data)))
    for batch in data:
        if isinstance(batch, tuple):
            yield _cut(batch[0]), _cut(batch[1]) if len(batch) > 1 else None
        else:
            yield _cut(batch), None


def _is_arrays(value: Any) -> bool:
    return value is None or hasattr(value, "__array__") or isinstance(value, (Mapping, list))


def _leaves(structure: Any) -> list[Any]:
    if isinstance(structure, Mapping):
        return [leaf for value in structure.values() for leaf in _leaves(value)]
    if isinstance(structure, (list, tuple)) and structure and hasattr(structure[0], "__array__"):
        return list(structure)
    return [structure]


def _cut(structure: Any, part: slice = slice(None)) -> Any:
    """The rows `part` of every array, as NumPy arrays."""
    if structure is None:
        return None
    if isinstance(structure, Mapping):
        return {k: _cut(v, part) for k, v in structure.items()}
    if isinstance(structure, (list, tuple)) and structure and hasattr(structure[0], "__array__"):
        return [_cut(v, part) for v in structure]
    return np.asarray(structure)[part]


def _labels_of(y: Any, name: str, position: int, count: int) -> np.ndarray | None:
    if isinstance(y, Mapping):
        return y.get(name)
    if isinstance(y, list):
        return y[position] if len(y) == count else None
    return y if count == 1 or position == 0 else None


def _class_names(exported: Any) -> Sequence[str] | None:
    if isinstance(exported, Interpreter) or hasattr(exported, "predict_on_batch"):
        return None
    try:
        return metadata.read_metadata(exported).labels
    except ValueError:  # no metadata, or metadata of another kind
        return None
