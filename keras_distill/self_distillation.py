"""Self-distillation: a network's end teaches exits from its middle, and is better for it.

distiller = kd.SelfDistiller(model, exits=["block_6_add", "block_13_add"])
distiller.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
distiller.fit(x, y, validation_data=validation, epochs=30)
distiller.student.save("student.keras")         # the model without its exits
"""

import math
from typing import Any

import keras
from keras import ops

from keras_distill import activations, losses, schedules
from keras_distill.losses.logit_loss import LogitLoss
from keras_distill.network import Answer, Network
from keras_distill.pairs import flat_layers, stages
from keras_distill.several_heads import SeveralHeads
from keras_distill.soft_loss import Batch
from keras_distill.soft_terms import SoftTerms

_FINAL = "final"


@keras.saving.register_keras_serializable(package="keras_distill")
class ExitHead(keras.layers.Layer):
    """Features of an inner layer become those of the last one, and logits.

    Maps are halved by separable convolutions until they are as small as the last ones; sequences and flat
    features pass through one Dense layer.

    Args:
        classes: of the logits.
        features: the shape of the last layer's features, without the batch.
        **kwargs: as for `keras.layers.Layer`.
    """

    def __init__(self, classes: int, features, **kwargs):
        super().__init__(**kwargs)
        self.classes, self.features = classes, tuple(features)
        self.supports_masking = True
        self.top = keras.layers.Dense(classes, name="top", dtype="float32")

    def build(self, shape):
        """Make the layers for features of this shape."""
        layers, channels = keras.layers, self.features[-1]
        steps: list[keras.layers.Layer] = []
        if len(shape) == 4:
            sides = [
                math.log2(have / want)
                for have, want in zip(shape[1:3], self.features[:2], strict=False)
                if have and want
            ]
            halvings = max(round(max(sides, default=0.0)), 0)
            now = shape[-1]
            for i in range(max(halvings, 1)):
                left = max(halvings, 1) - i - 1
                width = channels if left == 0 else max(now, round(channels / 2**left))
                strides = 2 if i < halvings else 1
                steps += [
                    layers.SeparableConv2D(width, 3, strides, padding="same", use_bias=False),
                    layers.BatchNormalization(),
                    layers.ReLU(),
                ]
                now = width
        else:
            steps.append(layers.Dense(channels, activation="relu"))
        self.steps = steps
        for step in steps:
            step.build(shape)
            shape = step.compute_output_shape(shape)
        self.top.build((None, channels))

    def call(self, features, training=None, mask=None):
        """Return `(logits, features)`."""
        for step in self.steps:
            features = step(features, training=training) if _trains(step) else step(features)
        pooled = features
        if len(features.shape) == 3 and mask is not None:
            kept = ops.cast(mask, features.dtype)[..., None]
            count = ops.maximum(ops.sum(kept, axis=1), 1.0)
            pooled = ops.sum(features * kept, axis=1) / count
        elif len(features.shape) > 2:
            pooled = ops.mean(features, axis=tuple(range(1, len(features.shape) - 1)))
        return self.top(pooled), pooled if len(self.features) == 1 else features

    def compute_mask(self, inputs, mask=None):
        """None: what was masked has been left out."""

    def get_config(self):
        """Return the arguments of the constructor."""
        return {**super().get_config(), "classes": self.classes, "features": self.features}


def _trains(layer) -> bool:
    return isinstance(layer, keras.layers.BatchNormalization)


