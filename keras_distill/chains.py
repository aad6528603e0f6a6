"""Networks that teach one another in turn: assistants between a teacher and a student, generations.

kd.distill_chain([teacher, assistant, student], x, y, epochs=30, loss="sparse_categorical_crossentropy")
students = kd.born_again(build, x, y, generations=3, epochs=30, loss="sparse_categorical_crossentropy")
"""

import itertools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras

from keras_distill import losses, schedules
from keras_distill.begun_with import describe, describe_teacher
from keras_distill.callbacks import Resume
from keras_distill.distiller import Distiller
from keras_distill.teachers.model import as_it_was
from keras_distill.training_state import History

_FREE = ("callbacks", "verbose")  # arguments of `fit` that another call may change


def distill_chain(
    networks: Sequence[keras.Model],
    x,
    y=None,
    *,
    distillation_losses="soft_targets",
    distillation_loss_weights=None,
    student_loss_weight=0.5,
    optimizer="adam",
    loss=None,
    metrics=None,
    folder: str | os.PathLike | None = None,
    **fit: Any,
) -> list[History]:
    """Let each network teach the next one, from a trained teacher over assistants to the student.

    Use it where the student is so much smaller than the teacher that it learns little from it; an assistant
    of a size between the two helps (Mirzadeh et al. 2020, arXiv 1902.03393). Measure it against distilling
    without an assistant, which takes half the time.

    Args:
        networks: the trained teacher, the assistants, and the student, in this order; all but the first are
            trained.
        x, y: the data, as for `fit`.
        distillation_losses, distillation_loss_weights, student_loss_weight: as for `Distiller`; each network
            gets copies of the losses.
        optimizer, loss, metrics: as for `compile`; each network gets a copy of the optimizer.
        folder: where the states of the trainings are kept, so that the same call goes on where it was killed
            (see `callbacks.Resume`), and trains nothing that is done; None for nowhere. Networks may be added
            at the end, and callbacks may change.
        **fit: as for `fit`: epochs, batch_size, validation_data, callbacks, … The callbacks are those of all
            trainings; or a function from a network's place in `networks` to its callbacks, which a
            `ModelCheckpoint` or `StudentCheckpoint` needs: it would compare the losses of all networks, and
            write one over the other. `callbacks=lambda i: [StudentCheckpoint(f"{i}.keras")]`.

    Returns:
        The history of each training.

    Raises:
        ValueError: there are less than two networks; a training in `folder` was begun with another teacher,
            network, other data or arguments (epochs too, since those that follow were taught by its end);
            one checkpoint callback for several trainings; or what `Distiller` refuses.
    """
    several = not isinstance(networks, keras.Model)
    networks = list(networks) if several else [networks]
    if len(networks) < 2:
        raise ValueError(
            "distill_chain takes a list of a trained teacher and at least one network to train, got "
            f"{len(networks) if several else 'one network'}."
        )
    constructed = {
        "distillation_losses": distillation_losses,
        "distillation_loss_weights": distillation_loss_weights,
        "student_loss_weight": student_loss_weight,
    }
    compiled = {"optimizer": optimizer, "loss": loss, "metrics": metrics}
    trainings = Trainings(compiled, (x, y), fit, folder, len(networks) - 1)
    return [
        trainings.train(number, teacher, student, constructed)
        for number, (teacher, student) in enumerate(itertools.pairwise(networks), 1)
    ]


