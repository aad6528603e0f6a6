"""Examples out of folders and files: which arrays, which labels, in which form."""

import dataclasses
import shutil

import numpy as np
import pytest
from PIL import Image

from keras_distill.app import examples
from keras_distill.app.model_file import ModelFile


def model(path, shape=(4, 4, 3), dtype="float32", class_names=None, normalization=(127.5, 127.5)):
    """What is known of a model that is not run here."""
    return ModelFile(path / "m.keras", None, shape, dtype, class_names, normalization)


@pytest.mark.parametrize("prefer", ["test", "train"])
def test_the_part_that_is_asked_for(tmp_path, prefer):
    np.savez(
        tmp_path / "a.npz",
        x_train=np.full((3, 2), 1.0),
        y_train=np.zeros(3),
        x_test=np.full((2, 2), 2.0),
        y_test=np.ones(2),
    )
    x, y = examples.arrays(tmp_path / "a.npz", prefer)
    expected = {"train": (3, 1.0, 0.0), "test": (2, 2.0, 1.0)}[prefer]
    assert (len(x), x[0, 0], y[0]) == expected


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["x", "y"], ("x", "y")),
        (["images", "labels"], ("images", "labels")),
        (["x"], ("x", None)),
        (["anything"], ("anything", None)),
        (["y_train", "x_train"], ("x_train", "y_train")),
        (["x_val", "y_val", "x_train"], ("x_val", "y_val")),
    ],
)
def test_names_of_arrays(tmp_path, names, chosen):
    arrays = {name: np.full((2, 2), number) for number, name in enumerate(names)}
    np.savez(tmp_path / "a.npz", **arrays)
    x, y = examples.arrays(tmp_path / "a.npz", "test")
    np.testing.assert_array_equal(x, arrays[chosen[0]])
    assert y is None if chosen[1] is None else np.array_equal(y, arrays[chosen[1]])


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        (
            {"a": np.zeros(2), "b": np.zeros(2)},
            "holds a, b, and nothing says which are the examples",
        ),
        ({}, "holds nothing, and nothing says"),
        (
            {"x": np.zeros((3, 2)), "y": np.zeros(2)},
            r"holds 3 examples, and labels of shape \(2,\)",
        ),
        ({"x": np.zeros((3, 2)), "y": np.int64(3)}, r"holds 3 examples, and labels of shape \(\)"),
        (
            {"x": np.array([["a"]])},
            r"holds <U1 of shape \(1, 1\): expected numbers \(examples, …\)",
        ),
        ({"x": np.zeros((0, 2))}, r"holds float64 of shape \(0, 2\)"),
        ({"x": np.array([[{}]], dtype=object)}, "holds Python objects"),
    ],
)
def test_arrays_that_cannot_be_meant(tmp_path, arrays, sentence):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=sentence):
        examples.arrays(tmp_path / "a.npz", "test")


