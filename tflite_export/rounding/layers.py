"""A layer's `call` with its weights, its inputs and its output rounded as an int8 file rounds them.

    install(placement, mode, quantizers)    # from now on layer(x) is the rounded one

The layer stays what it is, under its name, with its variables: only what it reads and returns passes
quantizers. Weights are seen rounded through a `keras.StatelessScope`, whichever way the layer uses them.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
from keras import layers, ops

from tflite_export.altered import seen
from tflite_export.masked_scores import BELOW
from tflite_export.rounding.activations import MEASURED, Range, rounded
from tflite_export.rounding.calls import is_float, replaced
from tflite_export.rounding.placement import Placement
from tflite_export.rounding.quantizers import RangeQuantizer, rounded_for_file, rounded_kernel
from tflite_export.rounding.requantize import marked
from tflite_export.rounding.rules import JOINED, WHOLE_MEAN, Kernel

SEPARABLE = (layers.SeparableConv1D, layers.SeparableConv2D)
# Merging layers of any number of inputs, which the file takes two by two.
CHAINED = {layers.Add: ops.add, layers.Multiply: ops.multiply, layers.Average: ops.add}


@dataclass
class Mode:
    """What the quantizers do at the moment, for all layers of a model.

    Attributes:
        training: ranges follow what passes.
        observing: nothing is rounded, and ranges are widened to what passes.
        for_file: weights stay as they are, for the converter rounds them in the same way.
        entry: ranges of the model's float inputs, by number, that are known and not learned.
        shares: by a layer's name, how much of its rounding counts, from 0 to 1; None for all of all.
        see: is given each rounded value, with its place and range, and returns what goes on.
    """

    training: bool = False
    observing: bool = False
    for_file: bool = False
    entry: Mapping[int, Range] = field(default_factory=dict)
    shares: Mapping[str, Any] | None = None
    see: Callable[..., Any] | None = None

    @contextlib.contextmanager
    def set(self, **values: Any) -> Iterator[None]:
        """Change some of them for the length of a block."""
        before = {name: getattr(self, name) for name in values}
        vars(self).update(values)
        try:
            yield
        finally:
            vars(self).update(before)


@dataclass
class Quantizers:
    """The quantizers of one layer; `made` are those with variables, in a fixed order."""

    path: str
    mode: Mode
    made: dict[str, RangeQuantizer] = field(default_factory=dict)

    def make(self, place: str, **how: Any) -> None:
        """Make the quantizer of a place in the layer; `how` is as for `RangeQuantizer`."""
        name = f"{self.path}_{place}".replace("/", "_")
        self.made[place] = RangeQuantizer(name=name, **how)

    def share(self, x: Any, rounded: Any) -> Any:
        """`rounded` in the place of `x`, as far as this layer's rounding counts."""
        if self.mode.shares is None:
            return rounded
        return x + self.mode.shares.get(self.path, 0.0) * (rounded - x)

    def again(self, place: str, fixed: Range | None, pooled: bool, x: Any) -> Any:
        """`x` in the steps of that place, which stay as they are; of an average pool by its own rounding."""
        if self.mode.observing:
            return x
        if pooled and fixed is None:
            return self.made[place].pooled(x)
        return rounded(x, fixed) if fixed is not None else self.made[place](x, training=False)

    def __call__(self, place: str, x: Any, fixed: Any = MEASURED) -> Any:
        if fixed != MEASURED:
            return x if self.mode.observing else self.share(x, rounded(x, fixed))
        quantizer = self.made[place]
        if self.mode.observing:
            return quantizer(x, observing=True)
        stored = quantizer(x, training=self.mode.training)
        if self.mode.see is not None:
            stored = self.mode.see(f"{self.path} {place}", stored, quantizer.step)
        return self.share(x, stored)


def install(
    placement: Placement,
    path: str,
    mode: Mode,
    constraints: Mapping[str, Any] | None = None,
    like: Callable[[Any], Any] | None = None,
) -> Quantizers:
    """Let `placement.layer` round from now on; returns the quantizers that it uses.

    Args:
        path: the layer's name.
        mode: of the model.
        constraints: {attribute: what its kernel is seen through before it is rounded}.
        like: rounds as the layer does in whose steps this one computes (`Placement.like`).
    """
    layer, rule = placement.layer, placement.rule
    quantizers = Quantizers(path, mode)
    for number in placement.rounds_inputs:
        quantizers.make(f"input_{number}", room_below=BELOW if rule.masks else 0.0)
    if rule.output == JOINED:
        quantizers.make("inputs")
    if isinstance(layer, SEPARABLE) and rule.kernels:
        quantizers.make("between")
    for number in range(_partial_results(placement)):
        quantizers.make(f"partial_{number}")
    if rule.kernels and rule.steps is not None and not rule.steps.fused:
        quantizers.make("preactivation")
    if placement.rounds_output and rule.output == MEASURED:
        quantizers.make("output")
    work = _Rounded(placement, quantizers, constraints or {}, like, layer.call)
    object.__setattr__(layer, "call", work)  # past Keras, which would track it
    return quantizers


