"""What the signatures of a served model compute, and in which form.

    functions, left_out = signatures(traced, labels, normalization, scores="auto", top_k=5)
    functions["image_bytes"](encoded)           # {"classes": (batch, 5), "scores": (batch, 5)}

saved_model.py says what each of them is for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tflite_export.normalization import Normalization
from tflite_export.serving.photo_graph import read_photos
from tflite_export.serving.scores import activation, best_first, ending
from tflite_export.signature import ModelInput
from tflite_export.traced import Traced

DEFAULT, PREDICT, IMAGES, CLASSIFY = "serving_default", "predict", "image_bytes", "classify"

_Answer = Callable[[Sequence[Any]], dict[str, Any]]


def signatures(
    traced: Traced,
    labels: Sequence[str] | None,
    normalization: Normalization | None,
    scores: str,
    top_k: int | None,
) -> tuple[dict[str, Any], dict[str, str]]:
    """{name: concrete function}, and {name: why there is none} of those that the model cannot have.

    Raises:
        ValueError: no output is for so many labels, or nothing shows how to make scores of it.
    """
    import tensorflow as tf

    functions: dict[str, Any] = {DEFAULT: traced.function, PREDICT: traced.function}
    left_out: dict[str, str] = {}
    answer = _answerer(traced, labels, scores, top_k)
    pixels = None
    if normalization is not None:
        pixels = _concrete(tf, lambda files: _pixels(tf, files, traced, normalization), IMAGES)
        functions[IMAGES] = _concrete(tf, lambda files: answer([pixels(files)]), IMAGES)
    if labels is not None:
        try:
            read = _parser(tf, traced, pixels)
        except ValueError as error:
            left_out[CLASSIFY] = str(error)
        else:
            functions[CLASSIFY] = _concrete(tf, lambda inputs: answer(read(inputs)), "inputs")
    return functions, left_out


def _answerer(
    traced: Traced, labels: Sequence[str] | None, scores: str, top_k: int | None
) -> _Answer:
    """From a list of the model's inputs to what is answered: classes and scores where there are labels."""
    if labels is None:
        if scores != "auto" or top_k is not None:
            raise ValueError("scores= and top_k= are about classes: give labels= too.")
        return lambda inputs: traced.function(*inputs)
    if top_k is not None and not (isinstance(top_k, int) and 1 <= top_k <= len(labels)):
        raise ValueError(
            f"top_k={top_k!r}: give a whole number up to {len(labels)}, that of the labels."
        )
    place = _labelled(traced, labels)
    one = traced.outputs[place]
    made = activation(_tensor(traced, place), scores, int(one.shape[-1] or 1))
    return lambda inputs: best_first(traced.function(*inputs)[one.name], labels, made, top_k)


def _tensor(traced: Traced, place: int) -> Any:
    """An output in the graph, where TensorFlow sorts them by name."""
    names = sorted(o.name for o in traced.outputs)
    return traced.function.outputs[names.index(traced.outputs[place].name)]


def _labelled(traced: Traced, labels: Sequence[str]) -> int:
    """The place of the output that the labels are for."""
    flat = {n: o.shape[-1] for n, o in enumerate(traced.outputs) if len(o.shape) == 2}
    for units in (len(labels), 1 if len(labels) == 2 else None):
        fit = [place for place, size in flat.items() if size == units]
        probable = [n for n in fit if ending(_tensor(traced, n)) in ("softmax", "sigmoid")]
        if fit:
            return probable[0] if len(probable) == 1 else fit[0]
    shapes = {o.name: o.shape for o in traced.outputs}
    raise ValueError(
        f"{len(labels)} labels were given, and the outputs have the shapes {shapes}: a server answers "
        "with labels where one is (batch, classes). Give one label for each class, or none."
    )


def _concrete(tf: Any, function: Callable[[Any], Any], name: str) -> Any:
    spec = tf.TensorSpec((None,), tf.string, name=name)
    return tf.function(function, autograph=False).get_concrete_function(spec)


def _pixels(tf: Any, encoded: Any, traced: Traced, normal: Normalization) -> Any:
    one = traced.inputs[0]
    height, width, channels = (int(size or 0) for size in one.shape[1:])
    pixels = read_photos(encoded, (height, width), channels)
    normalized = (pixels - tf.constant(normal.mean)) / tf.constant(normal.std)
    return tf.cast(normalized, one.dtype)


def _parser(tf: Any, traced: Traced, pixels: Any) -> Callable[[Any], Sequence[Any]]:
    """From serialised `tf.train.Example`s to the model's inputs; of files where `pixels` reads them."""
    if pixels is not None:
        feature = {IMAGES: tf.io.FixedLenFeature((), tf.string)}
        return lambda inputs: [pixels(tf.io.parse_example(inputs, feature)[IMAGES])]
    features = {one.name: _feature(tf, one) for one in traced.inputs}

    def read(inputs: Any) -> Sequence[Any]:
        parsed = tf.io.parse_example(inputs, features)
        return [tf.cast(parsed[one.name], one.dtype) for one in traced.inputs]

    return read


def _feature(tf: Any, one: ModelInput) -> Any:
    kind = tf.as_dtype(one.dtype)
    if kind != tf.string:
        kind = tf.float32 if kind.is_floating else tf.int64
    sizes = one.shape[1:]
    if None not in sizes:
        return tf.io.FixedLenFeature(sizes, kind)
    if None in sizes[1:]:
        raise ValueError(
            f"A tf.train.Example is flat, and input {one.name!r} has the open sizes {sizes}: pass "
            "input_shape=."
        )
    # Shorter ones are filled up with zeros at the end, as Keras pads texts.
    return tf.io.FixedLenSequenceFeature(sizes[1:], kind, allow_missing=True)