def test_files_that_cannot_be_read(tmp_path):
    np.savez(tmp_path / "cut.npz", x=np.zeros((100, 100)))
    content = (tmp_path / "cut.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(content[:-100])
    (tmp_path / "bits.npz").write_bytes(content[:200] + b"\xff" * 100 + content[300:])
    (tmp_path / "empty.npy").touch()
    (tmp_path / "text.npy").write_text("1,2,3")
    (tmp_path / "data.csv").write_text("1,2,3")
    (tmp_path / "archive.npy").write_bytes(content)
    np.save(tmp_path / "array.npy", np.zeros((3, 2)))
    (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    np.save(tmp_path / "x.npy", np.zeros((100, 100)))
    whole = (tmp_path / "x.npy").read_bytes()
    damaged = {
        "cut": whole[:-100],
        "cut-in-its-header": whole[:40],
        "cut-at-once": whole[:8],
        "too-large": whole.replace(b"(100, 100)", b"(9" + 12 * b"0" + b",)"),
        "of-another-header": whole.replace(b"'descr'", b"'descx'"),
    }
    for how, content in damaged.items():
        (tmp_path / f"{how}.npy").write_bytes(content)
    np.savez_compressed(tmp_path / "deflated.npz", x=np.random.default_rng(0).normal(size=(9, 99)))
    content = (tmp_path / "deflated.npz").read_bytes()
    (tmp_path / "deflated.npz").write_bytes(content[:50] + b"\xff" * 100 + content[150:])
    for name, sentence in (
        (
            "cut.npz",
            r"cut.npz (is damaged, or no .npz file|holds Python objects, or is no .npz file)",
        ),
        ("bits.npz", r"bits.npz is damaged, or no .npz file"),
        ("empty.npy", r"empty.npy is damaged, or no .npy file"),
        ("text.npy", r"text.npy holds Python objects, or is no .npy file"),
        ("archive.npy", r"archive.npy is no .npy file: give it the suffix of what it is"),
        ("array.npz", r"array.npz is no .npz file"),
        *((f"{how}.npy", f"{how}.npy is damaged, or no .npy file: write") for how in damaged),
        ("deflated.npz", r"deflated.npz is damaged, or no .npz file"),
        ("data.csv", r"data.csv is neither a folder of photos nor a .npy or .npz file"),
    ):
        with pytest.raises(ValueError, match=sentence):
            examples.arrays(tmp_path / name, "test")
    with pytest.raises(FileNotFoundError, match=r"There are no data .*nowhere"):
        examples.arrays(tmp_path / "nowhere", "test")


def test_bytes_are_pixels_and_floats_are_taken_as_they_are(tmp_path):
    pixels = np.array([[0, 255]] * 3, np.uint8)
    np.save(tmp_path / "pixels.npy", pixels)
    np.save(tmp_path / "floats.npy", pixels.astype("float32"))
    flat = model(tmp_path, shape=(2,))
    ((x, y),) = examples.batches(tmp_path / "pixels.npy", flat)
    assert y is None
    np.testing.assert_array_equal(x, [[-1, 1]] * 3)
    ((x, _),) = examples.batches(tmp_path / "floats.npy", flat)
    np.testing.assert_array_equal(x, [[0, 255]] * 3)
    with pytest.raises(ValueError, match=r"holds pixels, and .* give --normalization MEAN STD"):
        list(examples.batches(tmp_path / "pixels.npy", model(tmp_path, (2,), normalization=None)))
    ((x, _),) = examples.batches(
        tmp_path / "pixels.npy", model(tmp_path, (2,), "int8", normalization=None)
    )
    np.testing.assert_array_equal(x, np.array([[-128, 127]] * 3, np.int8))
    assert x.dtype == np.int8


def test_grey_pictures_get_their_channel(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((70, 5, 4), np.uint8))
    sizes = [x.shape for x, _ in examples.batches(tmp_path / "a.npy", model(tmp_path, (5, 4, 1)))]
    assert sizes == [(64, 5, 4, 1), (6, 5, 4, 1)]


@pytest.fixture
def folder(tmp_path):
    """Three classes of two photos each: b is black, w white, g grey."""
    for name, colour in (("b", 0), ("g", 128), ("w", 255)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(2):
            picture = Image.new("RGB", (6, 6), (colour,) * 3)
            picture.save(tmp_path / "photos" / name / f"{number}.png")
    return tmp_path / "photos"


def test_sub_folders_are_the_models_classes_by_name(folder, tmp_path):
    ((x, y),) = examples.batches(folder, model(tmp_path, class_names=["w", "x", "g", "b"]))
    np.testing.assert_allclose(x[:, 0, 0, 0], [-1, -1, 0.5 / 127.5, 0.5 / 127.5, 1, 1])
    np.testing.assert_array_equal(y, [3, 3, 2, 2, 0, 0])
    ((_, y),) = examples.batches(folder, model(tmp_path))  # no names: sorted, as Keras numbers them
    np.testing.assert_array_equal(y, [0, 0, 1, 1, 2, 2])
    with pytest.raises(
        ValueError, match=r"has the folders b, g, w, and .* knows the classes b, g:"
    ):
        list(examples.batches(folder, model(tmp_path, class_names=["b", "g"])))


def test_plain_photos_have_no_labels_and_a_split_is_measured_on(folder, tmp_path):
    ((x, y),) = examples.batches(folder / "w", model(tmp_path))
    assert y is None
    assert x.shape == (2, 4, 4, 3)
    split = tmp_path / "split"
    shutil.copytree(folder, split / "train")
    shutil.copytree(folder / "w", split / "validation" / "w")
    ((_, y),) = examples.batches(split, model(tmp_path, class_names=["b", "g", "w"]))
    np.testing.assert_array_equal(y, [2, 2])
    shutil.copytree(folder / "b", split / "test" / "b")  # it is kept for the end
    ((_, y),) = examples.batches(split, model(tmp_path, class_names=["b", "g", "w"]))
    np.testing.assert_array_equal(y, [2, 2])


def test_photos_that_cannot_be_read_are_left_out_or_refused(folder, tmp_path, capsys):
    (folder / "b" / "0.png").write_bytes(b"")  # the first: labels must not move up
    ((x, y),) = examples.batches(folder, model(tmp_path))
    np.testing.assert_array_equal(y, [0, 1, 1, 2, 2])
    assert len(x) == 5
    assert "1 of 6 photos cannot be read: " in (said := capsys.readouterr().err)
    assert "b/0.png: it is empty (0 bytes). They are left out." in said
    with pytest.raises(ValueError, match=r"b/0.png as a photo"):
        list(examples.batches(folder, model(tmp_path), strict=True))
    for photo in folder.glob("*/*"):
        photo.write_bytes(b"")
    with pytest.raises(ValueError, match=r"w/1.png as a photo: it is empty"):
        list(examples.batches(folder, model(tmp_path)))


def test_folders_that_cannot_be_used(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"There are no photos in .*empty"):
        list(examples.batches(tmp_path / "empty", model(tmp_path)))
    with pytest.raises(ValueError, match=r"takes inputs of shape \(10,\), and photos are"):
        list(examples.batches(folder, model(tmp_path, shape=(10,))))


def test_fewer_folders_than_classes_need_the_names_of_the_classes(photos, tmp_path):
    shutil.copytree(photos / "top", tmp_path / "some" / "top")
    unnamed = dataclasses.replace(model(tmp_path), classes=2)
    with pytest.raises(ValueError, match=r"has 1 folders \(top…\), and .* knows 2 classes and not"):
        list(examples.batches(tmp_path / "some", unnamed))
    named = dataclasses.replace(unnamed, class_names=["bottom", "top"])
    ((_, y),) = examples.batches(tmp_path / "some", named)
    assert set(y.tolist()) == {1}
