"""Does a file answer on this machine as `golden` recorded? With NumPy and a runtime alone.

    check_golden("student-golden", "student.tflite", runtime="tflite-runtime")

Neither TensorFlow nor Keras is needed where this runs.
"""

from __future__ import annotations

import hashlib
import json
import math
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
    """The outputs as they are stored, `(runs, *shape)` each; `make` makes an interpreter.

    Raises:
        ValueError: the file does not run on inputs of these sizes.
    """
    try:
        return _run(make, content, inputs)
    except RuntimeError as error:  # native, and sometimes of several lines
        shapes, said = [one.shape for one in inputs], " ".join(str(error).split())
        raise ValueError(f"The file does not run on inputs of {shapes}: {said}") from None


def _run(make: Any, content: bytes, inputs: Sequence[Recorded]) -> list[np.ndarray]:
    with hushed():
        interpreter = make(model_content=content)
        places = [d["index"] for d in interpreter.get_input_details()]
        for place, one in zip(places, inputs, strict=True):
            if None in one.info.shape:
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
        ValueError: the folder is not whole, was not written by `golden`, or is of another file.
    """
    folder = Path(path)
    described = described_in(folder)
    if described["format"] != FORMAT:
        raise ValueError(
            f"{folder}/golden.json has the format {described['format']!r}, and {FORMAT} is read here: "
            "record it again with golden(), or install the version that wrote it."
        )
    _require_whole(folder, described)
    content, name = content_of(file)
    if hashlib.sha256(content).hexdigest() != described["sha256"]:
        raise ValueError(
            f"{folder} was recorded with another {described['file']} ({described['size_bytes']} bytes) "
            f"than {name} ({len(content)} bytes): record it again."
        )
    interpreter = load(content, runtime=runtime)
    inputs = _recorded(folder, described, "inputs", interpreter.inputs)
    outputs = _recorded(folder, described, "outputs", interpreter.outputs)
    answers = run(interpreter_class(runtime)[1], content, inputs)
    for recorded, one, answer in zip(outputs, described["outputs"], answers, strict=True):
        want, have = (
            recorded.info.dequantize(a).astype("float64") for a in (recorded.array, answer)
        )
        if have.shape != want.shape:
            raise GoldenError(
                f"Output {one['name']!r} of {described['file']} on {interpreter.runtime} has the shape "
                f"{have.shape[1:]} and had {want.shape[1:]}."
            )
        error = np.abs(have - want)
        bound = one["float16_tolerance" if float16 else "tolerance"]
        if not (error <= bound).all():  # NaN is no answer either
            worst = int(np.nan_to_num(error, nan=np.inf).argmax())
            raise GoldenError(
                f"Output {one['name']!r} of {described['file']} on {interpreter.runtime}: number {worst} of "
                f"all runs is {have.flat[worst]:g} and was {want.flat[worst]:g}; {bound:g} is allowed."
            )


def described_in(folder: Path) -> dict[str, Any]:
    """What golden.json holds, of whatever format.

    Raises:
        ValueError: there is none, or nothing that `golden` wrote.
    """
    path = folder / "golden.json"
    if not path.is_file():
        raise ValueError(f"{folder} holds no golden.json: it is no folder that golden() wrote.")
    try:
        described = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError):
        described = None
    if not isinstance(described, dict) or "format" not in described:
        raise ValueError(f"{path} is damaged, or golden() did not write it.")
    return described


_WHOLE = {
    "file": str,
    "size_bytes": int,
    "sha256": str,
    "runs": int,
    "inputs": list,
    "outputs": list,
}
_TENSOR = {"name": str, "shape": list, "dtype": str, "data": str}
_OUTPUT = _TENSOR | {"tolerance": (int, float), "float16_tolerance": (int, float)}


def _require_whole(folder: Path, described: Mapping[str, Any]) -> None:
    """Has golden.json all that is read of it, of the types that it is read as?"""
    _require(folder, "it", described, _WHOLE)
    for side, fields in (("inputs", _TENSOR), ("outputs", _OUTPUT)):
        for place, one in enumerate(described[side]):
            _require(folder, f"{side}[{place}]", one, fields)
            if not all(type(size) is int and size >= 0 for size in one["shape"]):
                raise _damaged(folder, f"'shape' of {side}[{place}] is {one['shape']}")
    if described["runs"] < 1 or not described["inputs"]:
        raise _damaged(folder, "it has no runs")


def _require(folder: Path, where: str, table: Any, fields: Mapping[str, Any]) -> None:
    for key, kind in fields.items():
        value = table.get(key) if isinstance(table, Mapping) else None
        if not isinstance(value, kind) or isinstance(value, bool):
            raise _damaged(folder, f"{key!r} of {where} is {value!r}")


def _damaged(folder: Path, how: str) -> ValueError:
    return ValueError(f"{folder}/golden.json is damaged: {how}. Record it again.")


def _recorded(
    folder: Path, described: Mapping[str, Any], side: str, infos: Sequence[TensorInfo]
) -> list[Recorded]:
    """All runs of the inputs or outputs, which must be those of the file."""
    told = described[side]
    if len(told) != len(infos):
        raise _damaged(folder, f"it has {len(told)} {side}, and the file {len(infos)}")
    for info, one in zip(infos, told, strict=True):
        # The sizes of an output are known when it was run.
        if one["dtype"] != info.dtype or (side == "inputs" and not info.fits(one["shape"])):
            raise _damaged(
                folder,
                f"{one['name']!r} is {one['dtype']} {one['shape']}, and in the file {info.dtype} "
                f"{list(info.shape)}",
            )
    return [
        Recorded(info, _read(folder, one, described["runs"]))
        for info, one in zip(infos, told, strict=True)
    ]


def _read(folder: Path, one: Mapping[str, Any], runs: int) -> np.ndarray:
    kind = np.dtype(one["dtype"])
    path = folder / one["data"]
    if not path.is_file():
        raise ValueError(f"{folder} lacks {one['data']}: record it again.")
    content = path.read_bytes()
    if len(content) != kind.itemsize * runs * math.prod(one["shape"]):
        raise ValueError(f"{path} is cut off or was changed: record it again.")
    array = np.frombuffer(content, kind.newbyteorder("<")).astype(kind)
    return array.reshape([runs, *one["shape"]])
