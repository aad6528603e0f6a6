"""A teacher's network as a constant: converted once, then run by LiteRT, which is faster on CPU.

if pays(network.model):
    frozen = FrozenNetwork(network, batch)      # a ValueError says why it cannot be
    frozen(batch)                               # the `Answer` of network(batch, training=False)

While a teacher teaches nobody changes its weights, so they can be packed into the program that computes
its answers, with BatchNormalization folded into convolutions. LiteRT (XNNPACK) then needs a third to nine
tenths of the time of TensorFlow's own layers on CPU (benchmarks/training_speed.py). Weights that are set
after all are noticed, and the network itself answers from that step on.
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

# A conversion takes as long as 15 to 300 steps save, for the networks of keras.applications.
WORTHWHILE_STEPS = 300
# Larger ones take long to convert, and gain little.
MOST_BYTES = 2**28
# A graph in many pieces goes back and forth between XNNPACK and slower kernels.
MOST_PIECES = 4
# Of the largest answer: what another order of float32 additions may change. 1e-5 is usual; MobileNetV3 with
# random weights has 3e-4.
TOLERANCE = 1e-3


class FrozenNetwork:
    """What `network` answers in inference, computed by LiteRT for as long as its weights stay.

    Args:
        network: of the teacher.
        inputs: one batch of the network's inputs, as `network.select` gives them. Batches of other sizes
            are cut and filled up to this one's.

    Raises:
        ValueError: the network cannot be converted, falls to pieces, or answers differently.
    """

    def __init__(self, network: Network, inputs):
        from tflite_export import convert, runtime
        from tflite_export.signature import ModelInput

        self._network = network
        self._weights = [(v, ops.convert_to_numpy(v)) for v in network.model.variables]
        batch = [ops.convert_to_tensor(tensor) for tensor in keras.tree.flatten(inputs)]

        def answer(*flat):
            answer = self._ask_network(keras.tree.pack_sequence_as(inputs, list(flat)))
            self._template = answer
            return _tensors(answer)

        converted = convert.convert_function(
            answer,
            [
                ModelInput(f"input_{i}", tuple(t.shape), keras.backend.standardize_dtype(t.dtype))
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
        """Return the answer to a batch of the network's inputs."""
        flat = keras.tree.flatten(inputs)
        specs = [((None, *o.shape[1:]), o.dtype) for o in self._interpreter.outputs]
        tensors = ops.cond(
            self._probably_current(),
            lambda: call_numpy_flat(self._run, flat, specs),
            lambda: _tensors(self._ask_network(inputs)),
        )
        return self._as_answer(tensors)

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
        return ops.all(ops.stack(same)) if same else ops.convert_to_tensor(True)

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
        ours = self._run(*(ops.convert_to_numpy(tensor) for tensor in batch))
        theirs = [ops.convert_to_numpy(tensor) for tensor in _tensors(self._ask_network(inputs))]
        for our, their in zip(ours, theirs, strict=True):
            scale = max(1.0, float(np.max(np.abs(their), initial=0.0)))
            if our.shape != their.shape or not np.allclose(our, their, 0.0, TOLERANCE * scale):
                raise ValueError("LiteRT answers differently.")


_FIELDS = ("outputs", "logits", "inner")


def _tensors(answer: Answer) -> list[Any]:
    return keras.tree.flatten({field: getattr(answer, field) for field in _FIELDS})


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
