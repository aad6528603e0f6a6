"""`export`: names, shapes, types, pixels, and nothing written when something is wrong."""

import keras
import numpy as np
import pytest

import tflite_export as te
from tflite_export import flatbuffer
from tflite_export.normalization import Normalization

HALF = (127.5, 127.5)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "student.tflite"


def test_the_result_describes_the_file(net, path):
    exported = te.export(net, path)
    assert exported.path == path
    assert exported.size_bytes == path.stat().st_size
    assert exported.inputs == (te.TensorInfo("image", (1, 12, 12, 3), "float32"),)
    assert exported.outputs == (te.TensorInfo("logits", (1, 3), "float32"),)
    assert exported.quantization is None


@pytest.mark.parametrize(
    ("recipe", "decibels", "share_of_float_size"),
    [("float16", 55, 0.95), ("dynamic_int8", 25, 0.95), ("int8", 25, 0.95)],
)
def test_each_recipe_answers_like_the_model(
    net, examples, path, recipe, decibels, share_of_float_size
):
    exported = te.export(net, path, recipe, examples)
    assert exported.outputs[0].dtype == "float32"
    te.verify(net, exported, examples).raise_if_worse(agreement=0.95, snr_db=decibels)


def test_int8_means_that_every_operator_between_the_edges_is_int8(net, examples, path):
    te.export(net, path, "int8", examples, "uint8", normalization=HALF)
    inner = [
        (o.name, o.input_types[0], o.output_types[0])
        for o in flatbuffer.operators(flatbuffer.read(path.read_bytes()))
    ]
    assert inner[0] == ("QUANTIZE", "uint8", "int8")
    assert inner[-1] == ("DEQUANTIZE", "int8", "float32")
    assert {types for _, *types in inner[1:-1] for types in [tuple(types)]} == {("int8", "int8")}


def probe():
    """A model whose output is its input, through one operator that the quantiser knows."""
    image = keras.Input((4, 4, 3), name="image")
    pooled = keras.layers.AveragePooling2D(1)(image)
    return keras.Model(image, keras.layers.Reshape((48,), name="values")(pooled))


def every_pixel():
    """All 256 values, in every channel: (16, 4, 4, 3)."""
    return np.arange(256, dtype="uint8").reshape(16, 4, 4, 1).repeat(3, -1)


@pytest.mark.parametrize("kind", ["uint8", "int8"])
@pytest.mark.parametrize(
    "normalization",
    [HALF, (128, 128), (0, 255), (0, 1), ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])],
)
@pytest.mark.parametrize("span", [(0, 255), (50, 200)])
def test_a_pixel_means_exactly_its_normalised_value(path, kind, normalization, span):
    """Also for a mean that is no whole number, and whatever the representative photos span."""
    normal = Normalization.parse(normalization)
    seen = normal.apply(np.random.default_rng(0).uniform(*span, (40, 4, 4, 3)))
    exported = te.export(
        probe(), path, "int8", seen, kind, normalization=normalization,
        inference_output_type="int8",
    )  # fmt: skip
    pixels = every_pixel()
    given = pixels if kind == "uint8" else (pixels.astype("int16") - 128).astype("int8")
    answers = te.load(exported).run(given).reshape(pixels.shape)
    low, high = normal.range
    step = (high - low) / 254
    error = answers - normal.apply(pixels)
    assert np.abs(error).max() <= 0.51 * step
    assert abs(error.mean()) < 0.02 * step, "rounded all one way"


def test_a_whole_mean_is_told_by_scale_and_zero_point_alone(net, examples, path):
    with pytest.warns(UserWarning, match="covers 10%"):
        exported = te.export(
            net, path, "int8", examples[:8] * 0.1, "uint8", normalization=(128, 128)
        )
    assert exported.inputs[0].zero_point == 128
    assert exported.inputs[0].scale == pytest.approx(1 / 128, rel=1e-6)