@keras.saving.register_keras_serializable(package="keras_distill")
class SelfDistiller(SeveralHeads):
    """Exits are attached to inner layers of a network and learn from its end (be your own teacher).

    With a head e on each exit, the loss is `s·ΣCE + (1 − s)·Σₑ (Σ wₗ·lossₗ(end, e) + β·mean (fₑ − f)²)`;
    ΣCE is over the exits and the end, the end's answers and its last features f are detached, and fₑ are the
    features that a head makes before its logits. The exits pull useful features into the middle of the
    network. They are dropped afterwards; until then they are classifiers that need less time.

    Use it to make one network better without any other one, where half more training time is no trouble.

    Args:
        model: the `keras.Model` to train, with one output of classes for each example.
        exits: names of inner layers, shallow to deep, or one name; "auto" for the ends of all stages but the
            last one.
        distillation_losses: losses on logits, as for `Distiller`; None for `SoftTargets(temperature=3.0)`.
        distillation_loss_weights: as for `Distiller`.
        student_loss_weight: s; 0.7 is the paper's 1 − α.
        feature_weight: β, of the features; 0 for none.
        last: the layer whose features the exits' are compared with; "auto" for the last stage's end, and in a
            network without maps or tokens for the last layer before the top.
        activation: as `student_activation` of `Distiller`.
        name, **kwargs: as for `keras.Model`.

    Attributes:
        student: the model.
        exits: the names of the inner layers; in metrics they are "exit_1", "exit_2", …, the end is "final".

    Raises:
        ValueError: a layer that does not exist or is there twice, a model that is not built, has several
            outputs or answers for each pixel or token, losses on inner layers.

    Source: Zhang et al. 2019, Be Your Own Teacher, arXiv 1905.08094.
    """

    def __init__(
        self,
        model: keras.Model,
        exits="auto",
        distillation_losses=None,
        distillation_loss_weights=None,
        student_loss_weight=0.7,
        feature_weight=0.03,
        last="auto",
        activation="auto",
        name="self_distiller",
        **kwargs,
    ):
        if not isinstance(model, keras.Model):
            raise ValueError(f"SelfDistiller takes a keras.Model, got {type(model).__name__}.")
        if not model.built:
            raise ValueError("The model has no weights yet: call it on a batch first.")
        kwargs.setdefault("dtype", model.dtype_policy)
        exits, last = _places(model, exits, last)
        network = Network(model, None, activation, [*exits, last])
        specs = network.spec()
        if specs is None or keras.tree.is_nested(specs.outputs):
            raise ValueError(
                "SelfDistiller takes a model of one output whose shapes are known before it runs: a "
                "functional or sequential one, or one that was called on a batch."
            )
        if len(specs.outputs.shape) != 2:
            raise ValueError(
                "SelfDistiller takes a model that answers (batch, classes), as exits have one answer for "
                f"each example, and this one answers {tuple(specs.outputs.shape)}."
            )
        names = [f"exit_{i}" for i in range(1, len(exits) + 1)]
        given = (
            losses.SoftTargets(temperature=3.0)
            if distillation_losses is None
            else distillation_losses
        )
        terms = _terms(given, distillation_loss_weights, names, feature_weight)
        super().__init__(terms, student_loss_weight, name=name, **kwargs)
        self.student = model
        self.exits = exits
        self._given = (given, distillation_loss_weights, feature_weight, last, activation)
        self._network = network
        self._exit_names, self._last = names, last
        classes, features = specs.outputs.shape[-1], specs.inner[last].shape[1:]
        self._exit_heads = [
            ExitHead(classes, features, name=name, dtype=model.dtype_policy) for name in names
        ]
        for head, layer in zip(self._exit_heads, exits, strict=True):
            head.build(specs.inner[layer].shape)
        if feature_weight:
            shapes = [(None, *features)]
            for term in terms.trainable:
                term.loss.build(shapes, shapes)
        self.built = True

    def heads(self) -> dict[str, str | None]:
        """Return how the end and the exits end: alike."""
        end = self._network.heads[0]
        kind = end.activation if end.known else None
        return dict.fromkeys([_FINAL, *self._exit_names], kind)

    def call(self, inputs, training=None):
        """Return the outputs of the end and of each exit, by their names."""
        return self.forward(inputs, bool(training)).outputs

    def targets(self, x, y=None):
        """Return None: the teacher is the network's own end."""

    def forward(self, x, training: bool) -> Answer:
        """Run the network once, and the heads on its inner layers."""
        own = self._network(x, training)
        outputs = {_FINAL: own.outputs}
        logits = {_FINAL: own.logits}
        inner = {_FINAL: own.inner[self._last]}  # not by its own name, which may be that of an exit
        for name, layer, head in zip(self._exit_names, self.exits, self._exit_heads, strict=True):
            features = own.inner[layer]
            # A tensor's mask has no public name in Keras 3.
            mask = getattr(features, "_keras_mask", None)
            found, inner[name] = head(features, training=training, mask=mask)
            logits[name] = ops.cast(found, "float32")
            outputs[name] = activations.of_logits(logits[name], own.activations)
        kinds = dict.fromkeys(outputs, own.activations)
        return Answer(outputs, logits, kinds, inner)

    def soft(self, batch: Batch, answer, targets) -> list:
        """Return what the exits are to learn from the end."""
        end = {name: answer.logits[_FINAL] for name in answer.logits}
        teacher = Answer(end, end, answer.activations, {_FINAL: answer.inner[_FINAL]})
        return self.soft_terms.values(batch, teacher, answer, self._hard_loss)

    def head_spec(self):
        """Return the model's symbolic output; a subclassed model has none."""
        return getattr(self.student, "output", None)

    def trained(self) -> list:
        """Return the model, the heads and the losses."""
        return [self.student, *self._exit_heads, *self.soft_terms.losses]

    def wants_batch(self) -> bool:
        """Whether the model ends in a way that is not known."""
        return self.compiled and not self._network.heads[0].known

    def look(self, x, y=None) -> None:
        """Refuse a model that seems to end in probabilities where logits are assumed."""
        self._network.check_looks(self.student(x, training=False))

    def export(self, filepath, *args, **kwargs):
        """Export the model without its exits, as `keras.Model.export`."""
        return self.student.export(filepath, *args, **kwargs)

    def get_config(self):
        """Return the arguments of the constructor, serialised."""
        serialize = keras.saving.serialize_keras_object
        given, weights, feature_weight, last, activation = self._given
        as_list = given if isinstance(given, list | tuple) else [given]
        return {
            **super().get_config(),
            "model": serialize(self.student),
            "exits": list(self.exits),
            "distillation_losses": [serialize(losses.get(one)) for one in as_list],
            "distillation_loss_weights": serialize(weights),
            "student_loss_weight": self.student_loss_weight,
            "feature_weight": serialize(feature_weight),
            "last": last,
            "activation": activation,
        }

    @classmethod
    def from_config(cls, config):
        """Return the distiller that `get_config` describes."""
        config = dict(config)
        deserialize = keras.saving.deserialize_keras_object
        for key in ("model", "distillation_loss_weights", "feature_weight"):
            config[key] = deserialize(config[key])
        config["distillation_losses"] = [deserialize(one) for one in config["distillation_losses"]]
        return cls(**config)


