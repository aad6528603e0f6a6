"""One face for the programs that run `.tflite` files: LiteRT, tflite-runtime and TensorFlow.

    interpreter = load("student.tflite", num_threads=4)
    scores = interpreter.run(photos)          # (photos, classes), float32

`run` takes any number of examples, floats or the file's own integers, and answers in floats. This
module imports neither TensorFlow nor Keras.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import operator
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tflite_export.chatter import hushed

MOST_THREADS = 1024  # runtimes start as many as they are asked for, and crash where there are none

RUNTIMES = {
    "litert": ("ai_edge_litert.interpreter", "Interpreter", "ai-edge-litert"),
    "tflite-runtime": (
        "tflite_runtime.interpreter",
        "Interpreter",
        "keras-distill[tflite-runtime]",
    ),
    "tensorflow": ("tensorflow", "lite.Interpreter", "tensorflow"),
}


@dataclass(frozen=True)
class TensorInfo:
    """An input or output of a file.

    Attributes:
        name: as in the file's signature, else the tensor's own.
        shape: with the batch; None where the size may change.
        dtype: "float32", "uint8", "int8", …
        scale, zero_point: real value = (stored value - zero_point) * scale; None for floats.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    scale: float | None = None
    zero_point: int | None = None

    @property
    def quantization(self) -> tuple[float, int] | None:
        """(scale, zero point), or None of a tensor in floats."""
        if self.scale is None or self.zero_point is None:
            return None
        return self.scale, self.zero_point

    def fits(self, shape: Sequence[int | None]) -> bool:
        """Whether this is the shape of one run; a size that the file leaves open may be any."""
        return len(shape) == len(self.shape) and all(
            want in (None, have) for want, have in zip(self.shape, shape, strict=True)
        )

    def require_examples(self, shape: Sequence[int]) -> None:
        """Raises ValueError unless this is the shape `(examples, …)`, of any number of them."""
        sizes = self.shape[1:]
        if len(shape) == 0 or not self.fits((*self.shape[:1], *shape[1:])):
            raise ValueError(
                f"Input {self.name!r} takes (examples, {', '.join(map(str, sizes))}), "
                f"and an array of shape {tuple(shape)} was given."
            )

    def quantize(self, values: np.ndarray) -> np.ndarray:
        """Real values as the file stores them: rounded to the nearest step, clipped at the ends."""
        if self.quantization is None:
            return values.astype(self.dtype)
        ends = np.iinfo(self.dtype)
        steps = np.round(np.asarray(values, "float64") / self.scale) + self.zero_point
        return np.clip(steps, ends.min, ends.max).astype(self.dtype)

    def dequantize(self, values: np.ndarray) -> np.ndarray:
        """Stored values as real float32 values."""
        if self.quantization is None:
            return values
        return ((values.astype("float64") - self.zero_point) * self.scale).astype("float32")


def load(
    path: str | os.PathLike[str] | bytes | Any,
    num_threads: int | None = None,
    runtime: str = "auto",
) -> Interpreter:
    """Opens a `.tflite` file.

    Args:
        path: a path, the file's bytes, or what `export` returned.
        num_threads: of the interpreter; None leaves the choice to it.
        runtime: "litert", "tflite-runtime", "tensorflow", or "auto": the first of them installed.

    Raises:
        ValueError: the file is damaged or no TFLite file, or the runtime's name is unknown.
        ImportError: the runtime is not installed.
    """
    return Interpreter(path, num_threads=num_threads, runtime=runtime)


def content_of(file: Any) -> tuple[bytes, str]:
    """The bytes of a path, of bytes or of an `Exported`, and what to call it in errors."""
    if isinstance(file, (bytes, bytearray, memoryview)):
        return bytes(file), "this file"
    path = getattr(file, "path", file)
    if not isinstance(path, str | os.PathLike):
        raise ValueError(
            f"A {type(file).__name__} was given: give the path of a .tflite file, its bytes, or what export "
            "returned."
        )
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    return path.read_bytes(), str(path)


