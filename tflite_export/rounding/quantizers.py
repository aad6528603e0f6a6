"""Rounding to 8 bits while training: the forward pass sees the steps, the gradient passes them by.

    rounded_kernel(kernel, channels=(-1,))      # symmetric, a step for each output channel
    quantizer = RangeQuantizer(); quantizer(x, training=True)

Weights need no state: their largest value is there at every moment, and the file takes the same. The range
of activations is tensorflow-model-optimization's moving average over the batches of training; it starts at
what calibration or the first batch saw, not at -6..6.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tflite_export.normalization import spread
from tflite_export.rounding.tfmot import tfmot

LEVELS = 127
ONLY_ZEROS = (-1.0, 1.0)  # the file's range where nothing but 0 ever passed: 0 is exact in any


def rounded_kernel(kernel: Any, channels: Sequence[int]) -> Any:
    """`kernel` in 8 bits, between -127 and 127 steps (TFLite's quantisation specification).

    Args:
        channels: axes along which each place has its own step; () for one in all.
    """
    rank = len(kernel.shape)
    own = {axis % rank for axis in channels}
    others = [axis for axis in range(rank) if axis not in own]
    step = ops.max(ops.abs(kernel), axis=others, keepdims=True) / LEVELS
    whole = ops.round(kernel / ops.where(step > 0, step, 1.0)) * step
    return kernel + ops.stop_gradient(whole - kernel)


def rounded_for_file(kernel: Any) -> Any:
    """The same with one step in all, in a form that the converter takes over instead of its own."""
    import tensorflow as tf

    largest = tf.reduce_max(tf.abs(kernel))
    rows = tf.reshape(kernel, [-1])
    return tf.reshape(
        tf.quantization.fake_quant_with_min_max_vars(rows, -largest, largest, narrow_range=True),
        kernel.shape,
    )


class RangeQuantizer(keras.layers.Layer):
    """Rounds what passes to 256 steps between two ends that are learned from what passed.

    Args:
        quantizer: a `tfmot.quantization.keras.quantizers` object without axes; by default its
            `MovingAverageQuantizer(8, per_axis=False, symmetric=False, narrow_range=False)`.
        room_below: how far the range goes on below the lowest value, for scores that a mask takes down.
        spread: one step less between the ends, for what may be pixels (`normalization.spread`).

    Until it has seen anything but 0 it passes values as they are; a file has `ONLY_ZEROS` there.
    """

    def __init__(
        self, quantizer: Any = None, room_below: float = 0.0, spread: bool = False, **kwargs: Any
    ):
        super().__init__(dtype="float32", **kwargs)
        self._room_below, self._spread = room_below, spread
        if quantizer is None:
            quantizer = tfmot().quantization.keras.quantizers.MovingAverageQuantizer(
                num_bits=8, per_axis=False, symmetric=False, narrow_range=False
            )
        self._quantizer = quantizer
        self._range: dict[str, keras.Variable] = quantizer.build((), "range", _Weights(self))
        self.built = True

    @property
    def ends(self) -> tuple[float, float]:
        """Lowest and highest value that were seen, 0 among them; (0, 0) before it saw any."""
        low, high = (float(self._range[name].numpy()) for name in ("min_var", "max_var"))
        return low, high

    @property
    def step(self) -> float:
        """The distance between two values that it tells apart."""
        low, high = self.ends
        return (high - low + self._room_below) / 255 * (255 / 254 if self._spread else 1)

    def call(self, x: Any, training: bool = False, observing: bool = False) -> Any:
        import tensorflow as tf

        wide = tf.cast(x, tf.float32)
        variables = {name: one.value for name, one in self._range.items()}
        low, high = variables["min_var"], variables["max_var"]
        if observing:
            low.assign(tf.minimum(low, tf.reduce_min(wide)))
            high.assign(tf.maximum(high, tf.reduce_max(wide)))
            return x
        if training and self.trainable:
            before = tf.identity(low), tf.identity(high)
            first = tf.equal(low, high)
            seen = tf.reduce_min(wide), tf.reduce_max(wide)
            low.assign(tf.where(first, tf.minimum(seen[0], 0.0), low))
            high.assign(tf.where(first, tf.maximum(seen[1], 0.0), high))
            result = self._rounded(wide, True, variables)
            # Ranges are not those of a batch with NaN.
            for variable, earlier in zip((low, high), before, strict=True):
                variable.assign(tf.where(tf.math.is_finite(variable), variable, earlier))
            return tf.cast(result, x.dtype)
        ends = tf.get_static_value(low), tf.get_static_value(high)
        if None not in ends and ends[0] == ends[1]:  # constants, in a graph that becomes a file
            return tf.cast(tf.quantization.fake_quant_with_min_max_vars(wide, *ONLY_ZEROS), x.dtype)
        known = self._rounded(wide, False, variables)
        return tf.cast(
            tf.where(tf.equal(low, high), wide, known) if None in ends else known, x.dtype
        )

    def pooled(self, x: Any) -> Any:
        """Averages of values that it rounded, as TFLite's average pool rounds them to the same steps: a half
        goes away from the 0 of the int8 numbers, up in the upper half of the range and down in the lower."""
        import tensorflow as tf

        wide = tf.cast(x, tf.float32)
        low, high = self._used({name: one.value for name, one in self._range.items()})
        step = tf.maximum((high - low) / 255, 1e-30)
        zero = tf.clip_by_value(tf.round(-low / step), 0.0, 255.0) - 128
        number = wide / step + zero
        # Sums of floats are not exact: what is nearly a half is one.
        whole = tf.sign(number) * tf.floor(tf.abs(number) + 0.5 + 1e-3)
        result = wide + tf.stop_gradient((whole - zero) * step - wide)
        return tf.cast(tf.where(tf.equal(low, high), wide, result), x.dtype)

    def lowest(self) -> Any:
        """The lowest value that can be told, as a tensor."""
        return self._range["min_var"] - self._room_below

    def _rounded(self, x: Any, training: bool, variables: dict[str, Any]) -> Any:
        import tensorflow as tf

        result = self._quantizer(x, training, variables)
        if not self._room_below and not self._spread:
            return result
        return tf.quantization.fake_quant_with_min_max_vars(x, *self._used(variables))

    def _used(self, variables: dict[str, Any]) -> tuple[Any, Any]:
        """The ends between which it rounds."""
        low, high = variables["min_var"], variables["max_var"]
        return spread(low, high) if self._spread else (low - self._room_below, high)


class _Weights:
    """What tfmot takes for a tf_keras layer: it asks it for its variables."""

    def __init__(self, layer: keras.layers.Layer):
        self._layer = layer

    def add_weight(self, name: str, shape: Any = None, **_: Any) -> keras.Variable:
        # Its own first values, -6 and 6, would be averaged out over thousands of steps.
        return self._layer.add_weight(
            name=name, shape=shape or (), initializer="zeros", trainable=False, aggregation="mean"
        )
