"""Kernels that keep a form while they are trained: zeros stay zeros, equal weights stay equal.

    zeros = Zeros(kernel); zeros(kernel)            # without what was 0 when it was made
    clusters = Clusters(kernel, centroids); clusters(kernel)    # each weight is the nearest centroid

Both are Keras layers, for the variables that they have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tflite_export.rounding.tfmot import clustering_algorithm

PRESERVED = (None, "sparsity", "clusters")
_MOST_CLUSTERS = 256


class Zeros(keras.layers.Layer):
    """A mask over a kernel.

    Attributes:
        one_step: whether all channels are to be stored in the same steps, for the file to stay small.
    """

    one_step = False

    def __init__(self, kernel: Any, **kwargs: Any):
        super().__init__(dtype="float32", **kwargs)
        self.mask = self.add_weight(
            shape=kernel.shape, initializer="ones", trainable=False, name="mask"
        )
        self.mask.assign(np.asarray(kernel) != 0)
        self.built = True

    def call(self, kernel: Any) -> Any:
        return kernel * keras.ops.cast(self.mask, kernel.dtype)


class Clusters(keras.layers.Layer):
    """tensorflow-model-optimization's clustering of a kernel; centroids are trained, and weights wander.

    Args:
        centroids: first values, `(clusters,)`.
        keep_zeros: whether weights that are 0 stay 0.
    """

    one_step = True  # else one centroid would be another whole number in each channel

    def __init__(self, kernel: Any, centroids: Any, keep_zeros: bool = False, **kwargs: Any):
        super().__init__(dtype="float32", **kwargs)
        centroids = np.asarray(centroids, "float32")
        self.centroids = self.add_weight(
            shape=centroids.shape, initializer="zeros", name="centroids"
        )
        self.centroids.assign(centroids)
        self.zeros = Zeros(kernel, name="zeros") if keep_zeros else None
        self.built = True

    def call(self, kernel: Any) -> Any:
        import tensorflow as tf

        centroids = self.centroids.value
        nearest = _nearest(kernel, centroids)
        if isinstance(centroids, tf.Variable):
            clustered = clustering_algorithm(centroids).get_clustered_weight(nearest, kernel)
        else:  # a constant, in a graph that becomes a file
            clustered = tf.gather(centroids, nearest)
        return clustered if self.zeros is None else self.zeros(clustered)


def _nearest(kernel: Any, centroids: Any) -> Any:
    """The number of the centroid that is nearest to each weight; tfmot's own way takes clusters times as much
    memory as there are weights."""
    import tensorflow as tf

    order = tf.argsort(centroids)
    rising = tf.gather(centroids, order)
    between = (rising[1:] + rising[:-1]) / 2
    found = tf.searchsorted(between, tf.reshape(kernel, [-1]))
    return tf.reshape(tf.gather(order, found), tf.shape(kernel))


def constraints_of(
    layer: Any,
    kernels: Sequence[Any],
    preserve: str | None,
    path: str,
    saved: Mapping[str, Any] | None = None,
) -> dict[str, keras.layers.Layer]:
    """{attribute: what keeps the form that this kernel of `layer` has}.

    Args:
        saved: of a model that is being loaded, whose weights come later: what `described` returned.
    """
    found: dict[str, keras.layers.Layer] = {}
    for kernel in kernels if preserve else ():
        value = getattr(layer, kernel.attribute).numpy()
        name = f"{path}_{kernel.attribute}_kept".replace("/", "_")
        values = np.unique(value)
        if saved is not None and preserve == "clusters":
            if name in saved:
                count, zeros = saved[name]
                found[kernel.attribute] = Clusters(value, np.zeros(count), zeros, name=name)
            continue
        if preserve == "sparsity":
            found[kernel.attribute] = Zeros(value, name=name)
        elif len(values) <= min(_MOST_CLUSTERS, value.size // 2):
            found[kernel.attribute] = Clusters(value, values, bool((value == 0).any()), name=name)
    for attribute, one in found.items():
        belongs(one, layer, attribute)
    return found


def belongs(constraint: Any, layer: Any, attribute: str) -> None:
    """Note whose kernel it is, past Keras, which would count the layer twice."""
    object.__setattr__(constraint, "place", (layer, attribute))


def described(constraints: Sequence[Any]) -> dict[str, Any]:
    """{name: (number of centroids, whether zeros are kept)} of those that are clusters."""
    clusters = [one for one in constraints if isinstance(one, Clusters)]
    return {one.name: [int(one.centroids.shape[0]), one.zeros is not None] for one in clusters}


def constrain(student: Any, copy: Any, constraints: Sequence[Any]) -> None:
    """Give the kernels of `copy` the form in which those of `student` are seen."""
    ours = {id(v): n for n, v in enumerate(student.variables)}
    for one in constraints:
        layer, attribute = one.place
        variable = getattr(layer, attribute)
        copy.variables[ours[id(variable)]].assign(one(keras.ops.convert_to_tensor(variable)))


__all__ = ["PRESERVED", "Clusters", "Zeros", "belongs", "constrain", "constraints_of", "described"]
