"""The hard loss: what `compile(loss=...)` means for a student whose last layer is known.

A string gets the student's `from_logits`: "sparse_categorical_crossentropy" on a network that ends in a
softmax expects probabilities, on one that ends in logits it expects logits. A loss object is used as given.
"""

import warnings

import keras

_LOSSES = keras.losses
_CROSSENTROPIES = {
    _LOSSES.sparse_categorical_crossentropy: _LOSSES.SparseCategoricalCrossentropy,
    _LOSSES.categorical_crossentropy: _LOSSES.CategoricalCrossentropy,
    _LOSSES.categorical_focal_crossentropy: _LOSSES.CategoricalFocalCrossentropy,
    _LOSSES.binary_crossentropy: _LOSSES.BinaryCrossentropy,
    _LOSSES.binary_focal_crossentropy: _LOSSES.BinaryFocalCrossentropy,
}
_BINARY = (_LOSSES.BinaryCrossentropy, _LOSSES.BinaryFocalCrossentropy)


def resolve(loss, activations):
    """Return `loss` with every string made a loss object that fits the student.

    Args:
        loss: as for `keras.Model.compile`: a string, object, function or a structure of them.
        activations: the student's outputs: a structure of `"linear"`, `"softmax"`, `"sigmoid"`; None where
            the model does not show its last layer.

    Raises:
        ValueError: a string that names no loss.
    """
    if loss is None:
        return None
    if isinstance(loss, dict):  # perhaps of some outputs only
        kind_of = activations if isinstance(activations, dict) else {}
        return {name: resolve(one, kind_of.get(name)) for name, one in loss.items()}
    kinds = keras.tree.flatten(activations)
    if isinstance(loss, list | tuple):
        kinds = kinds * len(loss) if len(kinds) == 1 else kinds
        if len(kinds) != len(loss):
            return loss  # Keras says what does not match
        return [resolve(one, kind) for one, kind in zip(loss, kinds, strict=True)]
    if len(set(kinds)) == 1:
        return _resolve(loss, kinds[0])
    return keras.tree.map_structure(lambda kind: _resolve(loss, kind), activations)


def _crossentropy(found):
    """The class that `keras.losses.get` found by the name of a function or of a class; None for others."""
    if isinstance(found, keras.losses.Loss):
        return type(found) if type(found) in _CROSSENTROPIES.values() else None
    return _CROSSENTROPIES.get(found)


def _resolve(loss, activation: str | None):
    logits = activation in ("linear", None)
    if isinstance(loss, str):
        found = keras.losses.get(loss)
        crossentropy = _crossentropy(found)
        return found if crossentropy is None else crossentropy(from_logits=logits)
    expects = None
    if isinstance(loss, keras.losses.Loss):
        expects = getattr(loss, "from_logits", None)
        if expects is None:
            expects = loss.get_config().get("from_logits")
    elif loss in _CROSSENTROPIES:
        expects = False
    if activation is not None and expects is not None and bool(expects) != logits:
        warnings.warn(
            f"The loss {getattr(loss, 'name', loss)} expects {'logits' if expects else 'probabilities'} "
            f"(from_logits={bool(expects)}), and the student ends in "
            f"{'logits' if logits else 'a ' + activation}: pass from_logits={logits}, or the loss's name "
            "as a string, which chooses by itself.",
            stacklevel=5,
        )
    return loss


def assumes_logits(loss) -> bool:
    """Whether `loss` has a string that `resolve` takes for logits where the student hides its end."""
    strings = [one for one in keras.tree.flatten(loss) if isinstance(one, str)]
    return any(_crossentropy(keras.losses.get(one)) for one in strings)


def is_binary(loss) -> bool:
    """Whether `loss` treats every output as a yes-or-no question of its own."""
    return isinstance(loss, _BINARY) or loss in (
        _LOSSES.binary_crossentropy,
        _LOSSES.binary_focal_crossentropy,
    )
