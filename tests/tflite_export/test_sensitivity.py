"""Layers are ranked by what their rounding does, and keeping the worst in floats helps."""

import re

import keras
import numpy as np
import pytest

import tflite_export as te

KINDS = ["batch_normalization", "conv2d", "re_lu"]


@pytest.fixture(scope="module")
def spoiled(net):
    """`net` with a convolution whose two channels differ by 300: 8 bits for both leave one nothing."""
    image = keras.Input(net.input_shape[1:])
    wide = keras.layers.Dense(2, name="wide", use_bias=False)(
        keras.layers.GlobalAveragePooling2D()(image)
    )
    back = keras.layers.Dense(3, name="back", use_bias=False)(wide)
    model = keras.Model(image, keras.layers.Add(name="sum")([net(image), back]))
    model.get_layer("wide").set_weights([np.array([[300.0, 1.0], [0.0, 1.0], [0.0, -1.0]])])
    model.get_layer("back").set_weights([np.array([[0.01, 0, -0.01], [3.0, -3.0, 2.0]])])
    return model


def test_the_layer_that_was_spoiled_is_the_worst(spoiled, examples):
    found = te.sensitivity(spoiled, examples)
    assert found[0].layers == ("wide",)
    assert [one.snr_db for one in found] == sorted(one.snr_db for one in found)
    assert found.together < found[0].snr_db + 0.5  # all errors are more than one
    assert "wide" in str(found)


def test_operators_are_the_layers_that_the_file_makes_one_of(spoiled, examples):
    names = [set(one.layers) for one in te.sensitivity(spoiled, examples, num_examples=8)]
    assert any(
        [re.sub(r"_\d+$", "", n.split("/")[-1]) for n in sorted(one)] == KINDS for one in names
    )


def test_keeping_the_worst_in_floats_helps_with_the_one_that_reads_it(spoiled, examples, tmp_path):
    worst = te.sensitivity(spoiled, examples).worst(1)
    wanted = spoiled.predict(examples, verbose=0)
    errors = []
    for keep in ([], worst, [*worst, "back"]):
        file = te.export(spoiled, tmp_path / "s.tflite", "int8", examples, keep_float=keep).path
        errors.append(np.mean((te.load(file).run(examples) - wanted) ** 2))
    assert errors[2] < 0.1 * errors[1]


def test_one_alone_is_rounding_that_one_alone(net, examples):
    """Against a model in which all other layers are kept in floats."""
    found = {one.layers: one for one in te.sensitivity(net, examples)}
    (first,) = (one for layers, one in found.items() if "logits" in layers)
    others = [layer.name for layer in net.layers if layer.weights and layer.name != "logits"]
    alone = te.quantize_aware(net, examples, keep_float=others)
    floats = net.predict(examples, verbose=0)
    error = alone.predict(examples, verbose=0) - floats
    # What is kept in floats gives its readers rounded inputs: here the pooled features too.
    snr = 10 * np.log10(np.sum(floats**2) / np.sum(error**2))
    assert snr == pytest.approx(first.snr_db, abs=6)
