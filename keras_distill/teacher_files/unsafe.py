"""What a file of layers brings that is not Keras: code, which is never run, and classes of its author.

    refuse_code(config, "teacher.h5")                        # a Lambda layer with its Python function inside
    refuse_unknown(config, "teacher.keras", custom_objects)  # a class that is neither given nor registered

Keras refuses a Lambda by itself; tf_keras runs one out of an `.h5` file, and imports any module named in it.
"""

import sys
from collections.abc import Iterator
from typing import Any

import keras

_PACKAGES = ("keras", "tf_keras", "keras_hub", "keras_nlp", "keras_cv")
_PARTS = "activations constraints dtype_policies initializers layers losses metrics mixed_precision models"
_PARTS += " ops optimizers random regularizers src"
_BUILTINS = ("activations", "initializers", "losses", "metrics", "regularizers", "constraints")
# Functions of TensorFlow that a Keras 2 model may name as layers. Others read and write files, or run Python.
_OPERATIONS = (
    "__operators__ image linalg math nn random signal strings keras.activations keras.backend"
)
_NO_OPERATIONS = "function load_library load_op_library numpy_function print py_function"


def refuse_code(config: Any, file) -> None:
    """Refuse a configuration that carries code.

    Raises:
        ValueError: with the layer's name.
    """
    for entry in _entries(config):
        kind, inner = entry["class_name"], entry["config"]
        name = inner.get("name") if isinstance(inner, dict) else None
        if kind == "__lambda__" or (kind == "Lambda" and _has_code(inner)):
            raise ValueError(
                f"{file} carries Python code{_of_layer(name)}, which is not run: if you trust the file, load "
                "it yourself with keras.models.load_model(..., safe_mode=False) and pass the model."
            )
        called = _called(kind, inner)
        if called and not _is_operation(called):
            raise ValueError(
                f"{file} calls tf.{called}{_of_layer(name)}, which is no part of a network: it is not run."
            )


def _has_code(config) -> bool:
    """Whether a Lambda brings one of its functions along, in place of naming it."""
    parts = ("function", "output_shape", "mask")
    return isinstance(config.get("function"), list) or any(
        config.get(f"{part}_type") == "lambda" or "__lambda__" in str(config.get(part))
        for part in parts
    )


def _of_layer(name) -> str:
    return f" (layer '{name}')" if name else ""


def _called(kind: str, config) -> str | None:
    """The function of TensorFlow that a layer of Keras 2 is made of; None for other layers."""
    if kind in ("TFOpLambda", "SlicingOpLambda"):
        return str(config.get("function"))
    if kind == "ClassMethod" and not str(config.get("cls_symbol")).endswith("Tensor"):
        return f"{config.get('cls_symbol')}.{config.get('method_name')}"
    return None


def _is_operation(function: str) -> bool:
    function = function.removeprefix("compat.v1.")
    module, _, _ = function.rpartition(".")
    if module:
        return module in _OPERATIONS.split()
    return function not in _NO_OPERATIONS.split()


def refuse_unknown(config: Any, file, custom_objects: dict | None) -> None:
    """Refuse a configuration that names a class or function outside of Keras that nobody handed over.

    Raises:
        ValueError: with its name.
    """
    for entry in _entries(config):
        module, kind = entry.get("module"), entry["class_name"]
        name = entry["config"] if kind == "function" else kind
        registered = entry.get("registered_name")
        own = registered and ">" in str(registered)
        if module == "builtins":
            own = own or not any(hasattr(getattr(keras, one), str(name)) for one in _BUILTINS)
        elif module is not None:
            own = own or not _of_keras(str(module), kind)
        if own and not _known(name, registered, custom_objects or {}):
            raise ValueError(
                f"{file} has '{name}' of {module or 'its author'}, which is not part of Keras: pass "
                f"teachers.load(..., custom_objects={{'{registered or name}': …}}), or import the "
                "module that registers it with keras.saving.register_keras_serializable."
            )


def _of_keras(module: str, kind: str) -> bool:
    if module.startswith("tensorflow.python.ops.init_ops"):  # TensorFlow's own initializers
        return kind != "function"
    package, _, rest = module.partition(".")
    part = rest.partition(".")[0]
    if package not in _PACKAGES or (part == "src" and kind == "function"):
        return False
    return not part or package not in ("keras", "tf_keras") or part in _PARTS.split()


def _known(name, registered, custom_objects: dict) -> bool:
    registries = [keras.saving.get_custom_objects()]
    if "tf_keras" in sys.modules:
        registries.append(sys.modules["tf_keras"].saving.get_custom_objects())
    return any(
        str(one) in known for one in (name, registered) for known in (custom_objects, *registries)
    )


def _entries(value: Any) -> Iterator[dict]:
    """All {"class_name": …, "config": …} in a configuration, at any depth."""
    if isinstance(value, dict):
        if "class_name" in value and "config" in value:
            yield value
        value = list(value.values())
    if isinstance(value, list | tuple):
        for one in value:
            yield from _entries(one)