def _places(model: keras.Model, exits, last) -> tuple[list[str], str]:
    """The layers of the exits, and the one that they are compared with."""
    ends: list[str] = []
    if "auto" in (exits, last):
        ends = [one for found in stages(model).values() for one in found[-1:]]
    flat = flat_layers(model) if last == "auto" and not ends else []
    if last == "auto":
        last = ends[-1] if ends else flat[-1] if flat else None
    given = exits
    if exits == "auto":
        exits = [one for one in ends if one != last]
    exits = [exits] if isinstance(exits, str) else list(exits)
    if not exits or not all(isinstance(one, str) for one in [*exits, last]):
        choice = f"layers are {flat}" if flat else f"stages end in {ends}"
        raise ValueError(
            f"exits={given!r} and last={last!r} must name inner layers; 'auto' takes the ends of stages, for "
            f"the exits all but the last, and this model's {choice}."
        )
    if len(set(exits)) < len(exits):
        raise ValueError(f"exits={given!r} names a layer twice: name each once.")
    return exits, last


def _terms(given, weights, names: list[str], feature_weight) -> SoftTerms:
    """The losses of each exit, and what compares its features."""
    each = SoftTerms(given, weights, None, None)
    found: list[Any] = []
    of_each: list[Any] = []
    for name in names:
        for term in each.terms:
            if not isinstance(term.loss, LogitLoss) or term.output is not None:
                raise ValueError(
                    f"Exits learn by losses on their outputs, and {type(term.loss).__name__} reads something "
                    "else: use SoftTargets, DIST, LogitMSE, …; feature_weight= is for the features."
                )
            config = {**term.loss.get_config(), "output": name, "name": f"{term.loss.name}_{name}"}
            found.append(type(term.loss).from_config(config))
            of_each.append(term.weight)
        if feature_weight:
            found.append(losses.Hint(_FINAL, name, connector=None, name=f"features_{name}"))
            of_each.append(schedules.checked("feature_weight", feature_weight))
    return SoftTerms(found, of_each, None, None)
