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
from keras_distill.callbacks import Resume
from keras_distill.distiller import Distiller
from keras_distill.training_state import History


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
        folder: where the states of the trainings are kept, so that the chain goes on where it was killed;
            None for nowhere.
        **fit: as for `fit`: epochs, batch_size, validation_data, callbacks, …

    Returns:
        The history of each training.

    Raises:
        ValueError: there are less than two networks, or what `Distiller` refuses.
    """
    networks = list(networks)
    if len(networks) < 2:
        raise ValueError(
            f"distill_chain takes a trained teacher and at least one network to train, got {len(networks)}."
        )
    constructed = {
        "distillation_losses": distillation_losses,
        "distillation_loss_weights": distillation_loss_weights,
        "student_loss_weight": student_loss_weight,
    }
    compiled = {"optimizer": optimizer, "loss": loss, "metrics": metrics}
    return [
        _taught(teacher, student, constructed, compiled, _state(folder, i), (x, y), fit)
        for i, (teacher, student) in enumerate(itertools.pairwise(networks), 1)
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
            `distill_chain`.

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
    students: list[keras.Model] = []
    for generation in range(generations + (teacher is None)):
        student = build_student()
        if not isinstance(student, keras.Model) or student in students:
            raise ValueError(
                "build_student() must return a new keras.Model each time, got "
                f"{'the same one again' if student in students else type(student).__name__}."
            )
        arguments = alone if teacher is None else constructed
        _taught(teacher, student, arguments, compiled, _state(folder, generation), (x, y), fit)
        students.append(student)
        teacher = student
    return students


def _taught(teacher, student, constructed, compiled, state: Path | None, data, fit) -> History:
    """The history of one training; none of the objects it is given are changed but the student."""
    was_trainable = getattr(teacher, "trainable", None)
    model = Distiller(teacher, student, **_fresh(constructed))
    model.compile(**_fresh(compiled))
    arguments = {**fit, "callbacks": [*keras.tree.flatten(fit.get("callbacks") or [])]}
    resume = None
    if state is not None:
        resume = Resume(state, delete=False)
        arguments["callbacks"].append(resume)
    history = model.fit(*data, **arguments).history
    if isinstance(teacher, keras.Model):
        teacher.trainable = was_trainable  # a student that was trained here stays as it was built
    return history if resume is None else resume.history


def _state(folder, number: int) -> Path | None:
    return None if folder is None else Path(folder) / f"network-{number}.npz"


def _fresh(value):
    """A copy of objects that remember something: optimizers, metrics, losses."""
    if isinstance(value, dict):
        return {key: _fresh(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_fresh(one) for one in value]
    if hasattr(value, "get_config") and not isinstance(value, keras.Model):
        return keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(value))
    return value
