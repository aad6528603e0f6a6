"""Not all that a teacher says is worth learning: weights of examples in the soft losses.

kd.Distiller(teacher, student, "soft_targets", example_weighting="true_label")

By what the teacher thinks of an example, at temperature 1:

    confidence      its highest probability
    margin          its highest probability minus its second highest
    true_label      its probability of the true label, 0 where another one is its first choice
    a function      (teacher_logits, labels) → weights (batch, ...), in `keras.ops`
"""

import numpy as np
from keras import ops

from keras_distill.losses.logit_loss import as_classes, one_hot

RULES = ("confidence", "margin", "true_label")


def checked(rule):
    """Return `rule` if it is None, a function or one of `RULES`.

    Raises:
        ValueError: it is none of these.
    """
    if rule is None or callable(rule) or rule in RULES:
        return rule
    raise ValueError(
        f"example_weighting={rule!r} is not known: give {', '.join(map(repr, RULES))}, None, or a function "
        "of (teacher_logits, labels)."
    )


def _differ(shape, wanted) -> bool:
    return any(None not in pair and pair[0] != pair[1] for pair in zip(shape, wanted, strict=False))


def refuse_bad(found: np.ndarray, rows: int) -> list[np.ndarray]:
    """Return the weights that a function gave, in a list.

    Raises:
        ValueError: they are not of `rows` examples, or one is negative or not finite.
    """
    if len(found) != rows:
        raise ValueError(
            f"The function in example_weighting= gave {len(found)} weights for {rows} examples: it must "
            "give one for each."
        )
    bad = ~(np.isfinite(found) & (found >= 0))
    if bad.any():
        raise ValueError(
            f"The function in example_weighting= gave the weight {found[bad].flat[0]:g} to example "
            f"{int(np.argwhere(bad)[0][0])} of a batch: weights must be finite numbers of at least 0."
        )
    return [found]


def weights(rule, teacher_logits, labels=None, activation="softmax"):
    """Return the weight of each example (and position), float32 `(batch, ...)`, without a gradient.

    Args:
        rule: one of `RULES`, or a function.
        teacher_logits: `(batch, ..., classes)`, the student's classes.
        labels: integers `(batch, ...)` or one-hot; needed for "true_label".
        activation: what the logits are for, "softmax" or "sigmoid" (one unit only).

    Raises:
        ValueError: labels are needed and missing, or the labels are each right or wrong by itself.
    """
    if callable(rule):
        found = ops.convert_to_tensor(rule(teacher_logits, labels))
        wanted = tuple(teacher_logits.shape[:-1])
        if len(found.shape) not in (1, len(wanted)) or _differ(found.shape, wanted):
            raise ValueError(
                f"The function in example_weighting= gave weights of the shape {tuple(found.shape)} for "
                f"logits {tuple(teacher_logits.shape)}: it must give one number for each example, "
                f"{wanted[:1]}{f', or position, {wanted}' if len(wanted) > 1 else ''}."
            )
        return ops.stop_gradient(ops.cast(found, "float32"))
    logits = ops.cast(teacher_logits, "float32")
    if activation == "sigmoid":
        logits = as_classes(logits, f"example_weighting={rule!r}")
    probabilities = ops.softmax(logits, axis=-1)
    if rule == "confidence":
        found = ops.max(probabilities, axis=-1)
    elif rule == "margin":
        best, _ = ops.top_k(probabilities, 2)
        found = best[..., 0] - best[..., 1]
    else:
        if labels is None:
            raise ValueError(
                "example_weighting='true_label' needs the hard labels, and there are none: give (x, y), or "
                "'confidence'."
            )
        of_true = ops.sum(one_hot(labels, logits) * probabilities, axis=-1)
        found = ops.where(of_true >= ops.max(probabilities, axis=-1), of_true, 0.0)
    return ops.stop_gradient(found)
