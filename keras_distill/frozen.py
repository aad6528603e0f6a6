"""A teacher's network as a constant: converted once, then run by LiteRT.

if pays(network.model):
    frozen = FrozenNetwork(network, batch)      # a ValueError says why it cannot be
    frozen(batch)                               # the `Answer` of network(batch, training=False)

While a teacher teaches nobody changes its weights, so they can be packed into the program that computes
its answers, with BatchNormalization folded into convolutions. On CPU that takes less processor time than
TensorFlow's own layers; benchmarks/training_speed.py shows what a whole step gains. Weights that are set
after all are noticed: at the next step where all of them are, at the next epoch where it is one of many.
"""

import dataclasses
import math
import os
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_distill.network import Answer, Network
from keras_distill.taps import all_layers
from keras_distill.train_step import call_numpy_flat

# A conversion is to be repaid: for ResNet-20 it was after 137 steps (benchmarks/training_speed.py).
WORTHWHILE_STEPS = 300
# Larger ones take long to convert, and gain little.
MOST_BYTES = 2**28
# At once; batches are cut and filled up to it. It costs no time: 4, 8, 32 and all 128 take the same.
EXAMPLES = 4
# A graph in many pieces goes back and forth between XNNPACK and slower kernels.
MOST_PIECES = 4
# Of the largest answer: what another order of float32 additions may change. 1e-5 is usual; MobileNetV3 with
# random weights has 3e-4.
TOLERANCE = 1e-3


