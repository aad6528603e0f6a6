"""Files that were cut off or changed are refused in one sentence; native code never sees them."""

import re

import keras
import numpy as np
import pytest

import tflite_export as te
from tflite_export import flatbuffer
from tflite_export.runtime import load

LABELS = ["a", "b", "c"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A float file and an integer one of a very small network, with labels; all names are given, so
    that the files, and what is done to them, are the same in every run."""
    keras.utils.set_random_seed(1)
    net = keras.Sequential(
        [
            keras.Input((8, 8, 3), name="image"),
            keras.layers.Conv2D(4, 3, activation="relu", name="conv"),
            keras.layers.GlobalAveragePooling2D(name="pool"),
            keras.layers.Dense(3, name="logits"),
        ],
        name="net",
    )
    folder = tmp_path_factory.mktemp("files")
    x = np.random.default_rng(0).uniform(-1, 1, (30, 8, 8, 3)).astype("float32")
    told = {"labels": LABELS, "normalization": (127.5, 127.5)}
    return {
        "float": te.export(net, folder / "float.tflite", **told),
        "int8": te.export(net, folder / "int8.tflite", "int8", x, "uint8", **told),
        "net": net,
        "x": x,
    }


@pytest.mark.parametrize("kind", ["float", "int8"])
def test_a_file_cut_off_at_any_byte_is_refused(files, kind):
    """A crash would end this process. The last bytes are the labels: without them it would run."""
    whole = files[kind].path.read_bytes()
    for length in range(len(whole)):
        for reader in (load, te.read_metadata):
            with pytest.raises(ValueError, match=r"^this file (is|names) .*"):
                reader(whole[:length])


def test_all_readers_name_a_file_that_is_cut_off(files, tmp_path):
    path, whole = tmp_path / "half.tflite", files["int8"].path.read_bytes()
    readers = (
        load,
        te.read_metadata,
        te.benchmark,
        lambda file: te.verify(files["net"], file, files["x"]),
    )
    for length in (0, 3, 15, 1000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        for reader in readers:
            with pytest.raises(ValueError, match=re.escape(str(path))) as refused:
                reader(path)
            assert "\n" not in str(refused.value)


@pytest.mark.parametrize("damage", ["bits", "numbers", "lost"])
@pytest.mark.parametrize("kind", ["float", "int8"])
def test_a_file_that_was_changed_runs_or_is_refused(files, kind, damage):
    whole = files[kind].path.read_bytes()
    refused = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        broken = bytearray(whole)
        place = int(rng.integers(0, len(whole) // 4)) * 4
        if damage == "bits":
            for bit in rng.integers(0, 8 * len(whole), 4):
                broken[bit // 8] ^= 1 << bit % 8
        elif damage == "numbers":
            number = int(rng.choice([0, 1, 255, 65536, 2**31 - 1, -1, -(2**31)]))
            broken[place : place + 4] = number.to_bytes(4, "little", signed=True)
        else:
            del broken[place : place + int(rng.integers(1, 9))]
        try:
            load(bytes(broken)).run(files["x"][:1])
        except ValueError:
            refused += 1
    assert refused > (140 if damage == "lost" else 20)


def rewritten(file, change):
    tree = flatbuffer.read(file.path.read_bytes())
    change(tree, tree.subgraphs[0])
    return flatbuffer.write(tree)


def without_weights(tree, graph):
    """litert crashed on it, once in two runs."""
    graph.operators[-1].inputs = [graph.operators[-1].inputs[0], -1, -1]


def without_values(tree, graph):
    tree.buffers[graph.tensors[graph.operators[0].inputs[1]].buffer].data = None


def backwards(tree, graph):
    graph.operators = graph.operators[::-1]


def too_short(tree, graph):
    buffer = tree.buffers[graph.tensors[graph.operators[0].inputs[1]].buffer]
    buffer.data = buffer.data[:-1]


@pytest.mark.parametrize("scale", [0.0, 9e-41])
def test_a_scale_that_crashes_xnnpack_is_found(files, scale):
    def change(tree, graph):
        graph.tensors[graph.operators[0].outputs[0]].quantization.scale = np.array(
            [scale], "float32"
        )

    with pytest.raises(ValueError, match=r"a scale of (0\.0|8.*e-41) for int8"):
        load(rewritten(files["int8"], change))


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("zeroPoint", 10**9, "a zero point that int8 does not have"),
        ("zeroPoint", -(10**9), "a zero point that int8 does not have"),
        ("scale", np.inf, "a scale of inf"),
        ("scale", np.nan, "a scale of nan"),
        ("scale", -1.0, "a scale of -1.0"),
        ("quantizedDimension", 1, r"3 scales for the shape \[1, 1, 1, 3\]"),
        ("quantizedDimension", 9, r"3 scales for the shape \[1, 1, 1, 3\]"),
    ],
)
def test_numbers_of_a_quantisation_that_cannot_be_are_found(files, field, value, sentence):
    def change(tree, graph):
        convolution = next(o for o in graph.operators if len(o.inputs) == 3)
        quantization = graph.tensors[convolution.inputs[1]].quantization
        if field == "quantizedDimension":
            quantization.quantizedDimension = value
        else:
            numbers = np.array(getattr(quantization, field))
            numbers[-1] = value
            setattr(quantization, field, numbers)

    with pytest.raises(ValueError, match=sentence):
        load(rewritten(files["int8"], change))


def test_a_signature_that_names_no_tensor_is_found(files):
    def change(tree, graph):
        tree.signatureDefs[0].outputs[0].tensorIndex = 999

    with pytest.raises(ValueError, match="signature tensor 999 of"):
        load(rewritten(files["float"], change))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (without_weights, "FULLY_CONNECTED without operand 1"),
        (without_values, r"CONV_2D reads tensor \d+ before it has a value"),
        (backwards, r"FULLY_CONNECTED reads tensor \d+ before it has a value"),
        (too_short, r"a tensor of 432 bytes in a buffer of 431"),
    ],
)
def test_what_native_code_would_stumble_over_is_found(files, change, sentence):
    with pytest.raises(ValueError, match=rf"damaged TFLite file \({sentence}\)"):
        load(rewritten(files["float"], change))


def test_a_damaged_file_is_named(tmp_path, files):
    path = tmp_path / "half.tflite"
    path.write_bytes(files["int8"].path.read_bytes()[:3000])
    with pytest.raises(ValueError, match=r"half\.tflite is a damaged TFLite file"):
        load(path)
    path.write_bytes(b"<html>404</html>")
    with pytest.raises(ValueError, match=r"half\.tflite is not a TFLite file"):
        load(path)


def resized(place, shape, result=False):
    """The tensor that operator `place` writes, or reads as its second operand, with another shape."""

    def change(tree, graph):
        operator = graph.operators[place]
        index = operator.outputs[0] if result else operator.inputs[1]
        graph.tensors[index].shape = np.array(shape, "int32")

    return change


def without_bias_values(tree, graph):
    bias = graph.tensors[graph.operators[0].inputs[2]]
    bias.shape = np.array([3], "int32")


def standing_still(tree, graph):
    graph.operators[0].builtinOptions.strideH = 0


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (resized(0, [1, 6, 2**27, 4], result=True), "a tensor of shape .* 2 GiB and more"),
        (
            resized(0, [1, 6, 2**20, 4], result=True),
            r"CONV_2D writes .* operands make \[1, 6, 6, 4\]",
        ),
        (resized(0, [4, 3, 3, 1]), "CONV_2D writes|a convolution of|buffer"),
        (resized(-1, [1, 12]), "a dense layer from"),
        (without_bias_values, "3 biases for 4 channels"),
        (standing_still, "a window of 3 in steps of 0"),
    ],
)
def test_shapes_that_the_operands_do_not_make_are_found(files, change, sentence):
    """A delegate reserves what the file states: gigabytes, for a bit that flipped."""
    with pytest.raises(ValueError, match=sentence):
        load(rewritten(files["float"], change))


@pytest.mark.parametrize("step", [1e-30, 1e34])
def test_steps_of_a_sum_that_end_the_process_are_found(step):
    x = keras.Input((4, 4, 2), name="x")
    model = keras.Model(x, keras.layers.Add(name="sum")([x, keras.layers.ReLU(name="r")(x)]))
    quantized = te.quantize.quantize(
        te.convert.convert(model, for_integers=True).content,
        "int8",
        [{"x": np.linspace(-1, 1, 32, dtype="float32").reshape(1, 4, 4, 2)}],
    )
    tree = flatbuffer.read(quantized)
    add = next(o for o in tree.subgraphs[0].operators if len(o.inputs) == 2)
    tree.subgraphs[0].tensors[add.outputs[0]].quantization.scale = np.array([step], "float32")
    with pytest.raises(ValueError, match="ADD of steps of"):
        flatbuffer.read(flatbuffer.write(tree))


def test_a_small_file_does_not_unfold_to_a_large_one(files):
    """One tensor that the file lists ten thousand times, with a name of its whole length."""
    tree = flatbuffer.read(files["float"].path.read_bytes())
    whole = flatbuffer.write(tree)
    model = flatbuffer.schema.Model.GetRootAs(whole, 0)
    graph = model.Subgraphs(0)
    start = graph._tab.Vector(graph._tab.Offset(4))
    broken = bytearray(whole)
    broken[start - 4 : start] = (2**24).to_bytes(4, "little")
    with pytest.raises(ValueError, match="it refers to more than it holds"):
        flatbuffer.read(bytes(broken))
