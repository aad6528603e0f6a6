"""Before labelling: what is to be stored, whether a folder may hold it, and how much room it takes.

plan.check(views, top_k, dtype, batch_size, worker, num_workers)
with plan.alone(folder, views, worker, num_workers):
    wanted, first = plan.of(teacher, source, views, top_k, dtype)
    manifest = plan.agreed(wanted, folder, source)
"""

import contextlib
import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np

from keras_distill import schedules
from keras_distill.connectors import never_negative
from keras_distill.locking import only_one
from keras_distill.soft_labels import shards, sketch
from keras_distill.soft_labels.manifest import FEATURES, NAME, Field, Manifest
from keras_distill.soft_labels.room import storing
from keras_distill.soft_labels.sources import Source
from keras_distill.teachers import Teacher

_FLOATS = ("float16", "float32")
_SHARD_BYTES, _SHARD_ROWS = 2**25, 2048


def check(views, top_k, dtype, batch_size, worker, num_workers) -> None:
    """Refuse arguments that cannot be meant."""
    schedules.whole("views", views)
    schedules.whole("batch_size", batch_size)
    if top_k is not None:
        schedules.whole("top_k", top_k)
    if dtype not in _FLOATS:
        raise ValueError(f"dtype={dtype!r}: give one of {', '.join(map(repr, _FLOATS))}.")
    schedules.whole("num_workers", num_workers)
    if worker not in range(num_workers):
        raise ValueError(
            f"worker={worker!r} must be a whole number from 0 to num_workers - 1 = {num_workers - 1}."
        )


@contextlib.contextmanager
def alone(folder: Path, views: int, worker: int, num_workers: int) -> Iterator[None]:
    """A context for one process; where all is done a folder may be read-only."""
    if (folder / NAME).exists():
        found = Manifest.read(folder)
        if found.views >= views and found.examples and complete(folder, found, found.examples):
            yield
            return
    lock = folder / f".worker-{worker}-of-{num_workers}.lock"
    with storing(folder):
        lock.touch()
    who = f"worker {worker} of {num_workers} in {folder}"
    with only_one(lock, f"Another process is {who}: wait, or give worker=."):
        with storing(folder):
            shards.forget_parts(folder, worker, num_workers)
        yield


def of(teacher: Teacher, source: Source, views: int, top_k, dtype: str):
    """Return the manifest of labels that the first batch shows, and its sketches."""
    batch = source.first()
    if not teacher.known:
        teacher.check_looks(batch[0])
    found = teacher.targets(*batch)
    little = {"float16": "<f2", "float32": "<f4"}[dtype]
    fields = [Field("sketch", "<f4", (sketch.numbers(batch[0]),))]
    classes = []
    for i, logits in enumerate(keras.tree.flatten(found.logits)):
        name, shape = f"logits/{i}", tuple(logits.shape[1:])
        classes.append(shape[-1])
        if top_k is None or top_k >= shape[-1]:
            fields.append(Field(name, little, shape))
        else:
            numbers = "<u2" if shape[-1] <= 2**16 else "<i4"
            fields.append(Field(name, little, (*shape[:-1], top_k)))
            fields.append(Field(f"{name}/classes", numbers, (*shape[:-1], top_k)))
            fields.append(Field(f"{name}/rest", little, shape[:-1]))
    for name, features in found.inner.items():
        fields.append(Field(f"{FEATURES}{name}", little, tuple(features.shape[1:])))
    size = np.dtype([(one.name, one.dtype, one.shape) for one in fields]).itemsize
    outputs = found.outputs
    names = sorted(outputs) if isinstance(outputs, dict) else found.names
    manifest = Manifest(
        teacher=teacher.fingerprint(),
        fields=tuple(fields),
        kind="dict"
        if isinstance(outputs, dict)
        else "list"
        if keras.tree.is_nested(outputs)
        else "one",
        names=list(names or []),
        activations=tuple(keras.tree.flatten(found.activations)),
        classes=tuple(classes),
        never_negative=tuple(
            name for name in found.inner if never_negative(teacher.find_layer(name))
        ),
        top_k=top_k,
        views=views,
        rows_per_shard=max(1, min(_SHARD_ROWS, _SHARD_BYTES // (size + 16))),
    )
    return manifest, sketch.of(batch[0]).numpy()


def agreed(wanted: Manifest, folder: Path, source: Source) -> Manifest:
    """Return the manifest of `folder`, which has to be of the same labels; written if there is none."""
    if not (folder / NAME).exists():
        with storing(folder):
            wanted.write(folder)
        return wanted
    found = Manifest.read(folder)
    same = dataclasses.replace(wanted, views=found.views, examples=found.examples)
    for field in dataclasses.fields(Manifest):
        old, new = getattr(found, field.name), getattr(same, field.name)
        if old != new:
            raise ValueError(
                f"{folder} holds other labels: their {field.name} is {old!r}, and now it is {new!r}. Give "
                "another folder, or what these were made with."
            )
    if source.examples not in (None, found.examples) and found.examples is not None:
        raise ValueError(
            f"{folder} has labels of {found.examples:,} examples, and the {source.of} has "
            f"{source.examples:,}: give the data that was labelled, or another folder."
        )
    if wanted.views > found.views:
        found = dataclasses.replace(found, views=wanted.views)
        with storing(folder):
            dataclasses.replace(found, examples=None).write(folder)
    return found


def complete(folder: Path, manifest: Manifest, examples: int) -> bool:
    """Return whether all shards are there, whoever was to write them."""
    everything = shards.Share(folder, manifest, examples=examples)
    return not any(everything.missing_of(view) for view in range(manifest.views))


class Progress:
    """Prints what it will take, and how far it is.

    Args:
        share: what is to be written.
        most: how many examples there are at most, or None where that is not known.
        verbose: whether to print; room is looked for in any case.

    Raises:
        ValueError: there is not enough room.
    """

    def __init__(self, share: shards.Share, most: int | None, verbose: bool):
        folder, views, self._examples = share.folder, share.manifest.views, share.examples
        each = share.manifest.dtype.itemsize + 16
        count = most if share.examples is None else share.examples
        if count is not None:
            whole = dataclasses.replace(share, examples=count)
            rows = (
                whole.length(shard) for view in range(views) for shard in whole.missing_of(view)
            )
            need, free = each * sum(rows), shutil.disk_usage(folder).free
            if need > free:
                raise ValueError(
                    f"The labels take {_mebibytes(need)}, and {folder} has {_mebibytes(free)} left: give "
                    "top_k=, fewer views= or features=, or another folder."
                )
        self._bar = None
        if verbose:
            up_to = "up to " if share.examples is None and count is not None else ""
            of = "each example" if count is None else f"{up_to}{count:,} examples"
            size = _mebibytes(each * views * (1 if count is None else count))
            print(f"Labels of {views} views of {of}: {up_to}{size} in {folder}.")
            total = None if self._examples is None else self._examples * views
            self._bar = keras.utils.Progbar(total, unit_name="example")

    def __call__(self, view: int, done: int) -> None:
        """Show that the first `done` examples of a view are labelled."""
        if self._bar is not None:
            self._bar.update(view * (self._examples or 0) + done)


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB" if size >= 2**18 else f"{size:,} bytes"
