"""Measures of answers, against direct counts."""

import numpy as np
import pytest

from keras_distill import measures


def test_probabilities_of_logits(rng):
    logits = rng.normal(size=(5, 3)) * 400
    p = measures.probabilities(logits)
    np.testing.assert_allclose(p.sum(-1), 1)
    assert (p.argmax(-1) == logits.argmax(-1)).all()
    yes = 1 / (1 + np.exp(-0.7))
    np.testing.assert_allclose(measures.probabilities([[0.7]], "sigmoid"), [[1 - yes, yes]])
    assert measures.probabilities(logits, "sigmoid").shape == (5, 3)


def test_entropy_is_a_share():
    found = measures.entropy(np.array([[1.0, 0, 0], [1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0]]))
    np.testing.assert_allclose(found, [0, 1, np.log(2) / np.log(3)])


def test_calibration_is_the_gap_of_each_bin():
    confidence = np.array([0.95, 0.95, 0.95, 0.95, 0.55, 0.55])
    right = np.array([1, 1, 1, 0, 1, 0])
    expected = (4 * abs(0.95 - 0.75) + 2 * abs(0.55 - 0.5)) / 6
    assert measures.expected_calibration_error(confidence, right) == pytest.approx(expected)
    assert measures.expected_calibration_error([1.0, 1.0], [1, 1]) == 0


def test_confusion_and_classes_that_changed_places(rng):
    truth = rng.integers(0, 4, 400)
    swapped = np.array([0, 2, 1, 3])[truth]
    table = measures.confusion(truth, swapped, 4)
    assert table.sum() == 400
    assert measures.better_order(table) == {1: 2, 2: 1}
    noisy = np.where(rng.uniform(size=400) < 0.3, rng.integers(0, 4, 400), swapped)
    assert measures.better_order(measures.confusion(truth, noisy, 4)) == {1: 2, 2: 1}
    assert measures.better_order(measures.confusion(truth, truth, 4)) == {}
    assert measures.better_order(measures.confusion(truth, rng.integers(0, 4, 400), 4)) == {}
