"""tensorflow-model-optimization, imported so that the user's process stays as it was.

    quantizers = tfmot().quantization.keras.quantizers

Importing it sets TF_USE_LEGACY_KERAS=1, which makes `tf.keras` Keras 2 for whoever asks for it next.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

_VARIABLE = "TF_USE_LEGACY_KERAS"


def tfmot() -> Any:
    """The package.

    Raises:
        ImportError: it is not installed; says how to.
    """
    import tensorflow as tf

    before = os.environ.get(_VARIABLE)
    tf.keras.__name__  # noqa: B018  (it is chosen now, before the variable is changed)
    try:
        return importlib.import_module("tensorflow_model_optimization")
    except ImportError as error:
        raise ImportError(
            "Quantisation-aware training, pruning and clustering need tensorflow-model-optimization: "
            "pip install tensorflow-model-optimization tf_keras."
        ) from error
    finally:
        if before is None:
            os.environ.pop(_VARIABLE, None)
        else:
            os.environ[_VARIABLE] = before


def pruning(*arguments: Any, **named: Any) -> Any:
    """tfmot's `Pruning`: which weights go, and when.

    It has no public name there, where it is wrapped in layers of Keras 2; it works on variables alone.
    """
    tfmot()
    return importlib.import_module(f"{_CORE}.sparsity.keras.pruning_impl").Pruning(
        *arguments, **named
    )


def clustering_algorithm(centroids: Any) -> Any:
    """tfmot's `ClusteringAlgorithm` on a variable of centroids; no public name there either."""
    tfmot()
    found = importlib.import_module(f"{_CORE}.clustering.keras.clustering_algorithm")
    return found.ClusteringAlgorithm(centroids)


def first_centroids(kernel: Any, count: int, how: str, keep_zeros: bool) -> Any:
    """tfmot's first centroids of a kernel, `(count,)`."""
    tfmot()
    found = importlib.import_module(f"{_CORE}.clustering.keras.clustering_centroids")
    kinds = {
        "linear": found.LinearCentroidsInitialisation,
        "kmeans++": found.KmeansPlusPlusCentroidsInitialisation,
        "density": found.DensityBasedCentroidsInitialisation,
    }
    if how not in kinds:
        raise ValueError(f"init={how!r}: it is one of {', '.join(map(repr, kinds))}.")
    return kinds[how](kernel, count, preserve_sparsity=keep_zeros).get_cluster_centroids()


_CORE = "tensorflow_model_optimization.python.core"
