"""Online distillation: networks that learn together and teach each other.

distiller = kd.MutualDistiller([kd.students.build("resnet8", ...), kd.students.build("resnet8", ...)])
distiller.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
distiller.fit(x, y, validation_data=validation, epochs=30)
distiller.best_peer().save("student.keras")
"""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_distill import activations, checks, kinds, losses
from keras_distill.losses.logit_loss import LogitLoss
from keras_distill.network import Answer, Network
from keras_distill.optimizers import PerGroup
from keras_distill.several_heads import SeveralHeads, each_of
from keras_distill.soft_loss import Batch
from keras_distill.soft_terms import SoftTerms

TARGETS = ("peers", "ensemble", "best")
_ENSEMBLE = "ensemble"
# "student_loss", … are columns of the history.
_RESERVED = (_ENSEMBLE, "student", "total", "distillation", "val")


class _Peers(Answer):
    """What all peers say of a batch: their outputs by name, beside those of the ensemble."""

    def __init__(self, each: dict[str, Answer], together):
        outputs = {name: answer.outputs for name, answer in each.items()}
        super().__init__({**outputs, _ENSEMBLE: together}, None, None)
        self.each = list(each.values())


@keras.saving.register_keras_serializable(package="keras_distill")
class MutualDistiller(SeveralHeads):
    """Several networks that train at once, each on the labels and on what the others say.

    Peer i minimises `s·CEᵢ + (1 − s)·Σ wₗ·lossₗ(targetᵢ, peer i)`, the target detached; the loss shown is the
    sum over the peers, with their regularisation. `distillation_loss` is such a sum too; the column of one
    loss, as `soft_targets`, is its mean over the peers. Use it where there is no trained teacher: each peer
    is to end better than it would alone, and the ensemble better still. It costs a forward and a backward
    pass for each peer.

    Args:
        peers: `keras.Model`s of the same classes, a list or a dict by name; their architectures may differ.
            The names begin the columns of the history: "student", "total" and some others are taken.
        distillation_losses: losses on logits, as for `Distiller`.
        distillation_loss_weights: as for `Distiller`.
        student_loss_weight: s; 0.5 is the paper's CE + KL, halved.
        target: whom a peer learns from. "peers": from each of the others, the mean of the losses (DML).
            "ensemble": from the mean of all peers' logits. "best": for each example from the peer with the
            least cross-entropy, itself among them (KDCL); it needs labels, and where a label is no class it
            is "ensemble".
        activation: what the peers' outputs are, as `student_activation` of `Distiller`; or a list (or dict).
        name: the model's name.
        **kwargs: as for `keras.Model`.

    Attributes:
        peers: name → network; "peer_0", "peer_1", … for a list.

    Raises:
        ValueError: fewer than two peers, peers of other classes or inputs, names that are taken, losses on
            inner layers.

    Source: Zhang et al. 2018, Deep Mutual Learning, arXiv 1706.00384; Guo et al. 2020, KDCL.
    """

    def __init__(
        self,
        peers: Sequence[keras.Model] | Mapping[str, keras.Model],
        distillation_losses=None,
        distillation_loss_weights=None,
        student_loss_weight=0.5,
        target="peers",
        activation: Any = "auto",
        name="mutual_distiller",
        **kwargs,
    ):
        named = _named(peers)
        kwargs.setdefault("dtype", next(iter(named.values())).dtype_policy)
        if target not in TARGETS:
            raise ValueError(
                f"target={target!r} is not known: give one of {', '.join(map(repr, TARGETS))}."
            )
        if distillation_losses is None:
            distillation_losses = losses.SoftTargets(temperature=1.0)
        terms = SoftTerms(distillation_losses, distillation_loss_weights, None, None)
        for term in terms.terms:
            if not isinstance(term.loss, LogitLoss) or term.output is not None:
                raise ValueError(
                    f"Peers teach each other by losses on their one output, and {type(term.loss).__name__} "
                    "reads something else: use SoftTargets, DIST, LogitMSE, …"
                )
        super().__init__(terms, student_loss_weight, name=name, **kwargs)
        self.target = target
        self._peer_names = list(named)
        self._models = list(named.values())  # tracked: trained and saved
        self._given_activation = activation
        if not isinstance(activation, list | tuple | Mapping):
            activation = dict.fromkeys(named, activation)
        ends = each_of(activation, list(named), "activation") or {}
        self._networks = [Network(named[name], None, ends[name], role="peer") for name in named]
        self._losses_of_peers: dict[str, float] = {}
        self.built = all(model.built for model in self._models)

    @property
    def peers(self) -> dict[str, keras.Model]:
        """The networks by their names."""
        return dict(zip(self._peer_names, self._models, strict=True))

    also_measured = (_ENSEMBLE,)

    def heads(self) -> dict[str, str | None]:
        """Return how each peer ends."""
        ends = [network.heads[0] for network in self._networks]
        kinds = [end.activation if end.known else None for end in ends]
        return dict(zip(self._peer_names, kinds, strict=True))

    def optimizer_of(self, optimizer):
        """Return one optimizer: for a list, one that has one for each peer."""
        if not isinstance(optimizer, list | tuple):
            return optimizer
        if len(optimizer) != len(self._models):
            raise ValueError(
                f"There are {len(optimizer)} optimizers for {len(self._models)} peers: give one for "
                "each, or one for all."
            )
        optimizer = PerGroup(optimizer)
        optimizer.groups([model.trainable_variables for model in self._models])
        return optimizer

    # The step

    def call(self, inputs, training=None):
        """Return the outputs of each peer and of the ensemble, by their names."""
        return self.forward(inputs, bool(training)).outputs

    def targets(self, x, y=None):
        """Return None: the targets are what the peers say in the step itself."""

    def wants_batch(self) -> bool:
        """Whether a peer ends in a way that is not known."""
        return self.compiled and not all(network.heads[0].known for network in self._networks)

    def look(self, x, y=None) -> None:
        """Refuse peers that seem to end in probabilities where logits are assumed."""
        for network in self._networks:
            network.check_looks(network(x, training=False).outputs)

    def forward(self, x, training: bool) -> _Peers:
        """Run each peer once."""
        each = {
            name: network(x, training)
            for name, network in zip(self._peer_names, self._networks, strict=True)
        }
        self.built = True
        return _Peers(each, _together(list(each.values())))

    def soft(self, batch: Batch, answer, targets) -> list:
        """Return what each peer is to learn from its targets."""
        found = []
        for i, own in enumerate(answer.each):
            hard = None if self._hard_loss is None else self._hard_loss[self._peer_names[i]]
            values = [
                sum(self.soft_terms.values(batch, target, own, hard), 0.0)
                for target in self._targets_of(i, answer.each, batch.labels)
            ]
            found.append(sum(values, 0.0) / len(values))
        return found

    def head_spec(self):
        """Return the first peer's symbolic output; a subclassed model has none."""
        return getattr(self._models[0], "output", None)

    def trained(self) -> list:
        """Return the peers."""
        return self._models

    def _targets_of(self, number: int, answers: list[Answer], labels) -> list[Answer]:
        """What peer `number` learns from."""
        if self.target == "peers":
            return [answer for i, answer in enumerate(answers) if i != number]
        logits = ops.stack([ops.stop_gradient(answer.logits) for answer in answers])
        if self.target == "ensemble":
            return [Answer(None, ops.mean(logits, axis=0), answers[0].activations)]
        if labels is None:
            raise ValueError(
                "MutualDistiller(target='best') chooses by the labels, and there are none: give (x, y), or "
                "target='peers'."
            )
        hard = self._hard_loss and self._hard_loss[self._peer_names[number]]
        kind = kinds.of(logits[0], [answer.activations for answer in answers], hard)
        truth, known = kinds.truth(labels, logits[0], kind)
        best = ops.argmin(kinds.cross_entropy(truth, logits, kind), axis=0)
        chosen = ops.one_hot(best, len(answers), axis=0, dtype="float32")[..., None]
        chosen = ops.where(ops.all(known, axis=-1, keepdims=True), chosen, 1.0 / len(answers))
        return [Answer(None, ops.sum(chosen * logits, axis=0), answers[0].activations)]

    def evaluate(self, x=None, y=None, *args, return_dict=False, **kwargs):
        """As `keras.Model.evaluate`; what it finds is what `best_peer` goes by."""
        kwargs["return_dict"] = True
        found = super().evaluate(x, y, *args, **kwargs)
        self._losses_of_peers = {
            name: float(found[f"{name}_loss"])
            for name in self._peer_names
            if f"{name}_loss" in found
        }
        return found if return_dict else list(found.values())

    def best_peer(self) -> keras.Model:
        """Return the network with the least loss in the last validation (or `evaluate`).

        Raises:
            ValueError: there was none with labels.
        """
        if not self._losses_of_peers:
            raise ValueError(
                "No peer was measured: give fit validation_data=, or call evaluate(x, y), first."
            )
        return self.peers[min(self._losses_of_peers, key=self._losses_of_peers.__getitem__)]

    def export(self, filepath, *args, **kwargs):
        """Export the best peer, as `keras.Model.export`.

        Raises:
            ValueError: no peer was measured; `peers[name].export` exports any of them.
        """
        return self.best_peer().export(filepath, *args, **kwargs)

    # Saving

    def get_config(self):
        """Return the arguments of the constructor, serialised."""
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "peers": {name: serialize(model) for name, model in self.peers.items()},
            "distillation_losses": [serialize(loss) for loss in self.soft_terms.losses],
            "distillation_loss_weights": [serialize(one) for one in self.soft_terms.weights],
            "student_loss_weight": self.student_loss_weight,
            "target": self.target,
            "activation": self._given_activation,
        }

    @classmethod
    def from_config(cls, config):
        """Return the distiller that `get_config` describes."""
        config = dict(config)
        deserialize = keras.saving.deserialize_keras_object
        config["peers"] = {name: deserialize(one) for name, one in config["peers"].items()}
        for key in ("distillation_losses", "distillation_loss_weights"):
            config[key] = [deserialize(one) for one in config[key]]
        return cls(**config)


