"""What range of inputs a student saw while it learned, so that export can tell examples of another range.

ranges = InputRanges(1)
ranges.note(images)                 # in the training step
ranges.values()                     # ((-1.0, 1.0),)

Ranges of raw pixels fit nothing that a student of normalised ones will see; `tflite_export` compares the
representative examples with `student.recorded_input_ranges`.
"""

import keras
import numpy as np
from keras import ops


class InputRanges:
    """The lowest and the highest value of each of `count` inputs, whose `names` a dict of them may have.

    No `keras.Layer`, so that the student's weights stay the only ones that are saved by `save_weights`.
    """

    def __init__(self, count: int, names=()):
        self._names = list(names)
        self._nothing = np.tile([np.inf, -np.inf], (count, 1))
        self._ends = keras.Variable(self._nothing, trainable=False, dtype="float32")

    def forget(self) -> None:
        """Begin anew."""
        self._ends.assign(self._nothing)

    def note(self, inputs) -> None:
        """Take in one batch, in the structure of the model's inputs; what is not finite is left out."""
        flat = self._in_order(inputs)
        if len(flat) != self._ends.shape[0]:
            return
        ends = [self._with(self._ends[i], x) for i, x in enumerate(flat)]
        self._ends.assign(ops.stack(ends))

    def _in_order(self, inputs) -> list:
        if isinstance(inputs, dict) and set(self._names) == set(inputs):
            return [inputs[name] for name in self._names]
        return keras.tree.flatten(inputs)

    def _with(self, ends, x):
        x = getattr(x, "values", x)  # of sparse and ragged tensors
        if not keras.backend.is_float_dtype(keras.backend.standardize_dtype(x.dtype)):
            return ends
        low, high = (ops.cast(end, "float32") for end in (ops.min(x), ops.max(x)))
        wider = ops.stack([ops.minimum(ends[0], low), ops.maximum(ends[1], high)])
        return ops.where(ops.all(ops.isfinite(wider)), wider, ends)

    def values(self) -> tuple[tuple[float, float] | None, ...]:
        """(lowest, highest) of each input in the model's order; None where none was seen."""
        ends = self.state()
        return tuple((float(a), float(b)) if a <= b else None for a, b in ends)

    def state(self) -> np.ndarray:
        """An array `(inputs, 2)`, for saving."""
        return ops.convert_to_numpy(self._ends)

    def restore(self, state) -> None:
        """Set what `state` returned."""
        self._ends.assign(state)