class FrozenNetwork:
    """What `network` answers in inference, computed by LiteRT for as long as its weights stay.

    Args:
        network: of the teacher.
        inputs: one batch of the network's inputs, as `network.select` gives them.

    Raises:
        ValueError: the network cannot be converted, falls to pieces, or answers differently.
    """

    def __init__(self, network: Network, inputs):
        import tensorflow as tf

        from tflite_export import convert, runtime
        from tflite_export.signature import ModelInput

        self._network = network
        self._form = _form(inputs)
        if self._form is None:
            raise ValueError("The teacher's inputs are sparse, ragged or of open rank.")
        self._retired = keras.Variable(False, trainable=False, dtype="bool", name="retired")
        self._weights = [(v, ops.convert_to_numpy(v)) for v in network.model.variables]
        batch = [ops.convert_to_tensor(tensor) for tensor in keras.tree.flatten(inputs)]

        def answer(*flat):
            answer = self._ask_network(keras.tree.pack_sequence_as(inputs, list(flat)))
            self._template = answer
            _require_known(tf.compat.v1.get_default_graph())
            return _tensors(answer)

        converted = convert.convert_function(
            answer,
            [
                ModelInput(
                    f"input_{i}",
                    (EXAMPLES, *t.shape[1:]),
                    keras.backend.standardize_dtype(t.dtype),
                )
                for i, t in enumerate(batch)
            ],
            network.model,
            lambda tensors: [f"answer_{i}" for i in range(len(tensors))],
        )
        # The tensors of the trace are not kept, only their places.
        self._template = dataclasses.replace(
            self._template,
            **{
                f: keras.tree.map_structure(lambda _: 0, getattr(self._template, f))
                for f in _FIELDS
            },
        )
        self._names = converted.output_names
        self._interpreter = runtime.load(converted.content, num_threads=_cpus(), runtime="litert")
        self._check(inputs, batch)

    def __call__(self, inputs) -> Answer:
        """Return the answer to a batch of the network's inputs; one of another form is the network's own."""
        if not self.fits(inputs):
            return self._ask_network(inputs)
        flat = keras.tree.flatten(inputs)
        specs = [((None, *o.shape[1:]), o.dtype) for o in self._interpreter.outputs]
        tensors = ops.cond(
            self._probably_current(),
            lambda: call_numpy_flat(self._run, flat, specs),
            lambda: _tensors(self._ask_network(inputs)),
        )
        return self._as_answer(tensors)

    def fits(self, inputs) -> bool:
        """Whether a batch has the structure, the sizes and the types of the first one."""
        return _form(inputs) == self._form

    def retire(self) -> None:
        """Let the network answer from now on, wherever this is still a part of a graph."""
        self._retired.assign(True)

    def current(self) -> bool:
        """Whether all weights are what they were when the network was frozen."""
        return all(np.array_equal(ops.convert_to_numpy(v), value) for v, value in self._weights)

    def _probably_current(self):
        """The same of a sample of the weights, cheap enough for every step."""
        count = len(self._weights)
        last = range(max(0, count - 16), count)
        spread = range(0, count, max(1, count // 16))
        same = [
            ops.all(ops.equal(ops.reshape(variable, (-1,))[:4096], value.reshape(-1)[:4096]))
            for variable, value in (self._weights[i] for i in sorted({*spread, *last}))
        ]
        return ops.all(ops.stack([ops.logical_not(self._retired), *same]))

    def _ask_network(self, inputs) -> Answer:
        return self._network.answer(inputs, training=False)

    def _run(self, *arrays):
        answers = self._interpreter.run([*arrays] if len(arrays) > 1 else arrays[0])
        return [answers[n] for n in self._names] if isinstance(answers, dict) else [answers]

    def _as_answer(self, tensors) -> Answer:
        parts = {f: getattr(self._template, f) for f in _FIELDS}
        return dataclasses.replace(self._template, **keras.tree.pack_sequence_as(parts, tensors))

    def _check(self, inputs, batch) -> None:
        pieces = self._interpreter.delegate_partitions()
        if pieces is None or not 1 <= pieces <= MOST_PIECES:
            raise ValueError(f"XNNPACK takes the network in {pieces} pieces.")
        # One example more too: a network that mixes examples would see those that a batch is filled up with.
        more = [ops.concatenate([tensor, tensor[:1]]) for tensor in batch]
        for flat in (batch, more):
            ours = self._run(*map(ops.convert_to_numpy, flat))
            answer = self._ask_network(keras.tree.pack_sequence_as(inputs, flat))
            theirs = [ops.convert_to_numpy(tensor) for tensor in _tensors(answer)]
            if not all(map(_alike, ours, theirs)):
                raise ValueError("LiteRT answers differently.")


_FIELDS = ("outputs", "logits", "inner")


def _tensors(answer: Answer) -> list[Any]:
    return keras.tree.flatten({field: getattr(answer, field) for field in _FIELDS})


def _form(inputs) -> list[tuple] | None:
    """Place, shape of an example and type of each tensor; None where one is sparse, ragged, of open rank."""
    import tensorflow as tf

    form = []
    for path, tensor in keras.tree.flatten_with_path(inputs):
        if (
            not isinstance(tensor, np.ndarray | tf.Tensor)
            or tf.TensorShape(tensor.shape).rank is None
        ):
            return None
        dtype = keras.backend.standardize_dtype(tensor.dtype)
        form.append((path, tuple(tensor.shape[1:]), "float32" if dtype == "float64" else dtype))
    return form


def _require_known(graph) -> None:
    """Refuse what the weights do not tell: states of an RNN, tables, a `tf.Variable` of a layer."""
    if any(one.dtype.name == "resource" for one in graph.external_captures):
        raise ValueError("The teacher reads variables or tables that are none of its weights.")


def _alike(ours: np.ndarray, theirs: np.ndarray) -> bool:
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        return False
    largest = np.max(np.abs(theirs[np.isfinite(theirs)]), initial=np.finfo("float32").tiny)
    return np.allclose(ours, theirs, 0.0, TOLERANCE * largest, equal_nan=True)


def _cpus() -> int:
    """How many this process may use; not every system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pays(model: keras.Model) -> bool:
    """Whether freezing `model` is worth a try.

    This follows from the model and the machine, never from a stopwatch: the same training gives the same
    bits twice.
    """
    import tensorflow as tf

    variables = model.variables
    size = sum(math.prod(v.shape) * 4 for v in variables)
    return (
        not tf.config.list_physical_devices("GPU")
        and size <= MOST_BYTES
        and all(layer.compute_dtype == "float32" for layer in all_layers(model))
    )
