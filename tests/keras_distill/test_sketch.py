"""Sketches tell one example from another, and forgive rounding."""

import numpy as np
import pytest
import tensorflow as tf

from keras_distill.soft_labels import sketch

RNG = np.random.default_rng(0)
TOKENS = RNG.integers(0, 20_000, (50, 30))
STAMPED = np.concatenate(
    [1.7e9 + RNG.integers(0, 3 * 86_400, (50, 1)), RNG.normal(size=(50, 9))], 1
)
STAMPED = STAMPED.astype("float32")


@pytest.mark.parametrize(
    ("x", "other"),
    [
        (TOKENS, TOKENS + 1),
        (TOKENS, np.where(np.arange(30) == 7, TOKENS + 1, TOKENS)),
        (TOKENS, np.roll(TOKENS, 1, axis=1)),
        (TOKENS.astype("float32"), TOKENS.astype("float32") + 1),
        (STAMPED, np.roll(STAMPED, 1, axis=0)),
        (STAMPED, STAMPED * np.where(np.arange(10) == 0, 1, -1)),
        (TOKENS > 10_000, TOKENS > 10_001),
        (TOKENS.astype("str"), np.roll(TOKENS, 1, axis=0).astype("str")),
        (RNG.random((50, 4, 4)), RNG.random((50, 4, 4))),
    ],
)
def test_sketches_tell_what_differs(x, other):
    first, second, same = (sketch.of(tf.constant(one)).numpy() for one in (x, other, x.copy()))
    assert first.shape == (50, sketch.numbers(x))
    assert not sketch.differ(first, same).any()
    changed = np.any(x != other, axis=tuple(range(1, x.ndim)))
    np.testing.assert_array_equal(sketch.differ(first, second.astype("float32")), changed)


def test_sketches_forgive_rounding():
    photos = RNG.uniform(0, 255, (50, 16, 16, 3))
    for x, other in (
        (STAMPED, np.nextafter(STAMPED, np.float32(0))),
        (photos, photos * 1.0002),
        (np.where(photos > 250, np.nan, photos), np.where(photos > 250, np.nan, photos)),
    ):
        pair = (sketch.of(tf.constant(one, "float32")).numpy() for one in (x, other))
        assert not sketch.differ(*pair).any()


WALK = np.cumsum(RNG.normal(size=(50, 50, 2)), 1)


@pytest.mark.parametrize(
    ("x", "alike"),
    [
        # Sequences about an offset, 1e5 to 1e3 times as large as what varies: places on the earth, …
        ([48.137, 11.575] + 2e-4 * WALK, 0.04),
        (101_325 + 40 * RNG.normal(size=(50, 60, 1)), 0.002),
        (32_768 + 20 * RNG.normal(size=(50, 60, 1)), 0.002),
        (np.concatenate([np.eye(4)[RNG.integers(0, 4, 50)] for _ in range(5)], 1), 0),
        (np.eye(100)[RNG.integers(0, 100, (50, 40))], 0),
    ],
)
def test_few_examples_have_the_sketch_of_another(x, alike):
    x = x.astype("float32")
    sketches = sketch.of(tf.constant(x)).numpy()
    unseen = 0
    for i in range(50):
        changed = np.any(x[i] != x, axis=tuple(range(1, x.ndim)))
        unseen += (changed & ~sketch.differ(np.repeat(sketches[i : i + 1], 50, 0), sketches)).sum()
    assert unseen <= alike * 50 * 49


def test_one_word_of_many_is_seen():
    words = RNG.integers(0, 100, (50, 40))
    other = np.where(np.arange(40) == 7, (words + 1) % 100, words)
    first, second = (
        sketch.of(tf.constant(np.eye(100, dtype="float32")[one])) for one in (words, other)
    )
    assert sketch.differ(first.numpy(), second.numpy()).all()
