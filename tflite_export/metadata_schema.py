"""TFLite's metadata flatbuffer, written and read with the `flatbuffers` library.

The package that Google generated from the schema (tflite-support) cannot be installed beside
TensorFlow, so the few tables that apps read are spelt out here. Field numbers are those of
`metadata_schema.fbs`, schema "M001".
"""

from __future__ import annotations

import dataclasses
import struct
from dataclasses import dataclass
from typing import Any

import flatbuffers
from flatbuffers import number_types
from flatbuffers.encode import Get
from flatbuffers.table import Table

from tflite_export.normalization import Normalization

_IDENTIFIER = b"M001"
_FEATURE_PROPERTIES, _IMAGE_PROPERTIES = 1, 2  # union ContentProperties
_NORMALIZATION, _SCORE_THRESHOLDING = 1, 3  # union ProcessUnitOptions
_AXIS_LABELS = 2  # enum AssociatedFileType
_COLOURS = {"UNKNOWN": 0, "RGB": 1, "GRAYSCALE": 2}
# Every field that is written here was in the schema's first version.
_MIN_PARSER_VERSION = "1.0.0"
# Offsets may point to one place many times over: a small file could unfold to more than fits in memory.
_MOST_BYTES = 8 << 20


@dataclass(frozen=True)
class TensorMetadata:
    """What an app reads about one tensor.

    Attributes:
        image: (width, height, "RGB" or "GRAYSCALE") of an image input.
        normalization: what the app does to pixels before it hands them over.
        stats: (smallest, largest) value.
        label_file: name of the file with the labels of the last axis.
        score_threshold: scores below it count as no answer; MediaPipe Tasks leaves them out.
    """

    name: str
    description: str | None = None
    image: tuple[int, int, str] | None = None
    normalization: Normalization | None = None
    stats: tuple[float, float] | None = None
    label_file: str | None = None
    score_threshold: float | None = None


@dataclass(frozen=True)
class Metadata:
    """The metadata of a file.

    Attributes:
        name, description, version, author, license: of the model, as its maker wrote them.
        inputs, outputs: in the file's order.
        labels: the lines of the first output's label file.
        min_parser_version: the oldest schema that knows every field used.
    """

    name: str
    description: str | None
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]
    labels: tuple[str, ...] | None = None
    version: str | None = None
    author: str | None = None
    license: str | None = None
    min_parser_version: str | None = None

    def with_labels(self, labels: tuple[str, ...] | None) -> Metadata:
        """The same metadata with the labels of the associated file."""
        return dataclasses.replace(self, labels=labels)


class _Writer:
    """Tables as {field number: (kind, value)}; children are written before their parents."""

    def __init__(self) -> None:
        self.builder = flatbuffers.Builder(1024)

    def table(self, fields: dict[int, tuple[str, Any]]) -> int:
        present = {k: v for k, v in fields.items() if v[1] is not None}
        written = {k: self._child(kind, value) for k, (kind, value) in present.items()}
        self.builder.StartObject(max(fields, default=-1) + 1)
        for number, value in written.items():
            kind = present[number][0]
            if kind == "byte":
                self.builder.PrependInt8Slot(number, value, 0)
            elif kind == "ubyte":
                self.builder.PrependUint8Slot(number, value, 0)
            elif kind == "uint":
                self.builder.PrependUint32Slot(number, value, 0)
            elif kind == "float":
                self.builder.PrependFloat32Slot(number, value, 0.0)
            else:
                self.builder.PrependUOffsetTRelativeSlot(number, value, 0)
        return self.builder.EndObject()

    def _child(self, kind: str, value: Any) -> int:
        if kind == "string":
            return self.builder.CreateString(value)
        if kind == "floats":
            self.builder.StartVector(4, len(value), 4)
            for number in reversed(value):
                self.builder.PrependFloat32(number)
            return self.builder.EndVector()
        if kind == "tables":
            self.builder.StartVector(4, len(value), 4)
            for offset in reversed(value):
                self.builder.PrependUOffsetTRelative(offset)
            return self.builder.EndVector()
        return value


def pack(metadata: Metadata) -> bytes:
    """The flatbuffer of `metadata`; labels are not in it, only the name of their file."""
    writer = _Writer()
    subgraph = writer.table(
        {
            2: ("tables", [_tensor(writer, t) for t in metadata.inputs]),
            3: ("tables", [_tensor(writer, t) for t in metadata.outputs]),
        }
    )
    root = writer.table(
        {
            0: ("string", metadata.name),
            1: ("string", metadata.description),
            2: ("string", metadata.version),
            3: ("tables", [subgraph]),
            4: ("string", metadata.author),
            5: ("string", metadata.license),
            7: ("string", metadata.min_parser_version or _MIN_PARSER_VERSION),
        }
    )
    writer.builder.Finish(root, _IDENTIFIER)
    return bytes(writer.builder.Output())


