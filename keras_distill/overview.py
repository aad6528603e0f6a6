"""What a distiller is made of, as a table: which layer teaches which, through what, with what weight.

distiller.summary()
"""

import io
from typing import Any

import keras
from keras.optimizers.schedules import LearningRateSchedule
from rich.console import Console
from rich.table import Table

from keras_distill.connectors import trainable_size
from keras_distill.soft_loss import Term

COLUMNS = ("loss", "weight", "teacher", "student", "connector", "weights\nof its own")


def rows(distiller, targets, answer) -> list[tuple[str, ...]]:
    """Return the rows of the table, one for each pair of layers.

    Args:
        distiller: a `Distiller`.
        targets: the teacher's symbolic answer, or None where it is not known.
        answer: the student's.
    """
    found = []
    share = 1.0 - distiller.student_loss_weight
    for number, term in enumerate(distiller.soft_terms.terms):
        loss = term.loss
        reads: tuple[Any, Any] = (None, None)
        if targets is not None and answer is not None:
            reads = term.read(targets.of_loss(number), answer)
        sides = [_places(term, whose, read) for whose, read in zip(_SIDES, reads, strict=True)]
        length = max(map(len, sides))
        sides = [side + [""] * (length - len(side)) for side in sides]
        own = (
            f"{trainable_size(loss):,}"
            if isinstance(loss, keras.layers.Layer) and loss.built
            else ""
        )
        connectors = [_connector(one) for one in getattr(loss, "connectors", [])]
        connectors += [""] * (length - len(connectors))
        for i, (teacher, student, connector) in enumerate(zip(*sides, connectors, strict=True)):
            first = (term.tracker.name, _weight(term.weight, share)) if i == 0 else ("", "")
            found.append((*first, teacher, student, connector, own if i == 0 else ""))
    return found


_SIDES = ("teacher", "student")


def _places(term: Term, whose: str, read) -> list[str]:
    """Name and shape of each layer (or output) that is read."""
    if whose == "teacher" and not term.needs_teacher:
        return ["(none)"]
    names, output = getattr(term, f"{whose}_layers"), term.output
    names = keras.tree.flatten(names) if names else [f"output {output}" if output else "outputs"]
    tensors = [one for one in keras.tree.flatten(read) if one is not None]
    if len(names) == 1 and len(tensors) > 1:
        names = names * len(tensors)
    if len(names) != len(tensors):
        return names
    return [f"{name}\n{_shape(one)}" for name, one in zip(names, tensors, strict=True)]


def _shape(tensor) -> str:
    return "×".join("?" if size is None else str(size) for size in tensor.shape[1:])


def _weight(weight, share: float) -> str:
    if isinstance(weight, LearningRateSchedule):
        return f"{share:g} · {type(weight).__name__}"
    return f"{share * weight:g}"


def _connector(layer) -> str:
    return "" if isinstance(layer, keras.layers.Identity) else type(layer).__name__


def text(distiller, targets, answer, width: int | None = None) -> str:
    """Return the table, with the sizes of both networks, as text; args as of `rows`."""
    table = Table(*COLUMNS)
    for column in table.columns:
        column.overflow = "fold"  # names of layers are to be read, and copied
    for row in rows(distiller, targets, answer):
        table.add_row(*row)
    teachers = distiller.teacher
    if not isinstance(teachers, list):
        teachers = getattr(teachers, "as_given", [teachers])
    balancing = distiller.loss_balancing
    out = io.StringIO()
    console = Console(file=out, width=width or 110)
    for teacher in {id(one): one for one in teachers}.values():
        console.print(_network("Teacher (frozen)", teacher))
    console.print(_network("Student", distiller.student))
    balanced = "" if balancing is None else f", balanced by {type(balancing).__name__}"
    share = f"{distiller.student_loss_weight:g}"
    console.print(f"Loss: {share} · hard labels + the terms below{balanced}")
    console.print(table)
    return out.getvalue()


def _network(role: str, network) -> str:
    if not isinstance(network, keras.Model):
        return f"{role}: {'none' if network is None else type(network).__name__}"
    size = f"{network.count_params():,} parameters" if network.built else "not built yet"
    return f"{role}: '{network.name}', {size}"
