"""Version numbers that keep a runtime from answering wrongly.

    model = with_honest_versions(model)      # the object tree of a quantised file

An operator's version says what its runtime must know; one that does not know it refuses the file.
litert-quantizer 0.11 leaves the versions of the float file, and so tflite-runtime 2.14 runs a dense layer of
"dynamic_int8" with one scale for all channels, and convolutions of "int4" to NaN. Here these get the version
with which their kernels came. The converter's note of the oldest runtime ("min_runtime_version") is of the
float file too, and is taken out; `minimum_runtime` says what was tried.
"""

from __future__ import annotations

from typing import Any

from tflite_export import flatbuffer

# What `flatbuffer.kinds` begins with: the version that later runtimes alone know. 12 is that of scales for
# each channel in TensorFlow's own list; for int4 there is none, and 8 is CONV_2D's first after 2.14.
_VERSIONS = {
    "FULLY_CONNECTED float32×int8": 12,
    "FULLY_CONNECTED float32×int4": 12,
    "CONV_2D float32×int4": 8,
}


def with_honest_versions(model: Any) -> Any:
    """Gives the operators of a quantised file versions that say what they need.

    Args:
        model: the object tree of the flatbuffer; it is changed, and returned.
    """
    operators = [operator for graph in model.subgraphs for operator in graph.operators or []]
    for operator, kind in zip(operators, flatbuffer.kinds(model), strict=True):
        code = model.operatorCodes[operator.opcodeIndex]
        for start, version in _VERSIONS.items():
            if kind.startswith(start) and "by channel" in kind:
                code.version = max(int(code.version or 1), version)
    notes = model.metadata or []
    model.metadata = [m for m in notes if flatbuffer.text(m.name) != "min_runtime_version"]
    return model
