"""What the snippets say of files that are out of the ordinary: no pictures, whole pixels, odd names."""

import io
import os
import re
import shutil
import zipfile

import keras
import numpy as np
import pytest
from PIL import Image

import tflite_export as te
from tflite_export import metadata
from tflite_export.app_code.facts import Facts
from tflite_export.app_code.kotlin import kotlin, kotlin_test
from tflite_export.app_code.python import python
from tflite_export.app_code.swift import swift, swift_test

LABELS = ["a", "b", "c"]


def net(channels, dtype="float32"):
    image = keras.Input((8, 8, channels), name="image", dtype=dtype)
    x = image if dtype == "float32" else keras.layers.Rescaling(1 / 127.5, -1)(image)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(x))
    return keras.Model(image, keras.layers.Dense(3, activation="softmax", name="scores")(x))


@pytest.fixture(scope="module")
def values():
    return np.random.default_rng(0).uniform(-40, 3, (20, 8, 8, 3)).astype("float32")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A small classifier of photos, in floats."""
    path = tmp_path_factory.mktemp("facts") / "s.tflite"
    return te.export(net(3), path, labels=LABELS, normalization=(127.5, 127.5)).path


def run(code, folder, monkeypatch):
    monkeypatch.chdir(folder)
    names = {}
    exec(code, names)
    return names


@pytest.mark.parametrize(("channels", "kind"), [(1, "uint8"), (3, "uint8"), (3, "int8")])
def test_a_measured_input_is_no_picture(values, tmp_path, monkeypatch, channels, kind):
    x = values[..., :channels]
    exported = te.export(net(channels), tmp_path / "s.tflite", "int8", x, kind,
                         labels=LABELS, normalization="measured")  # fmt: skip
    (told,) = te.read_metadata(exported).inputs
    assert (told.image, told.normalization, told.description) == (None, None, None)
    folder = te.golden(exported, x[:4], tmp_path / "g").path
    text = (folder / "README.md").read_text("utf-8")
    assert "MediaPipe" not in text
    assert "Bitmap" not in text
    assert "CGImage" not in text
    names = run(re.search("```python\n(.*?)```", text, re.DOTALL)[1], tmp_path, monkeypatch)
    stored = np.fromfile(folder / "input_0.bin", kind).reshape(4, 1, 8, 8, channels)
    np.testing.assert_array_equal(names["image_array"](x[2:3]), stored[2])
    np.testing.assert_array_equal(stored[:, 0], exported.inputs[0].quantize(x[:4]))
    scale, zero = str(np.float32(exported.inputs[0].scale)), exported.inputs[0].zero_point
    assert f"Math.rint((value / {scale}f).toDouble()).toInt() + ({zero})" in text


def test_notes_tell_of_measured_inputs_alone(file):
    assert "measured" not in metadata.own_notes(file.read_bytes())


def test_an_integer_input_without_steps_takes_pixels_as_they_are(tmp_path, monkeypatch):
    exported = te.export(
        net(3, "uint8"), tmp_path / "u.tflite", labels=LABELS, normalization=(0, 1)
    )
    assert exported.inputs[0].quantization is None
    facts = Facts.of(exported)
    assert facts.inputs[0].picture.offset == 0
    for code in (kotlin(facts), swift(facts), python(facts, [0.1], 1)):
        assert not re.search(r"\b(nanf?|None)\b", code.split("def run")[0])
    assert "buffer.put(red.toByte())" in kotlin(facts)
    pixels = np.random.default_rng(1).integers(0, 256, (8, 8, 3)).astype("uint8")
    Image.fromarray(pixels).save(tmp_path / "p.png")
    names = run(python(facts, [0.1], 1), tmp_path, monkeypatch)
    (want,) = te.load(exported).run(pixels[None])
    assert dict(names["classify"]("p.png")) == pytest.approx(dict(zip(LABELS, want, strict=True)))


def test_labels_of_windows_are_read_as_read_metadata_reads_them(file, tmp_path, monkeypatch):
    content = file.read_bytes()
    stream = io.BytesIO(content[: content.index(b"PK\x03\x04")])
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr("labels.txt", "a\r\nb\r\nc\r\n")
    (tmp_path / "w.tflite").write_bytes(stream.getvalue())
    facts = Facts.of(tmp_path / "w.tflite")
    names = run(python(facts, [0.1], 1), tmp_path, monkeypatch)
    assert names["labels"] == LABELS == list(te.read_metadata(tmp_path / "w.tflite").labels)


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("string.tflite", "StringModel"),
        ("float.tflite", "FloatModel"),
        ("data.tflite", "DataModel"),
        ("test.tflite", "TestModel"),
        ("byte-buffer.tflite", "ByteBufferModel"),
        ("strings.tflite", "Strings"),
        ("model.tflite", "Model"),
        ("7.tflite", "Model7"),
    ],
)
def test_a_class_hides_no_type_that_it_uses(file, tmp_path, name, title):
    facts = Facts.of(shutil.copy(file, tmp_path / name))
    assert facts.title == title
    assert f"class {title}(context: Context" in kotlin(facts)
    assert f"final class {title} {{" in swift(facts)


def test_every_type_in_the_code_is_no_title(file, tmp_path):
    """Types are the words with a capital letter, outside comments, strings and imports."""
    facts = Facts.of(file)
    codes = kotlin(facts), swift(facts), kotlin_test(facts, [0.1], 1), swift_test(facts, [0.1], 1)
    lines = [re.sub(r'"[^"]*"|//.*|^import .*', "", line) for c in codes for line in c.split("\n")]
    types = set(re.findall(r"(?<![\w.])[A-Z]\w+", "\n".join(lines)))
    types -= {t for t in types if t.startswith(facts.title)}  # the classes themselves
    types -= {"CGColorSpaceCreateDeviceRGB", "XCTAssertEqual"}  # functions
    assert {"ByteBuffer", "Data", "RunWith", "XCTestCase"} < types
    for one in types:
        assert Facts.of(shutil.copy(file, tmp_path / f"{one}.tflite")).title == f"{one}Model"


@pytest.mark.parametrize(
    ("name", "ending"), [("noext", ""), ("Big.TFLITE", "TFLITE"), ("s.tflite", "tflite")]
)
def test_a_file_is_found_by_its_whole_name(file, tmp_path, name, ending):
    facts = Facts.of(shutil.copy(file, tmp_path / name))
    assert f'noCompress += "{ending}"' in kotlin(facts)
    assert f'openFd("{name}")' in kotlin(facts)
    assert f'bundle.path(forResource: "{name}", ofType: nil)' in swift(facts)


def test_a_name_that_is_no_text_is_refused(file, tmp_path, values):
    name = tmp_path / os.fsdecode(b"\xff.tflite")
    try:
        shutil.copy(file, name)
    except OSError:
        pytest.skip("this file system has no such names")
    with pytest.raises(ValueError, match="is not UTF-8, and no app can name it: rename"):
        te.golden(name, values[:1], tmp_path / "g")
    assert not (tmp_path / "g").exists()
