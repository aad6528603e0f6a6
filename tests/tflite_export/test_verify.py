"""`verify` finds what differs, and nothing else; figures are those of plain NumPy."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import tflite_export as te
from tflite_export.verification import Comparison


@pytest.fixture(scope="module")
def exported(net, tmp_path_factory):
    return te.export(net, tmp_path_factory.mktemp("v") / "net.tflite", labels=["red", "gr", "bl"])


def shifted(net, by):
    """`net` with `by` added to the third logit."""
    other = keras.models.clone_model(net)
    other.set_weights(net.get_weights())
    dense = other.get_layer("logits")
    dense.bias.assign(dense.bias + np.array([0, 0, by], "float32"))
    return other


def test_an_honest_file_passes(net, examples, photos, exported):
    result = te.verify(net, exported, (examples, photos[1]))
    assert result.agreement == 1.0
    assert result.max_error < 1e-4
    assert result.snr_db > 80
    assert result.examples == 64
    truth = (net.predict(examples, verbose=0).argmax(1) == photos[1]).mean()
    assert result.accuracy == result.reference_accuracy == truth
    assert result.raise_if_worse(agreement=1.0, accuracy_drop=0.0, snr_db=80) is result


def test_a_planted_difference_is_found_and_measured(net, examples, photos, exported):
    other = shifted(net, 2.0)
    want, have = other.predict(examples, verbose=0), net.predict(examples, verbose=0)
    result = te.verify(other, exported, examples, labels=photos[1])
    assert result.max_error == pytest.approx(2.0, abs=1e-4)
    assert result.mean_error == pytest.approx(2 / 3, abs=1e-4)
    assert result.agreement == (want.argmax(1) == have.argmax(1)).mean()
    assert result.reference_accuracy == (want.argmax(1) == photos[1]).mean()
    assert result.accuracy == (have.argmax(1) == photos[1]).mean()
    power = 10 * math.log10((want**2).sum() / ((want - have) ** 2).sum())
    assert result.snr_db == pytest.approx(power, abs=0.01)
    for name, number in (("red", 0), ("gr", 1), ("bl", 2)):
        rows = photos[1] == number
        ours, theirs = ((a[rows].argmax(1) == number).mean() for a in (want, have))
        assert result.per_class[name] == (ours, theirs, rows.sum())
    with pytest.raises(te.VerificationError, match=r"max error is 2, asked for at most 1"):
        result.raise_if_worse(agreement=None, max_error=1)
    with pytest.raises(te.VerificationError, match="SNR"):
        result.raise_if_worse(agreement=None, snr_db=60)


@pytest.mark.parametrize("form", ["batches", "pairs", "one-hot", "list", "tensors", "weights"])
def test_all_forms_of_data_give_the_same_figures(net, examples, photos, exported, form):
    x, y = examples, photos[1]
    whole = tf.data.Dataset.from_tensor_slices((x, y)).batch(10)
    data = {
        "batches": (whole.map(lambda x, y: x), y),
        "pairs": (whole, None),
        "one-hot": ((x, np.eye(3)[y]), None),
        "list": ([(x[:40], y[:40]), (x[40:], y[40:])], None),
        "tensors": ((tf.constant(x), tf.constant(y)), None),
        "weights": (whole.map(lambda x, y: (x, y, tf.ones_like(y))), None),
    }[form]
    result = te.verify(shifted(net, 2.0), exported, data[0], data[1])
    plain = te.verify(shifted(net, 2.0), exported, (x, y))
    assert result.examples == 64
    assert result.per_class == plain.per_class
    assert result.agreement == plain.agreement


def test_max_examples(net, examples, photos, exported):
    assert te.verify(net, exported, (examples, photos[1]), max_examples=37).examples == 37


@pytest.mark.parametrize("kind", ["uint8", "int8"])
@pytest.mark.parametrize("normalization", [(127.5, 127.5), (128, 128)])
@pytest.mark.parametrize("recipe", [None, "int8"])
def test_model_data_reach_a_file_of_pixels_as_pixels(
    net, examples, photos, tmp_path, kind, normalization, recipe
):
    """verify on the model's data is running the file on the photos themselves."""
    exported = te.export(
        net, tmp_path / "p.tflite", recipe, examples, kind, normalization=normalization
    )
    pixels = photos[0]
    data = ((pixels.astype("float32") - normalization[0]) / normalization[1]).astype("float32")
    given = pixels if kind == "uint8" else (pixels.astype("int16") - 128).astype("int8")
    error = np.abs(te.load(exported).run(given) - net.predict(data, verbose=0))
    result = te.verify(net, exported.path, data)
    assert result.max_error == pytest.approx(error.max(), rel=1e-3, abs=1e-5)
    assert result.agreement >= 0.95


