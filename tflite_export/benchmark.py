"""What does a file cost: bytes, time, memory, and in which operators?

    print(benchmark("student.tflite", num_threads=4))
    ours, theirs = benchmark(["student.tflite", "other.tflite"])    # timed in alternation

Works for any `.tflite`. The inputs are random numbers: an interpreter's time does not depend on
what it sees.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np

from tflite_export import flatbuffer, memory
from tflite_export.runtime import Interpreter, TensorInfo, content_of

_BLOCK = 5  # runs of one file before the next file's turn: its weights get back into the caches


@dataclass(frozen=True)
class Benchmark:
    """What one file costs on this machine; `str()` is a table.

    Attributes:
        name: the file.
        size_bytes: of the file.
        median_ms, p90_ms: latency of one run (one batch), after warm-up.
        runs: how many were timed.
        peak_memory_bytes: above a process that only imports the runtime; None if not measured.
        operators: {(operator, types): count}; types as in "int8", or "float32×int8" where the
            weights have another type than the activations.
        delegate_partitions: pieces that XNNPACK runs (1 is best, 0 is none); None where the
            runtime does not tell.
        runtime, num_threads: what ran it.
    """

    name: str
    size_bytes: int
    median_ms: float
    p90_ms: float
    runs: int
    peak_memory_bytes: int | None
    operators: Mapping[tuple[str, str], int]
    delegate_partitions: int | None
    runtime: str
    num_threads: int | None

    def __str__(self) -> str:
        threads = "default threads" if self.num_threads is None else f"{self.num_threads} threads"
        peak = self.peak_memory_bytes
        parts = self.delegate_partitions
        lines = [
            f"{self.name} on {self.runtime}, {threads}",
            f"  size            {self.size_bytes:,} bytes",
            f"  latency         {self.median_ms:.3f} ms median, {self.p90_ms:.3f} ms p90 "
            f"({self.runs} runs)",
            f"  peak memory     {'not measured' if peak is None else f'{peak:,} bytes'}",
            f"  XNNPACK pieces  {'not available' if parts is None else parts}",
            "  operators",
        ]
        ordered = sorted(self.operators.items(), key=lambda item: (-item[1], item[0]))
        lines += [f"    {count:4d} {name} {types}" for (name, types), count in ordered]
        return "\n".join(lines)


@overload
def benchmark(
    files: list[Any] | tuple[Any, ...],
    *,
    num_threads: int | None = None,
    runs: int = 50,
    warmup: int = 5,
    runtime: str | Sequence[str] = "auto",
    measure_memory: bool = True,
    input_shapes: Any = None,
) -> list[Benchmark]: ...
@overload
def benchmark(
    files: Any,
    *,
    num_threads: int | None = None,
    runs: int = 50,
    warmup: int = 5,
    runtime: str | Sequence[str] = "auto",
    measure_memory: bool = True,
    input_shapes: Any = None,
) -> Benchmark: ...
def benchmark(
    files: Any,
    *,
    num_threads: int | None = None,
    runs: int = 50,
    warmup: int = 5,
    runtime: str | Sequence[str] = "auto",
    measure_memory: bool = True,
    input_shapes: Any = None,
) -> Benchmark | list[Benchmark]:
    """Measures one file, or several in alternation.

    Args:
        files: a path, bytes, what `export` returned, or a list of these.
        num_threads: of the interpreter; None leaves the choice to it.
        runs: timed runs of each file.
        warmup: runs before them.
        runtime: as in `runtime.load`; of a list of files, one for all or one for each.
        measure_memory: starts two fresh processes for each file.
        input_shapes: sizes of inputs that a file leaves open, with the batch: a tuple, or a dict of
            them by input name where there are several inputs. An open batch alone is 1.

    Raises:
        ValueError: a file is damaged or does not run, or sizes are open and not given.
    """
    if runs < 1 or warmup < 0:
        raise ValueError(f"runs={runs}, warmup={warmup}: at least 1 run and 0 of warm-up.")
    several = isinstance(files, (list, tuple))
    listed: Sequence[Any] = files if several else [files]
    if not listed:
        raise ValueError("No files to measure.")
    runtimes = [runtime] * len(listed) if isinstance(runtime, str) else list(runtime)
    if len(runtimes) != len(listed):
        raise ValueError(
            f"{len(runtimes)} runtimes for {len(listed)} files: give one, or one for each."
        )
    interpreters = [
        Interpreter(f, num_threads=num_threads, runtime=one)
        for f, one in zip(listed, runtimes, strict=True)
    ]
    shapes = [
        _shapes(content_of(f)[1], interpreter.inputs, input_shapes)
        for f, interpreter in zip(listed, interpreters, strict=True)
    ]
    rng = np.random.default_rng(0)
    for interpreter, sizes in zip(interpreters, shapes, strict=True):
        pairs = zip(interpreter.inputs, sizes, strict=True)
        interpreter.prepare({i.name: _random(i, shape, rng) for i, shape in pairs})
        for _ in range(warmup):
            interpreter.invoke()
    times = _alternate(interpreters, runs)
    results = [
        _result(file, interpreter, milliseconds, num_threads, sizes if measure_memory else None)
        for file, interpreter, milliseconds, sizes in zip(
            listed, interpreters, times, shapes, strict=True
        )
    ]
    return results if several else results[0]


def _alternate(interpreters: Sequence[Interpreter], runs: int) -> list[list[float]]:
    times: list[list[float]] = [[] for _ in interpreters]
    while len(times[-1]) < runs:
        for taken, interpreter in zip(times, interpreters, strict=True):
            if len(interpreters) > 1:
                interpreter.invoke()  # not timed: the other file emptied the caches
            for _ in range(min(_BLOCK, runs - len(taken))):
                start = time.perf_counter()
                interpreter.invoke()
                taken.append((time.perf_counter() - start) * 1e3)
    return times


def _result(
    file: Any,
    interpreter: Interpreter,
    milliseconds: list[float],
    num_threads: int | None,
    shapes: list[list[int]] | None,
) -> Benchmark:
    content, name = content_of(file)
    return Benchmark(
        name=name,
        size_bytes=len(content),
        median_ms=statistics.median(milliseconds),
        p90_ms=float(np.percentile(milliseconds, 90)),
        runs=len(milliseconds),
        peak_memory_bytes=None
        if shapes is None
        else _memory(file, content, interpreter.runtime, num_threads, shapes),
        operators=_operators(content, name),
        delegate_partitions=interpreter.delegate_partitions(),
        runtime=interpreter.runtime,
        num_threads=num_threads,
    )


def _memory(
    file: Any, content: bytes, runtime: str, num_threads: int | None, shapes: list[list[int]]
) -> int:
    if not isinstance(file, (bytes, bytearray, memoryview)):
        return memory.peak_bytes(getattr(file, "path", file), runtime, num_threads, shapes)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "measured.tflite"
        path.write_bytes(content)
        return memory.peak_bytes(path, runtime, num_threads, shapes)


def _operators(content: bytes, name: str) -> dict[tuple[str, str], int]:
    counts: Counter[tuple[str, str]] = Counter()
    for operator in flatbuffer.operators(flatbuffer.read(content, name)):
        reads, writes = operator.input_types, operator.output_types
        types = (reads or writes or ("none",))[0]
        if operator.name in _WEIGHTED and len(reads) > 1 and reads[1] != types:
            types = f"{types}×{reads[1]}"
        counts[operator.name, types] += 1
    return dict(counts)


_WEIGHTED = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "BATCH_MATMUL", "CONV_3D"}


def _shapes(name: str, inputs: Sequence[TensorInfo], given: Any) -> list[list[int]]:
    """The shape of each input: the file's, or `given` where the file leaves sizes open."""
    by_name = given if isinstance(given, Mapping) else {}
    if given is not None and not isinstance(given, Mapping):
        if len(inputs) > 1:
            raise ValueError(
                f"{name} has the inputs {[i.name for i in inputs]}: give input_shapes as a dict."
            )
        by_name = {inputs[0].name: given}
    unknown = sorted(set(by_name) - {i.name for i in inputs})
    if unknown:
        raise ValueError(
            f"input_shapes names {unknown}; the inputs of {name} are {[i.name for i in inputs]}."
        )
    shapes = []
    for one in inputs:
        shape = list(
            by_name.get(one.name, [1, *one.shape[1:]] if None in one.shape[:1] else one.shape)
        )
        if None in shape:
            example = tuple(96 if d is None else d for d in shape)
            raise ValueError(
                f"{name} leaves sizes of its input {one.name!r} open, {one.shape}: say which to "
                f"measure, for example input_shapes={example}."
            )
        fits = len(shape) == len(one.shape) and all(
            want in (None, have) for want, have in zip(one.shape, shape, strict=True)
        )
        if not fits:
            raise ValueError(
                f"input_shapes gives {tuple(shape)} for {one.name!r} of {name}, and the file takes "
                f"{one.shape}."
            )
        shapes.append([int(d) for d in shape])
    return shapes


def _random(info: TensorInfo, shape: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    kind = np.dtype(info.dtype).kind
    if kind == "f":
        return rng.normal(size=shape).astype(info.dtype)
    if kind in "iu" and np.dtype(info.dtype).itemsize == 1:
        ends = np.iinfo(info.dtype)
        return rng.integers(ends.min, ends.max, shape, info.dtype, endpoint=True)
    return np.zeros(shape, info.dtype)  # indices: 0 is always one