class _Rounded:
    """What stands in the place of `layer.call`."""

    def __init__(
        self,
        placement: Placement,
        quantizers: Quantizers,
        constraints: Mapping[str, Any],
        like: Callable[[Any], Any] | None,
        original: Callable[..., Any],
    ):
        self._constraints, self._like = constraints, like
        self._layer, self._rule = placement.layer, placement.rule
        self._placement, self._quantizers, self._original = placement, quantizers, original
        functools.update_wrapper(self, original)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = self._inputs(args, kwargs)
        result = self._computed(*args, **kwargs)
        output = self._rule.output
        if self._like is not None and not self._quantizers.mode.for_file:
            return self._quantizers.share(result, self._like(result))
        if not self._placement.rounds_output:
            return result
        if self._placement.ends and output != MEASURED and self._quantizers.mode.training:
            return result  # a probability that is rounded to 0 has no logarithm to learn from
        # Without a mark the converter would make integers of the last operator of a layer of floats.
        mark = self._quantizers.mode.for_file and self._rule.inside == "float"
        return keras.tree.map_structure(
            lambda t: (
                self._quantizers("output", marked(t) if mark else t, output) if is_float(t) else t
            ),
            result,
        )

    def _inputs(self, args: Any, kwargs: Any) -> Any:
        joined, places = "inputs" in self._quantizers.made, self._placement.rounds_inputs
        if not joined and not places:
            return args, kwargs
        count = -1

        def one(x: Any) -> Any:
            nonlocal count
            if not is_float(x):
                return x
            count += 1
            if not joined and count not in places:
                return x
            mark = self._quantizers.mode.for_file and count in self._placement.requantizes
            place = "inputs" if joined else f"input_{count}"
            return self._quantizers(place, marked(x) if mark else x)

        if joined and self._quantizers.mode.training:  # the range of all, before any is rounded
            self._quantizers("inputs", _extremes((args, kwargs)))
            with self._quantizers.mode.set(training=False):
                return keras.tree.map_structure(one, (args, kwargs))
        return keras.tree.map_structure(one, (args, kwargs))

    def _computed(self, *args: Any, **kwargs: Any) -> Any:
        rule, mode, layer = self._rule, self._quantizers.mode, self._layer
        if rule.affine and mode.for_file and not self._placement.folded:
            return _channelwise(args[0] if args else kwargs["inputs"], *_factors(layer))
        mask = kwargs.get("mask") if len(args) < 2 else args[1]
        if rule.masks and mask is not None and "input_0" in self._quantizers.made:
            lowest = ops.cast(self._quantizers.made["input_0"].lowest(), args[0].dtype)
            return self._original(ops.where(mask, args[0], lowest))
        if _partial_results(self._placement):
            return self._chained(args[0])
        if rule is WHOLE_MEAN and tuple(args[0].shape[1:-1]) == layer.pool_size:
            return ops.mean(args[0], axis=tuple(range(1, len(args[0].shape) - 1)), keepdims=True)
        if isinstance(layer, SEPARABLE) and rule.kernels:
            return self._separable(*args, **kwargs)
        with contextlib.ExitStack() as stack:
            if rule.kernels:
                stack.enter_context(self._kernels())
            if rule.steps is not None and not mode.observing and not rule.kernels:
                return rule.steps.compute(args[0] if args else next(iter(kwargs.values())))
            if "preactivation" in self._quantizers.made:
                stack.enter_context(
                    replaced(layer, "activation", self._activation(layer.activation))
                )
            return self._original(*args, **kwargs)

    def _activation(self, activation: Callable[..., Any]) -> Callable[..., Any]:
        steps = self._rule.steps
        assert steps is not None

        def rounded_activation(x: Any, *args: Any) -> Any:
            x = self._quantizers("preactivation", x)
            # Who listens there, such as a tap of logits, hears what is stored.
            plain = activation(x, *args)
            return plain if self._quantizers.mode.observing else steps.compute(x)

        return rounded_activation

    def _kernels(self) -> Any:
        """Within this context the layer sees its kernels rounded."""
        return seen(
            self._layer,
            {k.attribute: functools.partial(self._kernel, k) for k in self._rule.kernels},
        )

    def _kernel(self, kernel: Kernel, value: Any) -> Any:
        mode, constraint = self._quantizers.mode, self._constraints.get(kernel.attribute)
        if constraint is not None:
            value = constraint(value)
        if mode.observing:
            return value
        one_step = constraint is not None and constraint.one_step
        if mode.for_file and not kernel.channels:
            return rounded_for_file(value)
        if mode.for_file and not one_step:
            return value
        whole = rounded_kernel(value, () if one_step else kernel.channels)
        return self._quantizers.share(value, whole)

    def _chained(self, inputs: Any) -> Any:
        kind = type(self._layer)
        if len({len(one.shape) for one in inputs}) > 1:  # Keras aligns them in its own way
            return self._original(inputs)
        total = inputs[0]
        for number, one in enumerate(inputs[1:]):
            total = CHAINED[kind](total, one)
            if number < _partial_results(self._placement):
                total = self._quantizers(f"partial_{number}", total)
        return total / len(inputs) if kind is layers.Average else total

    def _separable(self, inputs: Any) -> Any:
        layer = self._layer
        depthwise, pointwise = (
            self._kernel(k, ops.convert_to_tensor(getattr(layer, k.attribute)))
            for k in self._rule.kernels
        )
        x = ops.depthwise_conv(
            inputs, depthwise, layer.strides, layer.padding, layer.data_format, layer.dilation_rate
        )
        x = ops.conv(self._quantizers("between", x), pointwise, data_format=layer.data_format)
        x = x if layer.bias is None else x + layer.bias
        if "preactivation" in self._quantizers.made:
            return self._activation(layer.activation)(x)
        return x if layer.activation is None else layer.activation(x)


