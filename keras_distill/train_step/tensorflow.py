"""The training step on TensorFlow."""

import warnings

import keras
import tensorflow as tf


def train_step(model, data):
    """Targets outside the gradient, one forward pass of the student, one update; see `training`."""
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    targets = model.targets(x)
    with tf.GradientTape() as tape:
        answer = model.forward(x, training=True)
        loss = model.mix(x, y, sample_weight, answer, targets)
        scaled_loss = model.optimizer.scale_loss(loss)
    variables = model.trainable_variables
    if variables:
        gradients = tape.gradient(scaled_loss, variables)
        model.optimizer.apply_gradients(zip(gradients, variables, strict=True))
    else:
        warnings.warn("The student has no trainable weights: nothing is learned.", stacklevel=2)
    model.after_step()
    return model.compute_metrics(x, y, answer.outputs, sample_weight=sample_weight)


def call_numpy(function, x, shape):
    """Run `function` through `tf.numpy_function`; errors it raises stop the training."""
    structure = x
    flat = keras.tree.flatten(x)
    answer = tf.numpy_function(
        lambda *arrays: function(keras.tree.pack_sequence_as(structure, list(arrays))),
        flat,
        tf.float32,
    )
    answer.set_shape(shape)
    return answer


def replicas() -> int:
    """Return the number of replicas of the current `tf.distribute` strategy."""
    return tf.distribute.get_strategy().num_replicas_in_sync
