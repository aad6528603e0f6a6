"""Examples in another form than the model takes are refused, with both ranges; dark pictures are not."""

import warnings

import numpy as np
import pytest

import tflite_export as te
from tflite_export import ranges
from tflite_export.normalization import Normalization
from tflite_export.signature import ModelInput

HALF, UNIT, RAW = (127.5, 127.5), (0, 255), (0, 1)
IMAGENET = ([123.7, 116.3, 103.5], [58.4, 57.1, 57.4])


def pictures(low, high, count=24):
    """Examples that span exactly this range together."""
    values = np.random.default_rng(0).uniform(low, high, (count, 1, 4, 4, 3)).astype("float32")
    values.flat[:2] = low, high
    return [{"image": one} for one in values]


def check(examples, normalization=None, recorded=None):
    normal = {"image": Normalization.parse(normalization)} if normalization else {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ranges.check(examples, normal, {"image": recorded} if recorded else {})


@pytest.mark.parametrize(
    ("span", "normalization", "sentence"),
    [
        ((0, 255), HALF, r"spans 0\.\.255 .* -1\.\.1: are these raw pixels"),
        ((0, 255), UNIT, r"spans 0\.\.255 .* 0\.\.1: are these raw pixels"),
        ((-1, 1), UNIT, r"spans -1\.\.1 .* 0\.\.1: these were normalised in another way"),
        ((-1, 1), RAW, r"spans -1\.\.1 .* 0\.\.255: these look like pixels scaled to -1\.\.1"),
        ((0, 1), HALF, r"spans 0\.\.1 .* -1\.\.1: these look like pixels scaled to 0\.\.1"),
        ((0.04, 0.97), HALF, r"spans 0\.04\.\.0\.97 .* -1\.\.1: these look like .* 0\.\.1"),
        ((0, 1), RAW, r"spans 0\.\.1 .* 0\.\.255: these look like pixels scaled to 0\.\.1"),
        ((0, 1), IMAGENET, r"spans 0\.\.1 .* -2\.118\.\.2\.639: these look like .* 0\.\.1"),
        ((-3, 255), RAW, r"spans -3\.\.255 .* 0\.\.255: these were normalised in another way"),
        ((-1, 1), IMAGENET, r"spans -1\.\.1 .* -2\.118\.\.2\.639: these look like .* -1\.\.1"),
    ],
)
def test_pixels_in_another_form_are_refused(span, normalization, sentence):
    for count in (2, 24):
        with pytest.raises(ValueError, match=sentence):
            check(pictures(*span, count), normalization)


@pytest.mark.parametrize("normalization", [HALF, UNIT, RAW, IMAGENET], ids=str)
@pytest.mark.parametrize("pixels", [(0, 255), (3, 240), (0, 150), (110, 255)], ids=str)
def test_pixels_in_the_model_s_form_pass(normalization, pixels):
    normal = Normalization.parse(normalization)
    raw = np.random.default_rng(0).uniform(*pixels, (24, 1, 4, 4, 3))
    check([{"image": normal.apply(one)} for one in raw], normalization)


@pytest.mark.parametrize("span", [(-1, 0), (-0.9, -0.1), (0.2, 1), (-0.4, 0.4)])
def test_dark_pale_and_dull_pictures_get_a_warning_with_both_ranges(span):
    text = rf"spans {span[0]}\.\.{span[1]} .* leads to -1\.\.1: it covers \d+%"
    with pytest.raises(UserWarning, match=text):
        check(pictures(*span), HALF)


def test_pictures_as_dark_as_in_training_pass():
    check(pictures(-1, -0.2), HALF, recorded=(-1, -0.1))


def test_pixels_narrower_than_in_training_are_refused_if_they_are_many():
    examples = pictures(-1, -0.1)
    with pytest.raises(
        ValueError, match=r"spans -1\.\.-0\.1 .* distilled on -1\.\.1: it covers 45%"
    ):
        check(examples, HALF, recorded=(-1, 1))
    with pytest.raises(UserWarning, match="covers 45%"):
        check(examples[:19], HALF, recorded=(-1, 1))


def test_other_inputs_narrower_than_in_training_get_a_warning():
    with pytest.raises(UserWarning, match=r"spans 0\.\.1 .* distilled on 0\.\.4: it covers 25%"):
        check(pictures(0, 1), recorded=(0, 4))
    check(pictures(0, 3), recorded=(0, 4))


@pytest.mark.parametrize("span", [(0, 255), (-2.1, 1), (-1, 2.1)])
def test_a_range_far_outside_that_of_the_training_is_refused(span):
    text = rf"spans {span[0]}\.\.{span[1]} .* distilled on -1\.\.1\. Give"
    with pytest.raises(ValueError, match=text):
        check(pictures(*span), recorded=(-1, 1))
    check(pictures(-1.9, 1.9), recorded=(-1, 1))


def test_integers_and_constants_in_training_are_no_matter():
    ranges.check([{"tokens": np.arange(9)[None]}], {}, {"tokens": (0.0, 2.0)})
    check(pictures(0, 3), recorded=(1, 1))


def test_the_record_is_read_from_the_model_in_the_order_of_its_inputs(net, photos, tmp_path):
    inputs = [ModelInput(name, (1, 3), "float32") for name in "ba"]

    class Model:
        name = "net"
        recorded_input_ranges = ((0, 1), (np.float32(2), 3.0))

    assert ranges.recorded(Model, inputs) == {"b": (0.0, 1.0), "a": (2.0, 3.0)}
    Model.recorded_input_ranges = (None, (0.0, np.nan))
    assert ranges.recorded(Model, inputs) == {}
    Model.recorded_input_ranges = ((0, 1),)
    with pytest.raises(ValueError, match=r"'net' has 1 ranges.*\['b', 'a'\]"):
        ranges.recorded(Model, inputs)
    assert ranges.recorded(net, inputs) == {}


def test_export_compares_with_the_record(net, photos, examples, tmp_path, monkeypatch):
    monkeypatch.setattr(net, "recorded_input_ranges", ((-1.0, 1.0),), raising=False)
    with pytest.raises(ValueError, match=r"spans 0\.\.255 for input 'image', .* on -1\.\.1"):
        te.export(net, tmp_path / "x.tflite", "int8", photos[0].astype("float32"))
    assert not (tmp_path / "x.tflite").exists()
    te.export(net, tmp_path / "x.tflite", "int8", examples)
