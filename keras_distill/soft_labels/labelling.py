"""Labelling: the teacher answers every view of every example once, shard by shard.

label(teacher, source, folder, manifest, worker=0, num_workers=1)

A shard is written when all its rows are there. What is written is never asked for again: called anew after it
was killed, it goes on with the shards that are missing, and the batches that the teacher sees are the same.
"""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_distill import epoch
from keras_distill.soft_labels import shards, sketch
from keras_distill.soft_labels.manifest import Manifest
from keras_distill.soft_labels.sources import Source
from keras_distill.teachers import Teacher


def answering(teacher: Teacher, spec, manifest: Manifest | None = None):
    """Return the compiled function from a batch to the arrays of its rows, by their names.

    Args:
        teacher: who answers.
        spec: `tf.TensorSpec`s of `(x, y)` or `(x,)`, of any size.
        manifest: which of it is stored; None for logits and all inner layers as they are.
    """

    @tf.function(input_signature=spec, autograph=False)
    def answer(x, *labels):
        found = teacher.targets(x, *labels)
        rows = {"sketch": sketch.of(x)}
        for i, logits in enumerate(keras.tree.flatten(found.logits)):
            rows.update(_stored(f"logits/{i}", tf.cast(logits, tf.float32), manifest))
        for name, features in found.inner.items():
            rows[f"features/{name}"] = features
        return rows

    return answer


def _stored(name: str, logits, manifest: Manifest | None) -> dict:
    if manifest is None or manifest.top_k is None or manifest.top_k >= logits.shape[-1]:
        return {name: logits}
    values, indices = tf.math.top_k(logits, manifest.top_k)
    # What is left of the probability, in equal parts: log Σ exp of the others, divided by their number.
    total, top = (tf.reduce_logsumexp(tf.cast(one, tf.float64), -1) for one in (logits, values))
    left = total + tf.math.log(tf.maximum(-tf.math.expm1(top - total), 1e-12))
    left -= np.log(logits.shape[-1] - manifest.top_k)
    return {name: values, f"{name}/classes": indices, f"{name}/rest": left}


def label(
    teacher: Teacher,
    source: Source,
    folder: Path,
    manifest: Manifest,
    worker: int = 0,
    num_workers: int = 1,
    progress=None,
) -> int:
    """Write this worker's shards of all views that are missing; return how many examples there are.

    Raises:
        ValueError: an answer that is not finite, or does not fit into the dtype.
    """
    examples = manifest.examples
    for view in range(manifest.views):
        with epoch.showing(view):
            examples = _label_view(
                teacher, source, folder, manifest, view, (worker, num_workers), examples, progress
            )
    return examples or 0


def _label_view(teacher, source, folder, manifest, view, share, examples, progress) -> int:
    worker, num_workers = share
    size = manifest.rows_per_shard

    def wanted(shard: int) -> bool:
        return shard % num_workers == worker and not shards.place(folder, view, shard).exists()

    if examples is not None and not any(map(wanted, range(-(-examples // size)))):
        return examples
    dataset = source.batches()
    _same_data(dataset, folder, manifest, view)
    answer = answering(teacher, _any_batch(dataset.element_spec), manifest)
    rows, at = [], 0  # rows of the shard that has begun
    for x, *labels in dataset:
        count = len(keras.tree.flatten(x)[0])
        touched = range(at // size, (at + count - 1) // size + 1)
        asked = any(map(wanted, touched))
        batch = _rows(answer(x, *labels), manifest, at) if asked else np.empty(0, manifest.dtype)
        for shard in touched:
            start, stop = max(at, shard * size), min(at + count, (shard + 1) * size)
            if wanted(shard):
                rows.append(batch[start - at : stop - at])
                if stop == (shard + 1) * size:
                    shards.write(shards.place(folder, view, shard), np.concatenate(rows))
            if stop == (shard + 1) * size:
                rows = []
        at += count
        if progress is not None:
            progress(view, at)
    if rows:
        shards.write(shards.place(folder, view, at // size), np.concatenate(rows))
    if examples is not None and at != examples:
        raise ValueError(
            f"The {source.of} has {at} examples in view {view} and had {examples} before: give the data "
            "that was labelled first."
        )
    return at


def _same_data(dataset, folder: Path, manifest: Manifest, view: int) -> None:
    """Refuse data other than those of the shards that are there, and a second view that is the first."""
    for other in sorted({0, view}):
        if not shards.place(folder, other, 0).exists():
            continue
        reader = shards.Reader(folder, manifest.dtype, manifest.rows_per_shard)
        for x, *_ in dataset.take(1):
            found = sketch.of(x).numpy()[: manifest.rows_per_shard]
            stored = reader.rows(other, np.arange(len(found)))["sketch"]
            differ = sketch.differ(stored, found)
            if other == view and differ.any():
                raise ValueError(
                    f"{folder} holds labels of other data: example number {int(np.argmax(differ))} is not "
                    "the one that was labelled. Give the same data, in the same order and prepared in the "
                    "same way, or another folder."
                )
            if other != view and not differ.any():
                raise ValueError(
                    f"The data shows the same in view {view} as in view {other}: pass views=1, or make its "
                    "augmentation a function of keras_distill.epoch.view()."
                )


def _rows(found: dict, manifest: Manifest, at: int) -> np.ndarray:
    """The rows of a batch that starts with example number `at`."""
    arrays = {name: np.asarray(value) for name, value in found.items()}
    count = len(arrays["sketch"])
    rows = np.empty(count, manifest.dtype)
    for field in manifest.fields:
        array = arrays[field.name]
        if array.shape != (count, *field.shape):
            raise ValueError(
                f"The teacher answered {count} examples with {field.name} of shape {array.shape}, and of "
                f"shape {(count, *field.shape)} before."
            )
        with np.errstate(over="ignore"):
            rows[field.name] = array
        _finite(rows[field.name], array, field, at)
    return rows


def _finite(stored, array, field, at: int) -> None:
    wrong = np.isnan(array) | np.isposinf(array) if array.dtype.kind == "f" else None
    if wrong is not None and wrong.any():
        example = at + int(np.argwhere(wrong)[0][0])
        raise ValueError(
            f"The teacher answers {array[wrong][0]} to example number {example}: look at that example, or at "
            "the teacher. Nothing of this shard was written."
        )
    if stored.dtype.kind == "f" and (np.isinf(stored) & np.isfinite(array)).any():
        raise ValueError(
            f"The teacher's {field.name} reach {np.abs(array[np.isfinite(array)]).max():g}, which is too "
            f"large for {stored.dtype.name}: pass dtype='float32'."
        )


def _any_batch(spec):
    return keras.tree.map_structure(
        lambda one: tf.TensorSpec((None, *one.shape[1:]), one.dtype), spec
    )
