"""Labelling: the teacher answers every view of every example once, shard by shard.

label(teacher, source, Share(folder, manifest, worker=0, num_workers=1))

A shard is written when all its rows are there. What is written is never asked for again: called anew after it
was killed, it goes on with the shards that are missing, and the batches that the teacher sees are the same.
"""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from keras_distill import epoch
from keras_distill.soft_labels import shards, sketch
from keras_distill.soft_labels.manifest import FEATURES, Manifest
from keras_distill.soft_labels.room import storing
from keras_distill.soft_labels.shards import Share
from keras_distill.soft_labels.sources import Source
from keras_distill.teachers import Teacher


def label(teacher: Teacher, source: Source, share: Share, first=None, progress=None) -> int:
    """Write the shards that are missing of a process's share; return how many examples there are.

    Args:
        teacher: who answers.
        source: the examples.
        share: of the shards of all views.
        first: the sketches of the first batch, as it was read before.
        progress: called with the view and the number of its examples that are done.

    Raises:
        ValueError: the data or the teacher is another one than that of the shards that are there, the data
            is in another order each time, or an answer cannot be stored.
    """
    for view in range(share.manifest.views):
        if share.examples is None or view == 0 or share.missing_of(view):
            with epoch.showing(view):
                examples = _label_view(teacher, source, share, view, first, progress)
            share = dataclasses.replace(share, examples=examples)
    return share.examples or 0