def _named(peers) -> dict[str, keras.Model]:
    if isinstance(peers, Mapping):
        named = dict(peers)
    elif isinstance(peers, list | tuple):
        named = {f"peer_{i}": peer for i, peer in enumerate(peers)}
    else:
        named = {}
    models = list(named.values())
    if len(models) < 2 or not all(isinstance(model, keras.Model) for model in models):
        raise ValueError(
            "MutualDistiller takes at least two keras.Models, a list or a dict by name, got "
            f"{[type(model).__name__ for model in models] or type(peers).__name__}."
        )
    for name in named:
        if not isinstance(name, str) or not name:
            raise ValueError(f"Peers have names that are strings, got {name!r}.")
        if name in _RESERVED or name.startswith("val_"):
            raise ValueError(
                f"A peer cannot be named '{name}', as the history has columns of that name, or takes them "
                "for those of the validation: give another one."
            )
    for i, model in enumerate(models):
        for other in models[:i]:
            if model is other:
                raise ValueError("A network is there twice: build one for each peer.")
            try:
                checks.same_inputs(other, model)
            except ValueError as error:
                raise ValueError(
                    f"Peers take one batch, got peers of the inputs {_inputs(other)} and {_inputs(model)}: "
                    "build them for the same ones."
                ) from error
            shapes = [getattr(one, "output_shape", None) for one in (other, model)]
            several = any(isinstance(shape, list | dict) for shape in shapes)
            if several or (None not in shapes and shapes[0] != shapes[1]):
                raise ValueError(
                    f"Peers have one output of the same shape, got {shapes[0]} and {shapes[1]}."
                )
    return named


def _inputs(model) -> list:
    return [(tuple(one.shape), one.dtype) for one in model.inputs]


def _together(answers: list[Answer]):
    """The ensemble's outputs, in the form of the peers': the mean of their logits."""
    logits = sum(answer.logits for answer in answers) / len(answers)
    return activations.of_logits(logits, answers[0].activations)
