"""Which layers lose most when they are quantised?

    found = sensitivity(student, x_validation)
    print(found)
    export(student, "student.tflite", "int8", x_train, keep_float=found.worst(2))

Each operator of the int8 file (a convolution with its BatchNormalization and its ReLU is one) is rounded
alone, weights and output, all others computing in floats, and the error of the model's outputs is measured.
Where it is what an operator writes that does not fit into 256 steps, keep the one that reads it too: between
floats and integers values are rounded all the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tflite_export import representative
from tflite_export.quantize_aware import QuantizeAware, quantize_aware
from tflite_export.signature import Signature


@dataclass(frozen=True)
class OperatorError:
    """What rounding one operator does to the outputs.

    Attributes:
        layers: names of the layers that the operator consists of, as `keep_float=` takes them.
        snr_db: the outputs' power above the error's, in decibels; the less, the worse.
        largest: largest difference of an output.
    """

    layers: tuple[str, ...]
    snr_db: float
    largest: float


@dataclass(frozen=True)
class Sensitivity(Sequence[OperatorError]):
    """`OperatorError`s, the worst first; prints as a table.

    Attributes:
        errors: the same.
        together: snr_db with all of them rounded at once, as in the file.
    """

    errors: tuple[OperatorError, ...]
    together: float

    def worst(self, count: int) -> list[str]:
        """The layers of the `count` worst operators, for `keep_float=`."""
        return [layer for error in self.errors[:count] for layer in error.layers]

    def __getitem__(self, index: Any) -> Any:
        return self.errors[index]

    def __len__(self) -> int:
        return len(self.errors)

    def __iter__(self) -> Iterator[OperatorError]:
        return iter(self.errors)

    def __str__(self) -> str:
        width = max((len(" ".join(e.layers)) for e in self.errors), default=0)
        lines = [f"{' '.join(e.layers):{width}}  {e.snr_db:6.1f} dB" for e in self.errors]
        return "\n".join([*lines, f"{'all together':{width}}  {self.together:6.1f} dB"])


def sensitivity(model: Any, data: Any, num_examples: int = 64) -> Sensitivity:
    """Ranks the operators of a model's int8 file by the error that their rounding adds.

    Args:
        model: a Keras model, or what `quantize_aware` made.
        data: examples, in the form that the model takes: tf.data, arrays or batches; they set the ranges
            too, where the model has none yet.
        num_examples: how many are read.

    Raises:
        ValueError: there are no examples, or they do not fit; see `quantize_aware`.
    """
    import tensorflow as tf

    aware = model if isinstance(model, QuantizeAware) else quantize_aware(model)
    signature = Signature.of(aware)
    examples = representative.read(data, signature.inputs, num_examples)
    if aware is not model:
        aware.calibrate_on(examples)
    x = [np.concatenate([e[i.name] for e in examples]) for i in signature.inputs]
    operators = aware.operators()

    def outputs(shares: Any, *flat: Any) -> list[Any]:
        with aware.rounding_by(
            {layer: shares[n] for n, names in enumerate(operators) for layer in names}
        ):
            return [tf.cast(t, tf.float32) for t in keras.tree.flatten(signature.call(flat))]

    run = tf.function(outputs, autograph=False)
    count = len(operators)
    floats = run(np.zeros(count, "float32"), *x)
    errors = []
    for number, names in enumerate(operators):
        found = run(np.eye(count, dtype="float32")[number], *x)
        largest = max(float(tf.reduce_max(abs(a - b))) for a, b in zip(floats, found, strict=True))
        errors.append(OperatorError(names, _decibels(floats, found), largest))
    # Without shares: attention and the model's inputs round too, which are nobody's alone.
    all_at_once = tf.function(
        lambda *flat: keras.tree.flatten(signature.call(flat)), autograph=False
    )
    together = _decibels(floats, [tf.cast(t, tf.float32) for t in all_at_once(*x)])
    return Sensitivity(tuple(sorted(errors, key=lambda one: one.snr_db)), together)


def _decibels(wanted: Sequence[Any], found: Sequence[Any]) -> float:
    """The least of the outputs' ratios of power to the power of the error."""
    ratios = []
    for one, other in zip(wanted, found, strict=True):
        error = float(np.sum((one - other) ** 2, dtype="float64"))
        power = float(np.sum(np.square(one), dtype="float64"))
        ratios.append(np.inf if error == 0 else 10 * np.log10(max(power, 1e-30) / error))
    return float(min(ratios))
