"""Ready-to-paste code for one file: what an app's developer would otherwise look up byte by byte.

    facts = Facts.of("student.tflite")
    kotlin(facts), swift(facts), python(facts)      # in kotlin.py and its neighbours

`Facts` holds names, sizes, types and quantisation of a file, as the three languages need them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np

from tflite_export import metadata
from tflite_export.class_names import can_be_stored
from tflite_export.normalization import Normalization
from tflite_export.runtime import TensorInfo, content_of, load

LABELS = "labels.txt"  # beside the snippets; inside the file it may be called otherwise
ITEM_BYTES = {
    "float32": 4,
    "uint8": 1,
    "int8": 1,
    "int16": 2,
    "int32": 4,
    "int64": 8,
    "bool": 1,
}


@dataclass(frozen=True)
class Picture:
    """How a picture becomes an input: `stored = clamp(round((pixel - mean) / std / scale) + zero_point)`.

    Attributes:
        width, height, channels: of the input.
        mean, std: one for all channels, or one for each.
        offset: for inputs whose integers are the pixels: 0 (uint8) or -128 (int8). None: compute.
    """

    width: int
    height: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    offset: int | None


@dataclass(frozen=True)
class Tensor:
    """One input or output, with sizes that are all fixed.

    Attributes:
        info: as the runtime tells it; `shape` has no None here.
        identifier: its name as the beginning of a variable in all three languages.
        resized: whether the file leaves sizes open, so that an app must set them.
        picture: for image inputs.
    """

    info: TensorInfo
    shape: tuple[int, ...]
    identifier: str
    resized: bool
    picture: Picture | None = None

    @property
    def count(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        """Its bytes."""
        return self.count * ITEM_BYTES[self.info.dtype]

    @property
    def told(self) -> str:
        """One line for a comment."""
        text = f'"{shown(self.info.name)}", {self.info.dtype} {list(self.shape)}, {self.size} bytes'
        if self.info.quantization is not None:
            text += f", real value = (stored - {self.info.zero_point}) * {number(self.info.scale)}"
        return text


@dataclass(frozen=True)
class Facts:
    """A file as the snippets need it.

    Attributes:
        file: its name.
        title: a name for a class; none that the snippets use themselves.
        labelled: the place of the output that the labels are for, or None.
        label_file: the labels' name in the file's zip.
        threshold: scores below it are no answer; None without one.
    """

    file: str
    title: str
    size_bytes: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    labels: tuple[str, ...] | None = None
    labelled: int | None = None
    label_file: str | None = None
    threshold: float | None = None

    @property
    def ending(self) -> str:
        """Of the file's name, without the point; "" without one."""
        return PurePath(self.file).suffix.removeprefix(".")

    @classmethod
    def of(
        cls, file: Any, input_shapes: Sequence[Sequence[int]] | None = None,
        output_shapes: Sequence[Sequence[int]] | None = None,
    ) -> Facts:  # fmt: skip
        """What there is to know of a file.

        Args:
            file: a path, bytes, or what `export` returned.
            input_shapes, output_shapes: where the file leaves sizes open, the sizes to use.

        Raises:
            ValueError: a type that the snippets have no code for (strings, complex numbers), or a
                file name that is not UTF-8.
        """
        content, name = content_of(file)
        interpreter = load(content)
        try:
            found = metadata.read_metadata(content)
        except ValueError:  # none, or damaged: the file may run all the same
            found = None
        notes = metadata.own_notes(content)
        raw, measured = notes.get("normalized_in_graph", {}), notes.get("measured")
        measured = measured if isinstance(measured, list) else []
        taken: set[str] = set()

        def tensors(infos: Any, shapes: Any, told: Any = None) -> tuple[Tensor, ...]:
            made = []
            for place, info in enumerate(infos):
                _require_known(info)
                shape = tuple(shapes[place]) if shapes else tuple(d or 1 for d in info.shape)
                picture = None
                if told is not None and info.name not in measured:
                    described = told[place] if place < len(told) else None
                    picture = _picture(info, shape, described, info.name in raw)
                name = _identifier(info.name, taken)
                made.append(Tensor(info, shape, name, None in info.shape, picture))
            return tuple(made)

        inputs = tensors(interpreter.inputs, input_shapes, found.inputs if found else ())
        outputs = tensors(interpreter.outputs, output_shapes)
        labelled = _labelled(found, outputs)
        file_name = "model.tflite" if name == "this file" else PurePath(name).name
        _require_text(file_name)
        described = found.outputs[labelled] if found and labelled is not None else None
        return cls(
            file=file_name,
            title=_title(file_name),
            size_bytes=len(content),
            inputs=inputs,
            outputs=outputs,
            labels=found.labels if found and labelled is not None else None,
            labelled=labelled,
            label_file=described.label_file if described else None,
            threshold=described.score_threshold if described else None,
        )


