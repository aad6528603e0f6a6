"""Values from inside a network, taken in the one forward pass that is made anyway.

For as long as a recording lasts, the `call` (or the `activation`) of the tapped layers also notes what it
returns. The model itself, functional, nested or subclassed, is not changed:

    tap = find_tap(model, "mobilenetv2/block_6_expand_relu")    # "name:0": the first of its calls in a pass
    with recording({"features": tap}) as recorded:
        outputs = model(images, training=True)
    recorded["features"]            # [tensor], one for each time that the layer was called
    the_value("features", tap, recorded["features"], "the model")   # the one tensor
"""

import contextlib
import dataclasses
import functools
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import keras

from keras_distill import train_step
from keras_distill.layer_tree import find_layer, named_layers


@dataclasses.dataclass(frozen=True)
class Tap:
    """A place in a network.

    Args:
        layer: the layer (or Keras operation) to listen to.
        at: `"output"`, `"input"` (its first argument), or `"activation"`: what goes into `layer.activation`.
        call: which of its calls in a pass is meant, from 0; None where it is called once.
    """

    layer: Any
    at: Literal["output", "input", "activation"] = "output"
    call: int | None = None


def find_tap(model: keras.Model, name: str) -> Tap:
    """Return the tap at the output of the layer that `name` names, or of its k-th call, `"name:k"`.

    Raises:
        ValueError: see `find_layer`.
    """
    numbered = re.fullmatch(r"(.+):(\d+)", name)
    if numbered and name not in dict(named_layers(model)):
        return Tap(find_layer(model, numbered[1]), call=int(numbered[2]))
    return Tap(find_layer(model, name))


@contextlib.contextmanager
def recording(taps: Mapping[str, Tap]) -> Iterator[dict[str, list]]:
    """Within this context, collect under each key what passes the tap, in the order of the calls.

    Outputs have the masks that their layers gave them in the end, also where a Keras layer behind took them
    off, as `MultiHeadAttention` does with what it reads.
    """
    recorded: dict[str, list] = {key: [] for key in taps}
    masked: list[tuple[Any, Any]] = []
    with contextlib.ExitStack() as stack:
        for key, tap in taps.items():
            attribute = "activation" if tap.at == "activation" else _method(tap.layer)
            note = functools.partial(_note, tap.at == "output", recorded[key], masked)
            stack.enter_context(_listening(tap.layer, attribute, note))
            if tap.at == "output" and hasattr(tap.layer, "compute_mask"):
                note = functools.partial(_note_mask, recorded[key], masked)
                stack.enter_context(_listening(tap.layer, "compute_mask", note))
        yield recorded
    for value, mask in masked:
        if _mask_of(value) is None:
            value._keras_mask = mask


@contextlib.contextmanager
def noting_calls(layer: keras.Layer, note: Callable[[Any, Any], None]) -> Iterator[None]:
    """Within this context, each call of `layer` ends with `note((args, kwargs), result)`."""
    with _listening(layer, _method(layer), note):
        yield


def the_value(name: str, tap: Tap, values: list, whose: str):
    """Return the one tensor that `name` means, out of the `values` that were recorded in a pass.

    Args:
        name: as given to `find_tap`.
        tap: what it returned.
        values: what the layer returned in each call.
        whose: the model, for sentences.

    Raises:
        ValueError: the layer was not called, or not so often; was called several times and `name` does not
            say which is meant; returned several tensors; or was called where no value can leave.
    """
    layer, count = f"Layer '{name}' of {whose}", len(values)
    if not values:
        raise ValueError(
            f"{layer} was not called in this pass: it is an input, or lies in a branch that was not taken "
            "or in a tf.function of its own. Name a layer that each pass calls."
        )
    if tap.call is None and count > 1:
        raise ValueError(
            f"{layer} was called {count} times in this pass: write '{name}:0' for its first call, up to "
            f"'{name}:{count - 1}' for the last."
        )
    if (tap.call or 0) >= count:
        last = f"{name.rpartition(':')[0]}:{count - 1}"
        raise ValueError(
            f"Layer '{name}' of {whose} is a call too many: the layer was called {count} time(s) in this "
            f"pass, and they are counted from 0. The last is '{last}'."
        )
    tensors = [one for one in keras.tree.flatten(values[tap.call or 0]) if one is not None]
    if len(tensors) != 1:
        raise ValueError(
            f"{layer} returned {len(tensors)} tensors, and one is wanted: name a layer behind it that is "
            "given this one alone, such as a keras.layers.Identity."
        )
    if not train_step.usable(tensors[0]):
        raise ValueError(
            f"{layer} was called inside of a branch, a loop or a tf.function of its own (tf.cond, "
            "tf.while_loop), whose values cannot be used outside of it: name the layer around it."
        )
    return tensors[0]


def _method(layer) -> str:
    """The name of what Keras calls for an output."""
    return "call" if getattr(layer, "quantization_mode", None) is None else "quantized_call"


def _note(output: bool, values: list, masked: list, arguments, result) -> None:
    args, kwargs = arguments
    values.append(result if output else (args[0] if args else next(iter(kwargs.values()))))
    if _mask_of(values[-1]) is not None:
        masked.append((values[-1], _mask_of(values[-1])))


def _note_mask(values: list, masked: list, arguments, mask) -> None:
    """Right after a call that gave its output no mask, Keras asks the layer for one."""
    if values and hasattr(values[-1], "shape") and hasattr(mask, "shape"):
        masked.append((values[-1], mask))


def _mask_of(tensor):
    return getattr(tensor, "_keras_mask", None)  # it has no public name in Keras 3


@contextlib.contextmanager
def _listening(layer, attribute: str, note: Callable[[Any, Any], None]) -> Iterator[None]:
    # The replicas of a `MirroredStrategy` are threads that take turns in the middle of a pass: all share one
    # wrapper, each hears its own calls, and the last one to leave takes it off.
    wrapper = getattr(layer, attribute)
    if not hasattr(wrapper, "listeners"):
        wrapper = _wrapped(wrapper, attribute in vars(layer))
        # Past Keras's own __setattr__, which would track what is only there for one pass.
        object.__setattr__(layer, attribute, wrapper)
    listener = (threading.get_ident(), note)
    wrapper.listeners.append(listener)
    try:
        yield
    finally:
        wrapper.listeners.remove(listener)
        if not wrapper.listeners and wrapper.own:
            object.__setattr__(layer, attribute, wrapper.__wrapped__)
        elif not wrapper.listeners:
            object.__delattr__(layer, attribute)


def _wrapped(original, own: bool) -> Any:
    """`original` with listeners; `own` says whether it was an attribute of the instance."""
    listeners: list = []

    @functools.wraps(original)
    def listen(*args, **kwargs):
        result = original(*args, **kwargs)
        for thread, note in tuple(listeners):
            if thread == threading.get_ident():
                note((args, kwargs), result)
        return result

    found: Any = listen
    found.listeners, found.own = listeners, own
    return found
