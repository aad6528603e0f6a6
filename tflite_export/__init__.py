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
    from tflite_export.altered import strip
    from tflite_export.benchmark import Benchmark, benchmark
    from tflite_export.c_array import CArray, c_array
    from tflite_export.cascade import Cascade, CascadePoint, cascade
    from tflite_export.chain import DistilledFile, distill_and_export
    from tflite_export.compatibility import Compatibility, compatibility
    from tflite_export.convert import ConversionError
    from tflite_export.export import Exported, export
    from tflite_export.golden import Golden, golden
    from tflite_export.golden_check import GoldenError, check_golden
    from tflite_export.metadata import Metadata, read_metadata
    from tflite_export.minimum_runtime import MinimumRuntime, minimum_runtime
    from tflite_export.onnx import ExportedOnnx, export_onnx
    from tflite_export.quantize_aware import QuantizeAware, quantize_aware
    from tflite_export.runtime import Interpreter, TensorInfo, load
    from tflite_export.saved_model import ExportedSavedModel, export_saved_model
    from tflite_export.sensitivity import Sensitivity, sensitivity
    from tflite_export.sparsify import Clustered, Pruned, cluster, compressed_size, prune
    from tflite_export.verify import Verification, VerificationError, verify

_HOME = {
    "Benchmark": "benchmark",
    "benchmark": "benchmark",
    "CArray": "c_array",
    "c_array": "c_array",
    "Compatibility": "compatibility",
    "compatibility": "compatibility",
    "ConversionError": "convert",
    "Exported": "export",
    "export": "export",
    "Golden": "golden",
    "golden": "golden",
    "GoldenError": "golden_check",
    "check_golden": "golden_check",
    "Metadata": "metadata",
    "read_metadata": "metadata",
    "QuantizeAware": "quantize_aware",
    "quantize_aware": "quantize_aware",
    "strip": "altered",
    "MinimumRuntime": "minimum_runtime",
    "minimum_runtime": "minimum_runtime",
    "Cascade": "cascade",
    "CascadePoint": "cascade",
    "cascade": "cascade",
    "Clustered": "sparsify",
    "cluster": "sparsify",
    "Pruned": "sparsify",
    "prune": "sparsify",
    "compressed_size": "sparsify",
    "Sensitivity": "sensitivity",
    "sensitivity": "sensitivity",
    "DistilledFile": "chain",
    "distill_and_export": "chain",
    "ExportedOnnx": "onnx",
    "export_onnx": "onnx",
    "Interpreter": "runtime",
    "TensorInfo": "runtime",
    "load": "runtime",
    "ExportedSavedModel": "saved_model",
    "export_saved_model": "saved_model",
    "Verification": "verify",
    "VerificationError": "verify",
    "verify": "verify",
}

__all__ = [
    "Benchmark",
    "CArray",
    "Cascade",
    "CascadePoint",
    "Clustered",
    "Compatibility",
    "ConversionError",
    "DistilledFile",
    "Exported",
    "ExportedOnnx",
    "ExportedSavedModel",
    "Golden",
    "GoldenError",
    "Interpreter",
    "Metadata",
    "MinimumRuntime",
    "Pruned",
    "QuantizeAware",
    "Sensitivity",
    "TensorInfo",
    "Verification",
    "VerificationError",
    "benchmark",
    "c_array",
    "cascade",
    "check_golden",
    "cluster",
    "compatibility",
    "compressed_size",
    "distill_and_export",
    "export",
    "export_onnx",
    "export_saved_model",
    "golden",
    "load",
    "minimum_runtime",
    "prune",
    "quantize_aware",
    "read_metadata",
    "sensitivity",
    "strip",
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
