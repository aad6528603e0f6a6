"""The number of the epoch that is running, as a variable that input pipelines can read.

The order of the examples, and the views made of them, are functions of (seed, epoch, example), so that a
training that was killed goes on with exactly the data that it would have seen:

    def augment(index, image):
        return random_crop(image, seed=(seed, epoch.variable(), index))

    student.fit(train.map(augment), callbacks=[epoch.SetEpoch()])   # Distiller.fit adds it by itself
"""

import functools

import keras


@functools.cache
def variable():
    """Return the process-wide `tf.Variable` (int64, scalar, on the CPU) that holds the epoch's number."""
    import tensorflow as tf

    with tf.init_scope(), tf.device("CPU:0"):
        return tf.Variable(0, dtype=tf.int64, trainable=False, name="epoch")


class SetEpoch(keras.callbacks.Callback):
    """Sets `variable()` at the start of each epoch, before the first batch is drawn."""

    def on_epoch_begin(self, epoch, logs=None):
        variable().assign(epoch)
