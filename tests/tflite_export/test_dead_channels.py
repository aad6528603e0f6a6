"""A channel without weights answers its bias, also in int8."""

import keras
import numpy as np
import pytest
from keras import layers

import tflite_export as te
from tflite_export import dead_channels, flatbuffer
from tflite_export.convert import convert

LAYERS = {
    "convolution": lambda: layers.Conv2D(4, 3),
    "depthwise": lambda: layers.DepthwiseConv2D(3),
    "transposed": lambda: layers.Conv2DTranspose(4, 3, strides=2),
    "dense": lambda: layers.Dense(4),
}


def network(layer, scale, bias):
    """The second of four channels has weights as small as `scale`."""
    inputs = keras.Input((6, 6, 4))
    made = LAYERS[layer]()
    model = keras.Model(inputs, made(inputs))
    kernel = np.array(made.kernel)
    channels = np.moveaxis(kernel, {"convolution": 3, "dense": 1}.get(layer, 2), 0)
    channels[1] *= scale
    made.kernel.assign(kernel)
    made.bias.assign([0, bias, 0.1, 0])
    return model


@pytest.mark.parametrize("scale", [0, 1e-9, 1e-5])
@pytest.mark.parametrize("layer", LAYERS)
def test_int8_keeps_the_bias_of_a_channel_without_weights(layer, scale, rng, tmp_path):
    model = network(layer, scale, bias=3.0)
    x = rng.normal(size=(16, 6, 6, 4)).astype("float32")
    exported = te.export(model, tmp_path / "m.tflite", "int8", x)
    expected = model.predict(x, verbose=0)
    found = np.concatenate([te.load(exported).run(one[None]) for one in x])
    step = np.ptp(expected) / 255
    assert np.abs(found - expected)[..., 1].max() < 1.5 * step
    assert np.abs(found - expected).max() < 4 * step


def error_in_steps(model, rng, path):
    x = rng.normal(size=(16, 6, 6, 4)).astype("float32")
    exported = te.export(model, path, "int8", x)
    expected = model.predict(x, verbose=0)
    found = np.concatenate([te.load(exported).run(one[None]) for one in x])
    return np.abs(found - expected).max() / (np.ptp(expected) / 255)


@pytest.mark.parametrize("scale", [1e-5, 1e-7])
def test_a_layer_that_is_called_twice_keeps_its_kernel_for_the_larger_input(scale, rng, tmp_path):
    inputs = keras.Input((6, 6, 4))
    small = layers.Conv2D(4, 1, kernel_initializer=keras.initializers.RandomNormal(0, scale, 0))
    twice = layers.Conv2D(4, 1)
    model = keras.Model(inputs, layers.Concatenate()([twice(small(inputs)), twice(inputs)]))
    twice.bias.assign([1, 0.5, -0.5, 0.1])
    assert error_in_steps(model, rng, tmp_path / "m.tflite") < 4


@pytest.mark.parametrize("scale", [1e-4, 1e-6])
def test_dead_kernels_that_are_equal_have_biases_of_their_own(scale, rng, tmp_path):
    inputs = keras.Input((6, 6, 4))
    small = layers.Conv2D(4, 1, kernel_initializer=keras.initializers.RandomNormal(0, scale, 0))
    first, second = (layers.Conv2D(4, 1, kernel_initializer="zeros") for _ in range(2))
    model = keras.Model(inputs, layers.Concatenate()([first(small(inputs)), second(inputs)]))
    first.bias.assign([1, 2, 3, 4])
    second.bias.assign([0.1, 0.2, 0.3, 0.4])
    assert error_in_steps(model, rng, tmp_path / "m.tflite") < 4


def test_a_tensor_that_is_always_0_does_not_keep_a_network_from_int8(rng, tmp_path):
    inputs = keras.Input((6, 6, 4))
    dead = layers.Conv2D(
        4, 1, activation="relu", bias_initializer=keras.initializers.Constant(-100)
    )
    after = layers.Conv2D(4, 1, bias_initializer="ones")
    model = keras.Model(inputs, layers.Concatenate()([after(dead(inputs)), inputs]))
    assert error_in_steps(model, rng, tmp_path / "m.tflite") < 4


def test_a_live_network_is_left_as_it_is(rng):
    content = convert(network("convolution", 1.0, bias=3.0)).content
    names = [flatbuffer.text(t.name) for t in flatbuffer.read(content).subgraphs[0].tensors]
    measured = {name: {"min": np.array([-1.0]), "max": np.array([1.0])} for name in names}
    assert dead_channels.with_room_for_biases(content, measured) is content
    nothing = {name: {"min": np.zeros(1), "max": np.zeros(1)} for name in names}
    assert dead_channels.with_room_for_biases(content, nothing) is content
