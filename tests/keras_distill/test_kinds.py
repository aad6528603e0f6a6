"""What logits are for: one class of several, or labels that are each right or wrong."""

import keras
import numpy as np
import pytest

from keras_distill import kinds


@pytest.mark.parametrize(
    ("shape", "arguments", "kind"),
    [
        ((4, 3), {}, "softmax"),
        ((4, 3), {"ends": ["linear", "softmax"]}, "softmax"),
        ((4, 3), {"ends": ["linear", "sigmoid"]}, "sigmoid"),
        ((4, 3), {"loss": keras.losses.BinaryCrossentropy()}, "sigmoid"),
        ((4, 3), {"loss": keras.losses.CategoricalCrossentropy()}, "softmax"),
        ((4, 3), {"independent_labels": True}, "sigmoid"),
        ((4, 1), {}, "sigmoid"),
    ],
)
def test_which_kind_it_is(shape, arguments, kind):
    assert kinds.of(np.zeros(shape), **arguments) == kind


def test_labels_of_a_sigmoid():
    logits = np.zeros((3, 1), "float32")
    truth, known = kinds.truth(np.array([1, 0, -1]), logits, "sigmoid")
    np.testing.assert_array_equal(truth, [[1], [0], [0]])
    np.testing.assert_array_equal(known, [[True], [True], [False]])
    of_columns = kinds.truth(np.array([[1], [0], [-1]]), logits, "sigmoid")[0]
    np.testing.assert_array_equal(truth, of_columns)
    for labels in (np.zeros((3,)), np.zeros((3, 2))):
        with pytest.raises(ValueError, match=r"do not fit 3 labels .* give 0 or 1 for each"):
            kinds.truth(labels, np.zeros((3, 3)), "sigmoid")
