"""Several teachers side by side: what an `Ensemble` and a teacher for each loss have in common."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_distill.network import Answer
from keras_distill.teachers.base import Teacher
from keras_distill.teachers.model import ModelTeacher, as_teacher


class Several(Teacher):
    """Base of teachers that are made of others.

    Args:
        teachers: models or teachers, a list or a dict of them by name.
        inputs: None, or for each a callable or a key into the batch (a list or dict like `teachers`).
        activation: "auto", or for each what its outputs are.

    Attributes:
        members: name → teacher; the names of a list are "0", "1", …
        views: how many views those know that are stored labels; None where none of them is.

    Raises:
        ValueError: there is none, an argument for others than these, or labels of different views.
    """

    def __init__(
        self, teachers: Sequence | Mapping[str, Any], inputs=None, activation: Any = "auto"
    ):
        if not isinstance(teachers, list | tuple | Mapping) or not len(teachers):
            raise ValueError(
                f"{type(self).__name__} takes a list of teachers, or a dict of them by name, got "
                f"{teachers!r}."
            )
        self._as_list = not isinstance(teachers, Mapping)
        named = dict(enumerate(teachers)) if self._as_list else dict(teachers)
        self._inputs = _each(inputs, None, named, "inputs")
        self._activation = _each(activation, "auto", named, "activation")
        made: dict[int, Teacher] = {}  # one that is given twice is asked once
        first: dict[int, Any] = {}
        for key, teacher in named.items():
            if id(teacher) not in made:
                made[id(teacher)] = as_teacher(teacher, self._inputs[key], self._activation[key])
                first[id(teacher)] = key
            elif self._inputs[key] is not self._inputs[first[id(teacher)]]:
                raise ValueError(
                    f"The teachers {first[id(teacher)]!r} and {key!r} are one network with two inputs=: make "
                    "a model of its own of what changes the inputs and the network."
                )
        self.members = {str(key): made[id(teacher)] for key, teacher in named.items()}
        self._distinct = list(made.values())
        stored = [one.views for one in self._distinct if one.views is not None]
        if len(stored) > 1:
            raise ValueError(
                f"{type(self).__name__} has {len(stored)} teachers that are stored labels, and a batch holds "
                "those of one folder: store the answers of an Ensemble, or let the others answer."
            )
        self.views = stored[0] if stored else None

    def asked(self, x, labels=None) -> dict[str, Answer]:
        """Return what each member answers; one that is given twice is asked once."""
        found = {id(teacher): teacher.targets(x, labels) for teacher in self._distinct}
        return {name: found[id(teacher)] for name, teacher in self.members.items()}

    @property
    def models(self) -> list[ModelTeacher]:
        """All models among them."""
        return [model for teacher in self._distinct for model in teacher.models]

    @property
    def state(self) -> list[keras.Layer]:
        """What of them follows the student."""
        return [layer for teacher in self._distinct for layer in teacher.state]

    def begin(self) -> None:
        """Tell each."""
        for teacher in self._distinct:
            teacher.begin()

    def follow(self, student) -> None:
        """Tell each."""
        for teacher in self._distinct:
            teacher.follow(student)

    def update(self, x, answer) -> None:
        """Let those follow the student that do."""
        for teacher in self._distinct:
            teacher.update(x, answer)

    def fingerprint(self) -> str:
        """Return those of all."""
        each = [f"{name}: {one.fingerprint()}" for name, one in self.members.items()]
        return f"{type(self).__name__} {self._own_config()} {each}"

    @property
    def as_given(self) -> list:
        """The teachers as they were given: models where they are models."""
        return [one.model if type(one) is ModelTeacher else one for one in self.members.values()]

    # As one teacher

    @property
    def compilable(self) -> bool:
        """Whether all are."""
        return all(teacher.compilable for teacher in self._distinct)

    @property
    def known(self) -> bool:
        """Whether it is known of all."""
        return all(teacher.known for teacher in self._distinct)

    def check_looks(self, x) -> None:
        """Look at what those say of which it is not known."""
        for teacher in self._distinct:
            if not teacher.known:
                teacher.check_looks(x)

    @property
    def folding_pays(self) -> bool:
        """Whether it pays for one of them."""
        return any(teacher.folding_pays for teacher in self._distinct)

    def fold(self, if_pays: bool = False) -> bool:
        """Fold those that have weights, or only those of which it pays."""
        chosen = [one for one in self._distinct if one.folding_pays or (one.models and not if_pays)]
        folded = [one.fold(if_pays) for one in chosen]
        return any(folded) if chosen else super().fold()

    def unfold(self, if_set: bool = False) -> bool:
        """Unfold them."""
        return any([teacher.unfold(if_set) for teacher in self._distinct])  # each of them

    # Saving

    def save_assets(self, folder: str) -> None:
        """Write each into a folder of its own."""
        for number, teacher in enumerate(self._distinct):
            os.makedirs(os.path.join(folder, str(number)))
            teacher.save_assets(os.path.join(folder, str(number)))

    def load_assets(self, folder: str) -> None:
        """Read what `save_assets` wrote."""
        for number, teacher in enumerate(self._distinct):
            teacher.load_assets(os.path.join(folder, str(number)))

    def _own_config(self) -> dict:
        """The arguments of the constructor beside teachers, inputs and activation."""
        return {}

    def get_config(self) -> dict:
        """Return the arguments of the constructor, serialised."""
        serialize = keras.saving.serialize_keras_object
        given = {id(one): one for one in self.as_given}.values()
        return {
            "teachers": [serialize(one) for one in given],
            "members": {name: self._distinct.index(one) for name, one in self.members.items()},
            "as_list": self._as_list,
            "inputs": [serialize(one) for one in self._inputs.values()],
            "activation": list(self._activation.values()),
            **self._own_config(),
        }

    @classmethod
    def from_config(cls, config):
        """Return the teacher that `get_config` describes."""
        config = dict(config)
        deserialize = keras.saving.deserialize_keras_object
        found = [deserialize(one) for one in config["teachers"]]
        members, as_list = config.pop("members"), config.pop("as_list")
        each = {
            "teachers": [found[number] for number in members.values()],
            "inputs": [deserialize(one) for one in config["inputs"]],
            "activation": config["activation"],
        }
        if not as_list:
            each = {key: dict(zip(members, value, strict=True)) for key, value in each.items()}
        return cls(**{**config, **each})


class Answers(Answer):
    """The answers of a teacher for each loss.

    Args:
        each: the answers, in the order of the losses.
    """

    def __init__(self, each: list[Answer]):
        super().__init__(
            [one.outputs for one in each],
            [one.logits for one in each],
            [one.activations for one in each],
            {
                f"{i}/{name}": value
                for i, one in enumerate(each)
                for name, value in one.inner.items()
            },
        )
        self._each = each

    def of_loss(self, number: int) -> Answer:
        """Return the answer that the loss of this number reads."""
        return self._each[number]


@keras.saving.register_keras_serializable(package="keras_distill")
class PerLoss(Several):
    """A teacher for each loss, in their order; `Distiller(teacher=[a, b], …)` makes it of a list.

    Args: as `Several`, the teachers as a list.
    """

    def of_loss(self, number: int) -> Teacher:
        """Return the teacher of the loss of this number."""
        return self.members[str(number)]

    def targets(self, x, labels=None) -> Answers:
        """Return what each answers; one that teaches several losses is asked once."""
        return Answers(list(self.asked(x, labels).values()))

    def spec(self) -> Answers | None:
        """Return the symbolic answers, or None where one is not known."""
        specs = [teacher.spec() for teacher in self.members.values()]
        found = [one for one in specs if one is not None]
        return Answers(found) if len(found) == len(specs) else None


def _each(given, default, named: Mapping, argument: str) -> dict:
    """What was given for each teacher, by its key."""
    if given is None or given == default:
        return dict.fromkeys(named, default)
    if isinstance(given, list | tuple):
        given = dict(enumerate(given))
    if not isinstance(given, Mapping) or set(given) != set(named):
        raise ValueError(
            f"{argument}={given!r} must have one for each of the {len(named)} teachers, {list(named)}."
        )
    return {key: given[key] for key in named}
