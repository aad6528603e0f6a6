"""What apps find inside the file: read back, by our reader and by plain zipfile."""

import contextlib
import zipfile

import numpy as np
import pytest

import tflite_export as te
from tflite_export import flatbuffer, metadata, metadata_schema
from tflite_export.normalization import Normalization

LABELS = ["猫, cat", "naïve", "a b"]


def test_labels_and_normalisation_come_back(net, tmp_path):
    mean, std = (123.5, 116.25, 103.5), (58.5, 57.25, 57.5)
    exported = te.export(net, tmp_path / "n.tflite", labels=LABELS, normalization=(mean, std))
    found = te.read_metadata(exported)
    assert found.labels == tuple(LABELS) == exported.labels
    assert found.name == "blobs"
    image = found.inputs[0]
    assert image.name == "image"
    assert image.image == (12, 12, "RGB")
    assert image.normalization == Normalization(mean, std)
    assert found.outputs[0].label_file == "labels.txt"


def test_labels_in_an_array_become_plain_strings(net, tmp_path):
    exported = te.export(net, tmp_path / "n.tflite", labels=np.array(LABELS))
    assert {type(label) for label in exported.labels} == {str}
    assert te.read_metadata(exported).labels == tuple(LABELS)


def test_a_file_with_labels_is_a_zip_with_one_label_a_line(net, tmp_path):
    exported = te.export(net, tmp_path / "n.tflite", labels=LABELS)
    with zipfile.ZipFile(exported.path) as archive:
        assert archive.testzip() is None
        assert archive.read("labels.txt").decode("utf-8").split("\n") == LABELS


@pytest.mark.parametrize(
    ("normalization", "told"), [((127.5, 127.5), (0.0, 1.0)), ((128, 128), (128.0, 128.0))]
)
def test_what_the_app_does_to_pixels_is_told_once(net, examples, tmp_path, normalization, told):
    """(pixel - mean) / std, stored with the input's scale and zero point, is the pixel again."""
    exported = te.export(
        net, tmp_path / "n.tflite", "int8", examples, "uint8", normalization=normalization
    )
    given = te.read_metadata(exported).inputs[0].normalization
    assert (given.mean[0], given.std[0]) == told
    pixels = np.arange(256, dtype="uint8").reshape(-1, 1)
    np.testing.assert_array_equal(exported.inputs[0].quantize(given.apply(pixels)), pixels)


@pytest.mark.parametrize(
    "labels",
    [["a\nb", "c", "d"], ["a\r", "c", "d"], ["a\u2028b", "c", "d"], ["", "b", "c"], ["a", 2, "c"]],
)
def test_labels_that_a_text_file_cannot_hold_are_refused(net, tmp_path, labels):
    with pytest.raises(ValueError, match="label"):
        te.export(net, tmp_path / "n.tflite", labels=labels)
    assert not list(tmp_path.iterdir())


def test_a_file_without_metadata_says_so():
    model = flatbuffer.schema.ModelT()
    graph = flatbuffer.schema.SubGraphT()
    graph.inputs = graph.outputs = np.zeros(0, "int32")
    model.subgraphs, model.buffers = [graph], [flatbuffer.schema.BufferT()]
    model.version = 3
    with pytest.raises(ValueError, match="no TFLite metadata"):
        te.read_metadata(flatbuffer.write(model))


def test_the_bytes_are_those_of_the_schema():
    """Field by field with the flatbuffers library's own accessors, numbers from the schema file."""
    import flatbuffers
    from flatbuffers import number_types as kinds
    from flatbuffers.table import Table

    packed = metadata_schema.pack(
        metadata.Metadata(
            "name", "text",
            (metadata.TensorMetadata("in", normalization=Normalization((1.0,), (2.0,))),),
            (metadata.TensorMetadata("out", label_file="labels.txt"),),
        )
    )  # fmt: skip
    assert packed[4:8] == b"M001"

    def child(table, number, element=None):
        offset = table.Offset(4 + 2 * number)
        assert offset, number
        place = table.Vector(offset) + 4 * element if element is not None else offset + table.Pos
        return Table(packed, table.Indirect(place))

    root = Table(packed, flatbuffers.encode.Get(flatbuffers.packer.uoffset, packed, 0))
    assert root.String(root.Offset(4 + 2 * 0) + root.Pos) == b"name"
    assert root.String(root.Offset(4 + 2 * 7) + root.Pos) == b"1.0.0"
    graph = child(root, 3, 0)
    source, target = child(graph, 2, 0), child(graph, 3, 0)
    unit = child(source, 4, 0)
    assert unit.Get(kinds.Uint8Flags, unit.Offset(4) + unit.Pos) == 1
    options = child(unit, 1)
    assert options.Get(kinds.Float32Flags, options.Vector(options.Offset(4 + 2 * 1))) == 2.0
    file = child(target, 6, 0)
    assert file.String(file.Offset(4) + file.Pos) == b"labels.txt"
    assert file.Get(kinds.Int8Flags, file.Offset(4 + 2 * 2) + file.Pos) == 2


def test_damaged_metadata_raise_nothing_but_value_errors(net, tmp_path):
    whole = te.export(net, tmp_path / "n.tflite", labels=LABELS).path.read_bytes()
    start = whole.index(b"M001") - 4
    for seed in range(150):
        rng = np.random.default_rng(seed)
        broken = bytearray(whole)
        for place in rng.integers(start, start + 400, 3):
            broken[place] = rng.integers(0, 256)
        with contextlib.suppress(ValueError):
            assert isinstance(te.read_metadata(bytes(broken)), te.Metadata)
