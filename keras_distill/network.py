"""A network as distillation sees it: one forward pass gives its outputs, their logits and its inner layers.

student = Network(model, activation="auto", layer_names=["block_12_add"])
answer = student(images, training=True)
answer.outputs                  # what the model returns
answer.logits                   # float32, in the same structure
answer.inner["block_12_add"]    # what that layer returned
"""

import contextlib
import dataclasses
import warnings
from typing import Any

import keras

from keras_distill import activations
from keras_distill.symbolic import any_batch, input_specs, symbolically
from keras_distill.taps import find_tap, recording, the_value


@dataclasses.dataclass
class Answer:
    """What a network says of one batch.

    Attributes:
        outputs: as the model returns them: a tensor, list or dict.
        logits: the same structure in float32, before any softmax or sigmoid.
        activations: the same structure of `"linear"`, `"softmax"` or `"sigmoid"`: how `outputs` were made.
        inner: outputs of the tapped layers, one tensor for each name.
        names: of the outputs, for those that are a list; None where the model has none.
    """

    outputs: Any
    logits: Any
    activations: Any
    inner: dict[str, Any] = dataclasses.field(default_factory=dict)
    names: list[str] | None = None

    def of_loss(self, number: int) -> "Answer":
        """Return what the loss of this number reads: itself, see `teachers.PerLoss`."""
        return self


