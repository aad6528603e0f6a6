"""What an app's developer gets: records that hold elsewhere, and code that is of this very file."""

import json
import re
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image

import tflite_export as te
from tflite_export import flatbuffer, metadata
from tflite_export.app_code import kotlin as snippets_kotlin
from tflite_export.app_code import swift as snippets_swift
from tflite_export.app_code.facts import Facts

SIDE = 8
LABELS = ["red, rouge", "grün $x", "青"]
NORMALIZATION = ([120.0, 127.5, 130.0], [60.0, 127.5, 58.5])


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (5, SIDE, SIDE, 3)).astype("uint8")


@pytest.fixture(scope="module")
def model():
    image = keras.Input((SIDE, SIDE, 3), name="image")
    x = keras.layers.Conv2D(4, 3, activation="relu")(image)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, keras.layers.Dense(3, "softmax", name="probability")(x))


@pytest.fixture(scope="module")
def files(model, pixels, tmp_path_factory):
    """Three exports, by the type of their input."""
    folder = tmp_path_factory.mktemp("files")
    mean, std = (np.float32(values) for values in NORMALIZATION)
    x = (pixels - mean) / std
    made = {}
    for kind in ("float32", "uint8", "int8"):
        recipe = (None, None) if kind == "float32" else ("int8", x)
        out = "int8" if kind == "int8" else "float32"
        made[kind] = te.export(
            model, folder / f"{kind} net.tflite", *recipe, kind, labels=LABELS,
            normalization=NORMALIZATION, inference_output_type=out,
        )  # fmt: skip
    return made


@pytest.fixture(scope="module")
def folders(files, pixels, tmp_path_factory):
    """{type: (folder, what golden returned)}, recorded from raw pixels."""
    folder = tmp_path_factory.mktemp("golden")
    return {kind: te.golden(file, pixels, folder / kind) for kind, file in files.items()}


KINDS = pytest.mark.parametrize("kind", ["float32", "uint8", "int8"])


def code(folder, language):
    """The fenced blocks of one language in the README."""
    text = (folder / "README.md").read_text("utf-8")
    found = re.findall(rf"^(```+){language}\n(.*?)^\1$", text, re.DOTALL | re.MULTILINE)
    return [block for _, block in found]


@KINDS
def test_records_are_plain_little_endian_numbers(files, folders, pixels, kind):
    folder = folders[kind].path
    described = json.loads((folder / "golden.json").read_text("utf-8"))
    (one,), (answer,) = described["inputs"], described["outputs"]
    assert described["runs"] == folders[kind].runs == len(pixels)
    assert (one["name"], one["dtype"], one["shape"]) == ("image", kind, [1, SIDE, SIDE, 3])
    stored = np.fromfile(folder / one["data"], {"float32": "<f4"}.get(kind, kind))
    want = {
        "float32": (pixels - np.float32(NORMALIZATION[0])) / np.float32(NORMALIZATION[1]),
        "uint8": pixels,
        "int8": pixels.astype(int) - 128,
    }[kind]
    np.testing.assert_array_equal(stored.reshape(pixels.shape), want)
    scores = np.fromfile(folder / answer["data"], {"float32": "<f4"}.get(answer["dtype"], "int8"))
    real = te.load(files[kind]).run(want.astype(kind), dequantize=False)
    np.testing.assert_array_equal(scores.reshape(real.shape), real)


def test_values_as_the_model_takes_them_are_recorded_as_pixels_are(
    files, folders, pixels, tmp_path
):
    x = (pixels - np.float32(NORMALIZATION[0])) / np.float32(NORMALIZATION[1])
    for kind in ("float32", "uint8", "int8"):
        te.golden(files[kind], (x, np.zeros(5)), tmp_path / kind)
        ours, theirs = (f / "input_0.bin" for f in (tmp_path / kind, folders[kind].path))
        assert ours.read_bytes() == theirs.read_bytes()


@KINDS
@pytest.mark.parametrize("runtime", ["litert", "tensorflow"])
def test_runtimes_answer_as_recorded(files, folders, kind, runtime):
    te.check_golden(folders[kind].path, files[kind], runtime=runtime)


@KINDS
def test_an_answer_outside_the_tolerance_is_an_error(files, folders, kind, tmp_path):
    folder = shutil.copytree(folders[kind].path, tmp_path / "g")
    output = folder / "output_0.bin"
    tolerance = folders[kind].tolerances["probability"]
    scores = np.fromfile(output, "int8" if kind == "int8" else "<f4")
    steps = {"float32": 1.5 * tolerance, "uint8": 1.5 * tolerance, "int8": 3}[kind]
    scores[4] = scores[4] + steps if scores[4] < scores.max() else scores[4] - steps
    scores.tofile(output)
    with pytest.raises(te.GoldenError, match=r"'probability'.* number 4 of all runs .* is allowed"):
        te.check_golden(folder, files[kind])
    if kind == "float32":
        te.check_golden(folder, files[kind], float16=True)
    output.write_bytes(output.read_bytes()[:-1])
    with pytest.raises(ValueError, match="cut off"):
        te.check_golden(folder, files[kind])


