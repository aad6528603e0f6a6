"""What `golden` refuses, before anything is written: data that the file does not take, folders of others."""

import os

import keras
import numpy as np
import pytest

import tflite_export as te
from tflite_export import golden_check


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Small files by what they take."""
    layers, mean = keras.layers, keras.layers.GlobalAveragePooling2D
    tokens = keras.Input((6,), dtype="int32", name="tokens")
    row = keras.Input((4,), name="row")
    image = keras.Input((8, 8, 3), name="image")
    free = keras.Input((None, None, 3), name="image")
    pair = [keras.Input((2,), name=name) for name in "ab"]
    models = {
        "tokens": (tokens, layers.Dense(2)(layers.Flatten()(layers.Embedding(9, 2)(tokens)))),
        "row": (row, layers.Dense(2)(row)),
        "image": (image, mean()(layers.Conv2D(4, 3)(image))),
        "free": (free, mean()(layers.Conv2D(4, 3)(free))),
        "pair": (pair, layers.Dense(2)(layers.Concatenate()(pair))),
    }
    folder = tmp_path_factory.mktemp("files")
    return {
        name: te.export(
            keras.Model(*ends),
            folder / f"{name}.tflite",
            input_shape=(None, None, 3) if name == "free" else None,
        )
        for name, ends in models.items()
    }


@pytest.mark.parametrize(
    ("name", "shape", "dtype"),
    [
        ("image", (3, 20, 20, 3), "float32"),
        ("image", (8, 8, 3), "float32"),  # one photo without a batch
        ("image", (3, 8, 8), "float32"),
        ("image", (3, 3, 8, 8), "float32"),
        ("image", (3, 8, 8, 1), "uint8"),
        ("tokens", (5, 9), "int32"),
        ("tokens", (5, 1), "int32"),
        ("tokens", (5, 6, 1), "int32"),
        ("row", (5, 8), "float32"),
        ("free", (3, 9, 9, 1), "float32"),
    ],
)
def test_another_shape_than_the_files_is_refused(files, tmp_path, name, shape, dtype):
    with pytest.raises(
        ValueError, match=r"Input '.*' takes \(examples, .*\), and an array of shape"
    ):
        te.golden(files[name], np.zeros(shape, dtype), tmp_path / "g")
    assert not list(tmp_path.iterdir())


def test_a_list_of_photos_is_refused(files, tmp_path):
    photos = [np.zeros((8, 8, 3), "float32")] * 3
    with pytest.raises(ValueError, match="of shape"):
        te.golden(files["image"], photos, tmp_path / "g")


def test_sizes_that_a_file_leaves_open_are_free(files, tmp_path):
    made = te.golden(files["free"], np.ones((2, 9, 11, 3), "float32"), tmp_path / "g")
    te.check_golden(made.path, files["free"])


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((2, 2, 2, 3), r"does not run on inputs of \[\(1, 2, 2, 3\)\]"),
        ((2, 0, 4, 3), "without numbers"),
    ],
)
def test_open_sizes_that_the_network_cannot_take_are_refused(files, tmp_path, shape, said):
    with pytest.raises(ValueError, match=said):
        te.golden(files["free"], np.ones(shape, "float32"), tmp_path / "g")


def test_a_fixed_size_is_never_changed(files):
    """Whatever is recorded: a runtime that resizes would hide it."""
    info = te.load(files["row"]).inputs[0]
    other = golden_check.Recorded(info, np.zeros((2, 1, 8), "float32"))
    make = golden_check.interpreter_class("litert")[1]
    with pytest.raises(ValueError, match="Dimension mismatch"):
        golden_check.run(make, files["row"].path.read_bytes(), [other])


@pytest.mark.parametrize("lengths", [(3, 2), (2, 3)])
@pytest.mark.parametrize("form", [lambda a, b: {"a": a, "b": b}, lambda a, b: ([a, b], None)])
def test_inputs_of_different_lengths_are_refused(files, tmp_path, lengths, form):
    data = form(*(np.zeros((length, 2), "float32") for length in lengths))
    with pytest.raises(ValueError, match=r"different lengths: \[., .\]"):
        te.golden(files["pair"], data, tmp_path / "g")
    with pytest.raises(ValueError, match=r"different lengths: \[., .\]"):  # in batches
        te.golden(files["pair"], iter([data]), tmp_path / "g")


@pytest.mark.parametrize("count", [0, -1])
def test_no_examples_are_refused(files, tmp_path, count):
    with pytest.raises(ValueError, match=f"max_examples is {count}: give 1 or more"):
        te.golden(files["row"], np.zeros((2, 4), "float32"), tmp_path / "g", max_examples=count)


@pytest.mark.parametrize("content", [None, "[]", "{}", '{"type": "Feature"}', "no JSON"])
def test_a_folder_that_golden_did_not_write_is_left(files, tmp_path, content):
    (tmp_path / "README.md").write_text("precious")
    if content is not None:
        (tmp_path / "golden.json").write_text(content)
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(ValueError, match=r"It is not replaced: give a new folder"):
        te.golden(files["row"], np.zeros((2, 4), "float32"), tmp_path)
    assert (tmp_path / "README.md").read_text() == "precious"
    assert sorted(os.listdir(tmp_path)) == before


def test_an_empty_folder_is_taken(files, tmp_path):
    (tmp_path / "g").mkdir()
    assert te.golden(files["row"], np.zeros((2, 4), "float32"), tmp_path / "g").runs == 2


def test_a_path_below_a_file_is_refused(files, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="file is a file, not a folder"):
        te.golden(files["row"], np.zeros((2, 4), "float32"), tmp_path / "file" / "y")
    assert (tmp_path / "file").read_text() == "mine"
