"""Class names have an order, and are one line each."""

import numpy as np
import pytest

from tflite_export.class_names import class_names


@pytest.mark.parametrize("given", [["a", "b"], ("a", "b"), np.array(["a", "b"])])
def test_what_has_an_order_is_taken(given):
    assert class_names(given) == ("a", "b")
    assert class_names(None) is None


@pytest.mark.parametrize(
    "given",
    [
        {"a", "b"},
        {"a": 1, "b": 0},
        (n for n in "ab"),
        "ab",
        ["a", 1],
        ["a", ""],
        ["a", "b\nc"],
        ["\x00"],
    ],
    ids=["set", "dict", "generator", "string", "number", "empty", "two lines", "nul"],
)
def test_other_things_are_refused(given):
    with pytest.raises(ValueError, match=r"give a list of class names|one line for|rename it"):
        class_names(given)
    assert class_names(["a\nb"], one_line=False) == ("a\nb",)


def test_a_name_that_is_there_twice_is_warned_of():
    with pytest.warns(UserWarning, match=r"\['crane'\] more than once"):
        assert class_names(["crane", "bird", "crane"]) == ("crane", "bird", "crane")
