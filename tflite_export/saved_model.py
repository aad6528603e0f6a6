"""A version that TF Serving loads as soon as it is there, and that answers at its first request.

    served = export_saved_model(student, "serving/flowers", warmup=train, labels=names,
                                normalization=(127.5, 127.5))
    served.path, served.version             # serving/flowers/4, 4
    served.signatures                       # serving_default, predict, image_bytes, classify

The version takes the next free number and appears whole (version_folder.py). Its signatures:

- `serving_default`, and `predict` as another name for it: the model's inputs and outputs by their
  names, any batch size.
- `image_bytes`, where `normalization` says what pixels mean: JPEG or PNG files (batch,) in, which
  the graph reads as training did (photo_graph.py). With labels it answers `classes`, strings, and
  `scores`, probabilities, both (batch, k) and the best first; without, what `predict` answers.
- `classify`, with labels: TF Serving's Classify call. `tf.train.Example`s with a feature
  `image_bytes`, or else one for each input by its name, in; `classes` and `scores` out.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tflite_export import representative
from tflite_export.chatter import hushed
from tflite_export.class_names import class_names
from tflite_export.normalization import Normalization
from tflite_export.serving.requests import records_of, stacked
from tflite_export.serving.signatures import CLASSIFY, DEFAULT, PREDICT, signatures
from tflite_export.serving.version_folder import new_version
from tflite_export.serving.warmup import replay, require_messages, write
from tflite_export.signature import ModelInput
from tflite_export.traced import Traced, require_close, trace

CLASSIFY_METHOD = "tensorflow/serving/classify"  # CLASSIFY_METHOD_NAME


@dataclass(frozen=True)
class ServedSignature:
    """What a signature takes and answers: names, shapes (None where any size goes) and types."""

    inputs: tuple[ModelInput, ...]
    outputs: tuple[ModelInput, ...]


@dataclass(frozen=True)
class ExportedSavedModel:
    """A version that `export_saved_model` wrote.

    Attributes:
        path: of its folder.
        version: its number.
        size_bytes: of all its files.
        signatures: by name.
        labels: what `classes` are, or None.
        normalization: of the pixels of `image_bytes`, or None.
        warmup_records: how many; each was answered by the written model.
        max_error: the largest difference between `serving_default` and Keras on the warm-up
            examples; None without them.
        left_out: {signature: why the model does not have it}.
    """

    path: Path
    version: int
    size_bytes: int
    signatures: Mapping[str, ServedSignature]
    labels: tuple[str, ...] | None
    normalization: Normalization | None
    warmup_records: int
    max_error: float | None
    left_out: Mapping[str, str] = field(default_factory=dict)

    def __fspath__(self) -> str:
        return str(self.path)


def export_saved_model(
    model: Any,
    folder: str | os.PathLike[str],
    warmup: Any = None,
    labels: Sequence[str] | None = None,
    normalization: Any = None,
    *,
    scores: str = "auto",
    top_k: int | None = None,
    input_shape: Any = None,
    num_warmup_examples: int = 8,
    tolerance: float = 1e-4,
) -> ExportedSavedModel:
    """Exports a Keras model as the next version in `folder`, for TF Serving.

    Args:
        model: functional, sequential, nested, or subclassed and called once. Sizes that it leaves
            open (the length of a text) stay open.
        folder: `<anything>/<model's name>`, which a server watches; made if there is none.
        warmup: examples in the form that the model takes, in the forms that `export` takes a
            representative data set in, also strings for a model that takes them. Of the first
            `num_warmup_examples` each signature gets two warm-up records, one example and all of
            them, which are answered here as the server will, and compared with Keras. Needs
            `pip install keras-distill[serving]`.
        labels: class names, in the order of the last axis of an output (batch, classes); of several that
            fit, the one that ends in a softmax or sigmoid is meant, or else the first. Two for one unit are
            no and yes.
        normalization: `(mean, std)`, which take pixels 0..255 to the input of a model with one
            image input; gives it the signature `image_bytes`.
        scores: what makes probabilities of the labelled output: "softmax" or "sigmoid" for logits,
            "identity" for probabilities. "auto" sees it in the graph, and takes logits of several
            classes for a softmax's, of one unit for a sigmoid's.
        top_k: so many classes are answered, all by default.
        input_shape: see `export`; for a model that was never told its sizes.
        tolerance: the largest difference to Keras, relative to the largest answer above 1.

    Raises:
        ValueError: see the sentence; then there is no new version.
        ImportError: `warmup` without TF Serving's messages.
    """
    if warmup is not None:
        require_messages()
    traced = trace(model, input_shape, "export_saved_model")
    normal = _normalization(normalization, traced)
    names = class_names(labels, one_line=False)
    functions, left_out = signatures(traced, names, normal, scores, top_k)
    examples = _examples(warmup, traced, num_warmup_examples, normal)
    records = records_of(functions, traced, examples, normal)
    max_error = None
    with new_version(folder) as version:
        _save(model, functions, version.building)
        if records:
            write(version.building, records)
            max_error = _checked(version.building, traced, examples, tolerance)
        size = sum(f.stat().st_size for f in version.building.rglob("*") if f.is_file())
    assert version.path is not None
    assert version.number is not None
    return ExportedSavedModel(
        path=version.path,
        version=version.number,
        size_bytes=size,
        signatures={n: _described(n, f, traced) for n, f in functions.items()},
        labels=names,
        normalization=normal,
        warmup_records=len(records),
        max_error=max_error,
        left_out=left_out,
    )


# What is asked for


def _normalization(pair: Any, traced: Traced) -> Normalization | None:
    if pair is None:
        return None
    one = traced.inputs[0]
    if len(traced.inputs) != 1 or len(one.shape) != 4 or one.shape[-1] not in (1, 3):
        raise ValueError(
            "normalization= is for a model with one image input (height, width, 1 or 3); the inputs "
            f"are {[(i.name, i.shape[1:]) for i in traced.inputs]}."
        )
    if None in one.shape[1:3]:
        raise ValueError(
            f"Photos are stretched to the input's size, and {one.name!r} has the open sizes "
            f"{one.shape[1:]}: pass input_shape=, for example input_shape=(96, 96, {one.shape[-1]})."
        )
    return Normalization.of_input(pair, one.name, one.dtype, one.shape[-1])


# The files


def _save(model: Any, functions: Mapping[str, Any], folder: Path) -> None:
    import tensorflow as tf

    root = tf.Module()
    root.kept = [v for function in functions.values() for v in function.variables]
    # Lookup tables of layers that take strings; the layers keep them in plain attributes.
    tables = tf.saved_model.experimental.TrackableResource
    root.tables = [
        value
        for layer in model._flatten_layers()
        for value in vars(layer).values()
        if isinstance(value, tables)
    ]
    with hushed():
        tf.saved_model.save(root, str(folder), signatures=dict(functions))
        if CLASSIFY in functions:
            updater = tf.compat.v1.saved_model.signature_def_utils.MethodNameUpdater(str(folder))
            updater.replace_method_name(CLASSIFY, CLASSIFY_METHOD)
            updater.save()


def _described(name: str, function: Any, traced: Traced) -> ServedSignature:
    if name in (DEFAULT, PREDICT):
        return ServedSignature(traced.inputs, traced.outputs)
    _, arguments = function.structured_input_signature
    given = function.structured_input_signature[0] or tuple(arguments.values())
    return ServedSignature(
        tuple(ModelInput(s.name, tuple(s.shape), s.dtype.name) for s in given),
        tuple(
            ModelInput(n, tuple(t.shape), t.dtype.name)
            for n, t in function.structured_outputs.items()
        ),
    )


# Warm-up


def _examples(
    data: Any, traced: Traced, count: int, normal: Normalization | None
) -> list[dict[str, np.ndarray]]:
    """By the names of the model's own signature, each with a batch of 1."""
    if data is None:
        return []
    given = {} if normal is None else {traced.signature.inputs[0].name: normal}
    return representative.read(
        data, traced.signature.inputs, count, given, called="warmup", counted="num_warmup_examples"
    )


def _checked(
    folder: Path, traced: Traced, examples: Sequence[Mapping[str, np.ndarray]], tolerance: float
) -> float:
    """The written model answers its warm-up records, and `serving_default` as Keras does."""
    answers = [a.outputs for a in replay(folder) if a.signature == DEFAULT]
    names = [i.name for i in traced.signature.inputs]
    together = {name: stacked([example[name] for example in examples]) for name in names}
    batches = [dict(examples[0])] + ([together] if len(examples) > 1 else [])
    largest = 0.0
    for batch, answer in zip(batches, answers, strict=True):
        want = traced.keras_answers(batch)
        have = [answer[o.name] for o in traced.outputs]
        largest = max(largest, require_close("The SavedModel", want, have, tolerance))
    return largest
