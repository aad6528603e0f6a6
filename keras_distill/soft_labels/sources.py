"""What is labelled: examples in a fixed order, each view of them, from whatever `fit` takes.

source = as_source(dataset, batch_size=32)
source.batches()            # a tf.data.Dataset of (inputs, labels), in the order of their numbers
source.joined(read)         # the data set to train on, with what `read(view, numbers)` gives for each batch

The view is `epoch.view()`, which data sets read when their iteration starts.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_distill import epoch, fit_data, train_step
from keras_distill.indexed import Indexed, indexed
from keras_distill.network import INPUTS, TARGETS


class Source:
    """Examples with numbers from 0.

    Attributes:
        examples: how many there are, or None where that is not known before the end.
        of: what it was made of, for sentences.
    """

    examples: int | None = None
    of: str = ""

    def batches(self) -> tf.data.Dataset:
        """Return tuples (x, y) of batches as the teacher is to see them; (x,) where there are no labels."""
        raise NotImplementedError

    def first(self) -> tuple:
        """Return the first of `batches` in view 0.

        Raises:
            ValueError: there is none.
        """
        with epoch.showing(0):
            batch = next(iter(self.batches().take(1)), None)
        if batch is None:
            raise ValueError(f"The {self.of} has no examples.")
        return batch

    def most(self, of_first: int) -> int | None:
        """Return how many examples there are, if no batch has more than the first, `of_first`; or None."""
        batches = int(self.batches().cardinality())
        return self.examples or (batches * of_first if batches > 0 else None)

    def joined(self, read: Callable, views: int) -> tf.data.Dataset:
        """Return the data set of the training, with the inputs `{INPUTS: x, TARGETS: labels}`.

        Args:
            read: gives from (view, numbers of examples, inputs) the labels, tensors.
            views: how many views have labels.
        """
        raise NotImplementedError


class _Numbered(Source):
    """Arrays, and the data sets of `keras_distill.data`: any example is made by its number."""

    def __init__(self, examples: Indexed, of: str):
        self._indexed, self.examples, self.of = examples, examples.count, of

    def batches(self):
        """In the order of the numbers."""
        return self._indexed.dataset(shuffle=False).map(_x_y)

    def joined(self, read, views):
        """In the order of the epoch."""
        return self._indexed.dataset(
            views=views,
            then=lambda view, index, data: _with_labels(data, lambda x: read(view, index, x)),
        )


class _Stream(Source):
    """A data set of its own order: an example's number is its place."""

    def __init__(self, dataset: tf.data.Dataset, of: str):
        if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
            raise ValueError(
                f"The {of} has no end: give it before `repeat()`, or `take` as many batches as are to be "
                "labelled."
            )
        for spec in tf.nest.flatten(dataset.element_spec):
            if not isinstance(spec, tf.TensorSpec):
                raise ValueError(
                    f"The {of} holds a {spec.value_type.__name__}, and labels belong to tensors whose rows "
                    "are of one length: pad them (to_tensor(), padded_batch), or map with tf.sparse.to_dense."
                )
        self._dataset, self.of = dataset, of

    def batches(self):
        """In their order."""
        return self._dataset.map(_x_y)

    def joined(self, read, views):
        """In the same order; what shuffles comes behind."""

        def number(first, data):
            x = keras.utils.unpack_x_y_sample_weight(data)[0]
            count = tf.shape(keras.tree.flatten(x)[0], out_type=tf.int64)[0]
            return first + count, (tf.range(first, first + count), data)

        @tf.autograph.experimental.do_not_convert
        def label(numbers, data):
            return _with_labels(data, lambda x: read(epoch.view() % views, numbers, x))

        numbered = self._dataset.scan(tf.constant(0, tf.int64), number)
        return epoch.without_autotuning(numbered.map(label, num_parallel_calls=2).prefetch(2))


def as_source(dataset: Any, batch_size: int = 32, seed: int = 0) -> Source:
    """Return `dataset` as a `Source`.

    Args:
        dataset: arrays x or (x, y) or (x, y, sample_weight), in a tuple (a list is of several inputs), a
            `tf.data.Dataset` of batches, an `ImageFolder`'s data set, or a `keras.utils.PyDataset`.
        batch_size: of arrays.
        seed: of the order of arrays in a training.

    Raises:
        ValueError: it is none of these, or has no end.
    """
    if isinstance(dataset, tf.data.Dataset):
        known = indexed(dataset)
        name = "data set"
        return _Stream(dataset, name) if known is None else _Numbered(known, name)
    if isinstance(dataset, keras.utils.PyDataset):
        return _Stream(_of_py_dataset(dataset), "PyDataset")
    parts = dataset if isinstance(dataset, tuple) else (dataset,)
    if fit_data.are_arrays(parts):
        arrays = epoch.tuples(fit_data.pack(*parts))  # to tf.data a list is a tensor
        return _Numbered(Indexed.arrays(arrays, batch_size, seed), "arrays")
    raise ValueError(
        "SoftLabels takes arrays (x, or a tuple (x, y) or (x, y, sample_weight) of one length), a "
        f"tf.data.Dataset of batches, or a keras.utils.PyDataset, got {type(dataset).__name__}."
    )


def _x_y(*data):
    x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
    return (x,) if y is None else (x, y)


def _with_labels(data, labels: Callable):
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    x = {INPUTS: x, TARGETS: labels(x)}
    packed = keras.utils.pack_x_y_sample_weight(x, y, sample_weight)
    return packed if isinstance(packed, tuple) else (packed,)


def _of_py_dataset(dataset: keras.utils.PyDataset) -> tf.data.Dataset:
    """Its items in their order, as many at once as it has workers."""
    count = dataset.num_batches
    if count is None or count < 1:
        raise ValueError(
            f"The PyDataset has {'no end' if count is None else 'no batches'}: give one of a known length."
        )

    def item(i) -> tuple:
        parts = keras.utils.unpack_x_y_sample_weight(epoch.tuples(dataset[int(i)]))
        return tuple(part for part in parts if part is not None)

    first = keras.tree.map_structure(tf.convert_to_tensor, item(0))
    specs = [((None, *one.shape[1:]), one.dtype.name) for one in keras.tree.flatten(first)]

    @tf.autograph.experimental.do_not_convert
    def batch(i):
        found = train_step.call_numpy_flat(
            lambda i: list(map(np.asarray, keras.tree.flatten(item(i)))), [i], specs
        )
        return keras.tree.pack_sequence_as(first, found)

    parallel = max(1, dataset.workers)
    return tf.data.Dataset.range(count).map(batch, num_parallel_calls=parallel, deterministic=True)
