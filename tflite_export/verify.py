"""Does the file answer as the Keras model does?

    result = verify(model, exported, test)        # test yields x, (x, y) or (x, y, weights)
    print(result)
    result.raise_if_worse(agreement=0.99, accuracy_drop=0.01)

Works for any two of: a Keras model, what `export` returned, the path or bytes of a `.tflite` from
anywhere. The data are in the form that the *model* takes; where the file takes raw pixels, they are
mapped back to pixels by the normalisation that the file carries.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tflite_export import metadata
from tflite_export.batches import batches, length, refuse_nan
from tflite_export.normalization import Normalization
from tflite_export.pairing import labels_by_output, pair
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
    outputs: Mapping[str, str] | None = None,
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
        labels: true classes `(examples,)` or one-hot, where `data` does not yield them. Where
            there are several outputs, `data` may yield a list of labels or a dict by output name.
        output: name of the output that the headline figures speak of, and that plain labels are
            for. By default the one that has labels, or class names in the file, or the first.
        outputs: {the reference's name: the other's} of the outputs to compare. By default those
            of equal names belong together; where the names differ, those of equal places.
        threshold: where the last axis has one unit, an answer is "yes" above it. Without it, such
            an output is a plain number: errors are given, and no agreement.
        normalization: overrides the one that the file carries.
        batch_size: for arrays, and for files with an open batch.
        max_examples: stops after so many.

    Returns:
        A Verification. Top-1 is over the last axis, so that segmentation counts each pixel.

    Raises:
        ValueError: no examples, or NaN in one; outputs that differ in number or shape, or of which
            nothing says which is which; data or labels that do not fit.
    """
    reference = runner(model, normalization, batch_size, num_threads)
    other = runner(exported, normalization, batch_size, num_threads, _real_valued(model))
    class_names, labelled = _class_names(exported)
    comparisons: dict[str, Comparison] = {}
    pairs: list[tuple[str, str]] = []
    examples, main = 0, None
    for x, y in batches(data, labels, batch_size, max_examples):
        refuse_nan(x, examples)
        ours, theirs = reference(x), other(x)
        if not examples:
            pairs = pair(ours, theirs, outputs)
            # A file's names are the ones that people see.
            shown = [a if hasattr(exported, "predict_on_batch") else b for a, b in pairs]
            comparisons = {name: Comparison(name, threshold) for name in shown}
            named = None if labelled is None else list(theirs)[labelled]
            main = _place(output, pairs, shown, named)
            names = [
                [s, *p, *_layer_names(model, p[0], list(ours))]
                for s, p in zip(shown, pairs, strict=True)
            ]
        truth = labels_by_output(y, [ours[a] for a, _ in pairs], names, main)
        for place, ((a, b), one) in enumerate(zip(pairs, comparisons.values(), strict=True)):
            one.add(ours[a], theirs[b], truth.get(place))
        examples += length(x)
    if not examples:
        raise ValueError("verify was given no examples: an empty proof proves nothing.")
    shown = list(comparisons)
    if output is None:  # labels in the data say more than class names in the file
        main = next((i for i, c in enumerate(comparisons.values()) if c.accuracy is not None), main)
    main = main or 0
    return Verification(
        examples=examples,
        outputs=comparisons,
        output=shown[main],
        labels=class_names if named == pairs[main][1] else None,
    )


def _place(
    output: str | None, pairs: Sequence[tuple[str, str]], shown: Sequence[str], named: str | None
) -> int | None:
    """The place of the headline output: the one asked for, else the one with class names."""
    if output is None:
        theirs = [b for _, b in pairs]
        return theirs.index(named) if named in theirs else None
    for names in (shown, [a for a, _ in pairs]):
        if output in names:
            return names.index(output)
    raise ValueError(f"output={output!r}: the outputs are {list(shown)}.")


def _layer_names(model: Any, name: str, ours: Sequence[str]) -> list[str]:
    """What Keras calls this output: labels by output name may use "dense_3" too."""
    listed = list(getattr(model, "output_names", None) or ())
    return [listed[ours.index(name)]] if len(listed) == len(ours) else []


def _real_valued(model: Any) -> bool:
    """Whether numbers given to `model` are real values, and never steps of a quantised input."""
    if hasattr(model, "predict_on_batch"):
        return True
    interpreter = model if isinstance(model, Interpreter) else Interpreter(model)
    return all(i.quantization is None for i in interpreter.inputs)


def runner(
    model: Any,
    normalization: Any,
    batch_size: int,
    num_threads: int | None,
    real_valued: bool = False,
) -> Callable[[Any], _Answers]:
    """A function from one batch of inputs, as the model takes them, to {output name: answers}.

    Args:
        model: a Keras model, what `export` returned, a path, bytes, or an `Interpreter`.
        normalization: overrides the one that a file carries.
        batch_size: for files with an open batch.
        real_valued: numbers are real values, never steps of a quantised input.
    """
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
    infos = {i.name: i for i in interpreter.inputs}

    def to_pixels(name: str, value: Any) -> np.ndarray:
        value, dtype = np.asarray(value), infos[name].dtype
        if name not in pixels:
            # A quantised input takes integers for its own steps, and these are values.
            real = (
                real_valued and infos[name].quantization is not None and value.dtype.kind in "iub"
            )
            return value.astype("float32") if real else value
        if value.dtype == "uint8" and pixels[name] != Normalization.parse((0, 1)):
            raise ValueError(
                f"Input {name!r} is given as uint8, and values are wanted as the model takes them, (pixel - "
                f"mean) / std with {pixels[name].to_json()}: normalise the pixels."
            )
        steps = np.round(pixels[name].invert(value))
        if dtype == "int8":
            steps = steps - 128
        return steps.astype(dtype)

    def run(x: Any) -> _Answers:
        names = list(infos)
        if isinstance(x, Mapping):
            x = {name: to_pixels(name, x[name]) for name in names if name in x}
        elif isinstance(x, (list, tuple)) and len(x) == len(names) > 1:
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

    from tflite_export.signature import as_called, output_names

    def run(x: Any) -> _Answers:
        if isinstance(model, keras.Model):
            x = as_called(model, x)
        try:
            answer = model.predict_on_batch(x)
        except Exception as error:
            shapes = keras.tree.map_structure(np.shape, x)
            lines = re.sub(r"\x1b\[\d+m", "", str(error)).splitlines()
            # Keras opens with "Exception encountered when calling", and an empty line.
            said = [s for s in lines if s.strip() and not s.startswith("Exception enc")]
            raise ValueError(
                f"{model.name!r} does not take data of the shapes {shapes}: "
                f"{said[0][:300] if said else type(error).__name__}"
            ) from error
        names = output_names(model, answer)
        return dict(zip(names, map(np.asarray, keras.tree.flatten(answer)), strict=True))

    return run


def _class_names(exported: Any) -> tuple[Sequence[str] | None, int | None]:
    """Class names that the file carries, and the place of the output that they are for."""
    if isinstance(exported, Interpreter) or hasattr(exported, "predict_on_batch"):
        return None, None
    try:
        found = metadata.read_metadata(exported)
    except ValueError:  # no metadata, or metadata of another kind
        return None, None
    places = [i for i, o in enumerate(found.outputs) if o.label_file]
    return found.labels, places[0] if places else None
