"""Examples that are made by their numbers, so that any order of them is as cheap as any other.

examples = Indexed(make, count=50_000, batch_size=128, seed=0)
examples.dataset()                      # a tf.data.Dataset; its order follows from (seed, epoch)
indexed(dataset)                        # the examples of such a data set, None of any other
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_distill import epoch
from keras_distill.augmentation import order_of_epoch

_HERE = "_keras_distill_indexed"


@dataclasses.dataclass(frozen=True)
class Indexed:
    """Examples with numbers from 0.

    Args:
        make: gives from (view, indices) a batch, as `fit` takes it.
        count: how many there are.
        batch_size: examples in a batch; the last one may be smaller.
        seed: the order of an epoch follows from this and its number.
        shuffle: False for the order of their numbers.
    """

    make: Callable
    count: int
    batch_size: int
    seed: int = 0
    shuffle: bool = True

    @classmethod
    def arrays(cls, arrays: Any, batch_size: int, seed: int = 0) -> "Indexed":
        """Return the examples of a structure of arrays with one first dimension."""
        tensors = keras.tree.map_structure(tf.convert_to_tensor, arrays)
        count = len(keras.tree.flatten(arrays)[0])

        def make(view, index):
            return keras.tree.map_structure(lambda one: tf.gather(one, index), tensors)

        return cls(make, count, batch_size, seed)

    def dataset(
        self, shuffle: bool | None = None, views: int | None = None, then: Callable | None = None
    ) -> tf.data.Dataset:
        """Return them as batches.

        Args:
            shuffle: other than that of the constructor.
            views: how many views there are; None for any number.
            then: gives from (view, indices, batch) what the data set is to yield.
        """
        shuffled = self.shuffle if shuffle is None else shuffle

        def epoch_of_batches(_):
            number, view = tf.identity(epoch.variable()), tf.identity(epoch.view())
            if views is not None:
                view %= views
            order = tf.range(self.count, dtype=tf.int64)
            if shuffled:  # read once: an epoch stays one epoch to its end
                order = tf.cast(order_of_epoch(self.seed, number, self.count), tf.int64)
            order = tf.data.Dataset.from_tensor_slices(order).batch(self.batch_size)
            return order.map(lambda index: (view, index))

        batch = self.make
        if then is not None:
            plain = tf.autograph.experimental.do_not_convert(then)

            def batch(view, index):
                return plain(view, index, self.make(view, index))

        batches = tf.data.Dataset.from_tensors(0).flat_map(epoch_of_batches)
        batches = batches.map(batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        length = math.ceil(self.count / self.batch_size)
        batches = batches.apply(tf.data.experimental.assert_cardinality(length))
        found = epoch.without_autotuning(batches.prefetch(2))
        if then is None:
            setattr(found, _HERE, self)
        return found


def indexed(dataset: tf.data.Dataset) -> Indexed | None:
    """Return the examples that `dataset` was made of, if it is what `Indexed.dataset` returned."""
    return getattr(dataset, _HERE, None)
