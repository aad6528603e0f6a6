"""Data sets are functions of (seed, epoch, example), and folders are read as Keras reads them."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_distill import augmentation, data, epoch, mixup


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
    epoch.begin(epoch_number)
    batches = [(x.numpy(), y.numpy()) for x, y in dataset]
    return [np.concatenate(parts) for parts in zip(*batches, strict=True)]


AUGMENTATIONS = [
    None,
    data.Light(flip=True),
    data.CropAndFlip(),
    data.RandAugment(),
    [data.CropAndFlip(), data.RandAugment(1)],
]


@pytest.mark.parametrize("augment", AUGMENTATIONS)
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


def uniform_of(values):
    """The same numbers for each of 12 images."""
    return lambda count: tf.tile(tf.constant([values], tf.float32)[:, :count], (12, 1))


def test_each_change_of_rand_augment_is_drawn_and_changes_the_image():
    images = tf.constant(numbers(12)[0], tf.float32)
    seen = {}
    for place in range(13):
        for amount in (0.0, 0.9):
            drawn = uniform_of([(place + 0.5) / 13, amount])
            changed = data.RandAugment(1, 10)(images, drawn).numpy()
            assert changed.shape == images.shape
            assert 0 <= changed.min() <= changed.max() <= 255
            seen[place, amount] = changed
    np.testing.assert_array_equal(seen[0, 0.0], images)
    others = [seen[key] for key in seen if key[0]]
    assert all(np.abs(one - images).max() > 1 for one in others)
    several = [np.round(one) for one in others]
    assert all(np.abs(a - b).max() > 0 for a in several[::2] for b in several[::2] if a is not b)


def test_rand_augment_without_strength_changes_nothing_but_contrast_of_low_ranges():
    images = tf.constant(numbers(12)[0], tf.float32)
    for place in set(range(13)) - {1}:  # autocontrast has no strength
        changed = data.RandAugment(1, 0)(images, uniform_of([(place + 0.5) / 13, 0.9]))
        np.testing.assert_allclose(changed, images, atol=1e-3)


def test_rand_augment_rotates_about_the_centre():
    image = np.full((12, 9, 9, 1), 10.0, "float32")
    image[:, 4, 7] = 200.0  # to the right of the centre
    turned = data.RandAugment(1, 10)(tf.constant(image), uniform_of([8.5 / 13, 1.0])).numpy()[0]
    place = np.unravel_index(np.argmax(turned[1:-1, 1:-1, 0]), (7, 7))
    assert abs(place[0] + 1 - 4) in (1, 2)  # 3 pixels away, at 30°
    assert place[1] + 1 in (6, 7)
    np.testing.assert_allclose(turned[4, 4], 10.0)


def test_augmentations_one_after_another_draw_numbers_of_their_own():
    asked = []

    def note(images, uniform):
        asked.append(uniform(2).numpy())
        return images

    def uniform(count):
        return augmentation.uniform_numbers(0, 0, tf.range(3, dtype=tf.int64), count)

    augmentation.one_after_another([note, note])(tf.zeros((3, 2, 2, 1)), uniform)
    assert asked[0].shape == asked[1].shape == (3, 2)
    assert not np.isin(asked[0], asked[1]).any()


def test_mixup_mixes_the_views_of_two_examples_and_keeps_the_nearer_label():
    x, _ = numbers()
    y = np.arange(50)
    plain = drawn(data.arrays(x, y, 8, seed=5, augment=data.CropAndFlip()), 2)
    mixed = drawn(data.arrays(x, y, 8, seed=5, augment=data.CropAndFlip(), mixup=1.0), 2)
    np.testing.assert_array_equal(plain[1], mixed[1])
    views = plain[0].reshape(50, -1)
    shares = []
    for own, found in zip(views, mixed[0].reshape(50, -1), strict=True):
        away, others = found - own, views - own  # away = (1 − λ)(other − own)
        along = (others @ away) / np.maximum((others**2).sum(1), 1e-6)
        left = np.abs(away - along[:, None] * others).max(1)
        assert left.min() < 0.01
        shares.append(along[np.argmin(left)])
    assert 0 <= min(shares) <= max(shares) <= 0.5 + 1e-6
    assert 0.15 < np.mean(shares) < 0.35  # of uniform λ: ¼


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_mixup_draws_from_the_beta_distribution(alpha):
    uniform = tf.constant(np.random.default_rng(0).uniform(size=20_000), tf.float32)
    found = mixup.shares(uniform, alpha).numpy()
    expected = np.random.default_rng(1).beta(alpha, alpha, 20_000)
    expected = np.maximum(expected, 1 - expected)
    for quantile in (0.1, 0.5, 0.9):
        np.testing.assert_allclose(
            np.quantile(found, quantile), np.quantile(expected, quantile), atol=0.01
        )


@pytest.mark.parametrize("arguments", [{"mixup": -1}, {"mixup": float("inf")}])
def test_a_mixup_that_cannot_be_meant_is_refused(arguments):
    with pytest.raises(ValueError, match="must be the alpha of a Beta distribution"):
        data.arrays(*numbers(), **arguments)


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


def test_digits_are_split_evenly_and_always_the_same_way():
    digits = data.digits()
    assert digits.x_train.shape == (1347, 8, 8, 1)
    assert digits.x_test.shape == (450, 8, 8, 1)
    assert digits.x_train.dtype == np.uint8
    assert digits.x_train.max() == 255
    assert np.bincount(digits.y_test).min() >= 43
    np.testing.assert_array_equal(digits.x_test, data.digits().x_test)


def test_no_data_set_of_ours_starts_the_autotuner():
    x, y = numbers()
    for dataset in (data.arrays(x, y, 8), epoch.Shuffled((x, y), 8).dataset):
        assert dataset.options().autotune.enabled is False