class Interpreter:
    """A file, ready to run. Attributes: `runtime`, `inputs`, `outputs` (tuples of TensorInfo)."""

    def __init__(self, file: Any, num_threads: int | None = None, runtime: str = "auto"):
        if num_threads is not None and not 1 <= num_threads <= MOST_THREADS:
            raise ValueError(f"num_threads is {num_threads}: give 1 to {MOST_THREADS}, or None.")
        self.runtime, make = interpreter_class(runtime)
        content, name = content_of(file)
        _check(content, name)
        self._shapes: list[tuple[int, ...]] = []
        try:
            with hushed():
                self._interpreter = make(model_content=content, num_threads=num_threads)
            self._read_details()
            with hushed():
                self._interpreter.allocate_tensors()
            self._read_details()  # outputs have their sizes now
        except (ValueError, RuntimeError) as error:
            # Sizes that a file leaves open count as 1 here, which may be too small for it.
            if not any(None in i.shape[1:] for i in getattr(self, "inputs", ())):
                raise ValueError(f"{self.runtime} does not run {name}: {_said(error)}") from None
            self._shapes = []

    def _read_details(self) -> None:
        inputs = self._interpreter.get_input_details()
        outputs = self._interpreter.get_output_details()
        names = _signature_names(self._interpreter)
        self._input_indices = [d["index"] for d in inputs]
        self._output_indices = [d["index"] for d in outputs]
        self.inputs = tuple(_info(d, names) for d in inputs)
        self.outputs = tuple(_info(d, names) for d in outputs)
        self._shapes = [tuple(int(d) for d in detail["shape"]) for detail in inputs]

    @property
    def batch_size(self) -> int | None:
        """How many examples the file takes at once; None where any number may be asked for."""
        shape = self.inputs[0].shape
        return shape[0] if shape else 1

    def run(
        self, inputs: Any, *, dequantize: bool = True, batch_size: int = 32
    ) -> np.ndarray | dict[str, np.ndarray]:
        """Runs any number of examples.

        Args:
            inputs: an array `(examples, …)`, a list of arrays in the file's order, or a dict by
                name. Floats are quantised where the file takes integers; arrays that already have
                the file's type are passed as they are.
            dequantize: False leaves integer outputs as they are stored.
            batch_size: examples at once, where the file does not fix it.

        Returns:
            The output `(examples, …)`, or a dict by name where there are several.
        """
        arrays = self._arrays(inputs)
        count = len(arrays[0])
        step = self.batch_size or min(batch_size, max(count, 1))
        parts: list[list[np.ndarray]] = [[] for _ in self.outputs]
        for start in range(0, count, step):
            chunk = [a[start : start + step] for a in arrays]
            size = len(chunk[0])
            if size < step and self.batch_size:  # the file wants full batches: repeat the last one
                chunk = [np.concatenate([c, np.repeat(c[-1:], step - size, 0)]) for c in chunk]
            for part, value in zip(parts, self._invoke(chunk), strict=True):
                part.append(value[:size] if value.ndim and len(value) >= size else value)
        results = []
        for info, part in zip(self.outputs, parts, strict=True):
            empty = np.zeros([0, *(d or 0 for d in info.shape[1:])], info.dtype)
            joined = np.concatenate(part) if part and part[0].ndim else np.array(part or empty)
            results.append(info.dequantize(joined) if dequantize else joined)
        if len(results) == 1:
            return results[0]
        return {info.name: r for info, r in zip(self.outputs, results, strict=True)}

    def _arrays(self, inputs: Any) -> list[np.ndarray]:
        names = [i.name for i in self.inputs]
        if isinstance(inputs, Mapping):
            if set(inputs) != set(names):
                raise ValueError(f"The file's inputs are {names}, and {list(inputs)} were given.")
            values = [inputs[name] for name in names]
        elif isinstance(inputs, (list, tuple)) and len(self.inputs) > 1:
            values = list(inputs)
        else:
            values = [inputs]
        if len(values) != len(names):
            raise ValueError(f"The file has {len(names)} inputs {names}, given: {len(values)}.")
        arrays = []
        for info, value in zip(self.inputs, values, strict=True):
            array = np.asarray(value)
            info.require_examples(array.shape)
            if array.dtype != np.dtype(info.dtype):
                array = info.quantize(array) if array.dtype.kind == "f" else _cast(array, info)
            arrays.append(np.ascontiguousarray(array))
        if len({len(a) for a in arrays}) > 1:
            raise ValueError(f"Inputs of different lengths: {[len(a) for a in arrays]}.")
        return arrays

    def _invoke(self, chunk: Sequence[np.ndarray]) -> list[np.ndarray]:
        shapes = [array.shape for array in chunk]
        if shapes != self._shapes:  # sizes that the file leaves open
            for index, shape in zip(self._input_indices, shapes, strict=True):
                self._interpreter.resize_tensor_input(index, shape)
            try:
                with hushed():
                    self._interpreter.allocate_tensors()
            except (ValueError, RuntimeError) as error:
                raise ValueError(
                    f"{self.runtime} does not run the file on inputs of {shapes}: {_said(error)}"
                ) from None
            self._shapes = shapes
        for index, array in zip(self._input_indices, chunk, strict=True):
            self._interpreter.set_tensor(index, array)
        try:
            self._interpreter.invoke()
        except RuntimeError as error:
            raise ValueError(
                f"{self.runtime} stops in the middle of the file: {_said(error)}"
            ) from None
        return [self._interpreter.get_tensor(index) for index in self._output_indices]

    def prepare(self, inputs: Any) -> None:
        """Puts one batch in place for `invoke`: for timing, where `run` would count its copies."""
        self._invoke(self._arrays(inputs))

    def invoke(self) -> None:
        """Runs on what `prepare` put in place."""
        self._interpreter.invoke()

    def delegate_partitions(self) -> int | None:
        """Into how many pieces a delegate (XNNPACK) took the graph; None where nobody tells."""
        # There is no public list of the nodes that run; LiteRT and TensorFlow have this one.
        details = getattr(self._interpreter, "_get_ops_details", None)
        if details is None:
            return None
        with contextlib.suppress(Exception):
            return sum("DELEGATE" in d["op_name"].upper() for d in details())
        return None

    def __repr__(self) -> str:
        return f"Interpreter({self.runtime}, inputs={self.inputs}, outputs={self.outputs})"


