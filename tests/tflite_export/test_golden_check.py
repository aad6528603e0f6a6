"""A folder that is not whole is refused in a sentence, whatever was lost or changed in it."""

import json
import shutil

import keras
import numpy as np
import pytest

import tflite_export as te


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    x = keras.Input((4,), name="row")
    path = tmp_path_factory.mktemp("check") / "n.tflite"
    return te.export(keras.Model(x, keras.layers.Dense(2, name="y")(x)), path)


@pytest.fixture(scope="module")
def recorded(file):
    data = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    return te.golden(file, data, file.path.parent / "g").path


@pytest.fixture
def folder(recorded, tmp_path):
    return shutil.copytree(recorded, tmp_path / "g")


def change(folder, edit):
    path = folder / "golden.json"
    described = json.loads(path.read_text("utf-8"))
    edit(described)
    path.write_text(json.dumps(described))


@pytest.mark.parametrize("name", ["input_0.bin", "output_0.bin"])
def test_a_missing_record_is_told(file, folder, name):
    (folder / name).unlink()
    with pytest.raises(ValueError, match=f"lacks {name}: record it again"):
        te.check_golden(folder, file)


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", '"format"', "{", "\ud83d", "[" * 100_000])
def test_other_json_is_told(file, folder, text):
    (folder / "golden.json").write_text(text, errors="surrogatepass")
    with pytest.raises(
        ValueError, match=r"golden\.json is damaged, or golden\(\) did not write it"
    ):
        te.check_golden(folder, file)


@pytest.mark.parametrize("key", ["file", "size_bytes", "sha256", "runs", "inputs", "outputs"])
@pytest.mark.parametrize("value", [None, True, {}])
def test_a_missing_fact_is_told(file, folder, key, value):
    change(folder, lambda d: d.pop(key) if value is None else d.update({key: value}))
    with pytest.raises(ValueError, match=f"golden.json is damaged: '{key}' of it is {value}"):
        te.check_golden(folder, file)


@pytest.mark.parametrize(
    ("side", "key", "value"),
    [
        ("outputs", "tolerance", None),
        ("outputs", "float16_tolerance", "1"),
        ("inputs", "shape", 4),
        ("inputs", "shape", [1, -4]),
        ("inputs", "shape", [1, None]),
        ("inputs", "shape", [1, 8]),
        ("inputs", "shape", [1, 2, 2]),
        ("inputs", "dtype", "no type"),
        ("outputs", "dtype", "int8"),
        ("outputs", "data", None),
    ],
)
def test_a_wrong_fact_of_a_tensor_is_told(file, folder, side, key, value):
    change(folder, lambda d: d[side][0].update({key: value}))
    with pytest.raises(ValueError, match=r"golden\.json is damaged: "):
        te.check_golden(folder, file)


@pytest.mark.parametrize("side", ["inputs", "outputs"])
@pytest.mark.parametrize("entries", [[], [1], "twice"])
def test_other_tensors_than_the_files_are_told(file, folder, side, entries):
    change(folder, lambda d: d.update({side: 2 * d[side] if entries == "twice" else entries}))
    with pytest.raises(ValueError, match=r"golden\.json is damaged: "):
        te.check_golden(folder, file)


@pytest.mark.parametrize("runs", [0, -1, 1.5])
def test_no_runs_are_told(file, folder, runs):
    change(folder, lambda d: d.update(runs=runs))
    with pytest.raises(ValueError, match=r"golden\.json is damaged: .*runs"):
        te.check_golden(folder, file)


def test_more_runs_than_recorded_are_told(file, folder):
    change(folder, lambda d: d.update(runs=4))
    with pytest.raises(ValueError, match="cut off or was changed"):
        te.check_golden(folder, file)


def test_an_output_of_another_shape_is_another_answer(file, folder):
    change(folder, lambda d: d["outputs"][0].update(shape=[2, 1]))
    with pytest.raises(te.GoldenError, match=r"has the shape \(1, 2\) and had \(2, 1\)"):
        te.check_golden(folder, file)
