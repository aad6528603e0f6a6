"""Warm-up records: requests that TF Serving answers itself before a version gets real ones.

    write("serving/student/3", [predict_record("serving_default", {"image": photos})])
    answers = replay("serving/student/3")       # [Answer("serving_default", {"logits": …}), …]

The first request to a loaded model is slow. TF Serving reads `assets.extra/tf_serving_warmup_requests`
(TFRecords of `PredictionLog`) and answers them before it says that the version is available; it gives
the version up where one fails. So `replay` does the same with the SavedModel, before anybody gets it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

FILE = "assets.extra/tf_serving_warmup_requests"
MOST = 1000  # TF Serving reads no more


@dataclass(frozen=True)
class Answer:
    """What a signature answered to one record: {output name: array}."""

    signature: str
    outputs: Mapping[str, np.ndarray]


def predict_record(signature: str, inputs: Mapping[str, Any]) -> Any:
    """A `PredictionLog` of a Predict call; arrays (batch, …) by the signature's input names."""
    import tensorflow as tf

    log = _protos().PredictionLog()
    log.predict_log.request.model_spec.signature_name = signature
    for name, value in inputs.items():
        log.predict_log.request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return log


def classify_record(signature: str, examples: Sequence[Any]) -> Any:
    """A `PredictionLog` of a Classify call with `tf.train.Example`s."""
    log = _protos().PredictionLog()
    request = log.classify_log.request
    request.model_spec.signature_name = signature
    for example in examples:
        request.input.example_list.examples.add().ParseFromString(example.SerializeToString())
    return log


def write(version: str | os.PathLike[str], records: Sequence[Any]) -> Path:
    """Writes the records into a SavedModel's folder, and returns the file's path.

    Raises:
        ValueError: more of them than TF Serving reads.
    """
    import tensorflow as tf

    if len(records) > MOST:
        raise ValueError(f"{len(records)} warm-up records: TF Serving reads {MOST} at most.")
    path = Path(version) / FILE
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as file:
        for record in records:
            file.write(record.SerializeToString())
    return path


def replay(version: str | os.PathLike[str]) -> list[Answer]:
    """Loads the SavedModel and answers its warm-up records, in their order; [] where it has none.

    Raises:
        ValueError: a record is of a kind that `write` does not write, or names no signature.
        tf.errors.OpError: the model fails on one.
    """
    import tensorflow as tf

    version = os.fspath(version)
    path = Path(version) / FILE
    if not path.exists():
        return []
    loaded = tf.saved_model.load(version)  # keeps the variables that the functions read
    answers = []
    for content in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        log = _protos().PredictionLog.FromString(content)
        kind = log.WhichOneof("log_type")
        if kind == "predict_log":
            request = log.predict_log.request
            inputs = {n: tf.constant(tf.make_ndarray(t)) for n, t in request.inputs.items()}
        elif kind == "classify_log":
            request = log.classify_log.request
            examples = request.input.example_list.examples
            inputs = {"inputs": tf.constant([e.SerializeToString() for e in examples])}
        else:
            raise ValueError(f"{path} holds a record of the kind {kind!r}.")
        name = request.model_spec.signature_name
        if name not in loaded.signatures:
            raise ValueError(f"{path} calls {name!r}; {version} has {sorted(loaded.signatures)}.")
        outputs = loaded.signatures[name](**inputs)
        answers.append(Answer(name, {n: t.numpy() for n, t in outputs.items()}))
    return answers


def require_messages() -> None:
    """Raises ImportError where TF Serving's messages are not installed."""
    _protos()


def _protos() -> Any:
    try:
        from tensorflow_serving.apis import prediction_log_pb2
    except ImportError as error:
        raise ImportError(
            "Warm-up records are written with TF Serving's own messages: pip install "
            "'keras-distill[serving]', or leave warmup= out."
        ) from error
    return prediction_log_pb2
