"""The class `SoftLabels`: a folder of answers, the teacher that they are, and the data they belong to."""

import dataclasses
import os
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_distill import activations, epoch, train_step
from keras_distill.network import TARGETS, Answer
from keras_distill.soft_labels import plan, shards, sketch
from keras_distill.soft_labels.labelling import label
from keras_distill.soft_labels.manifest import FEATURES, NAME, Manifest
from keras_distill.soft_labels.room import storing
from keras_distill.soft_labels.sources import as_source
from keras_distill.teachers import CallableTeacher, Teacher, as_teacher
from keras_distill.teachers.function import is_function
from keras_distill.teachers.model import as_it_was


@keras.saving.register_keras_serializable(package="keras_distill")
class SoftLabels(Teacher):
    """A teacher's answers to views of a data set, in a folder: `build` makes it, `attach` joins it to data.

    Args:
        path: the folder.

    Attributes:
        path: the folder.
        manifest: what it holds.
        views: how many views of each example there are; epoch e of a training shows view e mod views.

    Raises:
        ValueError: labels are missing (the sentence says how many), or the folder is damaged.
    """

    def __init__(self, path):
        self.path = Path(os.path.abspath(path))  # a saved Distiller holds it
        if not (self.path / NAME).exists():
            raise ValueError(
                f"{self.path} holds no stored labels: make them with SoftLabels.build."
            )
        self.manifest = Manifest.read(self.path)
        if self.manifest.examples is None:
            raise ValueError(
                f"The labels in {self.path} are not finished: call SoftLabels.build again, which goes on."
            )
        self.views = self.manifest.views
        self.layer_names = [
            field.name.removeprefix(FEATURES)
            for field in self.manifest.fields
            if field.name.startswith(FEATURES)
        ]
        self._reader = shards.Reader(self.path, self.manifest.dtype, self.manifest.rows_per_shard)

    # Making them

    @classmethod
    def build(
        cls,
        teacher,
        dataset,
        path,
        views: int = 1,
        top_k: int | None = None,
        dtype: str = "float16",
        features=(),
        batch_size: int = 32,
        teacher_inputs=None,
        teacher_activation="auto",
        worker: int = 0,
        num_workers: int = 1,
        verbose: bool = True,
    ) -> "SoftLabels | None":
        """Ask the teacher about every view of every example, and store what it says.

        Args:
            teacher: a `keras.Model`, one of `keras_distill.teachers`, or a function from NumPy arrays to an
                array `(batch, ..., classes)`. A model stays as trainable as it is.
            dataset: arrays (x, or a tuple (x, y)), a `tf.data.Dataset` of batches in a fixed order, a data
                set of `keras_distill.data` (in any order), or a `keras.utils.PyDataset`. Views of a data set
                of your own are functions of `epoch.view()`.
            path: a folder, new or with a part of these labels.
            views: how many views of each example.
            top_k: store the largest logits only, and the others as equals (Shen & Xing 2021, FKD, arXiv
                2112.01528); None for all.
            dtype: "float16" or "float32", of logits and features.
            features: names of inner layers of the teacher, for losses on features.
            batch_size: of arrays.
            teacher_inputs, teacher_activation: as for `Distiller`.
            worker, num_workers: this process writes every `num_workers`-th shard, of each view others. The
                processes may run at once or one after the other, on one machine or on a shared folder.
            verbose: whether to print the size (of a `tf.data.Dataset`, what its batches can hold) and the
                progress.

        Returns:
            The labels; None where other workers have not finished theirs.

        Raises:
            ValueError: the folder holds labels of other data, another teacher or other settings, the data
                is in another order each time that it is read, or what the teacher answers cannot be stored.
            OSError: the disk is full, or refuses; what is finished is kept. An error of the teacher's own
                leaves as it is.
        """
        plan.check(views, top_k, dtype, batch_size, worker, num_workers)
        source, folder = as_source(dataset, batch_size), Path(path)
        with as_it_was(teacher), train_step.plain_errors():
            if is_function(teacher):
                x = source.first()[0]
                teacher = CallableTeacher.asked(teacher, x, teacher_activation, teacher_inputs)
            else:
                teacher = as_teacher(teacher, teacher_inputs, teacher_activation)
            teacher.tap([features] if isinstance(features, str) else list(features))
            folded = teacher.folding_pays and teacher.fold(if_pays=True)
            try:
                with storing(folder):
                    folder.mkdir(parents=True, exist_ok=True)
                with plan.alone(folder, views, worker, num_workers):
                    wanted, first = plan.of(teacher, source, views, top_k, dtype)
                    manifest = plan.agreed(wanted, folder, source)
                    examples = manifest.examples or source.examples
                    share = shards.Share(folder, manifest, worker, num_workers, examples)
                    progress = plan.Progress(share, source.most(len(first)), verbose)
                    examples = label(teacher, source, share, first, progress)
                    if not plan.complete(folder, manifest, examples):
                        return None
                    finished = dataclasses.replace(manifest, examples=examples)
                    if Manifest.read(folder) != finished:
                        with storing(folder):
                            finished.write(folder)
            finally:
                if folded:
                    teacher.unfold()
        return cls(folder)

    # Joining them to the data

    def attach(
        self, dataset, batch_size: int = 32, seed: int = 0, verify: bool = True
    ) -> tf.data.Dataset:
        """Return the data set of a training: the labels beside the inputs, another view in each epoch.

        Each label is compared with the example that it comes to, so that a data set in another order, of
        other examples or prepared in another way is refused. Shuffle what is returned, not what is given;
        arrays and data sets of `keras_distill.data` are in another order in each epoch as they are. Give
        several views to `fit` without `repeat()`: it begins anew in each epoch, with the next view.

        Args:
            dataset: what was labelled.
            batch_size, seed: of arrays.
            verify: whether all checksums are looked at first, which reads the whole folder.

        Raises:
            ValueError: a shard is damaged, or these are not the data.
        """
        if verify:
            self.verify()
        source = as_source(dataset, batch_size, seed)
        if source.examples not in (None, self.manifest.examples):
            raise ValueError(
                f"{self.path} has labels of {self.manifest.examples:,} examples, and the {source.of} has "
                f"{source.examples:,}: give the data that was labelled."
            )
        for number in (0, 1):  # what does not fit at all is told here, and an order that changes
            view = number % self.manifest.views
            with epoch.showing(view, epoch=number):
                for x, *_ in source.batches().take(1):
                    self._rows(view, np.arange(len(keras.tree.flatten(x)[0])), sketch.of(x).numpy())
        return source.joined(self._read, self.manifest.views)

    def verify(self) -> None:
        """Read all shards.

        Raises:
            ValueError: one is missing or damaged; the sentence names it.
        """
        share = self._share
        for view in range(self.manifest.views):
            for shard in range(share.shards):
                path, length = shards.place(self.path, view, shard), share.length(shard)
                if not path.exists():
                    raise ValueError(
                        f"{path} is missing: call SoftLabels.build again, which makes it anew."
                    )
                rows = shards.check(path, self.manifest.dtype)
                if rows != length:
                    raise ValueError(
                        f"{path} has {rows:,} labels and should have {length:,}: call SoftLabels.build "
                        "again, which makes it anew."
                    )

    @property
    def _share(self) -> shards.Share:
        return shards.Share(self.path, self.manifest, examples=self.manifest.examples)

    def _read(self, view, numbers, x) -> dict:
        """The labels of a batch, in the graph, by the names of their fields."""
        fields = self.manifest.fields[1:]
        specs = [((None, *field.shape), np.dtype(field.dtype).name) for field in fields]
        found = train_step.call_numpy_flat(self._rows, [view, numbers, sketch.of(x)], specs)
        return {field.name: one for field, one in zip(fields, found, strict=True)}

    def _rows(self, view, numbers, sketches) -> list[np.ndarray]:
        if len(numbers) and numbers[-1] >= self.manifest.examples:
            raise ValueError(
                f"{self.path} has labels of {self.manifest.examples:,} examples, and the data set has more: "
                "give the data that was labelled."
            )
        rows = self._reader.rows(int(view), numbers)
        wrong = sketch.differ(rows["sketch"], sketches)
        if wrong.any():
            raise ValueError(
                f"Example number {int(numbers[np.argmax(wrong)])} (view {int(view)}) is not the one that was "
                f"labelled, and so are {int(wrong.sum())} of the {len(wrong)} in this batch: give attach the "
                "data set that build was given, in the same order and prepared in the same way, and shuffle "
                "what attach returns."
            )
        return [np.ascontiguousarray(rows[field.name]) for field in self.manifest.fields[1:]]

    # As a teacher

    def targets(self, x, labels=None) -> Answer:
        """Return the labels that `attach` put into the batch."""
        if not isinstance(x, dict) or TARGETS not in x:
            raise ValueError(
                "The teacher is stored labels, and the data has none: give fit what labels.attach(dataset) "
                "returns."
            )
        return self._answer(x[TARGETS])

    def _answer(self, labels: dict) -> Answer:
        manifest = self.manifest
        logits = [
            _dense(f"logits/{i}", labels, classes) for i, classes in enumerate(manifest.classes)
        ]
        outputs = [
            activations.of_logits(one, kind)
            for one, kind in zip(logits, manifest.activations, strict=True)
        ]
        inner = {
            name: ops.cast(labels[f"{FEATURES}{name}"], "float32") for name in self.layer_names
        }
        pack = manifest.packed
        return Answer(
            pack(outputs), pack(logits), pack(manifest.activations), inner, manifest.names
        )

    def spec(self) -> Answer:
        """Return the answer to any batch, symbolically."""
        labels = {
            field.name: keras.KerasTensor((None, *field.shape), np.dtype(field.dtype).name)
            for field in self.manifest.fields[1:]
        }
        return self._symbolic(labels)

    def _symbolic(self, labels: dict) -> Answer:
        manifest = self.manifest
        outputs = [
            keras.KerasTensor((*labels[f"logits/{i}"].shape[:-1], classes), "float32")
            for i, classes in enumerate(manifest.classes)
        ]
        inner = {
            name: keras.KerasTensor(labels[f"{FEATURES}{name}"].shape, "float32")
            for name in self.layer_names
        }
        pack = manifest.packed
        return Answer(
            pack(outputs), pack(outputs), pack(manifest.activations), inner, manifest.names
        )

    def tap(self, layer_names) -> None:
        """Refuse layers that are not stored."""
        missing = [name for name in layer_names if name not in self.layer_names]
        if missing:
            raise ValueError(
                f"Layers {missing} of the teacher are wanted, and {self.path} has only {self.layer_names}: "
                f"label again into another folder with features={[*self.layer_names, *missing]}."
            )

    def find_layer(self, name: str) -> keras.Layer:
        """Return a layer whose values have the signs of those that are stored."""
        signs = keras.layers.ReLU if name in self.manifest.never_negative else keras.layers.Identity
        return signs()

    def get_config(self) -> dict:
        """Return the folder."""
        return {"path": os.fspath(self.path)}


def _dense(name: str, labels: dict, classes: int):
    """Logits `(batch, ..., classes)`: those that are stored, and equal ones for the rest."""
    stored = ops.cast(labels[name], "float32")
    if f"{name}/rest" not in labels:
        return stored
    shape = tuple(stored.shape[1:-1])
    rest = ops.reshape(ops.cast(labels[f"{name}/rest"], "float32"), (-1, 1))
    count, top_k = ops.shape(rest)[0], stored.shape[-1]
    places = ops.reshape(ops.cast(labels[f"{name}/classes"], "int32"), (-1,))
    rows = ops.repeat(ops.arange(count), top_k)
    dense = ops.scatter_update(
        ops.broadcast_to(rest, (count, classes)),
        ops.stack([rows, places], axis=1),
        ops.reshape(stored, (-1,)),
    )
    return ops.reshape(dense, (-1, *shape, classes))
