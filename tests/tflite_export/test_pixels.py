"""An integer input takes raw pixels: what stands in front of the network must not change that."""

import keras
import pytest

import tflite_export as te
from tflite_export import flatbuffer, quantize
from tflite_export.convert import Pixels, convert
from tflite_export.normalization import Normalization

HALF = (127.5, 127.5)
CHANNELS = ([123.7, 116.3, 103.5], [58.4, 57.1, 57.4])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "student.tflite"


def network(*front):
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((12, 12, 3), name="image"),
            *front,
            keras.layers.Conv2D(8, 3, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(10),
        ]
    )


@pytest.mark.parametrize("normalization", [HALF, (0, 255), CHANNELS], ids=str)
@pytest.mark.parametrize(
    "front",
    [
        (),
        (keras.layers.Rescaling(5.0, -1.0),),
        (keras.layers.Rescaling([0.05, 2.0, 1.0], [0.0, 1.0, -3.0]),),
        (keras.layers.Normalization(mean=0.4, variance=0.04),),
        (keras.layers.Normalization(mean=[0.4, 0.5, 0.6], variance=[0.04, 0.05, 0.06]),),
        (keras.layers.Rescaling(20.0), keras.layers.ReLU(6.0)),
    ],
    ids=["nothing", "scalar", "channels", "one mean", "means", "relu"],
)
def test_the_network_may_begin_with_preprocessing(photos, path, normalization, front):
    """The converter folds it into the convolution that normalises: another range comes out."""
    model = network(*front)
    data = Normalization.parse(normalization).apply(photos[0])
    exported = te.export(model, path, "int8", data, "uint8", normalization=normalization)
    assert te.verify(model, exported, data).snr_db > 30


def test_the_range_is_that_of_all_pixels_whatever_the_photos_span(photos, path):
    """5 · (p / 127.5 - 1) - 1 of 0..255 is -6..4, and half a step more at each end."""
    normal = {"image": Normalization.parse(HALF)}
    content = convert(
        network(keras.layers.Rescaling(5.0, -1.0)), pixels={"image": Pixels(normal["image"])}
    ).content
    ranges = quantize.pixel_ranges(content, normal)
    assert ranges.pop("image") == (0.0, 255.0)
    (ends,) = ranges.values()
    assert ends == pytest.approx((-6 - 10 / 508, 4 + 10 / 508), rel=1e-5)


@pytest.mark.parametrize("normalization", [HALF, (128, 128)])
def test_an_integer_file_is_as_good_as_int8_can_be(net, photos, path, normalization):
    """All ranges behind the input are measured on the pixels that the file will see."""
    data = Normalization.parse(normalization).apply(photos[0])
    exported = te.export(net, path, "int8", data, "uint8", normalization=normalization)
    te.verify(net, exported, data).raise_if_worse(agreement=0.95, snr_db=30)


def test_an_open_batch(net, examples, photos, path):
    exported = te.export(net, path, "int8", examples, "uint8", normalization=HALF, batch_size=None)
    assert exported.inputs[0].shape == (None, 12, 12, 3)
    te.verify(net, exported, examples).raise_if_worse(agreement=0.95, snr_db=30)


@pytest.mark.parametrize("edge", ["uint8", "float32"])
@pytest.mark.parametrize("form", ["uint8", "float32"])
def test_raw_pixels_are_no_representative_dataset(net, photos, path, edge, form):
    with pytest.raises(ValueError, match=r"spans 0\.\.255 .* -1\.\.1: are these raw pixels\?"):
        te.export(net, path, "int8", photos[0].astype(form), edge, normalization=HALF)
    assert not path.exists()


def test_a_hair_outside_the_range_is_no_matter(net, examples, path):
    te.export(net, path, "int8", examples * 1.005, "uint8", normalization=HALF)
    assert path.exists()


def test_zeros_have_no_range(net, examples, path):
    with pytest.raises(ValueError, match="nothing but zeros for input 'image'"):
        te.export(net, path, "int8", examples * 0)


@pytest.mark.parametrize("recipe", [None, "float16", "dynamic_int8"])
@pytest.mark.parametrize("shape", [(5,), (8, 8, 4)])
def test_an_integer_input_is_never_left_out_in_silence(path, rng, recipe, shape):
    model = keras.Sequential([keras.Input(shape, name="x"), keras.layers.Dense(3)])
    with pytest.raises(ValueError, match=r"input 'x' would stay float32.*quantization='int8'"):
        te.export(model, path, recipe, inference_input_type="uint8")
    data = rng.normal(size=(20, *shape)).astype("float32")
    assert te.export(model, path, "int8", data, "uint8").inputs[0].dtype == "uint8"
    normal = te.export(model, path, recipe, None, "uint8", normalization=(0, 255))
    assert normal.inputs[0].dtype == "uint8"


def test_an_input_that_nothing_reads_cannot_become_integer(path, rng):
    used, unused = keras.Input((4,), name="used"), keras.Input((3,), name="unused")
    model = keras.Model([unused, used], keras.layers.Dense(2)(used))
    data = {n: rng.normal(size=(20, s)).astype("float32") for n, s in (("used", 4), ("unused", 3))}
    with pytest.raises(ValueError, match=r"leaves the inputs \['unused'\] in float32"):
        te.export(model, path, "int8", data, "uint8")
    types = {o.input_types[0] for o in flatbuffer.operators(flatbuffer.read(
        te.export(model, path, "int8", data).path.read_bytes()))}  # fmt: skip
    assert "int8" in types


def test_what_looks_like_a_picture_and_is_none(rng, tmp_path):
    """A spectrogram in decibels: its integers have the steps that were measured."""
    inputs = keras.Input((12, 12, 1), name="decibels")
    model = keras.Model(inputs, keras.layers.Conv2D(2, 3, name="heard")(inputs))
    x = rng.uniform(-80, 20, (40, 12, 12, 1)).astype("float32")
    with pytest.raises(ValueError, match="normalization='measured' if it is no picture"):
        te.export(model, tmp_path / "s.tflite", "int8", x, inference_input_type="int8")
    exported = te.export(model, tmp_path / "s.tflite", "int8", x, "int8", normalization="measured")
    scale, zero = exported.inputs[0].quantization
    assert scale == pytest.approx(100 / 255, rel=0.02)
    assert (-128 - zero) * scale == pytest.approx(-80, abs=1)
    (compared,) = te.verify(model, exported, x).outputs.values()
    assert compared.snr_db > 30
    with pytest.raises(ValueError, match="does not read"):
        te.export(model, tmp_path / "s.tflite", None, None, "int8", normalization="measured")
