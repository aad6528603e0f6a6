"""How an int8 file computes an activation: in one operator, in several, or in floats.

    steps = steps_of(keras.activations.silu)
    steps.compute(x)        # x * sigmoid(x), the sigmoid rounded as the file's LOGISTIC rounds it
    steps.output            # MEASURED, or the (low, high) that TFLite prescribes

An operator that TFLite puts behind another one's sums (RELU) is `fused`: what goes into it is never
stored, so it is not rounded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
from keras import activations

Range = tuple[float, float]
MEASURED = "measured"
PROBABILITIES: Range = (0.0, 255 / 256)  # TFLite prescribes a step of 1/256 from 0
SIGNED: Range = (-1.0, 127 / 128)
LOG_PROBABILITIES: Range = (-255 / 16, 0.0)


@dataclass(frozen=True)
class Steps:
    """An activation as a file computes it.

    Attributes:
        compute: the same function, with what lies between its operators rounded.
        output: MEASURED, or the range that TFLite prescribes.
        fused: the operator before it does this on the way out.
        inside: "int8", or "float" where TFLite has no integer operator for it.
    """

    compute: Callable[[Any], Any]
    output: str | Range = MEASURED
    fused: bool = False
    inside: str = "int8"


def rounded(x: Any, ends: Range) -> Any:
    """`x` rounded to one of 256 steps between `ends`; the gradient is 1 between them and 0 outside."""
    import tensorflow as tf

    return tf.cast(
        tf.quantization.fake_quant_with_min_max_args(tf.cast(x, "float32"), *ends), x.dtype
    )


def _silu(x: Any) -> Any:
    return x * rounded(keras.ops.sigmoid(x), PROBABILITIES)


def _hard_sigmoid(x: Any) -> Any:
    return rounded(keras.ops.relu6(x + 3.0), (0.0, 6.0)) * (1 / 6)


_LINEAR = Steps(lambda x: x, fused=True)
_TABLE: dict[Any, Steps] = {
    None: _LINEAR,
    activations.linear: _LINEAR,
    activations.relu: Steps(activations.relu, fused=True),
    activations.relu6: Steps(activations.relu6, fused=True),
    activations.softmax: Steps(activations.softmax, PROBABILITIES),
    activations.sigmoid: Steps(activations.sigmoid, PROBABILITIES),
    activations.tanh: Steps(activations.tanh, SIGNED),
    activations.log_softmax: Steps(activations.log_softmax, LOG_PROBABILITIES),
    activations.silu: Steps(_silu),
    activations.hard_silu: Steps(activations.hard_silu),
    activations.hard_sigmoid: Steps(_hard_sigmoid, (0.0, 1.0)),
    activations.leaky_relu: Steps(activations.leaky_relu),
    activations.gelu: Steps(activations.gelu),
}


def steps_of(activation: Any) -> Steps:
    """The steps of a Keras activation; one that TFLite has no integers for is computed in floats."""
    try:
        return _TABLE[activation]
    except (KeyError, TypeError):  # another function; an object that has no hash
        return Steps(activation, inside="float")
