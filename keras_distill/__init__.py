"""keras_distill: a big trained Keras model teaches a small one, with `compile` and `fit`."""
