"""The number of the epoch that is running, as a variable that input pipelines can read.

The order of the examples, and the views made of them, are functions of (seed, epoch, example), so that a
training that was killed goes on with exactly the data that it would have seen:

    def augment(index, image):
        return random_crop(image, seed=(seed, epoch.variable(), index))

    student.fit(train.map(augment), callbacks=[epoch.SetEpoch()])   # Distiller.fit adds it by itself
"""

import contextlib
import functools
import math

import keras


@functools.cache
def variable():
    """Return the process-wide `tf.Variable` (int64, scalar, on the CPU) that holds the epoch's number."""
    return _on_cpu("epoch")


@functools.cache
def view():
    """Return the `tf.Variable` of the view that is shown: the number of the epoch, unless labels know fewer.

    Augmentation is a function of it, and the order of the examples one of `variable()`.
    """
    return _on_cpu("view")


def begin(epoch: int, views: int | None = None) -> None:
    """Set both: data sets that begin now are those of this epoch, of as many views as there are."""
    variable().assign(epoch)
    view().assign(epoch % views if views else epoch)


@contextlib.contextmanager
def showing(number: int, epoch: int | None = None):
    """Within this context data sets that begin show view `number`, in the order of `epoch` if given."""
    before = int(variable()), int(view())
    view().assign(number)
    if epoch is not None:
        variable().assign(epoch)
    try:
        yield
    finally:
        for one, value in zip((variable(), view()), before, strict=True):
            one.assign(value)


def _on_cpu(name: str):
    import tensorflow as tf

    with tf.init_scope(), tf.device("CPU:0"):
        return tf.Variable(0, dtype=tf.int64, trainable=False, name=name)


class SetEpoch(keras.callbacks.Callback):
    """Sets `variable()` and `view()` at the start of each epoch, before the first batch is drawn.

    Args:
        views: how many views there are; None for another one in each epoch.
    """

    def __init__(self, views: int | None = None):
        super().__init__()
        self._views = views

    def on_epoch_begin(self, epoch, logs=None):
        """Called by `fit`."""
        begin(epoch, self._views)

    def on_train_end(self, logs=None):
        """Called by `fit`: whatever comes next begins with epoch 0."""
        begin(0)


def without_autotuning(dataset):
    """Return `dataset` with the parallelism that it was written with.

    The thread in which tf.data looks for a better one sleeps for longer and longer, and now and then the
    end of a `fit` waits until it wakes up: 2 seconds after 3 seconds of training (TensorFlow 2.21).
    """
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


class Shuffled:
    """Arrays as a `tf.data.Dataset` whose order is a function of (seed, epoch).

    Args:
        arrays: a nested structure of arrays with one first dimension, as `fit` takes them.
        batch_size: examples in a batch; the last batch may be smaller.

    Attributes:
        dataset: the batches, in the same structure.
        seed: an int64 `tf.Variable`; the order of an epoch follows from it when the epoch starts.
    """

    def __init__(self, arrays, batch_size: int):
        import tensorflow as tf

        count = len(keras.tree.flatten(arrays)[0])
        self.seed = _on_cpu("order_seed")

        def order(_):
            seed = tf.stack([self.seed, variable()])
            return tf.random.experimental.stateless_shuffle(tf.range(count), seed=seed)

        order = tf.data.Dataset.range(1).map(order).flat_map(tf.data.Dataset.from_tensor_slices)
        self.dataset = _batches(arrays, order, batch_size)


def in_order(arrays, batch_size: int):
    """Return arrays as a `tf.data.Dataset` of batches, for an evaluation; args as of `Shuffled`."""
    import tensorflow as tf

    count = len(keras.tree.flatten(arrays)[0])
    return _batches(arrays, tf.data.Dataset.range(count), batch_size)


def _batches(arrays, order, batch_size):
    import tensorflow as tf

    arrays = tuples(keras.tree.map_structure(tf.convert_to_tensor, arrays))
    count = len(keras.tree.flatten(arrays)[0])
    if not count:
        raise ValueError("There are no examples: the arrays have length 0.")

    def gather(chosen):
        return keras.tree.map_structure(lambda array: tf.gather(array, chosen), arrays)

    batches = order.batch(batch_size)
    batches = batches.map(gather, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    length = tf.data.experimental.assert_cardinality(math.ceil(count / batch_size))
    return without_autotuning(batches.apply(length).prefetch(2))


def tuples(structure):
    """Return `structure` with tuples for lists, which tf.data would take for tensors."""
    if isinstance(structure, dict):
        return {key: tuples(value) for key, value in structure.items()}
    if isinstance(structure, list | tuple):
        return tuple(tuples(value) for value in structure)
    return structure
