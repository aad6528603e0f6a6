"""Representative data in all the forms that Keras users have, and clear words for the others."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tflite_export.normalization import Normalization
from tflite_export.representative import read
from tflite_export.signature import ModelInput

IMAGE = (ModelInput("image", (1, 4, 4, 3), "float32"),)
TWO = (ModelInput("b", (1, 3), "float32"), ModelInput("a", (1, 2), "float32"))
X = np.random.default_rng(0).normal(size=(10, 4, 4, 3)).astype("float32")
Y = np.arange(10)


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 5

    def __getitem__(self, index):
        return X[2 * index : 2 * index + 2], Y[2 * index : 2 * index + 2]


@pytest.mark.parametrize(
    "dataset",
    [
        [X[:5], X[5:]],
        [(X[:5], Y[:5]), (X[5:], Y[5:])],
        tf.data.Dataset.from_tensor_slices(X).batch(3),
        tf.data.Dataset.from_tensor_slices(X),
        tf.data.Dataset.from_tensor_slices((X, Y)).batch(3),
        tf.data.Dataset.from_tensor_slices((X, Y, np.ones(10))).batch(4),
        tf.data.Dataset.from_tensor_slices(({"image": X}, Y)).batch(4),
        Batches(),
        lambda: ([x[None]] for x in X),
        (x[None] for x in X),
    ],
    ids=[
        "list of batches", "list of (x, y)", "tf.data", "tf.data unbatched", "tf.data (x, y)",
        "tf.data (x, y, w)", "tf.data dict", "PyDataset", "TFLite's function", "generator",
    ],
)  # fmt: skip
def test_all_forms_give_the_first_examples(dataset):
    check(dataset, X[:8])


def check(dataset, expected):
    examples = read(dataset, IMAGE, 8)
    assert [set(e) for e in examples] == [{"image"}] * 8
    assert {e["image"].dtype for e in examples} == {np.dtype("float32")}
    np.testing.assert_array_equal(np.concatenate([e["image"] for e in examples]), expected)


@pytest.mark.parametrize(
    "dataset",
    [X, X.astype("float64"), tf.constant(X), list(X), (X, Y), (X, list(Y)), {"image": X}],
    ids=["array", "float64", "tensor", "list of examples", "(x, y)", "(x, list)", "dict"],
)
def test_arrays_give_examples_from_everywhere(dataset):
    """They may be sorted by class: the first 300 of 50,000 would show one of ten."""
    check(dataset, X[[0, 1, 2, 3, 5, 6, 7, 9]])
    assert [float(e["image"][0, 0, 0, 0]) for e in read(dataset, IMAGE, 2)] == [
        X[0, 0, 0, 0], X[9, 0, 0, 0],
    ]  # fmt: skip


def test_all_examples_keep_their_order():
    examples = read(X, IMAGE, 300)
    np.testing.assert_array_equal(np.concatenate([e["image"] for e in examples]), X)


@pytest.mark.parametrize("form", [list, tuple, dict])
def test_several_inputs(form):
    b, a = np.ones((5, 3)), np.zeros((5, 2))
    dataset = {"a": a, "b": b} if form is dict else form([b, a])
    for example in read(dataset, TWO, 5):
        assert example["b"].shape == (1, 3)
        assert example["a"].shape == (1, 2)


def test_no_more_is_read_than_asked_for():
    taken = []

    def endless():
        while True:
            taken.append(1)
            yield X[:2]

    assert len(read(endless(), IMAGE, 7)) == 7
    assert len(taken) == 4


@pytest.mark.parametrize(
    ("dataset", "sentence"),
    [
        (None, "pass representative_dataset="),
        ([], "empty"),
        (X[:0], "empty"),
        (X[:, :3], r"\(3, 4, 3\).*\(4, 4, 3\)"),
        (np.where(X[3, 0, 0, 0] == X, np.nan, X), "not finite in example 3"),
        (X * np.inf, "not finite"),
        ({"photo": X}, r"\['photo'\].*\['image'\]"),
        (7, "int"),
        ([[X, Y]], r"a list stands for several inputs.*tuples \(x, y\)"),
        ({"image": [X, Y]}, "different shapes"),
        (np.full((2, 4, 4, 3), "a"), "holds <U1, and the model takes float32"),
        (X.astype(complex), "holds complex128"),
        (iter([]), "empty"),
        (tf.data.Dataset.from_tensor_slices(X[:0]).batch(2), "empty"),
        (np.float32(1), "shape"),
    ],
)
def test_what_cannot_be_measured_is_refused(dataset, sentence):
    with pytest.raises(ValueError, match=sentence):
        read(dataset, IMAGE, 8)


def test_inputs_of_several_lengths_and_broken_integers_are_refused():
    with pytest.raises(ValueError, match=r"different lengths, {'b': 5, 'a': 4}"):
        read({"a": np.ones((4, 2)), "b": np.ones((5, 3))}, TWO, 8)
    tokens = (ModelInput("tokens", (1, 3), "int32"),)
    with pytest.raises(ValueError, match="'tokens' holds float64 values that the model's int32"):
        read(np.full((4, 3), 1.5), tokens, 8)
    assert read(np.full((4, 3), 2.0), tokens, 8)[0]["tokens"].dtype == np.int32


def test_a_folder_of_photos_is_read_as_in_training(tmp_path):
    """Upright, over white, 16 bits as 8; and a photo that cannot be read is named."""
    normal = {"image": Normalization.parse((0, 1))}
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    halves = Image.fromarray(np.repeat([[250], [0]], 4, 1).repeat(2, 0).astype("uint8"))
    halves.save(tmp_path / "1.png", exif=exif)
    Image.new("RGBA", (4, 4)).save(tmp_path / "2.png")
    Image.fromarray(np.full((4, 4), 51400, "uint16")).save(tmp_path / "3.png")
    turned, clear, grey = (e["image"][0] for e in read(tmp_path, IMAGE, 9, normal))
    np.testing.assert_array_equal(turned[:, 0, 0], [0, 0, 250, 250])
    assert clear.min() == 255
    assert set(grey.flat) == {200}
    (tmp_path / "4.jpg").write_bytes(b"a note")
    with pytest.warns(UserWarning, match=r"1 of 4 photos cannot be read: .*4\.jpg: it is no image"):
        assert len(read(tmp_path, IMAGE, 9, normal)) == 3
    for name in "123":
        (tmp_path / f"{name}.png").unlink()
    with pytest.raises(ValueError, match=r"Cannot read .*4\.jpg as a photo: it is no image"):
        read(tmp_path, IMAGE, 9, normal)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match=r"no photos in .*empty \(\.avif, \.bmp"):
        read(empty, IMAGE, 9, normal)


def test_a_folder_of_images_is_spread_over_its_classes(tmp_path):
    for number, name in enumerate(("cat", "dog")):
        (tmp_path / name).mkdir()
        for index in range(10):
            picture = np.full((6, 5, 3), 100 * number + index, "uint8")
            Image.fromarray(picture).save(tmp_path / name / f"{index}.png")
    normal = {"image": Normalization.parse((100, 50))}
    examples = read(tmp_path, IMAGE, 4, normal)
    values = [float(e["image"].mean()) * 50 + 100 for e in examples]
    np.testing.assert_allclose(values, [0, 6, 102, 109], atol=0.01)
    assert {e["image"].shape for e in examples} == {(1, 4, 4, 3)}
    with pytest.raises(ValueError, match="needs normalization"):
        read(tmp_path, IMAGE, 4)
    with pytest.raises(ValueError, match="no folder"):
        read(tmp_path / "nowhere", IMAGE, 4, normal)
    with pytest.raises(ValueError, match="one image input"):
        read(tmp_path, TWO, 4, normal)