def test_two_files_from_anywhere(net, examples, tmp_path):
    """Files of the plain TensorFlow converter: other names, int8 at the edges, no metadata."""
    converter = tf.lite.TFLiteConverter.from_keras_model(net)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([x[None]] for x in examples)
    converter.inference_input_type = converter.inference_output_type = tf.int8
    theirs = tmp_path / "theirs.tflite"
    theirs.write_bytes(converter.convert())
    ours = te.export(net, tmp_path / "ours.tflite")
    result = te.verify(ours.path, theirs, examples)
    assert result.agreement >= 0.95
    assert 15 < result.snr_db < 60
    assert te.verify(theirs, theirs, examples).snr_db == math.inf


def test_several_outputs_and_plain_numbers(tmp_path, rng):
    x = keras.Input((4,), name="x")
    model = keras.Model(
        x, [keras.layers.Dense(1, name="price")(x), keras.layers.Dense(3, name="kind")(x)]
    )
    exported = te.export(model, tmp_path / "m.tflite")
    data = rng.normal(size=(20, 4)).astype("float32")
    kinds = model.predict(data, verbose=0)[1].argmax(1)
    result = te.verify(model, exported, data)
    assert list(result.outputs) == ["price", "kind"]
    assert result.agreement is None
    assert result.max_error < 1e-5
    with pytest.raises(ValueError, match="no classes to agree on"):
        result.raise_if_worse()
    result.raise_if_worse(agreement=None, snr_db=80)
    named = te.verify(model, exported, [(data, {"kind": kinds})], output="kind")
    assert named.agreement == named.accuracy == 1.0
    with pytest.raises(ValueError, match=r"\['price', 'kind'\]"):
        te.verify(model, exported, data, output="nothing")


def test_one_yes_or_no_unit_has_answers_above_a_threshold():
    comparison = Comparison("p", threshold=0.5)
    want, have = np.array([[0.9], [0.2], [0.6], [0.4]]), np.array([[0.8], [0.7], [0.55], [0.1]])
    comparison.add(want, have, np.array([1, 0, 1, 1]))
    assert comparison.agreement == 0.75
    assert comparison.reference_accuracy == 0.75
    assert comparison.accuracy == 0.5


def test_segmentation_counts_each_pixel():
    want = np.eye(3)[np.array([[[0, 1], [2, 2]]])]
    have = np.eye(3)[np.array([[[0, 1], [2, 0]]])]
    comparison = Comparison("mask")
    comparison.add(want, have, np.array([[[0, 1], [2, 1]]]))
    assert comparison.agreement == 0.75
    assert comparison.accuracy == 0.75
    assert comparison.per_class[1] == (0.5, 0.5, 2)


def test_nan_never_agrees():
    comparison = Comparison("x")
    nan = np.array([[np.nan, 1.0], [1.0, 0.0]])
    comparison.add(np.array([[1.0, 0.0], [1.0, 0.0]]), nan, None)
    comparison.add(np.array([[1.0, 0.0]]), np.array([[1.0, 0.0]]), None)
    assert comparison.agreement == pytest.approx(2 / 3)
    assert math.isnan(comparison.max_error)
    result = te.Verification(2, {"x": comparison}, "x")
    with pytest.raises(te.VerificationError, match="max error is nan"):
        result.raise_if_worse(agreement=None, max_error=1e9)


@pytest.mark.parametrize("threshold", [None, 0.5])
def test_nan_does_not_agree_with_nan(threshold):
    comparison = Comparison("x", threshold)
    nan = np.full((4, 3 if threshold is None else 1), np.nan)
    comparison.add(nan, nan, None)
    assert comparison.agreement == 0.0
    result = te.Verification(4, {"x": comparison}, "x")
    with pytest.raises(te.VerificationError, match=r"agreement is 0, asked for at least 0\.99"):
        result.raise_if_worse()
    with pytest.raises(te.VerificationError, match="max error is nan"):
        result.raise_if_worse(agreement=None)


def test_nan_in_the_data_is_refused_where_a_relu_would_hide_it():
    inputs = keras.Input((4,), name="x")
    model = keras.Model(inputs, keras.layers.ReLU()(inputs))
    data = np.ones((9, 4), "float32")
    data[7, 1] = np.nan
    with pytest.raises(ValueError, match="The data hold NaN in example 7: leave it out"):
        te.verify(model, model, data, batch_size=4)
    with pytest.raises(ValueError, match="NaN in example 7"):
        te.verify(model, model, [({"x": data[:4]}, None), ({"x": data[4:]}, None)])
    assert te.verify(model, model, data, batch_size=4, max_examples=7).examples == 7


