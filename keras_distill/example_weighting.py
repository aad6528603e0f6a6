"""Not all that a teacher says is worth learning: weights of examples in the soft losses.

kd.Distiller(teacher, student, "soft_targets", example_weighting="true_label")

By what the teacher thinks of an example, at temperature 1:

    confidence      its highest probability
    margin          its highest probability minus its second highest
    true_label      its probability of the true label, 0 where another one is its first choice
    a function      (teacher_logits, labels) → weights (batch, ...), in `keras.ops`
"""

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
        return ops.stop_gradient(ops.cast(rule(teacher_logits, labels), "float32"))
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
