"""What apps find inside the file: read back, by our reader and by plain zipfile."""

import contextlib
import io
import zipfile
from pathlib import Path

import flatbuffers
import keras
import numpy as np
import pytest

import tflite_export as te
from tflite_export import flatbuffer, metadata, metadata_schema
from tflite_export.normalization import Normalization

LABELS = ["猫, cat", "naïve", "a b"]
WORDS = {
    "name": "Three blobs",
    "description": "Says which colour\nis strongest.",
    "version": "1.2-β",
    "author": "Ада Лавлейс, Íñigo",
    "license": "Apache-2.0",
}


@pytest.fixture(scope="module")
def written(net, tmp_path_factory):
    """One file with all there is."""
    path = tmp_path_factory.mktemp("metadata") / "n.tflite"
    return te.export(net, path, labels=LABELS, normalization=(127.5, 127.5), **WORDS)


def test_the_makers_words_come_back(written):
    found = te.read_metadata(written)
    assert {word: getattr(found, word) for word in WORDS} == WORDS
    assert found.min_parser_version == "1.0.0"
    assert found.inputs[0].stats == (-1.0, 1.0)
    assert "12 x 12" in found.inputs[0].description
    assert "3 classes" in found.outputs[0].description


@pytest.mark.parametrize("word", ["name", "description", "version", "author", "license"])
@pytest.mark.parametrize("value", [3, b"x", "half a pair \ud800", "nul \x00"])
def test_words_that_no_reader_could_read_are_refused(written, word, value):
    given = {"name": "n", word: value}
    with pytest.raises(ValueError, match=f"{word}=.*give text"):
        metadata.embed(written.path.read_bytes(), **given)


@pytest.mark.parametrize("count", [0, 2, 4])
def test_labels_that_differ_in_number_from_the_outputs_are_refused(written, count):
    with pytest.raises(ValueError, match=rf"{count} labels were given, and the outputs .*\(1, 3\)"):
        metadata.embed(written.path.read_bytes(), "n", labels=["a", "b", "c", "d"][:count])


@pytest.mark.parametrize(("activation", "stats"), [("softmax", (0.0, 1.0)), ("linear", None)])
def test_the_range_of_probabilities_is_told(tmp_path, activation, stats):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation)])
    exported = te.export(model, tmp_path / "n.tflite")
    assert te.read_metadata(exported).outputs[0].stats == stats


def test_a_score_threshold_is_added_and_nothing_is_lost(written):
    content = metadata.with_score_threshold(written.path.read_bytes(), 0.75)
    before, after = te.read_metadata(written), te.read_metadata(content)
    assert after.outputs[0].score_threshold == 0.75
    assert after.labels == before.labels
    assert after.inputs == before.inputs
    assert {word: getattr(after, word) for word in WORDS} == WORDS
    assert metadata.own_notes(content) == metadata.own_notes(written.path.read_bytes())
    with pytest.raises(ValueError, match="finite"):
        metadata.with_score_threshold(content, float("nan"))
    with pytest.raises(ValueError, match="labels="):
        metadata.with_score_threshold(metadata.embed(content, "no labels"), 0.5)


def test_labels_in_lines_as_windows_ends_them_are_read(written):
    content = written.path.read_bytes()
    stream = io.BytesIO(content[: content.index(b"PK\x03\x04")])
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr("labels.txt", "a\r\nb\r\nc\r\n")
    assert te.read_metadata(stream.getvalue()).labels == ("a", "b", "c")


def test_googles_metadata_is_read():
    """Of mobilenet_v1_0.25_224_1_metadata_1.tflite (TensorFlow authors, Apache License 2.0)."""
    packed = Path(__file__).with_name("mobilenet_v1_metadata.bin").read_bytes()
    found = metadata_schema.unpack(packed)
    assert (found.name, found.version) == ("MobileNetV1 image classifier", "v1")
    assert (found.author, found.license[:22]) == ("TensorFlow", "Apache License. Versio")
    (image,), (scores,) = found.inputs, found.outputs
    assert image.image == (0, 0, "RGB")  # its size is the tensor's
    assert image.normalization == Normalization((127.5,), (127.5,))
    assert (image.stats, scores.stats) == ((-1.0, 1.0), (0.0, 1.0))
    assert (scores.name, scores.label_file) == ("probability", "labels.txt")


def test_metadata_that_unfold_to_gigabytes_are_refused():
    """30,000 inputs that are one and the same, with a description of 100 kB."""
    builder = flatbuffers.Builder(0)
    text = builder.CreateString("x" * 100_000)
    builder.StartObject(2)
    builder.PrependUOffsetTRelativeSlot(1, text, 0)
    tensor = builder.EndObject()
    builder.StartVector(4, 30_000, 4)
    for _ in range(30_000):
        builder.PrependUOffsetTRelative(tensor)
    tensors = builder.EndVector()
    builder.StartObject(4)
    builder.PrependUOffsetTRelativeSlot(2, tensors, 0)
    graph = builder.EndObject()
    builder.StartVector(4, 1, 4)
    builder.PrependUOffsetTRelative(graph)
    graphs = builder.EndVector()
    builder.StartObject(4)
    builder.PrependUOffsetTRelativeSlot(3, graphs, 0)
    builder.Finish(builder.EndObject(), b"M001")
    with pytest.raises(ValueError, match="unfold"):
        metadata_schema.unpack(bytes(builder.Output()))


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
    [
        ["a\nb", "c", "d"],
        ["a\r", "c", "d"],
        ["a\u2028b", "c", "d"],
        ["", "b", "c"],
        ["a", 2, "c"],
        ["half a pair \ud800", "b", "c"],
        ["nul \x00", "b", "c"],
        "abc",
    ],
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


def test_of_two_outputs_the_labels_are_for_the_probabilities(tmp_path):
    image = keras.Input((8, 8, 3), name="image")
    pooled = keras.layers.GlobalAveragePooling2D()(image)
    embedding = keras.layers.Dense(3, name="embedding")(pooled)
    scores = keras.layers.Dense(3, activation="softmax", name="scores")(pooled)
    model = keras.Model(image, [embedding, scores])
    te.export(model, tmp_path / "m.tflite", labels=list("abc"), normalization=(0, 1))
    labelled = [
        one.name for one in te.read_metadata(tmp_path / "m.tflite").outputs if one.label_file
    ]
    assert labelled == ["scores"]
    served = te.export_saved_model(
        model, tmp_path / "serving", labels=list("abc"), normalization=(0, 1)
    )
    assert "classify" in served.signatures


@pytest.mark.parametrize("export", [te.export, te.export_saved_model])
def test_an_input_of_integers_takes_pixels_as_they_are(export, tmp_path):
    image = keras.Input((8, 8, 3), dtype="uint8", name="image")
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(image))
    model = keras.Model(image, keras.layers.Dense(3)(pooled))
    with pytest.raises(ValueError, match=r"'image' takes uint8: .* normalization=\(0, 1\)"):
        export(model, tmp_path / "m", labels=list("abc"), normalization=(127.5, 127.5))
    assert not list(tmp_path.iterdir())


def test_one_unit_has_one_label(tmp_path):
    given = keras.Input((4,))
    model = keras.Model(given, keras.layers.Dense(1, activation="sigmoid")(given))
    with pytest.raises(ValueError, match="one unit has one label"):
        te.export(model, tmp_path / "m.tflite", labels=["no", "yes"])