def test_equal_infinities_are_no_error():
    comparison = Comparison("x")
    want = np.array([[-np.inf, 2.0], [1.0, 0.0]])
    comparison.add(want, np.array([[-np.inf, 2.1], [1.0, 0.0]]), None)
    assert comparison.max_error == pytest.approx(0.1)
    assert comparison.snr_db == pytest.approx(10 * math.log10(5 / 0.01))


def test_bounds_hold_for_every_output():
    good, bad = Comparison("good"), Comparison("bad")
    good.add(np.eye(4), np.eye(4), None)
    bad.add(np.eye(4), np.eye(4)[[0, 1, 3, 2]], None)
    result = te.Verification(4, {"good": good, "bad": bad}, "good")
    with pytest.raises(te.VerificationError, match=r"^Output 'bad' .*agreement is 0\.5"):
        result.raise_if_worse()
    with pytest.raises(te.VerificationError, match=r"^Output 'bad' .*SNR in dB is 0"):
        result.raise_if_worse(agreement=0.5, snr_db=20)
    result.raise_if_worse(agreement=0.5, max_error=0)  # of the headline output


def test_integers_for_a_float_model_are_values_and_no_steps(rng, tmp_path):
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    bits = rng.integers(0, 2, (100, 6))
    exported = te.export(model, tmp_path / "b.tflite", "int8", bits, "uint8")
    whole = te.export(model, tmp_path / "f.tflite")
    for reference in (model, whole):
        for kind in ("int64", "uint8", "int8", "bool"):
            result = te.verify(reference, exported, bits.astype(kind))
            assert result.snr_db == te.verify(reference, exported, bits.astype("float32")).snr_db
            assert result.snr_db > 30


def test_what_cannot_be_compared_is_said(net, examples, photos, exported):
    with pytest.raises(ValueError, match="no examples"):
        te.verify(net, exported, examples[:0])
    y = photos[1]
    for labels, sentence in (
        (y[:10], "10 labels were given, and there are more"),
        (np.r_[y, y], "128 labels were given, and 64 examples"),
        (y + 1, r"classes 0\.\.2, and the labels go from 1 to 3"),
        (y - 1, r"go from -1 to 1"),
        (y + 0.5, "whole numbers"),
        (y.astype(str), "not numbers"),
    ):
        with pytest.raises(ValueError, match=sentence):
            te.verify(net, exported, examples, labels=labels)
    for data, sentence in (
        ((examples, y[:10]), "10 labels were given, and 64 examples"),
        ((examples, {"kind": y}), r"\['kind'\]; the outputs are \['logits'\]"),
        ([examples, y], r"tuple \(x, y\)"),
        (examples[0], r"takes \(examples, 12, 12, 3\).*x\[None\]"),
        (examples[:, :8], r"takes \(examples, 12, 12, 3\).*\(64, 8, 12, 3\)"),
        ({"photo": examples}, r"\['photo'\].*\['image'\]"),
        (7, "int"),
    ):
        for reference in (net, exported) if isinstance(data, np.ndarray) else (net,):
            with pytest.raises(ValueError, match=sentence.split(".*x")[0]):
                te.verify(reference, exported, data)
    assert te.verify(net, exported, examples, labels=np.r_[y, y], max_examples=9).examples == 9
    with pytest.raises(ValueError, match="one-hot"):
        te.verify(net, exported, (examples, np.zeros((64, 2))))


def test_what_keras_says_of_data_that_it_does_not_take(tmp_path):
    class Model(keras.Model):
        def call(self, x):
            return keras.ops.matmul(x, keras.ops.ones((6, 2)))

    model = Model(name="mine")
    model(np.zeros((1, 6), "float32"))
    exported = te.export(model, tmp_path / "m.tflite")
    with pytest.raises(ValueError, match=r"^'mine' does not take .*\(4, 5\)") as raised:
        te.verify(model, exported, np.zeros((4, 5), "float32"))
    assert "\n" not in str(raised.value)
    assert "Exception" not in str(raised.value)
    two = [keras.Input((3,), name=n) for n in ("b", "a")]
    several = keras.Model(two, keras.layers.Add()(two))
    with pytest.raises(ValueError, match=r"\['b', 'a'\], and one array was given"):
        te.verify(several, exported, np.zeros((4, 3), "float32"))


def test_the_text_says_what_a_reader_asks_first(net, examples, photos, exported):
    text = str(te.verify(net, exported, (examples, photos[1])))
    assert text.startswith("64 examples\nlogits: agreement 100.00%")
    assert "reference" in text
    assert "gr " in text
