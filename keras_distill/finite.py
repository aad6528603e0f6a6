"""NaN and infinity stop a training before they spoil the student, with a sentence on where they come from.

checked = guard(loss, trusted, finite_update, step, evidence, undo, weights)  # in the graph; raises there
explain("The loss is NaN", 12, evidence)                                     # the sentence
"""

import functools

import numpy as np
from keras import ops

from keras_distill.train_step import call_numpy_flat

# What is looked at, in this order: the first that is not finite is the reason.
REASONS = {
    "learning rate": "the learning rate is {found}",
    "inputs": "the inputs hold {found}: clean the data, or fix the function that prepares it",
    "sample weights": "the sample weights hold {found}",
    "labels": "the labels hold {found}",
    "teacher": "the teacher answers {found}: look at teacher.predict on these inputs; it may be "
    "damaged, or trained on inputs of another normalisation (teacher_inputs=)",
    "weights": "the student's weights hold {found}, from an earlier step or a file: a gradient can be NaN "
    "where the loss is not, as those of √0 and 0·log 0 are",
    "student": "the student answers {found}: it has diverged, mostly from too high a learning rate; "
    "lower it, or give the optimizer clipnorm=1.0 (half precision ends at 65504)",
}


def guard(loss, trusted, finite_update, step, evidence: dict[str, list], undo, weights):
    """Return a tensor whose computation raises ValueError where loss or gradients are not finite.

    Args:
        loss: a scalar.
        trusted: whether a finite loss is enough, a scalar.
        finite_update: called, in the graph, where it is not: whether all gradients and the learning rate
            are finite.
        step: number of the steps that are done, a scalar.
        evidence: {a key of REASONS: tensors}.
        undo: called, in the graph, before it raises.
        weights: called where undo is: what tells of the student's weights, a list of tensors.
    """

    def stop(names, loss, step, *arrays):
        found: dict[str, list[np.ndarray]] = {}
        for name, array in zip(names, arrays, strict=True):
            found.setdefault(name, []).append(array)
        what = "The update is not finite" if np.isfinite(loss) else f"The loss is {_name(loss)}"
        raise ValueError(explain(what, int(step) + 1, found))

    def undo_and_stop():
        undo()
        seen = {**evidence, "weights": weights()}
        names = [name for name, tensors in seen.items() for _ in tensors]
        tensors = [tensor for tensors in seen.values() for tensor in tensors]
        stop_naming = functools.partial(stop, names)
        return call_numpy_flat(stop_naming, [loss, step, *tensors], [((), "bool")])[0]

    def look_closer():
        fine = ops.logical_and(ops.isfinite(loss), finite_update())
        return ops.cond(fine, lambda: ops.convert_to_tensor(True), undo_and_stop)

    return ops.cond(
        ops.logical_and(ops.isfinite(loss), trusted),
        lambda: ops.convert_to_tensor(True),
        look_closer,
    )


def explain(what: str, step: int, evidence: dict[str, list[np.ndarray]]) -> str:
    """What is wrong in a step, and why, as far as its arrays tell."""
    reason = (
        "all that goes in is finite: it grew too large to be computed; look at "
        "distillation_loss_weights, loss_weights, the labels, and a loss that divides by zero"
    )
    for name, sentence in REASONS.items():
        bad = next((text for array in evidence.get(name, []) if (text := _not_finite(array))), None)
        if bad:
            reason = sentence.format(found=bad)
            break
    return (
        f"{what} in step {step}, and training stops before this step changes the student: {reason}."
    )


def wrong_label(label: int, classes: int) -> str:
    """Of a class number that the student does not have."""
    return (
        f"The labels hold {label}, and the student has {classes} classes, 0 to {classes - 1}: correct "
        f"the labels, or build the student for all classes."
    )


def _not_finite(array: np.ndarray) -> str | None:
    """ "NaN in 2 of 32 examples", or None where all is finite."""
    array = np.asarray(array)
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return None
    what = _name(array)
    if not array.ndim:
        return what
    rows = ~np.isfinite(array.reshape(len(array), -1)).all(axis=1)
    return f"{what} in {rows.sum()} of {len(rows)} examples"


def _name(value) -> str:
    return "NaN" if np.isnan(value).any() else "infinity"
