"""Examples as requests to a served model, in the form that each of its signatures takes.

records = records_of(functions, traced, examples, normalization)     # for warmup.write
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tflite_export.normalization import Normalization
from tflite_export.serving.signatures import CLASSIFY, IMAGES
from tflite_export.serving.warmup import classify_record, predict_record
from tflite_export.traced import Traced


def records_of(
    functions: Mapping[str, Any],
    traced: Traced,
    examples: Sequence[Mapping[str, np.ndarray]],
    normal: Normalization | None,
) -> list[Any]:
    """Two of each signature: of one example, and of all together."""
    if not examples:
        return []
    rows = [_as_sent(example, traced, normal) for example in examples]
    batches = [rows[:1], rows] if len(rows) > 1 else [rows]
    records = []
    for name in functions:
        for batch in batches:
            if name == IMAGES:
                encoded = np.array([row[IMAGES] for row in batch], object)
                records.append(predict_record(name, {IMAGES: encoded}))
            elif name == CLASSIFY:
                records.append(classify_record(name, [_tf_example(row, normal) for row in batch]))
            else:
                records.append(
                    predict_record(
                        name, {i.name: stacked([r[i.name] for r in batch]) for i in traced.inputs}
                    )
                )
    return records


def _as_sent(
    example: Mapping[str, np.ndarray], traced: Traced, normal: Normalization | None
) -> dict[str, Any]:
    """An example by the names of the served signature; of an image its file too, without loss."""
    sent: dict[str, Any] = {
        served.name: example[own.name].astype(object if served.dtype == "string" else served.dtype)
        for served, own in zip(traced.inputs, traced.signature.inputs, strict=True)
    }
    if normal is not None:
        pixels = np.round(normal.invert(sent[traced.inputs[0].name][0])).astype("uint8")
        sent[IMAGES] = _png(pixels)
    return sent


def _png(pixels: np.ndarray) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(stream, "PNG")
    return stream.getvalue()


def stacked(rows: Sequence[np.ndarray]) -> np.ndarray:
    """One array; shorter rows are filled up with zeros (or empty strings) at the end."""
    rows = [row.astype(object) if row.dtype.kind in "USO" else row for row in rows]
    sizes = np.max([row.shape[1:] for row in rows], axis=0).astype(int)
    fill = "" if rows[0].dtype == object else 0
    return np.concatenate(
        [
            np.pad(
                row,
                [(0, 0), *((0, s - h) for s, h in zip(sizes, row.shape[1:], strict=True))],
                constant_values=fill,
            )
            for row in rows
        ]
    )


def _tf_example(row: Mapping[str, Any], normal: Normalization | None) -> Any:
    import tensorflow as tf

    features = {}
    for name, value in ({IMAGES: row[IMAGES]} if normal is not None else row).items():
        flat = [value] if isinstance(value, bytes) else value.ravel().tolist()
        if isinstance(value, bytes) or value.dtype == object:
            flat = [v if isinstance(v, bytes) else str(v).encode() for v in flat]
            features[name] = tf.train.Feature(bytes_list=tf.train.BytesList(value=flat))
        elif value.dtype.kind == "f":
            features[name] = tf.train.Feature(float_list=tf.train.FloatList(value=flat))
        else:
            features[name] = tf.train.Feature(int64_list=tf.train.Int64List(value=map(int, flat)))
    return tf.train.Example(features=tf.train.Features(feature=features))