def _labelled(found: metadata.Metadata | None, outputs: Sequence[Tensor]) -> int | None:
    """The output whose numbers are scores of the labels; None for a map of classes."""
    if found is None or found.labels is None:
        return None
    for place, (one, tensor) in enumerate(zip(found.outputs, outputs, strict=False)):
        if one.label_file:
            return place if tensor.count == len(found.labels) else None
    return None


def _require_known(info: TensorInfo) -> None:
    if info.dtype not in ITEM_BYTES:
        raise ValueError(
            f"{info.name!r} is {info.dtype}, and there is code for {', '.join(ITEM_BYTES)} alone."
        )


def _require_text(file_name: str) -> None:
    if not can_be_stored(file_name):
        raise ValueError(
            f"The file's name {file_name!r} is not UTF-8, and no app can name it: rename the file."
        )


def _picture(info: TensorInfo, shape: tuple[int, ...], told: Any, raw: bool) -> Picture | None:
    if len(shape) != 4 or shape[0] != 1 or shape[3] not in (1, 3):
        return None
    normal = told.normalization if told is not None else None
    if raw or (normal is None and info.dtype in ("uint8", "int8")):
        offset = 0 if info.dtype == "uint8" else -128
        return Picture(shape[2], shape[1], shape[3], (0.0,), (1.0,), offset)
    if info.dtype not in ("float32", "uint8", "int8"):
        return None
    if normal is None:
        return None  # nothing says what the numbers of a picture are
    if info.dtype == "int8" and info.quantization is None:
        return None  # pixels do not fit, and nothing says which numbers they become
    return Picture(
        shape[2], shape[1], shape[3], normal.mean, normal.std, _offset(info, normal)
    )  # fmt: skip


def _offset(info: TensorInfo, normal: Normalization) -> int | None:
    """What is added to a pixel, where the stored integers are the pixels."""
    if info.quantization is None:
        return None if info.dtype == "float32" else 0
    pixels = np.arange(256)
    stored = info.quantize(normal.apply(np.repeat(pixels[:, None], len(normal.mean), 1)))
    for offset in (0, -128):
        if (stored == pixels[:, None] + offset).all():
            return offset
    return None


def _identifier(name: str, taken: set[str]) -> str:
    """`conv2d/Relu:0` → `conv2dRelu0`; different for each tensor."""
    words = re.findall(r"[A-Za-z0-9]+", name) or ["tensor"]
    made = words[0][:1].lower() + words[0][1:] + "".join(w[:1].upper() + w[1:] for w in words[1:])
    if made[0].isdigit():
        made = f"tensor{made[:1].upper()}{made[1:]}"
    wished, count = made, 1
    while made.lower() in taken:
        count += 1
        made = f"{wished}_{count}"
    taken.add(made.lower())
    return made


# Types of Kotlin, Java, Android, Swift and Foundation that the snippets name or stand on, and those of their
# tests: a class of the same name would hide them in its own code.
_TYPES = """
    androidjunit4 any anyobject array assert autocloseable bitmap bool boolean booleanarray bundle byte
    bytebuffer byteorder cgbitmapinfo cgcolorspace cgcontext cgimage cgimagealphainfo cgrect char character
    charsequence charsets comparable context data dictionary double enum error exception failure filechannel
    fileinputstream float floatarray foundation hashmap instrumentationregistry int int16 int32 int64 int8
    intarray interpreter iterable list long longarray math memorylayout never nothing object optional pair
    protocol result runwith self sequence set short string substring tensor tensorflowlite test throwable
    type uint8 unit unsafebufferpointer unsafemutablerawbufferpointer url void xctest xctestcase xctunwrap
"""
_TAKEN = frozenset(_TYPES.split())


def _title(file: str) -> str:
    words = re.findall(r"[A-Za-z0-9]+", file.removesuffix(".tflite"))
    made = "".join(w[:1].upper() + w[1:] for w in words) or "Model"
    if made.lower() in _TAKEN:
        return f"{made}Model"
    return made if made[0].isalpha() else f"Model{made}"


def shown(text: str) -> str:
    """A name for a comment: on one line, whatever is in it."""
    return "".join(c if c.isprintable() else "?" for c in text)


def number(value: float | None) -> str:
    """The shortest decimal that is this float32: with a point or an exponent."""
    return str(np.float32(value))


def numbers(values: tuple[float, ...], channels: int) -> list[str]:
    """One for each channel."""
    return [number(v) for v in (values * channels if len(values) == 1 else values)]