def _tensor(writer: _Writer, tensor: TensorMetadata) -> int:
    if tensor.image is not None:
        width, height, colour = tensor.image
        size = writer.table({0: ("uint", width), 1: ("uint", height)})
        properties = writer.table({0: ("byte", _COLOURS[colour]), 1: ("table", size)})
    else:
        properties = writer.table({})
    kind = _FEATURE_PROPERTIES if tensor.image is None else _IMAGE_PROPERTIES
    content = writer.table({0: ("ubyte", kind), 1: ("table", properties)})
    units = []
    if tensor.normalization is not None:
        options = writer.table(
            {0: ("floats", tensor.normalization.mean), 1: ("floats", tensor.normalization.std)}
        )
        units.append(writer.table({0: ("ubyte", _NORMALIZATION), 1: ("table", options)}))
    if tensor.score_threshold is not None:
        options = writer.table({0: ("float", tensor.score_threshold)})
        units.append(writer.table({0: ("ubyte", _SCORE_THRESHOLDING), 1: ("table", options)}))
    stats = None
    if tensor.stats is not None:
        stats = writer.table({0: ("floats", tensor.stats[1:]), 1: ("floats", tensor.stats[:1])})
    files = []
    if tensor.label_file is not None:
        files = [writer.table({0: ("string", tensor.label_file), 2: ("byte", _AXIS_LABELS)})]
    return writer.table(
        {
            0: ("string", tensor.name),
            1: ("string", tensor.description),
            3: ("table", content),
            4: ("tables", units or None),
            5: ("table", stats),
            6: ("tables", files or None),
        }
    )


class _Reader:
    """A table of a flatbuffer, by field number. A wrong offset raises, as in flatbuffer.py.

    `left` is how many bytes may still be read, all tables together.
    """

    def __init__(self, table: Table, left: list[int]):
        self._table, self._left = table, left
        self._spend(16)

    def _spend(self, count: int) -> None:
        self._left[0] -= count
        if self._left[0] < 0:
            raise ValueError(f"they unfold to more than {_MOST_BYTES} bytes")

    def _at(self, field: int) -> int | None:
        offset = self._table.Offset(4 + 2 * field)
        return offset + self._table.Pos if offset else None

    def string(self, field: int) -> str | None:
        at = self._at(field)
        if at is None:
            return None
        content = self._table.String(at)
        self._spend(len(content))
        return content.decode("utf-8")

    def number(self, field: int, flags: Any) -> Any:
        at = self._at(field)
        return 0 if at is None else self._table.Get(flags, at)

    def table(self, field: int) -> _Reader | None:
        at = self._at(field)
        return None if at is None else self._child(self._table.Indirect(at))

    def tables(self, field: int) -> list[_Reader]:
        start, count = self._vector(field, 4)
        return [self._child(self._table.Indirect(start + 4 * i)) for i in range(count)]

    def floats(self, field: int) -> tuple[float, ...]:
        start, count = self._vector(field, 4)
        self._spend(4 * count)
        flags = number_types.Float32Flags
        return tuple(float(self._table.Get(flags, start + 4 * i)) for i in range(count))

    def _vector(self, field: int, size: int) -> tuple[int, int]:
        offset = self._table.Offset(4 + 2 * field)
        if not offset:
            return 0, 0
        start, count = self._table.Vector(offset), self._table.VectorLen(offset)
        if start + size * count > len(self._table.Bytes):
            raise ValueError("a list ends outside the metadata")
        return start, count

    def _child(self, position: int) -> _Reader:
        return _Reader(Table(self._table.Bytes, position), self._left)


def unpack(packed: bytes, name: str = "this file") -> Metadata:
    """Metadata without labels. Raises ValueError where the flatbuffer is damaged."""
    if packed[4:8] != _IDENTIFIER:
        raise ValueError(f"The metadata of {name} is of another kind: {packed[4:8]!r}.")
    try:
        start = Get(flatbuffers.packer.uoffset, packed, 0)
        root = _Reader(Table(packed, start), [_MOST_BYTES])
        graphs = root.tables(3)
        return Metadata(
            name=root.string(0) or "",
            description=root.string(1),
            version=root.string(2),
            author=root.string(4),
            license=root.string(5),
            min_parser_version=root.string(7),
            inputs=tuple(map(_read_tensor, graphs[0].tables(2))) if graphs else (),
            outputs=tuple(map(_read_tensor, graphs[0].tables(3))) if graphs else (),
        )
    except (struct.error, IndexError, TypeError, ValueError, OverflowError, MemoryError) as error:
        raise ValueError(f"The metadata of {name} is damaged ({error}).") from None


def _read_tensor(table: _Reader) -> TensorMetadata:
    image = None
    content = table.table(3)
    if content is not None and content.number(0, number_types.Uint8Flags) == _IMAGE_PROPERTIES:
        properties = content.table(1)
        if properties is not None:
            size = properties.table(1)
            flags = number_types.Uint32Flags
            colours = {number: colour for colour, number in _COLOURS.items()}
            colour = colours.get(properties.number(0, number_types.Int8Flags), "UNKNOWN")
            image = (
                (size.number(0, flags), size.number(1, flags), colour) if size else (0, 0, colour)
            )
    normalization = threshold = None
    for unit in table.tables(4):
        kind, options = unit.number(0, number_types.Uint8Flags), unit.table(1)
        if kind == _NORMALIZATION and options is not None:
            normalization = Normalization.parse((options.floats(0), options.floats(1)))
        elif kind == _SCORE_THRESHOLDING and options is not None:
            threshold = float(options.number(0, number_types.Float32Flags))
    stats = table.table(5)
    ends = None
    if stats is not None and stats.floats(0) and stats.floats(1):
        ends = (min(stats.floats(1)), max(stats.floats(0)))
    labels = [
        f.string(0) for f in table.tables(6)
        if f.number(2, number_types.Int8Flags) == _AXIS_LABELS
    ]  # fmt: skip
    return TensorMetadata(
        table.string(0) or "", table.string(1), image, normalization, ends,
        labels[0] if labels else None, threshold,
    )  # fmt: skip
