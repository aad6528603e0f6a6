"""From a trained Keras model to files that other programs load, with proof that they answer alike.

    import tflite_export as te

    exported = te.export(student, "student.tflite", quantization="int8",
                         representative_dataset=train, inference_input_type="uint8",
                         normalization=(127.5, 127.5), labels=["cat", "dog"])
    te.verify(student, exported, test).raise_if_worse(agreement=0.99)
    print(te.benchmark(exported, num_threads=4))

Everything is loaded when it is first used: `tflite_export.runtime`, which runs files, needs neither
TensorFlow nor Keras.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tflite_export.benchmark import Benchmark, benchmark
    from tflite_export.convert import ConversionError
    from tflite_export.export import Exported, export
    from tflite_export.metadata import Metadata, read_metadata
    from tflite_export.runtime import Interpreter, TensorInfo, load
    from tflite_export.verify import Verification, VerificationError, verify

_HOME = {
    "Benchmark": "benchmark",
    "benchmark": "benchmark",
    "ConversionError": "convert",
    "Exported": "export",
    "export": "export",
    "Metadata": "metadata",
    "read_metadata": "metadata",
    "Interpreter": "runtime",
    "TensorInfo": "runtime",
    "load": "runtime",
    "Verification": "verify",
    "VerificationError": "verify",
    "verify": "verify",
}

__all__ = [
    "Benchmark",
    "ConversionError",
    "Exported",
    "Interpreter",
    "Metadata",
    "TensorInfo",
    "Verification",
    "VerificationError",
    "benchmark",
    "export",
    "load",
    "read_metadata",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'tflite_export' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"tflite_export.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})


class _Package(types.ModuleType):
    """`te.export` is the function, although a sub-module has the same name: importing a sub-module
    sets it as an attribute of its package, and here the function is set instead."""

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, types.ModuleType) and _HOME.get(name) == name:
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
