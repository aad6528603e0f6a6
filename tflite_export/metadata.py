"""Labels and normalisation inside the file, where apps look for them.

    read_metadata("student.tflite").labels

Three things are added to the flatbuffer: TFLite metadata (schema "M001", what MediaPipe Tasks and
Android Studio read), the labels as a text file in a zip at the end of the `.tflite`, and a few notes
of our own in JSON (what the graph does to pixels by itself, which the schema has no field for).

MediaPipe's ImageClassifier wants one RGB picture, uint8 or float32; for float32 a normalisation, and in it
one mean and one deviation for all channels. A uint8 file may have one for each: its graph applies them.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tflite_export import flatbuffer, metadata_schema
from tflite_export.class_names import can_be_stored
from tflite_export.metadata_schema import Metadata, TensorMetadata
from tflite_export.normalization import Normalization
from tflite_export.runtime import content_of

__all__ = [
    "Metadata",
    "TensorMetadata",
    "embed",
    "own_notes",
    "read_metadata",
    "with_score_threshold",
]

ENTRY = "TFLITE_METADATA"
NOTES = "tflite_export"
LABELS_FILE = "labels.txt"
_LARGEST_LABELS = 16 << 20
_UNCHANGED = ("QUANTIZE", "DEQUANTIZE", "RESHAPE", "SQUEEZE")


def embed(
    content: bytes,
    name: str,
    description: str | None = None,
    labels: Sequence[str] | None = None,
    normalization: Mapping[str, Normalization] | None = None,
    in_graph: Mapping[str, Any] | None = None,
    *,
    measured: Sequence[str] = (),
    version: str | None = None,
    author: str | None = None,
    license: str | None = None,
) -> bytes:
    """The file with its metadata; a zip with the labels behind it.

    Args:
        content: a file with named inputs and outputs.
        name, description, version, author, license: of the model, in the maker's words.
        labels: class names of an output whose last axis has as many entries: of several the one that ends
            in a softmax or sigmoid, or else the first.
        normalization: by input name.
        in_graph: the inputs among them whose pixels the graph normalises by itself.
        measured: inputs that are no pictures, whatever their shape.

    Raises:
        ValueError: the labels' number is not an output's, a label has a line break or is empty, or
            a text is none.
    """
    words = {"name": name, "description": description, "version": version}
    words |= {"author": author, "license": license}
    for argument, value in words.items():
        _require_text(argument, value)
    model = flatbuffer.read(content)
    graph = model.subgraphs[0]
    normalization, in_graph = normalization or {}, in_graph or {}
    tensors = [graph.tensors[i] for i in map(int, graph.inputs)]
    inputs = [_input(tensor, normalization, in_graph, measured) for tensor in tensors]
    outputs = [_output(model, one) for one in model.signatureDefs[0].outputs]
    if labels is not None:
        place = _labelled(outputs, graph, labels)
        outputs[place] = dataclasses.replace(
            outputs[place],
            description=f"Scores of {len(labels)} classes, in the order of {LABELS_FILE}.",
            label_file=LABELS_FILE,
        )
    described = Metadata(name, description, tuple(inputs), tuple(outputs), labels=None,
                         version=version, author=author, license=license)  # fmt: skip
    notes = {
        "version": 1,
        "normalization": {n: v.to_json() for n, v in normalization.items()},
        "normalized_in_graph": {n: normalization[n].to_json() for n in in_graph},
        **({"measured": sorted(measured)} if measured else {}),
    }
    _attach(model, NOTES, json.dumps(notes).encode())
    return _written(model, described, labels)


def with_score_threshold(content: bytes, threshold: float) -> bytes:
    """The same file with a threshold at the labelled output: MediaPipe Tasks leaves out what scores less.

    Args:
        content: a file that `export` wrote; of others, not all metadata would be kept.

    Raises:
        ValueError: the file has no labels or is not one of ours, or the threshold is not finite.
    """
    if not math.isfinite(threshold):
        raise ValueError(f"threshold={threshold!r}: give a finite score.")
    found = read_metadata(content)
    if found.labels is None or not own_notes(content):
        raise ValueError(
            "A score threshold belongs to classes: give a file that export() wrote with labels=."
        )
    outputs = [
        dataclasses.replace(o, score_threshold=float(threshold)) if o.label_file else o
        for o in found.outputs
    ]
    described = dataclasses.replace(found, outputs=tuple(outputs))
    return _written(flatbuffer.read(content), described, found.labels)


def _written(model: Any, described: Metadata, labels: Sequence[str] | None) -> bytes:
    _attach(model, ENTRY, metadata_schema.pack(described))
    result = flatbuffer.write(model)
    if labels is None:
        return result
    stream = io.BytesIO(result)
    with zipfile.ZipFile(stream, "a") as archive:
        # A fixed date: the same model gives the same bytes.
        file = next(o.label_file for o in described.outputs if o.label_file)
        archive.writestr(zipfile.ZipInfo(file), "\n".join(labels))
    return stream.getvalue()


def _require_text(argument: str, value: Any) -> None:
    if value is not None and not (isinstance(value, str) and can_be_stored(value)):
        raise ValueError(
            f"{argument}={value!r}: give text that UTF-8 can hold, without NUL, or None."
        )


def _input(
    tensor: Any, normalization: Mapping[str, Normalization], in_graph: Any, measured: Sequence[str]
) -> TensorMetadata:
    name = flatbuffer.text(tensor.name)
    shape = flatbuffer.shape_of(tensor)
    image = len(shape) == 4 and shape[-1] in (1, 3) and name not in measured
    wanted = normalization.get(name)
    if name in in_graph:
        wanted = Normalization((0.0,), (1.0,))  # the app hands over pixels as they are
    low_high = wanted.range if wanted is not None else None
    return TensorMetadata(
        name,
        _pixels_told(shape, wanted) if image else None,
        image=(shape[2] or 0, shape[1] or 0, "GRAYSCALE" if shape[-1] == 1 else "RGB")
        if image
        else None,
        normalization=wanted,
        stats=low_high,
    )


def _pixels_told(shape: Sequence[int | None], wanted: Normalization | None) -> str:
    """What a person reads about an image input, in Android Studio or Netron."""
    size = "any size" if None in shape[1:3] else f"{shape[2]} x {shape[1]} pixels (width x height)"
    kind = "grey" if shape[-1] == 1 else "red, green, blue"
    if wanted is None:
        return f"Image of {size}, {kind}."
    mean, std = (
        ", ".join(f"{value:g}" for value in values) for values in (wanted.mean, wanted.std)
    )
    return f"Image of {size}, {kind}; (pixel - mean) / std with mean {mean} and std {std}."


def _output(model: Any, entry: Any) -> TensorMetadata:
    """Name, and for probabilities their range."""
    made = flatbuffer.maker(model, int(entry.tensorIndex), _UNCHANGED).name
    stats = (0.0, 1.0) if made in ("SOFTMAX", "LOGISTIC") else None
    return TensorMetadata(flatbuffer.text(entry.name), stats=stats)


def _labelled(outputs: Sequence[TensorMetadata], graph: Any, labels: Sequence[str]) -> int:
    """The place of the output that the labels are for: of several that fit, the one of probabilities."""
    sizes = [flatbuffer.shape_of(graph.tensors[i]) for i in map(int, graph.outputs)]
    fit = [place for place, shape in enumerate(sizes) if shape and shape[-1] == len(labels)]
    if fit:
        probable = [place for place in fit if outputs[place].stats is not None]
        return probable[0] if len(probable) == 1 else fit[0]
    one_unit = len(labels) == 2 and any(shape and shape[-1] == 1 for shape in sizes)
    raise ValueError(
        f"{len(labels)} labels were given, and the outputs have the shapes {sizes}: "
        + (
            "one unit has one label, of what it says yes to."
            if one_unit
            else "give one label for each class, in the order of the last axis."
        )
    )


def _attach(model: Any, name: str, content: bytes) -> None:
    model.metadata = model.metadata or []
    model.metadata = [m for m in model.metadata if flatbuffer.text(m.name) != name]
    buffer = flatbuffer.schema.BufferT()
    buffer.data = np.frombuffer(content, "uint8")
    model.buffers.append(buffer)
    entry = flatbuffer.schema.MetadataT()
    entry.name, entry.buffer = name, len(model.buffers) - 1
    model.metadata.append(entry)


def read_metadata(file: Any) -> Metadata:
    """The metadata of a `.tflite`, ours or anybody's.

    Args:
        file: a path, bytes, or what `export` returned.

    Raises:
        ValueError: the file has no metadata, or is damaged.
    """
    content, name = content_of(file)
    packed = _entry(flatbuffer.read(content, name), ENTRY)
    if packed is None:
        raise ValueError(f"{name} carries no TFLite metadata.")
    metadata = metadata_schema.unpack(packed, name)
    files = [o.label_file for o in metadata.outputs if o.label_file]
    return metadata.with_labels(_labels(content, files[0], name) if files else None)


def require_whole(model: Any, content: bytes, name: str) -> None:
    """A file of ours that is cut off behind the flatbuffer runs, but has lost its labels.

    Raises:
        ValueError: it has; files from elsewhere are let pass.
    """
    packed = _entry(model, ENTRY)
    if packed is None or _entry(model, NOTES) is None:
        return
    for output in metadata_schema.unpack(packed, name).outputs:
        if output.label_file:
            _labels(content, output.label_file, name)


def _entry(model: Any, name: str) -> bytes | None:
    for entry in model.metadata or []:
        if flatbuffer.text(entry.name) == name and 0 <= entry.buffer < len(model.buffers):
            data = model.buffers[entry.buffer].data
            return None if data is None else bytes(bytearray(data))
    return None


def _labels(content: bytes, file: str, name: str) -> tuple[str, ...]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if archive.getinfo(file).file_size > _LARGEST_LABELS:
                raise ValueError("more labels than any model has")
            text = archive.read(file).decode("utf-8")
    except (zipfile.BadZipFile, KeyError, UnicodeDecodeError, ValueError, RuntimeError,
            NotImplementedError, OSError, EOFError) as error:  # fmt: skip
        raise ValueError(
            f"{name} names a labels file {file!r} and lacks it ({error}): it is cut off or was changed."
        ) from None
    # Files from elsewhere may have lines as Windows ends them.
    return tuple(text.replace("\r\n", "\n").removesuffix("\n").split("\n"))


def own_notes(content: bytes) -> dict[str, Any]:
    """What `export` noted for itself; {} in files from elsewhere."""
    packed = _entry(flatbuffer.read(content), NOTES)
    try:
        notes = json.loads(packed) if packed else {}
    except ValueError:
        return {}
    return notes if isinstance(notes, dict) else {}
