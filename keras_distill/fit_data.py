"""What `fit` is given: arrays, data sets, generators, and what can be known of them before the first step.

batch, x = first_batch(x, y, batch_size=32)     # (inputs, labels); the data still have it
"""

import math
import types

import keras
import numpy as np


def are_arrays(data) -> bool:
    """Whether `data` is a structure of arrays or tensors of one length (no data set, no frame).

    Args:
        data: a tuple `(x, y, sample_weight)`, each of which may be None.
    """
    import tensorflow as tf

    leaves = keras.tree.flatten([part for part in data if part is not None])
    arrays = all(isinstance(leaf, (np.ndarray, tf.Tensor)) and len(leaf.shape) for leaf in leaves)
    return arrays and len({len(leaf) for leaf in leaves}) == 1  # Keras refuses several lengths


def pack(x, y=None, sample_weight=None):
    """What a data set of these yields: `x`, `(x, y)` or `(x, y, sample_weight)`.

    Raises:
        ValueError: `sample_weight` without `y`.
    """
    if sample_weight is not None and y is None:
        raise ValueError("sample_weight was given without y: pass both, or a tf.data.Dataset.")
    return keras.utils.pack_x_y_sample_weight(x, y, sample_weight)


def split(arrays, share: float):
    """The last `share` of the examples for validation, as `keras.Model.fit` takes them."""
    count = len(next(leaf for leaf in keras.tree.flatten(arrays) if leaf is not None))
    at = math.floor(count * (1.0 - share))
    if not 0 < at < count:
        raise ValueError(
            f"validation_split={share} of {count} examples leaves none for training or validation."
        )

    def take(rows):
        return keras.tree.map_structure(lambda a: None if a is None else a[rows], arrays)

    return take(slice(0, at)), take(slice(at, None))


def first_batch(x, y, batch_size):
    """The inputs and labels of one batch, or None where it cannot be had; and x, which still has it."""
    import tensorflow as tf

    if are_arrays((x,)):
        count = batch_size or 32
        return keras.tree.map_structure(lambda one: None if one is None else one[:count], (x, y)), x
    if isinstance(x, tf.data.Dataset):
        batch = next(iter(x.take(1)), None)
    elif isinstance(x, keras.utils.PyDataset):
        batch = x[0]
    elif hasattr(x, "iloc"):  # a pandas.DataFrame
        return (
            x.iloc[: batch_size or 32].to_numpy(),
            None if y is None else y[: batch_size or 32],
        ), x
    elif isinstance(x, types.GeneratorType):
        batch = next(x, None)
        x = _again(batch, x)
    else:
        batch = None
    return None if batch is None else keras.utils.unpack_x_y_sample_weight(batch)[:2], x


def begun_anew(dataset, steps: int | None):
    """Return a data set that each epoch reads from its beginning, when the epoch's view is set.

    Keras would go on in the next epoch where `steps` ended, with batches that were made ahead, of the view
    before.

    Args:
        dataset: a `tf.data.Dataset`.
        steps: how many batches an epoch has; None for all.

    Raises:
        ValueError: it has no end.
    """
    import tensorflow as tf

    if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise ValueError(
            "The data set has no end, and stored labels of several views are read anew in each epoch, with "
            "the next view: leave out repeat(); fit repeats by itself."
        )
    return dataset if steps is None else dataset.take(steps)


def _again(first, rest):
    if first is not None:
        yield first
    yield from rest