def _label_view(teacher, source, share: Share, view: int, first, progress) -> int:
    manifest = share.manifest
    size = manifest.rows_per_shard
    done = share.examples is not None and not share.missing_of(view)
    dataset = source.batches()
    answer = _answering(teacher, dataset.element_spec, manifest)
    rows, at, compared = [], 0, False  # rows of the shard that has begun
    for x, *labels in dataset:
        count = len(keras.tree.flatten(x)[0])
        touched = range(at // size, (at + count - 1) // size + 1)
        if at == 0:
            _same_order(source, share, view, sketch.of(x).numpy(), first)
        wanted = [shard for shard in touched if share.missing(view, shard)]
        written = next((shard for shard in touched if share.written(view, shard)), None)
        batch = np.empty(0, manifest.dtype)
        if wanted or (written is not None and not compared):
            batch = _rows(answer(x, *labels), manifest, at)
        if written is not None and not compared:
            _same_answers(share, view, written, at, batch)
            compared = True
        if done:
            if view == 0:
                _as_many(source, share, count)
            return share.examples or at
        for shard in touched:
            start, stop = max(at, shard * size), min(at + count, (shard + 1) * size)
            if shard in wanted:
                rows.append(batch[start - at : stop - at])
                if stop == (shard + 1) * size:
                    _write(share, view, shard, rows)
            if stop == (shard + 1) * size:
                rows = []
        at += count
        if progress is not None:
            progress(view, at)
    if rows:
        _write(share, view, at // size, rows)
    if share.examples is not None and at != share.examples:
        raise ValueError(_of_another_length(source, view, at, share.examples))
    for shard in dataclasses.replace(share, examples=at).missing_of(view):
        raise ValueError(
            f"{shards.place(share.folder, view, shard)} is of data of another length: delete it, and call "
            "SoftLabels.build again."
        )
    return at


def _write(share: Share, view: int, shard: int, rows: list[np.ndarray]) -> None:
    with storing(share.folder):
        shards.write(shards.place(share.folder, view, shard), np.concatenate(rows))


def _answering(teacher: Teacher, spec, manifest: Manifest):
    """The compiled function from a batch to the arrays of its rows, by their names."""
    spec = keras.tree.map_structure(
        lambda one: tf.TensorSpec((None, *one.shape[1:]), one.dtype), spec
    )

    @tf.function(input_signature=spec, autograph=False)
    def answer(x, *labels):
        found = teacher.targets(x, *labels)
        rows = {"sketch": sketch.of(x)}
        for i, logits in enumerate(keras.tree.flatten(found.logits)):
            rows.update(_stored(i, tf.cast(logits, tf.float32), manifest))
        for name, features in found.inner.items():
            rows[f"{FEATURES}{name}"] = features
        return rows

    return answer


def _stored(i: int, logits, manifest: Manifest) -> dict:
    name, top_k = f"logits/{i}", manifest.top_k
    if top_k is None or top_k >= logits.shape[-1]:
        return {name: logits}
    values, indices = tf.math.top_k(logits, top_k)
    every, top = tf.cast(logits, tf.float64), tf.cast(values, tf.float64)
    others = logits.shape[-1] - top_k
    if manifest.activations[i] == "sigmoid":  # the mean probability of the others
        left = tf.reduce_sum(tf.sigmoid(every), -1) - tf.reduce_sum(tf.sigmoid(top), -1)
        left = tf.clip_by_value(left / others, 1e-12, 1.0 - 1e-12)
        rest = tf.math.log(left) - tf.math.log1p(-left)
    else:  # what is left of the probability, in equal parts: log Σ exp of the others, divided by their number
        total, top = (tf.reduce_logsumexp(one, -1) for one in (every, top))
        rest = total + tf.math.log(tf.maximum(-tf.math.expm1(top - total), 1e-12)) - np.log(others)
    return {name: values, f"{name}/classes": indices, f"{name}/rest": rest}


# Whether it is what was labelled before


def _as_many(source: Source, share: Share, of_first: int) -> None:
    """Refuse data of another length than a finished view has; its first batch has `of_first` examples."""
    batches = source.batches()
    if source.examples is not None or int(batches.cardinality()) == -(
        -(share.examples or 0) // of_first
    ):
        return
    # Reading takes as long as an epoch without any network: only where the number of batches does not tell.
    counts = batches.map(lambda x, *_: tf.shape(keras.tree.flatten(x)[0], tf.int64)[0])
    found = int(counts.reduce(tf.constant(0, tf.int64), lambda total, one: total + one))
    if found != share.examples:
        raise ValueError(_of_another_length(source, 0, found, share.examples))


def _of_another_length(source: Source, view: int, found: int, expected) -> str:
    return (
        f"The {source.of} has {found:,} examples in view {view}, and {expected:,} were expected: give the "
        "data that was labelled first, or another folder."
    )


def _same_order(source: Source, share: Share, view: int, found: np.ndarray, first) -> None:
    """Refuse data in another order each time, and a second view that is the first."""
    if view == 0 and first is not None:
        differ = sketch.differ(first, found) if len(first) == len(found) else np.ones(1, bool)
        if differ.any():
            raise ValueError(
                f"The {source.of} shows other examples each time that it is read (number "
                f"{int(np.argmax(differ))} has changed): give it a fixed order, shuffle what attach returns, "
                "and make augmentation a function of keras_distill.epoch.view()."
            )
    if view > 0 and share.written(0, 0):
        stored = share.read(0, 0, len(found))["sketch"]
        if not sketch.differ(stored, found[: len(stored)]).any():
            raise ValueError(
                f"The data shows the same in view {view} as in view 0: pass views=1, or make its "
                "augmentation a function of keras_distill.epoch.view()."
            )


def _same_answers(share: Share, view: int, shard: int, at: int, batch: np.ndarray) -> None:
    """Refuse data and teachers other than those of a shard, of which `batch` has some rows."""
    start = max(at, shard * share.manifest.rows_per_shard)
    stored = share.read(view, start, at + len(batch) - start)
    found = batch[start - at :][: len(stored)]
    differ = sketch.differ(stored["sketch"], found["sketch"])
    if differ.any():
        raise ValueError(
            f"{share.folder} holds labels of other data: example number {start + int(np.argmax(differ))} is "
            "not the one that was labelled. Give the same data, in the same order and prepared in the same "
            "way, or another folder."
        )
    for field in share.manifest.fields[1:]:
        if field.name.endswith("/classes"):
            continue
        old, new = (
            one[field.name].astype("float32").reshape(len(one), -1) for one in (stored, found)
        )
        # Another machine, precision or batch changes a little; another teacher more. -inf excludes a class.
        largest = np.where(np.isfinite(old), np.abs(old), 0.0).max(
            axis=1, keepdims=True, initial=0.1
        )
        with np.errstate(invalid="ignore"):
            differ = ~((old == new) | (np.abs(old - new) <= 1e-2 * largest)).all(axis=1)
        if differ.any():
            raise ValueError(
                f"{share.folder} holds labels of another teacher: to example number "
                f"{start + int(np.argmax(differ))} it answers otherwise ({field.name}). Give the same "
                "teacher with the same teacher_inputs, or another folder."
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
        if field.name != "sketch":
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
