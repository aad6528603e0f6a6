"""A teacher's network whose weights are constants of the compiled step, for as long as nobody sets them.

if pays(model):
    folded = FoldedNetwork(Network(model))
    folded.answer(inputs)           # in the graph: the `Answer` of network.answer(inputs, training=False)

While a teacher teaches nobody changes its weights. Constants need not be read in every step, and TensorFlow
folds BatchNormalization into the convolutions before it: benchmarks/training_speed.py shows what a step
gains, and what the first one costs. Weights that are set after all are noticed: at the next step where all
of them are, at the next epoch where it is a single one of many.
"""

import dataclasses
import math

import keras
import numpy as np
from keras import ops

from keras_distill.layer_tree import all_built
from keras_distill.network import Answer, Network

# While a graph is made, TensorFlow holds its constants about 15 times, and copying them takes time:
# ResNet50's 90 MiB cost 1.4 GB and ten seconds or more. And a graph ends at 2 GiB.
PAYING_BYTES, MOST_BYTES = 2**26, 2**28
# Each step looks at the first values of so many weights, and of as many of the last ones.
_WEIGHTS, _VALUES = 16, 4096


class FoldedNetwork:
    """What `network` answers in inference, with its weights of this moment as constants.

    Args:
        network: of the teacher.

    Raises:
        ValueError: a layer of the model has no weights yet, or they are too many.
    """

    def __init__(self, network: Network):
        model = network.model
        hindrance = _hindrance(model, MOST_BYTES)
        if hindrance:
            raise ValueError(f"The teacher '{model.name}' {hindrance}; or use fold_teacher='auto'.")
        self._network = network
        self._weights = [(v, ops.convert_to_numpy(v)) for v in model.variables]
        self._retired = keras.Variable(False, trainable=False, dtype="bool", name="retired")

    def answer(self, inputs) -> Answer:
        """Return the answer to a batch of the network's inputs; outside of a graph, that of its variables."""
        import tensorflow as tf

        if tf.executing_eagerly():
            return self._network.answer(inputs, training=False)
        answers: list[Answer] = []

        def tensors(answer: Answer):
            answers.append(answer)
            return [getattr(answer, name) for name in _TENSORS]

        # The first branch is traced first: a `tf.function` in a layer then keeps the variables, and is
        # what the second one finds. A constant that it kept would be of no use outside of that branch.
        # Not `ops.cond`, a Keras layer that wraps what goes wrong in it into a sentence of its own.
        found = tf.cond(
            ops.logical_not(self._probably_current()),
            lambda: tensors(self._network.answer(inputs, training=False)),
            lambda: tensors(self._constant(inputs)),
        )
        return dataclasses.replace(answers[-1], **dict(zip(_TENSORS, found, strict=True)))

    def retire(self) -> None:
        """Let the network's own weights count from now on, wherever this is still a part of a graph."""
        self._retired.assign(True)

    def current(self) -> bool:
        """Whether all weights are what they were."""
        return all(np.array_equal(v.numpy(), value) for v, value in self._weights)

    def _probably_current(self):
        """The same of a sample of the weights, cheap enough for every step."""
        count = len(self._weights)
        spread = range(0, count, max(1, count // _WEIGHTS))
        last = range(max(0, count - _WEIGHTS), count)
        same = [
            ops.all(ops.equal(ops.reshape(variable, (-1,))[:_VALUES], value.reshape(-1)[:_VALUES]))
            for variable, value in (self._weights[i] for i in sorted({*spread, *last}))
        ]
        return ops.all(ops.stack([ops.logical_not(self._retired), *same]))

    def _constant(self, inputs) -> Answer:
        constants = [(v, ops.convert_to_tensor(value)) for v, value in self._weights]
        with keras.StatelessScope(constants) as scope:
            given = dict(scope.state_mapping)
            answer = self._network.answer(inputs, training=False)
        if any(value is not given.get(key) for key, value in scope.state_mapping.items()):
            # It writes a state (of an RNN, of a random seed), and what is written in a scope is lost.
            self._weights = []  # no constants: states that go on are no reason to trace again
            return self._network.answer(inputs, training=False)
        return answer


_TENSORS = ("outputs", "logits", "inner")


def pays(model: keras.Model) -> bool:
    """Whether folding `model` pays, as far as measured: with its weights at hand, of some MiB, on CPU."""
    import tensorflow as tf

    return _hindrance(model, PAYING_BYTES) is None and not tf.config.list_physical_devices("GPU")


def _hindrance(model: keras.Model, most_bytes: int) -> str | None:
    """What keeps `model` from being folded, and what to do, as the end of a sentence."""
    if not all_built(model):
        return "has layers without weights yet: call it on a batch"
    size = 4 * sum(math.prod(v.shape) for v in model.variables)
    if size > most_bytes:
        return f"has weights of {size / 2**20:.0f} MiB, and {most_bytes / 2**20:.0f} MiB can be constants"
    return None
