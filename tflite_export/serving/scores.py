"""Class scores out of what a network answers, for servers that answer with labels.

    class_scores(function.outputs[0], ["cat", "dog"])     # labels and scores, the best first

A server's clients want probabilities. Most students end in logits, others in a softmax: the graph
shows which, and where it does not, one is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

SCORES = ("auto", "softmax", "sigmoid", "identity")

_PASS = (
    "Identity",
    "IdentityN",
    "Cast",
    "StopGradient",
    "Squeeze",
    "FakeQuantWithMinMaxVars",
    "FakeQuantWithMinMaxArgs",
)
_ENDS = {
    "Softmax": "softmax",
    "Sigmoid": "sigmoid",
    **dict.fromkeys(
        ("BiasAdd", "MatMul", "BatchMatMulV2", "Conv2D", "Einsum", "LogSoftmax"), "linear"
    ),
}


def _last(tensor: Any) -> Any:
    """What is behind operations that change nothing."""
    operation = tensor.op
    if operation.type not in _PASS:
        return tensor
    return _last(operation.inputs[tensor.value_index if operation.type == "IdentityN" else 0])


def ending(tensor: Any) -> str | None:
    """How a tensor of a `tf.function`'s graph is made: "softmax", "sigmoid", "linear" (logits) or None."""
    operation = _last(tensor).op
    if operation.type in _ENDS:
        return _ENDS[operation.type]
    if operation.type in ("Add", "AddV2"):  # of a bias
        return "linear" if "linear" in [ending(one) for one in operation.inputs] else None
    return None


def activation(tensor: Any, scores: str, units: int) -> str:
    """What makes scores of the tensor: "softmax", "sigmoid" or "identity".

    Args:
        tensor: of a graph, (batch, units).
        scores: "auto", or what it shall be.

    Raises:
        ValueError: no such word, or the graph does not show what it ends in.
    """
    if scores not in SCORES:
        raise ValueError(f"scores={scores!r}: it is one of {', '.join(map(repr, SCORES))}.")
    if scores != "auto":
        return scores
    found = ending(tensor)
    if found is None:
        raise ValueError(
            f"It does not show whether the model ends in logits or in probabilities (its last "
            f"operation is {_last(tensor).op.type!r}): pass scores='softmax' or 'sigmoid' for logits, or "
            "'identity' for probabilities."
        )
    if found == "linear":
        return "softmax" if units > 1 else "sigmoid"
    return "identity"


def best_first(
    answer: Any, labels: Sequence[str], activation: str, top_k: int | None
) -> dict[str, Any]:
    """{"classes": (batch, k) strings, "scores": (batch, k) float32}, the best first.

    Args:
        answer: (batch, units), as many units as labels; or one unit and two labels, no and yes.
        top_k: so many; all of them by default.
    """
    import tensorflow as tf

    functions = {"softmax": tf.nn.softmax, "sigmoid": tf.nn.sigmoid, "identity": tf.identity}
    scores = functions[activation](tf.cast(answer, tf.float32))
    if scores.shape[-1] == 1 and len(labels) == 2:
        scores = tf.concat([1.0 - scores, scores], -1)
    values, places = tf.math.top_k(scores, len(labels) if top_k is None else top_k)
    return {"classes": tf.gather(tf.constant(list(labels)), places), "scores": values}