def _partial_results(placement: Placement) -> int:
    kind = type(placement.layer)
    if kind not in CHAINED:
        return 0
    return placement.reads - (1 if kind is layers.Average else 2)


def attend(layer: Any, quantizers: Quantizers) -> None:
    """Let a `MultiHeadAttention` compute scores and what it makes of them as a file of integers does.

    Keras may leave all of attention to one kernel, of which nothing inside is seen; asked for its scores
    it takes the steps by itself, its softmax layer among them.
    """
    quantizers.make("scaled_query")
    # The one place that Keras says may be overridden, and what it reads, are not public names.
    original = layer._compute_attention

    def compute(
        query: Any,
        key: Any,
        value: Any,
        attention_mask: Any = None,
        training: Any = None,
        return_attention_scores: bool = False,
        **kwargs: Any,
    ) -> Any:
        query = quantizers("scaled_query", query * layer._inverse_sqrt_key_dim)
        with (
            replaced(layer, "_inverse_sqrt_key_dim", 1.0),
            replaced(layer, "_flash_attention", False),
        ):
            output, scores = original(query, key, value, attention_mask, training, True, **kwargs)
        return output, scores if return_attention_scores else None

    object.__setattr__(layer, "_compute_attention", compute)


def _extremes(structure: Any) -> Any:
    floats = [t for t in keras.tree.flatten(structure) if is_float(t)]
    low = functools.reduce(ops.minimum, [ops.min(t) for t in floats])
    high = functools.reduce(ops.maximum, [ops.max(t) for t in floats])
    return ops.stack([low, high])


def _factors(layer: Any) -> tuple[Any, Any]:
    """a and b of a layer that computes x * a + b for each channel."""
    if isinstance(layer, layers.Rescaling):
        return layer.scale, layer.offset
    if isinstance(layer, layers.Normalization):
        factor = 1.0 / ops.maximum(ops.sqrt(layer.variance), keras.config.epsilon())
        return ops.reshape(factor, (-1,)), ops.reshape(-layer.mean * factor, (-1,))
    factor = ops.rsqrt(ops.convert_to_tensor(layer.moving_variance) + layer.epsilon)
    factor = factor * layer.gamma if layer.scale else factor
    offset = -layer.moving_mean * factor
    return factor, (offset + layer.beta if layer.center else offset)


def _channelwise(x: Any, factor: Any, offset: Any) -> Any:
    """x * factor + offset as a depthwise 1×1 convolution, which int8 computes with no loss but its last
    rounding: one weight for each channel is exact in steps of its own."""
    channels, shape = x.shape[-1], ops.shape(x)
    picture = x if len(x.shape) == 4 else ops.reshape(x, (-1, 1, 1, channels))
    kernel, bias = (
        ops.broadcast_to(ops.reshape(ops.cast(v, "float32"), (-1,)), (channels,))
        for v in (factor, offset)
    )
    y = ops.depthwise_conv(
        picture, ops.reshape(kernel, (1, 1, channels, 1)), 1, "valid", "channels_last"
    )
    y = y + bias
    return y if len(x.shape) == 4 else ops.reshape(y, shape)