def test_photos_of_a_narrow_span_change_nothing_about_pixels(net, examples, photos, path):
    narrow = examples * 0.5
    with pytest.warns(UserWarning, match=r"spans -0\.5\.\.0\.5 .* leads to -1\.\.1: it covers 50%"):
        exported = te.export(net, path, "int8", narrow, "uint8", normalization=HALF)
    assert exported.inputs[0].quantization == (1.0, 0)
    raw = te.load(exported).run(photos[0])
    through_verify = te.verify(net, exported, examples)
    assert np.abs(raw - net.predict(examples, verbose=0)).max() == pytest.approx(
        through_verify.max_error, rel=1e-5
    )


@pytest.mark.parametrize(("recipe", "tolerance"), [(None, 1e-5), ("float16", 1e-2)])
def test_pixels_into_a_float_graph_are_exact(net, examples, photos, path, recipe, tolerance):
    whole = te.export(net, path, recipe)
    floats = te.load(whole).run(examples)
    pixels = te.export(net, path, recipe, None, "uint8", normalization=HALF)
    assert pixels.inputs[0].dtype == "uint8"
    np.testing.assert_allclose(te.load(pixels).run(photos[0]), floats, atol=tolerance)


def test_pixels_without_a_normalisation_are_refused(net, examples, path):
    with pytest.raises(ValueError, match=r"normalization=\(mean, std\)"):
        te.export(net, path, "int8", examples, "uint8")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"quantization": "int7"}, "'float16', 'dynamic_int8', 'int8'"),
        ({"inference_input_type": "uint16"}, "'float32', 'uint8', 'int8'"),
        ({"inference_output_type": "uint8"}, "needs quantization='int8'"),
        ({"quantization": "int8"}, "pass representative_dataset="),
        ({"labels": ["a", "b"]}, "2 labels"),
        ({"labels": ["a", "b\nc", "d"]}, "line break"),
        ({"normalization": 3}, r"\(mean, std\)"),
        ({"normalization": (0, 0)}, "std is above 0"),
        (
            {"normalization": (1e30, 1)},
            r"takes pixels 0\.\.255 to \[-1\.e\+30\]\.\.\[-1\.e\+30\] in float32",
        ),
        ({"normalization": (0, 1e-40)}, r"takes pixels 0\.\.255 to .*inf"),
        ({"normalization": ([1, 2], [1, 2])}, "3 channels"),
        ({"normalization": {"photo": HALF}}, "'photo'"),
        ({"batch_size": 0}, "1 or more"),
    ],
)
def test_what_is_wrong_is_said_and_the_earlier_file_stays(net, path, arguments, sentence):
    path.write_bytes(b"earlier")
    with pytest.raises(ValueError, match=sentence):
        te.export(net, path, **arguments)
    assert path.read_bytes() == b"earlier"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("layer", ["LSTM", "GRU", "SimpleRNN"])
def test_what_the_quantiser_cannot_do_is_not_called_a_damaged_file(path, rng, layer):
    recurrent = getattr(keras.layers, layer)(8, name="memory")
    model = keras.Sequential([keras.Input((10, 6)), recurrent, keras.layers.Dense(3)])
    data = rng.normal(size=(20, 10, 6)).astype("float32")
    with pytest.raises(te.ConversionError, match=r"\['memory'\].*'dynamic_int8'") as raised:
        te.export(model, path, "int8", data)
    assert "damaged" not in str(raised.value)
    assert not path.exists()
    te.verify(model, te.export(model, path, "dynamic_int8"), data).raise_if_worse(0.9)


def test_the_same_model_gives_the_same_bytes(net, examples, tmp_path):
    arguments = ("int8", examples, "uint8", ["a", "b", "c"], HALF)
    first = te.export(net, tmp_path / "1.tflite", *arguments)
    second = te.export(net, tmp_path / "2.tflite", *arguments)
    assert first.path.read_bytes() == second.path.read_bytes()


def test_functions_are_not_hidden_by_modules_of_their_name():
    import tflite_export.export
    import tflite_export.verify

    assert callable(te.export)
    assert callable(te.verify)
    assert callable(tflite_export.verify)
