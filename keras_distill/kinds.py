"""What logits are for: classes of which one is right ("softmax"), or labels each right or wrong ("sigmoid").

kind = kinds.of(logits, ends=["linear"], loss=keras.losses.BinaryCrossentropy())    # "sigmoid"
truth, known = kinds.truth(labels, logits, kind)
error = kinds.cross_entropy(truth, logits, kind)
"""

from keras import ops

from keras_distill import hard_loss
from keras_distill.losses import logit_loss


def of(logits, ends=(), loss=None, independent_labels: bool = False) -> str:
    """Return "sigmoid" where each of these logits belongs to a sigmoid of its own, else "softmax".

    Args:
        logits: `(batch, ..., classes)`.
        ends: how the networks end that they are of: "linear", "softmax" or "sigmoid".
        loss: the hard loss, resolved; or None.
        independent_labels: whether somebody has said so.
    """
    single = independent_labels or logits.shape[-1] == 1 or "sigmoid" in ends
    return "sigmoid" if single or hard_loss.is_binary(loss) else "softmax"


def probabilities(logits, kind: str):
    """Return the probabilities that these logits mean, of their shape."""
    return ops.softmax(logits, axis=-1) if kind == "softmax" else ops.sigmoid(logits)


def decided(logits, kind: str):
    """Return what these logits take for the truth: 1 at the chosen class, or at each label above 0."""
    if kind == "softmax":
        return logit_loss.one_hot(ops.argmax(logits, axis=-1), logits)
    return ops.cast(logits > 0, "float32")


def truth(labels, logits, kind: str):
    """Return `(truth, known)`: the labels like `logits`, float32, and booleans that fit them.

    Args:
        labels: for a softmax integers `(batch, ...)` or one number for each class; for a sigmoid a number
            0..1 for each label, `(batch, ..., labels)`, of one label also `(batch, ...)`. A number that is no
            class, a negative one of a sigmoid, marks what is not known.
        logits: `(batch, ..., classes)`.
        kind: "softmax" or "sigmoid".

    Raises:
        ValueError: labels of another shape.
    """
    if kind == "softmax":
        found = logit_loss.one_hot(labels, logits)
        return found, ops.sum(found, axis=-1, keepdims=True) > 0
    labels = ops.cast(ops.convert_to_tensor(labels), "float32")
    if len(labels.shape) == len(logits.shape) - 1 and logits.shape[-1] == 1:
        labels = ops.expand_dims(labels, axis=-1)
    if len(labels.shape) != len(logits.shape) or labels.shape[-1] != logits.shape[-1]:
        raise ValueError(
            f"Labels of shape {tuple(labels.shape)} do not fit {logits.shape[-1]} labels that are each right "
            f"or wrong, logits of shape {tuple(logits.shape)}: give 0 or 1 for each of them."
        )
    return ops.maximum(labels, 0.0), labels >= 0


def cross_entropy(truth, logits, kind: str):
    """Return −Σ truth·log p over the classes `(batch, ...)`; of a sigmoid over labels and both answers.

    A class that is excluded (−∞) counts where it is the truth alone, with 1e30.
    """
    if kind == "softmax":
        return logit_loss.cross_entropy(truth, logits)
    yes, no = (ops.maximum(ops.log_sigmoid(sign * logits), -1e30) for sign in (1.0, -1.0))
    return -ops.sum(truth * yes + (1.0 - truth) * no, axis=-1)