def born_again(
    build_student: Callable[[], keras.Model],
    x,
    y=None,
    *,
    generations: int = 3,
    teacher: keras.Model | None = None,
    distillation_losses=None,
    distillation_loss_weights=None,
    student_loss_weight=0.5,
    optimizer="adam",
    loss=None,
    metrics=None,
    folder: str | os.PathLike | None = None,
    **fit: Any,
) -> list[keras.Model]:
    """Train a network, then others of its kind, each of which learns from the one before.

    Use it to make a network of a given size better without a larger one (Furlanello et al. 2018, Born-Again
    Neural Networks, arXiv 1805.04770). Together the generations are a better teacher than each:
    `teachers.Ensemble(students)`.

    Args:
        build_student: makes a network with new weights.
        x, y: the data, as for `fit`.
        generations: how many learn from the one before.
        teacher: who teaches the first of them; None to train it from the labels alone.
        distillation_losses: as for `Distiller`; None for `SoftTargets(temperature=1.0)`, as in the paper.
        distillation_loss_weights, student_loss_weight, optimizer, loss, metrics, folder, **fit: as for
            `distill_chain`; a function for callbacks is given a network's place in what is returned.

    Returns:
        The networks, oldest first: without a `teacher`, generations + 1 of them.

    Raises:
        ValueError: `generations` is no whole number, or what `Distiller` refuses.
    """
    schedules.whole("generations", generations)
    if distillation_losses is None:
        distillation_losses = losses.SoftTargets(temperature=1.0)
    constructed = {
        "distillation_losses": distillation_losses,
        "distillation_loss_weights": distillation_loss_weights,
        "student_loss_weight": student_loss_weight,
    }
    compiled = {"optimizer": optimizer, "loss": loss, "metrics": metrics}
    alone = {"distillation_losses": losses.VirtualTeacher(), "student_loss_weight": 1.0}
    count = generations + (teacher is None)
    trainings = Trainings(compiled, (x, y), fit, folder, count)
    students: list[keras.Model] = []
    for generation in range(count):
        student = build_student()
        if not isinstance(student, keras.Model) or student in students:
            raise ValueError(
                "build_student() must return a new keras.Model each time, got "
                f"{'the same one again' if student in students else type(student).__name__}."
            )
        arguments = alone if teacher is None else constructed
        trainings.train(generation, teacher, student, arguments)
        students.append(student)
        teacher = student
    return students


class Trainings:
    """The trainings of a chain, and what they have in common.

    Args:
        compiled: arguments of `compile`.
        data: (x, y).
        fit: further arguments of `fit`.
        folder: where their states are kept; None for nowhere.
        count: how many there are.

    Raises:
        ValueError: one checkpoint callback is given for several trainings.
    """

    def __init__(self, compiled: dict, data: tuple, fit: dict, folder, count: int):
        self._compiled, self._data, self._fit = compiled, data, fit
        self._checkpoints: list[keras.callbacks.Callback] = []  # that a training had
        given = fit.get("callbacks")
        if count > 1 and not callable(given) and _checkpoints(_listed(given)):
            raise ValueError(_ONE_FOR_ALL)
        self._folder = None if folder is None else Path(folder)
        self._begun_with: dict[str, Any] = {}
        if self._folder is not None:
            counts = {name: value for name, value in fit.items() if name not in _FREE}
            self._begun_with = describe({"x": data[0], "y": data[1], **compiled, **counts})

    def train(self, number: int | str, teacher, student, constructed: dict) -> History:
        """Return the history of one training; none of the objects it is given are changed but the student.

        Args:
            number: of its state in the folder, or a name.
            constructed: arguments of `Distiller`.
        """
        callbacks = self._callbacks(number)
        resume = None
        if self._folder is not None:
            begun_with = {
                "teacher": describe_teacher(teacher),
                **describe({"student": student, **constructed}),
                **self._begun_with,
            }
            resume = Resume(self._folder / f"network-{number}.npz", False, begun_with)
            callbacks.append(resume)  # behind those that choose the weights at the end
        with as_it_was(teacher):
            model = Distiller(teacher, student, **_fresh(constructed))
            model.compile(**_fresh(self._compiled))
            history = model.fit(*self._data, **{**self._fit, "callbacks": callbacks}).history
        return history if resume is None else resume.history

    def _callbacks(self, number: int | str) -> list[keras.callbacks.Callback]:
        """Those of a training, of which a checkpoint is no other's."""
        given = self._fit.get("callbacks")
        callbacks = _listed(given(number) if callable(given) else given)
        for one in _checkpoints(callbacks):
            if any(one is other for other in self._checkpoints):
                raise ValueError(_ONE_FOR_ALL)
            self._checkpoints.append(one)
        return callbacks


_ONE_FOR_ALL = (
    "One checkpoint callback for several trainings compares the losses of all networks, and writes one over "
    "the other: give callbacks= a function from a network's number to new callbacks, such as lambda i: "
    "[StudentCheckpoint(f'network-{i}.keras')]."
)


def _listed(callbacks) -> list:
    return [*keras.tree.flatten(callbacks or [])]


def _checkpoints(callbacks: list) -> list:
    return [one for one in callbacks if isinstance(one, keras.callbacks.ModelCheckpoint)]


def _fresh(value):
    """A copy of objects that remember something: optimizers, metrics, losses with weights."""
    if isinstance(value, dict):
        return {key: _fresh(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_fresh(one) for one in value]
    remembers = keras.optimizers.Optimizer | keras.metrics.Metric | keras.Layer
    if isinstance(value, remembers) and not isinstance(value, keras.Model):
        return type(value).from_config(value.get_config())
    return value
