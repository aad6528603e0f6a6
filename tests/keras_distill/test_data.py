"""Data sets are functions of (seed, epoch, example), and folders are read as Keras reads them."""

import numpy as np
import pytest
from PIL import Image

from keras_distill import augmentation, data, epoch


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three classes of 10, 6 and 5 photos; each photo has a grey level of its own."""
    root = tmp_path_factory.mktemp("photos")
    for name, count, level in (("cat", 10, 10), ("ant", 6, 100), ("bee", 5, 200)):
        (root / name).mkdir()
        for i in range(count):
            pixels = np.full((20, 30, 3), level + i, np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


def numbers(count=50, size=12):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8), np.arange(count) % 10


def drawn(dataset, epoch_number):
    epoch.variable().assign(epoch_number)
    batches = [(x.numpy(), y.numpy()) for x, y in dataset]
    return [np.concatenate(parts) for parts in zip(*batches, strict=True)]


@pytest.mark.parametrize("augment", [None, data.Light(flip=True), data.CropAndFlip()])
def test_an_epoch_made_again_is_bit_identical(augment):
    x, y = numbers()
    first = data.arrays(x, y, 8, seed=3, augment=augment)
    epochs = [drawn(first, number) for number in (0, 1, 2)]
    again = drawn(data.arrays(x, y, 8, seed=3, augment=augment), 1)
    np.testing.assert_array_equal(again[0], epochs[1][0])
    np.testing.assert_array_equal(again[1], epochs[1][1])
    assert not np.array_equal(epochs[0][0], epochs[1][0])
    assert not np.array_equal(epochs[1][0], epochs[2][0])
    other = drawn(data.arrays(x, y, 8, seed=4, augment=augment), 1)
    assert not np.array_equal(other[0], epochs[1][0])


def test_the_view_of_an_example_does_not_depend_on_its_batch_or_its_company():
    x, y = numbers()
    y = np.arange(len(x))
    many = drawn(data.arrays(x, y, 7, seed=1, augment=data.Light()), 5)
    few = drawn(data.arrays(x[:20], y[:20], 3, seed=1, augment=data.Light()), 5)
    for view, label in zip(*few, strict=True):
        np.testing.assert_array_equal(view, many[0][many[1] == label][0])


def test_each_epoch_holds_every_example_once_in_another_order():
    x, _ = numbers()
    dataset = data.arrays(x, np.arange(50), 8, seed=0)
    assert len(dataset) == 7
    orders = [drawn(dataset, number)[1] for number in range(3)]
    for order in orders:
        assert sorted(order) == list(range(50))
    assert len({tuple(order) for order in orders}) == 3


def test_arrays_without_shuffle_are_as_given():
    x, y = numbers()
    images, labels = drawn(data.arrays(x, y[:, None], 8, shuffle=False), 4)
    np.testing.assert_array_equal(images, x)
    np.testing.assert_array_equal(labels, y)


def test_random_numbers_are_uniform_and_uncorrelated():
    import tensorflow as tf

    drawn = augmentation.uniform_numbers(7, 3, tf.range(100_000, dtype=tf.int64), 3).numpy()
    assert drawn.min() >= 0
    assert drawn.max() < 1
    np.testing.assert_allclose(drawn.mean(0), 0.5, atol=0.005)
    np.testing.assert_allclose(drawn.var(0), 1 / 12, atol=0.002)
    np.testing.assert_allclose(np.corrcoef(drawn.T), np.eye(3), atol=0.015)
    np.testing.assert_allclose(np.corrcoef(drawn[:-1, 0], drawn[1:, 0]), np.eye(2), atol=0.015)


def test_crop_and_flip_is_pad_crop_mirror_in_whole_pixels():
    x, _ = numbers(count=200)
    views, labels = drawn(data.arrays(x, np.arange(200), 64, augment=data.CropAndFlip(4)), 0)
    seen = set()
    for view, label in zip(views, labels, strict=True):
        padded = np.pad(x[label], ((4, 4), (4, 4), (0, 0)))
        found = [
            (top, left, mirrored)
            for top in range(9)
            for left in range(9)
            for mirrored in (False, True)
            if np.array_equal(
                view, padded[top : top + 12, left : left + 12][:, :: -1 if mirrored else 1]
            )
        ]
        assert len(found) == 1
        seen.add(found[0])
    assert {mirrored for *_, mirrored in seen} == {False, True}
    assert {top for top, *_ in seen} == {left for _, left, _ in seen} == set(range(9))


def test_light_augmentation_of_nothing_changes_nothing():
    x, _ = numbers()
    nothing = data.Light(shift=0, zoom=0, brightness=0, contrast=0)
    views, labels = drawn(data.arrays(x, np.arange(50), 8, augment=nothing), 0)
    np.testing.assert_allclose(views, x[labels], atol=1e-3)


def test_light_augmentation_stays_in_range_and_mirrors_only_when_asked():
    half = np.zeros((64, 16, 16, 3), np.uint8)
    half[:, :, :8] = 255
    views, _ = drawn(data.arrays(half, np.zeros(64), 64, augment=data.Light()), 0)
    assert views.min() >= 0
    assert views.max() <= 255
    assert (views[:, :, 0].mean((1, 2)) > views[:, :, -1].mean((1, 2))).all()
    views, _ = drawn(data.arrays(half, np.zeros(64), 64, augment=data.Light(flip=True)), 0)
    mirrored = (views[:, :, 0].mean((1, 2)) < views[:, :, -1].mean((1, 2))).mean()
    assert 0.25 < mirrored < 0.75


def test_a_folder_is_split_within_each_class_and_the_same_way_again(folder):
    listing = data.list_folder(folder, seed=1, validation_split=0.2)
    assert listing.class_names == ["ant", "bee", "cat"]
    assert np.bincount(listing.validation_labels).tolist() == [1, 1, 2]
    assert np.bincount(listing.train_labels).tolist() == [5, 4, 8]
    assert not set(listing.train_files) & set(listing.validation_files)
    for file, label in zip(listing.train_files, listing.train_labels, strict=True):
        assert file.parent.name == listing.class_names[label]
    assert data.list_folder(folder, seed=1).train_files == listing.train_files
    assert any(
        data.list_folder(folder, seed=seed).train_files != listing.train_files for seed in (2, 3)
    )


def test_photos_come_with_their_own_labels_cached_or_not(folder):
    listing = data.list_folder(folder)
    for cache_bytes in (data.CACHE_BYTES, 0):
        dataset = data.photos(
            listing.train_files, listing.train_labels, 8, batch_size=4, cache_bytes=cache_bytes
        )
        for number in (0, 1):
            images, labels = drawn(dataset, number)
            assert images.shape == (17, 8, 8, 3)
            assert images.dtype == np.float32
            levels = images.mean((1, 2, 3))
            np.testing.assert_array_equal(labels, np.select([levels < 50, levels < 150], [2, 0], 1))


def test_train_and_validation_folders_are_the_split(folder, tmp_path):
    for part, names in (("train", "ab"), ("validation", "ab")):
        for name in names:
            (tmp_path / part / name).mkdir(parents=True)
            Image.new("RGB", (4, 4)).save(tmp_path / part / name / f"{part}.png")
    both = data.image_folder(tmp_path, image_size=4)
    assert [file.name for file in both.train_files] == ["train.png"] * 2
    assert [file.name for file in both.validation_files] == ["validation.png"] * 2
    (tmp_path / "validation" / "c").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "validation" / "c" / "x.png")
    with pytest.raises(ValueError, match="different classes: c is in one of them only"):
        data.list_folder(tmp_path)


def test_bad_folders_get_a_sentence(tmp_path):
    with pytest.raises(ValueError, match="There is no folder"):
        data.list_folder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="No photos in"):
        data.list_folder(tmp_path)
    (tmp_path / "cat").mkdir()
    with pytest.raises(ValueError, match="No photos in"):
        data.list_folder(tmp_path)
    Image.new("RGB", (4, 4)).save(tmp_path / "cat" / "1.png")
    with pytest.raises(ValueError, match=r"one class only \(cat\)"):
        data.list_folder(tmp_path)
    (tmp_path / "dog").mkdir()
    with pytest.raises(ValueError, match=r"No photos in the class folder .*dog"):
        data.list_folder(tmp_path)
    Image.new("RGB", (4, 4)).save(tmp_path / "dog" / "1.png")
    with pytest.raises(ValueError, match="Class cat has one photo only"):
        data.list_folder(tmp_path)
    for name in ("cat", "dog"):
        (tmp_path / name / "2.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"Cannot read .*2\.jpg as a photo"):
        data.image_folder(tmp_path, image_size=4)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "I;16", "1"])
def test_every_kind_of_file_gives_three_channels_of_its_brightness(mode, tmp_path):
    suffix = "jpg" if mode == "CMYK" else "png"
    if mode == "I;16":
        image = Image.fromarray(np.full((6, 6), 200 * 257, np.uint16))
    else:
        image = Image.new("RGB", (6, 6), (200, 200, 200)).convert(mode)
    image.save(tmp_path / f"x.{suffix}")
    pixels = data.read_photo(tmp_path / f"x.{suffix}", (6, 6))
    assert pixels.shape == (6, 6, 3)
    assert pixels.dtype == np.uint8
    np.testing.assert_allclose(pixels.mean(), 200, atol=60 if mode == "1" else 3)
    assert data.read_photo(tmp_path / f"x.{suffix}", (6, 6), channels=1).shape == (6, 6, 1)


def test_photos_are_turned_upright_and_transparency_is_white(tmp_path):
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, :8, 0] = 255  # red on the left
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise: red goes to the top
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    read = data.read_photo(tmp_path / "turned.png", (16, 8))
    assert read[:6, :, 0].min() == 255
    assert read[10:, :, 0].max() == 0
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert data.read_photo(tmp_path / "clear.png", (4, 4)).min() == 255


def test_digits_are_split_evenly_and_always_the_same_way():
    digits = data.digits()
    assert digits.x_train.shape == (1347, 8, 8, 1)
    assert digits.x_test.shape == (450, 8, 8, 1)
    assert digits.x_train.dtype == np.uint8
    assert digits.x_train.max() == 255
    assert np.bincount(digits.y_test).min() >= 43
    np.testing.assert_array_equal(digits.x_test, data.digits().x_test)


def test_a_folder_of_splits_is_not_one_of_two_classes(tmp_path):
    for split in ("training_set", "test_set"):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("RGB", (4, 4)).save(tmp_path / split / name / "a.png")
    with pytest.raises(ValueError, match=r"if these are splits, name them train/ and validation/"):
        data.list_folder(tmp_path)
