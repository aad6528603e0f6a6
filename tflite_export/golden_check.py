"""Does a file answer on this machine as `golden` recorded? With NumPy and a runtime alone.

    check_golden("student-golden", "student.tflite", runtime="tflite-runtime")

Neither TensorFlow nor Keras is needed where this runs.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tflite_export.chatter import hushed
from tflite_export.runtime import TensorInfo, content_of, interpreter_class, load

FORMAT = 1


class GoldenError(AssertionError):
    """A file or a runtime answers otherwise than was recorded."""


@dataclass(frozen=True)
class Recorded:
    """All runs of one input or output: `(runs, *shape)`, as the file stores its numbers."""

    info: TensorInfo
    array: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one run."""
        return self.array.shape[1:]

    @property
    def bytes(self) -> bytes:
        """The numbers as the folder's files hold them, little-endian."""
        return self.array.astype(self.array.dtype.newbyteorder("<")).tobytes()

    def told(self, data: str) -> dict[str, Any]:
        """Its entry in golden.json."""
        return {
            "name": self.info.name,
            "shape": list(self.shape),
            "dtype": self.info.dtype,
            "scale": 0.0 if self.info.scale is None else self.info.scale,
            "zero_point": self.info.zero_point or 0,
            "data": data,
        }


def run(make: Any, content: bytes, inputs: Sequence[Recorded]) -> list[np.ndarray]:
    """The outputs as they are stored, `(runs, *shape)` each; `make` makes an interpreter."""
    with hushed():
        interpreter = make(model_content=content)
        places = [d["index"] for d in interpreter.get_input_details()]
        for place, one in zip(places, inputs, strict=True):
            interpreter.resize_tensor_input(place, one.shape)
        interpreter.allocate_tensors()
    found: list[list[np.ndarray]] = [[] for _ in interpreter.get_output_details()]
    for run in range(len(inputs[0].array)):
        for place, one in zip(places, inputs, strict=True):
            interpreter.set_tensor(place, one.array[run])
        with hushed():
            interpreter.invoke()
        for part, details in zip(found, interpreter.get_output_details(), strict=True):
            part.append(interpreter.get_tensor(details["index"]))
    return [np.stack(part) for part in found]


def check_golden(
    path: str | os.PathLike[str], file: Any, *, runtime: str = "auto", float16: bool = False
) -> None:
    """Does a file answer on this machine as was recorded? Needs NumPy and a runtime alone.

    Args:
        path: a folder that `golden` wrote.
        file: the `.tflite`: a path, bytes, or what `export` returned.
        runtime: as in `load`.
        float16: allow what a GPU in float16 loses.

    Raises:
        GoldenError: it does not; says where and by how much.
        ValueError: the folder is not whole, or is of another file.
    """
    folder = Path(path)
    if not (folder / "golden.json").is_file():
        raise ValueError(f"{folder} holds no golden.json: give a folder that golden() wrote.")
    described = json.loads((folder / "golden.json").read_text("utf-8"))
    if described.get("format") != FORMAT:
        raise ValueError(
            f"{folder}/golden.json has the format {described.get('format')!r}, and {FORMAT} is read here: "
            "record it again with golden(), or install the version that wrote it."
        )
    content, name = content_of(file)
    if hashlib.sha256(content).hexdigest() != described["sha256"]:
        raise ValueError(
            f"{folder} was recorded with another {described['file']} ({described['size_bytes']} bytes) "
            f"than {name} ({len(content)} bytes): record it again."
        )
    interpreter = load(content, runtime=runtime)
    inputs = [
        Recorded(info, _read(folder, one, described["runs"]))
        for info, one in zip(interpreter.inputs, described["inputs"], strict=True)
    ]
    answers = run(interpreter_class(runtime)[1], content, inputs)
    for info, one, answer in zip(interpreter.outputs, described["outputs"], answers, strict=True):
        want = info.dequantize(_read(folder, one, described["runs"])).astype("float64")
        have = info.dequantize(answer).astype("float64")
        error = np.abs(have - want)
        bound = one["float16_tolerance" if float16 else "tolerance"]
        if not (error <= bound).all():  # NaN is no answer either
            worst = int(np.nan_to_num(error, nan=np.inf).argmax())
            raise GoldenError(
                f"Output {one['name']!r} of {described['file']} on {interpreter.runtime}: number {worst} of "
                f"all runs is {have.flat[worst]:g} and was {want.flat[worst]:g}; {bound:g} is allowed."
            )


def _read(folder: Path, one: Mapping[str, Any], runs: int) -> np.ndarray:
    kind = np.dtype(one["dtype"])
    shape = one["shape"]
    content = (folder / one["data"]).read_bytes()
    if len(content) != kind.itemsize * runs * int(np.prod(shape, dtype=int)):
        raise ValueError(f"{folder / one['data']} is cut off or was changed: record it again.")
    array = np.frombuffer(content, kind.newbyteorder("<")).astype(kind)
    return array.reshape([runs, *shape])
