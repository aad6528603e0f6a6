"""Recorded inputs and outputs for the app's own unit test, and code to paste into the app.

    recorded = golden(exported, photos[:8], "student-golden")
    check_golden("student-golden", exported)      # raises where another runtime answers otherwise

The folder holds golden.json (names, shapes, types, tolerances), one `.bin` file for each input and output
(little-endian numbers, one recorded run after the other: no library is needed to read them), labels.txt
and README.md with Kotlin, Swift and Python for this very file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from tflite_export import metadata
from tflite_export.app_code import facts as file_facts
from tflite_export.app_code import readme
from tflite_export.batches import batches
from tflite_export.golden_check import (
    FORMAT,
    GoldenError,
    Recorded,
    check_golden,
    described_in,
    run,
)
from tflite_export.normalization import Normalization
from tflite_export.runtime import (
    RUNTIMES,
    Interpreter,
    TensorInfo,
    content_of,
    interpreter_class,
    load,
    makers,
)
from tflite_export.whole_folder import write_whole_folder

__all__ = ["Golden", "GoldenError", "check_golden", "golden"]

_OURS = r"golden\.json|README\.md|labels\.txt|(in|out)put_\d+\.bin"
# Of the largest output. Kernels add up in another order; float16 has 11 bits, and each layer loses some.
_FLOAT32_SHARE, _FLOAT16_SHARE = 1e-4, 0.02
_STEPS = 2


@dataclass(frozen=True)
class Golden:
    """What `golden` wrote.

    Attributes:
        path: of the folder.
        runs: how many runs are recorded, one batch each.
        tolerances: {output: largest absolute difference, in real values, on any CPU}.
        float16_tolerances: the same where a GPU computes in float16; estimated, not measured.
    """

    path: Path
    runs: int
    tolerances: Mapping[str, float]
    float16_tolerances: Mapping[str, float]


def golden(
    exported: Any, data: Any, path: str | os.PathLike[str], *, max_examples: int = 8
) -> Golden:
    """Records what a file answers, for a unit test of the app, and writes code for the app.

    The tolerance of an output is the largest of: 2 of its steps, where its numbers are quantised
    (1e-4 of its largest value, where not), and twice what LiteRT's XNNPACK kernels and its others
    differ by on these examples.

    Args:
        exported: what `export` returned, a path, or bytes.
        data: examples, in the forms that `verify` takes: floats as *the model* takes them; or raw
            pixels as uint8, which go through the normalisation that the file carries; or arrays of
            the file's own integer type, taken as they are.
        path: a new folder, or one that `golden` wrote: it is replaced.
        max_examples: how many are recorded, the first ones; at least 1.

    Raises:
        ValueError: no data, data of another shape than the file's, NaN in them or in an answer, a type
            or a file name that there is no code for, or `path` is a file, below one, or a folder that
            holds anything else.
    """
    if max_examples < 1:
        raise ValueError(f"max_examples is {max_examples}: give 1 or more.")
    _require_ours(Path(path))
    content, _ = content_of(exported)
    interpreter = load(content)
    inputs = _inputs(content, interpreter, data, max_examples)
    arrays = run(interpreter_class("auto")[1], content, inputs)
    outputs = [Recorded(i, a) for i, a in zip(interpreter.outputs, arrays, strict=True)]
    for one in outputs:
        if one.array.dtype.kind == "f" and not np.isfinite(one.array).all():
            raise ValueError(
                f"Output {one.info.name!r} answers NaN or infinity to these examples: give others."
            )
    facts = file_facts.Facts.of(exported, [i.shape for i in inputs], [o.shape for o in outputs])
    tolerances = _tolerances(content, inputs, outputs)
    files = {f"input_{i}.bin": one.bytes for i, one in enumerate(inputs)}
    files |= {f"output_{i}.bin": one.bytes for i, one in enumerate(outputs)}
    if facts.labels is not None:
        files["labels.txt"] = "\n".join(facts.labels).encode()
    runs = len(inputs[0].array)
    described = {
        "format": FORMAT,
        "file": facts.file,
        "size_bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "recorded_on": _runtime(interpreter.runtime),
        "runs": runs,
        "inputs": [one.told(f"input_{i}.bin") for i, one in enumerate(inputs)],
        "outputs": [
            one.told(f"output_{i}.bin") | dict(zip(_NAMES, pair, strict=True))
            for i, (one, pair) in enumerate(zip(outputs, tolerances, strict=True))
        ],
        "labelled_output": -1 if facts.labelled is None else facts.labelled,
        "top_1": _top(facts, outputs, tolerances),
    }
    files["golden.json"] = json.dumps(described, indent=2, ensure_ascii=False).encode()
    files["README.md"] = readme.readme(facts, described).encode()
    written = write_whole_folder(path, files, _OURS)
    names = [one.info.name for one in outputs]
    close, half = zip(*tolerances, strict=True)
    return Golden(
        written, runs, dict(zip(names, close, strict=True)), dict(zip(names, half, strict=True))
    )


_NAMES = ("tolerance", "float16_tolerance")


def _require_ours(folder: Path) -> None:
    """A README.md alone may be anybody's: golden.json tells a folder of ours."""
    if folder.is_dir() and any(folder.iterdir()):
        try:
            described_in(folder)
        except ValueError as error:
            raise ValueError(f"{error} It is not replaced: give a new folder.") from None