def _said(error: Exception) -> str:
    """A native message, which may have several lines, in one."""
    return " ".join(str(error).split())


def _cast(array: np.ndarray, info: TensorInfo) -> np.ndarray:
    """Integers for an input of another type: the same numbers, where that loses none."""
    cast = array.astype(info.dtype)
    if not np.array_equal(cast.astype(array.dtype), array):
        raise ValueError(
            f"Input {info.name!r} is {info.dtype}, and {array.dtype} values that do not fit were "
            "given: give floats (they are quantised) or values of the file's own type."
        )
    return cast


def _check(content: bytes, name: str) -> None:
    """Looks the file over before native code reads it; where only tflite-runtime is installed,
    there is no schema, and only the ends are looked at."""
    try:
        from tflite_export import flatbuffer, metadata
    except ImportError:
        if len(content) < 16 or content[4:8] != b"TFL3":
            raise ValueError(f"{name} is not a TFLite file.") from None
    else:
        metadata.require_whole(flatbuffer.read(content, name), content, name)


_UNCHANGED = ("QUANTIZE", "DEQUANTIZE", "RESHAPE", "SQUEEZE")


def makers(file: Any) -> tuple[tuple[str | None, float | None], ...]:
    """For each output, in the file's order, the operator that makes it and the step of its numbers.

    ("SOFTMAX", 1 / 256): a softmax of 256 steps, also where a float comes out in the end, as operators that
    only change type or shape are looked through. The operator is None where an output is an input, where it
    has an activation of its own (a fused ReLU), or where there is no schema to read it; no step means floats.
    """
    try:
        from tflite_export import flatbuffer
    except ImportError:
        return ((None, None),) * len(load(file).outputs)
    content, name = content_of(file)
    model = flatbuffer.read(content, name)
    found = [flatbuffer.maker(model, int(i), _UNCHANGED) for i in model.subgraphs[0].outputs]
    return tuple((one.name, one.step) for one in found)


def interpreter_class(runtime: str) -> tuple[str, Any]:
    """The name and the interpreter class of a runtime, or of the first that is installed."""
    if runtime != "auto" and runtime not in RUNTIMES:
        raise ValueError(f"runtime={runtime!r}: it is one of {['auto', *RUNTIMES]}.")
    for name in RUNTIMES if runtime == "auto" else [runtime]:
        module, attribute, package = RUNTIMES[name]
        try:
            return name, operator.attrgetter(attribute)(importlib.import_module(module))
        except ImportError:
            if runtime != "auto":
                raise ImportError(
                    f"The runtime {name!r} is not installed: pip install '{package}'."
                ) from None
    raise ImportError("No runtime for .tflite files is installed: pip install ai-edge-litert.")


def installed() -> tuple[str, ...]:
    """The names of the runtimes that can be loaded here, as in `RUNTIMES`."""
    found = []
    for name in RUNTIMES:
        with contextlib.suppress(ImportError):
            found.append(interpreter_class(name)[0])
    return tuple(found)


def _signature_names(interpreter: Any) -> dict[int, str]:
    """Tensor index → name in the first signature; a signature's own order is alphabetical."""
    names: dict[int, str] = {}
    for key in list(interpreter.get_signature_list())[:1]:
        runner = interpreter.get_signature_runner(key)
        for details in (runner.get_input_details(), runner.get_output_details()):
            for name, detail in details.items():
                names.setdefault(detail["index"], name)
    return names


def _info(detail: Mapping[str, Any], names: Mapping[int, str]) -> TensorInfo:
    signature = detail.get("shape_signature", detail["shape"])
    shape = signature if len(signature) == len(detail["shape"]) else detail["shape"]
    dtype = np.dtype(detail["dtype"]).name
    scale, zero_point = detail["quantization"]
    quantized = math.isfinite(scale) and scale != 0 and np.dtype(dtype).kind in "iu"
    return TensorInfo(
        name=names.get(detail["index"], detail["name"]),
        shape=tuple(None if d < 0 else int(d) for d in shape),
        dtype=dtype,
        scale=float(scale) if quantized else None,
        zero_point=int(zero_point) if quantized else None,
    )