class Network:
    """A `keras.Model` with what it takes to read it.

    Args:
        model: the model.
        inputs: None (the whole batch), a key into it, or a callable from it to the model's inputs.
        activation: `"auto"`, or what each output is, see `activations.declared`.
        layer_names: of inner layers, as `taps.find_tap` reads them: `"mobilenetv2/block_6_expand_relu"`,
            `"encoder:1"` for the second call of a layer.
        role: "teacher" or "student", for sentences.
    """

    def __init__(self, model, inputs=None, activation="auto", layer_names=(), role="student"):
        self.model = model
        self.inputs = inputs
        self.activation = activation
        self.role = role
        self.layer_names = list(dict.fromkeys(layer_names))
        self._taps = {name: find_tap(model, name) for name in self.layer_names}
        activations.declared(self.heads, activation, self._argument)  # a wrong word is told now

    @property
    def heads(self) -> list[activations.Head]:
        """One `Head` for each output, as the model shows it and the user declares it."""
        return activations.declared(activations.heads(self.model), self.activation, self._argument)

    @property
    def _argument(self) -> str:
        return "activation" if self.role == "peer" else f"{self.role}_activation"

    def select(self, x, training: bool = False):
        """Return this network's inputs out of the batch `x`."""
        return select(x, self.inputs, f"{self.role}_inputs", training)

    def __call__(self, x, training: bool) -> Answer:
        """Run the model once on the batch `x`."""
        return self.answer(self.select(x, training), training)

    def answer(self, inputs, training: bool) -> Answer:
        """Run the model once on its own inputs, as `select` gives them."""
        heads = self.heads
        taps = dict(self._taps)
        taps.update({f"/{i}": head.tap for i, head in enumerate(heads) if head.tap is not None})
        if taps and not self.model.built:  # Keras runs the first call twice, once for the shapes
            self.model(inputs, training=False)
        with recording(taps) as recorded:
            outputs = self.model(inputs, training=training)
        return self._answer(outputs, heads, recorded, self._inner(recorded))

    def read(self, outputs) -> Answer:
        """Return the `Answer` of outputs that were computed elsewhere, without inner layers."""
        return self._answer(outputs, self.heads, {}, {})

    def layer(self, name: str):
        """Return the inner layer that `name`, one of `layer_names`, means."""
        return self._taps[name].layer

    def spec(self) -> Answer | None:
        """Return a symbolic answer to any batch, or None where the shapes are not known yet.

        Its logits are the outputs; how those were made is left out.
        """
        inner = self.inner_specs()
        if inner is None:
            return None
        outputs = getattr(self.model, "output", None)
        if outputs is None:
            inputs = input_specs(self.model)
            if inputs is None:
                return None
            try:
                outputs = symbolically(lambda one: self.model(one, training=False), inputs)
            except Exception:  # as in `inner_specs`
                return None
        names = getattr(self.model, "output_names", None)
        return Answer(outputs, outputs, None, inner, names)

    def inner_specs(self) -> dict[str, keras.KerasTensor] | None:
        """Return what each tapped layer will return, for a batch of any size, without running on data.

        The shapes are those of the model's own inputs. None where the model has seen no inputs yet, or
        cannot be run on symbolic ones.

        Raises:
            ValueError: as a pass would; see `taps.the_value`.
        """
        layers = [tap.layer for tap in self._taps.values()]
        with contextlib.suppress(
            AttributeError, ValueError
        ):  # it is called never, or in several places
            if all(layer in getattr(self.model, "operations", ()) for layer in layers):
                recorded = {name: [tap.layer.output] for name, tap in self._taps.items()}
                return self._specs(recorded)
        inputs = input_specs(self.model)
        if inputs is None:
            return None

        def run(inputs):
            with recording(self._taps) as recorded:
                self.model(inputs, training=False)
            return recorded

        try:
            recorded = symbolically(run, inputs)
        except Exception:  # a layer that asks for values, which only a real pass has: it will tell
            return None
        return self._specs(recorded)

    def _specs(self, recorded):
        return {name: any_batch(value) for name, value in self._inner(recorded).items()}

    def _inner(self, recorded) -> dict[str, Any]:
        whose = f"the {self.role} '{self.model.name}'"
        return {
            name: the_value(name, self._taps[name], recorded[name], whose)
            for name in self.layer_names
        }

    def _answer(self, outputs, heads, recorded, inner) -> Answer:
        flat = keras.tree.flatten(outputs)
        if len(heads) == 1:
            heads = heads * len(flat)
        logits = []
        for i, (output, head) in enumerate(zip(flat, heads, strict=True)):
            passed = recorded.get(f"/{i}", [])
            if len(passed) == 1 and len(passed[0].shape) == len(output.shape):
                logits.append(activations.to_logits(passed[0], "linear"))
            else:
                logits.append(activations.to_logits(output, head.activation))
            if len(logits[-1].shape) == 1:  # one number for each example: one class
                logits[-1] = keras.ops.expand_dims(logits[-1], -1)
        kinds = [head.activation for head in heads]
        pack = keras.tree.pack_sequence_as
        names = getattr(self.model, "output_names", None)
        return Answer(outputs, pack(outputs, logits), pack(outputs, kinds), inner, names)

    def check_looks(self, outputs) -> None:
        """Refuse `outputs` of one batch that look like probabilities where logits are assumed.

        Numbers from 0 to 1 of a student, which may have learned nothing yet, are only warned of: they may be
        chance.

        Raises:
            ValueError: with the argument to set.
        """
        heads = self.heads
        flat = keras.tree.flatten(outputs)
        if len(heads) == 1:
            heads = heads * len(flat)
        for output, head in zip(flat, heads, strict=True):
            found = None if head.known else activations.look_like(output)
            if not found:
                continue
            sentence = (
                f"How the {self.role} ends is not known, so its outputs were taken for logits, but one batch "
                f"of them looks like probabilities ({found}). Pass {self._argument}='{found}', or "
                f"{self._argument}='linear' if they are logits."
            )
            if found == "softmax" or self.role == "teacher":
                raise ValueError(sentence)
            warnings.warn(sentence, stacklevel=4)


# The keys of a batch beside whose inputs stored labels lie, see `soft_labels`.
INPUTS, TARGETS = "inputs", "keras_distill/targets"


def select(x, inputs, argument: str, training: bool = False):
    """Return `x`, `inputs(x)` or `x[inputs]`; a layer is told whether this is training.

    Of a batch with stored labels, `x` is the inputs alone.

    Raises:
        ValueError: `inputs` is a key that the batch does not have; the sentence names `argument`.
    """
    if isinstance(x, dict) and TARGETS in x:
        x = x[INPUTS]
    if inputs is None:
        return x
    if isinstance(inputs, keras.Layer):
        return inputs(x, training=training)
    if callable(inputs):
        return inputs(x)
    try:
        return x[inputs]
    except (KeyError, IndexError, TypeError) as error:
        has = sorted(x) if isinstance(x, dict) else f"a {type(x).__name__}"
        raise ValueError(f"{argument}={inputs!r} is not in the batch, which has {has}.") from error