def _inputs(content: bytes, interpreter: Interpreter, data: Any, count: int) -> list[Recorded]:
    infos = interpreter.inputs
    pairs = metadata.own_notes(content)
    normal = {n: Normalization.parse(p) for n, p in pairs.get("normalization", {}).items()}
    raw = set(pairs.get("normalized_in_graph", {}))
    parts: list[list[np.ndarray]] = [[] for _ in infos]
    for x, _ in batches(data, None, interpreter.batch_size or 1, count):
        if isinstance(x, Mapping):
            missing = [i.name for i in infos if i.name not in x]
            if missing:
                raise ValueError(f"The data lack the inputs {missing}.")
            x = [x[i.name] for i in infos]
        values = x if isinstance(x, (list, tuple)) else [x]
        if len(values) != len(infos):
            raise ValueError(
                f"The file has the inputs {[i.name for i in infos]}, and the data {len(values)}."
            )
        for part, info, value in zip(parts, infos, map(np.asarray, values), strict=True):
            info.require_examples(value.shape)
            if not value.size:
                raise ValueError(f"An array of shape {value.shape} was given, without numbers.")
            part.append(_stored(value, info, normal.get(info.name), info.name in raw))
    if not parts[0]:
        raise ValueError("golden was given no examples: there is nothing to record.")
    if any(len({p.shape[1:] for p in part}) > 1 for part in parts):
        raise ValueError("The examples differ in shape: give some of one shape.")
    whole = [np.concatenate(part) for part in parts]
    if len({len(w) for w in whole}) > 1:
        raise ValueError(f"Inputs of different lengths: {[len(w) for w in whole]}.")
    return [Recorded(i, _in_runs(i, a)) for i, a in zip(infos, whole, strict=True)]


def _in_runs(info: TensorInfo, examples: np.ndarray) -> np.ndarray:
    """`(runs, batch, …)`. A file takes no part of a batch: the last example is repeated."""
    if not info.shape:
        return examples
    batch = info.shape[0] or 1
    lack = -len(examples) % batch
    whole = np.concatenate([examples, np.repeat(examples[-1:], lack, 0)])
    return whole.reshape(-1, batch, *examples.shape[1:])


def _stored(value: np.ndarray, info: TensorInfo, normal: Any, raw: bool) -> np.ndarray:
    """The examples as the file takes them: pixels, steps of its quantisation, or numbers."""
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        raise ValueError(f"The data hold NaN or infinity for input {info.name!r}.")
    if value.dtype == np.dtype(info.dtype):
        return value
    if value.dtype == np.uint8 and normal is not None:
        value = normal.apply(value)
    if raw:
        pixels = np.round(normal.invert(value))
        return (pixels - 128 if info.dtype == "int8" else pixels).astype(info.dtype)
    if info.quantization is not None:
        return info.quantize(value)
    cast = value.astype(info.dtype)
    if cast.dtype.kind in "iub" and not np.array_equal(cast, value):
        raise ValueError(
            f"Input {info.name!r} is {info.dtype}, and values that do not fit were given."
        )
    return cast


def _tolerances(
    content: bytes, inputs: list[Recorded], outputs: list[Recorded]
) -> list[tuple[float, float]]:
    others = run(_without_xnnpack, content, inputs)
    steps = [step for _, step in makers(content)]
    made = []
    for place, one in enumerate(outputs):
        real = one.info.dequantize(one.array).astype("float64")
        largest = float(np.abs(real).max(initial=0.0))
        step = one.info.scale or steps[place]
        least = _STEPS * step if step else max(_FLOAT32_SHARE * largest, 1e-6)
        if one.array.dtype.kind in "iub" and one.info.quantization is None:
            least = 0.0  # a class number or a mask is right or wrong
        other = one.info.dequantize(others[place]).astype("float64")
        differs = float(np.nan_to_num(np.abs(other - real)).max(initial=0.0))
        close = max(least, 2 * differs)
        made.append((close, max(close, _FLOAT16_SHARE * largest) if least else close))
    return made


def _runtime(name: str) -> str:
    package = RUNTIMES[name][2] if name != "tflite-runtime" else name
    try:
        return f"{name} {version(package)}"
    except PackageNotFoundError:  # installed by other means than a package
        return name


def _without_xnnpack(**arguments: Any) -> Any:
    """LiteRT with its own kernels, which older devices run."""
    from ai_edge_litert import interpreter

    plain = interpreter.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    return interpreter.Interpreter(experimental_op_resolver_type=plain, **arguments)


def _top(facts: Any, outputs: list[Recorded], tolerances: list[tuple[float, float]]) -> list[int]:
    """The best class of each run; -1 where the second is so close that another CPU may differ."""
    if facts.labelled is None:
        return []
    one, (tolerance, _) = outputs[facts.labelled], tolerances[facts.labelled]
    scores = one.info.dequantize(one.array).astype("float64").reshape(len(one.array), -1)
    best = scores.argmax(-1)
    if scores.shape[1] < 2:
        return [int(b) for b in best]
    second, first = np.sort(scores, -1)[:, -2:].T
    return [
        int(b) if f - s > 2 * tolerance else -1 for b, f, s in zip(best, first, second, strict=True)
    ]