def test_records_of_another_file_are_refused(files, folders, tmp_path):
    with pytest.raises(ValueError, match=r"another uint8 net\.tflite"):
        te.check_golden(folders["uint8"].path, files["int8"])
    with pytest.raises(ValueError, match=r"no golden\.json"):
        te.check_golden(tmp_path, files["int8"])
    (tmp_path / "golden.json").write_text('{"format": 2}')
    with pytest.raises(ValueError, match="has the format 2"):
        te.check_golden(tmp_path, files["int8"])


def test_quantised_scores_may_differ_by_two_steps(folders):
    assert folders["uint8"].tolerances["probability"] >= 2 / 256
    assert folders["float32"].tolerances["probability"] < 1e-3


def test_checking_needs_no_tensorflow():
    program = (
        "import sys; from tflite_export.golden_check import check_golden;"
        "assert not {'tensorflow', 'keras', 'tf_keras'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_best_class_is_told_where_it_wins_clearly(files, folders, pixels):
    described = json.loads((folders["float32"].path / "golden.json").read_text("utf-8"))
    scores = np.sort(te.load(files["float32"]).run(pixels_as_floats(pixels)))
    clear = scores[:, -1] - scores[:, -2] > 2 * folders["float32"].tolerances["probability"]
    best = te.load(files["float32"]).run(pixels_as_floats(pixels)).argmax(-1)
    assert described["top_1"] == np.where(clear, best, -1).tolist()
    assert described["labelled_output"] == 0


def pixels_as_floats(pixels):
    mean, std = (np.float32(values) for values in NORMALIZATION)
    return ((pixels - mean) / std).astype("float32")


@KINDS
def test_the_python_code_runs(files, folders, pixels, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(files[kind].path, tmp_path)
    Image.fromarray(pixels[2]).save("photo.png")
    (python,) = code(folders[kind].path, "python")
    names = {}
    exec(python, names)
    names["check"](folders[kind].path)
    np.testing.assert_array_equal(
        names["image_array"]("photo.png").reshape(-1),
        np.fromfile(folders[kind].path / "input_0.bin", {"float32": "<f4"}.get(kind, kind)).reshape(
            5, -1
        )[2],
    )
    best, score = names["classify"]("photo.png", top=1)[0]
    want = te.load(files[kind]).run(pixels_as_floats(pixels[2:3])
                                    if kind == "float32" else names["image_array"]("photo.png"))  # fmt: skip
    assert best == LABELS[want.argmax()]
    assert score == pytest.approx(want.max(), abs=1e-6)
    np.full(15, 9, "int8" if kind == "int8" else "<f4").tofile("output_0.bin")
    shutil.copy(folders[kind].path / "input_0.bin", tmp_path)
    with pytest.raises(AssertionError, match="Mismatched elements"):
        names["check"](tmp_path)


@KINDS
@pytest.mark.parametrize("language", ["kotlin", "swift"])
def test_names_and_sizes_in_the_code_are_the_files(files, folders, kind, language):
    blocks = code(folders[kind].path, language)
    if kind == "int8" and language == "swift":
        assert not blocks  # TensorFlowLiteSwift has no such type
        assert "knows no int8 tensors" in (folders[kind].path / "README.md").read_text("utf-8")
        return
    main, test = blocks
    sizes = {"float32": 4, "uint8": 1, "int8": 1}
    size = SIDE * SIDE * 3 * sizes[kind]
    assert f'"image", {kind} [1, {SIDE}, {SIDE}, 3], {size} bytes' in main
    assert '"probability", ' in main
    stem, suffix = files[kind].path.stem, files[kind].path.suffix
    assert f'"{stem}{suffix}"' in main
    title = Facts.of(files[kind]).title
    assert f"class {title}" in main
    assert f"{title}(" in test
    assert re.search(rf"input_0.*{size}\)", test)
    tolerance = float(np.float32(folders[kind].tolerances["probability"]))
    pattern = r"accuracy: (\S+)," if language == "swift" else r" (\S+)f\)\n"
    written = re.search(pattern, test)
    assert float(written[1]) == pytest.approx(tolerance, rel=1e-6)
    if kind == "float32":  # the app normalises, channel by channel
        for mean, std in zip(*NORMALIZATION, strict=True):
            assert re.search(rf"- {mean}f?\) / {std}f?\)", main)
    if kind == "int8":
        scale, zero = files[kind].outputs[0].quantization
        assert f"- ({zero})) * {np.float32(scale)}f" in main
        assert "red - 128" in main


@KINDS
def test_the_readme_says_what_was_not_compiled(folders, kind):
    text = (folders[kind].path / "README.md").read_text("utf-8")
    assert "The Kotlin and the Swift were not compiled" in text
    # MediaPipe wants one mean for all channels; in a uint8 file the graph itself has the three.
    assert ("MediaPipe" in text) == (kind == "uint8")
    assert (folders[kind].path / "labels.txt").read_text("utf-8").split("\n") == LABELS


@pytest.mark.parametrize(
    ("text", "kotlin", "swift"),
    [
        ('a"b\\c', '"a\\"b\\\\c"', '"a\\"b\\\\c"'),
        ("$name ${x}", '"\\$name \\${x}"', '"$name ${x}"'),
        ("\\(x)", '"\\\\(x)"', '"\\\\(x)"'),
        ("a\nb\u2028", '"a\\u000ab\\u2028"', '"a\\u{A}b\\u{2028}"'),
        ("猫😀", '"猫😀"', '"猫😀"'),
        ("\U000e0001", '"\\udb40\\udc01"', '"\\u{E0001}"'),
    ],
)
def test_odd_names_are_literals(text, kotlin, swift):
    assert snippets_kotlin.string(text) == kotlin
    assert snippets_swift.string(text) == swift


def test_odd_tensor_names_end_no_comment_and_stay_apart(tmp_path):
    a, b = (keras.Input((2,), name=n) for n in ("x 1", "X-1"))
    both = keras.layers.Dense(2, name="y")(keras.layers.Concatenate()([a, b]))
    exported = te.export(keras.Model([a, b], [both, both * 2]), tmp_path / "n.tflite")
    model = flatbuffer.with_names(
        flatbuffer.read(exported.path.read_bytes()), ["x 1", "X-1\nimport evil"], ["```", "9"]
    )
    content = flatbuffer.write(model)
    data = np.ones((3, 2), "float32")
    made = te.golden(content, {"x 1": data, "X-1\nimport evil": 2 * data}, tmp_path / "golden")
    assert len({t.identifier for t in Facts.of(content).inputs}) == 2
    for language in ("kotlin", "swift", "python"):
        for block in code(made.path, language):
            assert not any(line.strip() == "import evil" for line in block.splitlines())
    (tmp_path / "model.tflite").write_bytes(content)
    (python,) = code(made.path, "python")
    names = {}
    exec(python.replace("'model.tflite'", repr(str(tmp_path / "model.tflite"))), names)
    names["check"](made.path)


def test_a_threshold_is_in_the_code(files, pixels, tmp_path):
    content = metadata.with_score_threshold(files["float32"].path.read_bytes(), 0.625)
    folder = te.golden(content, pixels[:1], tmp_path / "g").path
    assert ".filter { it.second >= 0.625f }" in code(folder, "kotlin")[0]
    assert ".filter { $0.score >= 0.625 }" in code(folder, "swift")[0]
    assert "if scores[i] >= 0.625" in code(folder, "python")[0]


def test_batches_and_open_sizes_are_recorded_as_whole_runs(model, pixels, tmp_path):
    exported = te.export(model, tmp_path / "four.tflite", batch_size=4, normalization=(0, 255))
    made = te.golden(exported, pixels, tmp_path / "four")
    assert made.runs == 2  # the fifth picture is there four times
    te.check_golden(made.path, exported)
    exported = te.export(model, tmp_path / "open.tflite", batch_size=None, normalization=(0, 255))
    made = te.golden(exported, pixels, tmp_path / "open", max_examples=3)
    assert made.runs == 3
    te.check_golden(made.path, exported)
    assert "resizeInput(0, intArrayOf(1, 8, 8, 3))" in code(made.path, "kotlin")[0]


def test_bad_data_are_refused_and_nothing_is_written(files, pixels, tmp_path):
    nan = pixels_as_floats(pixels)
    nan[1, 0, 0, 0] = np.nan
    for data, said in ((nan, "NaN"), (pixels[:0], "no examples"), ({"photo": pixels}, "'image'")):
        with pytest.raises(ValueError, match=said):
            te.golden(files["float32"], data, tmp_path / "g")
    assert not list(tmp_path.iterdir())


def test_a_path_that_exists_is_replaced_only_where_it_is_ours(files, folders, pixels, tmp_path):
    folder = shutil.copytree(folders["float32"].path, tmp_path / "g")
    te.golden(files["uint8"], pixels[:2], folder)
    te.check_golden(folder, files["uint8"])
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"notes\.txt, which would be lost"):
        te.golden(files["float32"], pixels[:2], folder)
    te.check_golden(folder, files["uint8"])
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        te.golden(files["float32"], pixels[:2], tmp_path / "file")
