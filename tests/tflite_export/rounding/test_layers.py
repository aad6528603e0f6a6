"""Each kind of layer: the int8 file answers as the model that rounds, step for step."""

import keras
import numpy as np
import pytest
from keras import layers as L
from keras import ops

import tflite_export as te
from tflite_export import flatbuffer
from tflite_export.convert_quantized import convert_quantized

SHAPE = (8, 8, 4)


def _steps(x):
    return L.Reshape((16, 16))(x)


def _squeeze_and_excite(x):
    y = L.Conv2D(8, 3, activation="relu")(x)
    z = L.Reshape((1, 1, 8))(L.GlobalAveragePooling2D()(y))
    z = L.Conv2D(8, 1, activation="hard_sigmoid")(L.Conv2D(4, 1, activation="relu")(z))
    return L.Multiply()([y, z])


def _attention(**how):
    def attend(x):
        y = L.Dense(8)(_steps(x))
        return L.Add()(
            [y, L.MultiHeadAttention(2, 4, kernel_initializer="orthogonal")(y, y, **how)]
        )

    return attend


def _shared(x):
    layer = L.Conv2D(4, 3, activation="relu")
    return L.Concatenate()([layer(x), layer(x * 2.0)])


def _nested(x):
    inner = keras.Sequential(
        [L.Input(SHAPE), L.Conv2D(6, 3, use_bias=False), L.BatchNormalization()]
    )
    return L.ReLU()(inner(x))


def _residual(x):
    y = L.BatchNormalization()(L.Conv2D(4, 3, padding="same", use_bias=False)(x))
    return L.ReLU(6.0)(x + y)


ALL_INTEGERS = {
    "conv, relu": lambda x: L.Conv2D(6, 3, activation="relu")(x),
    "conv, swish": lambda x: L.Conv2D(6, 3, activation="swish")(x),
    "conv, hard sigmoid": lambda x: L.Conv2D(6, 3, activation="hard_sigmoid")(x),
    "conv, gelu": lambda x: L.Conv2D(6, 3, activation="gelu")(x),
    "conv, tanh": lambda x: L.Conv2D(6, 3, activation="tanh")(x),
    "conv, batch norm, hard swish": lambda x: L.Activation("hard_silu")(
        L.BatchNormalization()(L.Conv2D(6, 3)(x))
    ),
    "leaky": lambda x: L.LeakyReLU(0.1)(L.Conv2D(6, 3)(x)),
    "prelu": lambda x: L.PReLU("uniform", shared_axes=[1, 2])(L.Conv2D(6, 3)(x)),
    "depthwise, batch norm": lambda x: L.ReLU()(L.BatchNormalization()(L.DepthwiseConv2D(3)(x))),
    "conv1d, batch norm": lambda x: L.ReLU()(L.BatchNormalization()(L.Conv1D(6, 3)(_steps(x)))),
    "depthwise 1d": lambda x: L.DepthwiseConv1D(3, activation="relu")(_steps(x)),
    "separable, batch norm": lambda x: L.ReLU()(L.BatchNormalization()(L.SeparableConv2D(6, 3)(x))),
    "separable 1d, swish": lambda x: L.SeparableConv1D(6, 3, activation="swish")(_steps(x)),
    "transposed": lambda x: L.Conv2DTranspose(6, 3, strides=2, activation="relu")(x),
    "transposed, batch norm": lambda x: L.ReLU()(
        L.BatchNormalization()(L.Conv2DTranspose(6, 3, strides=2, use_bias=False)(x))
    ),
    "dense, softmax": lambda x: L.Dense(5, activation="softmax")(L.Flatten()(x)),
    "dense, sigmoid": lambda x: L.Dense(1, activation="sigmoid")(L.Flatten()(x)),
    "dense on steps": lambda x: L.Dense(6, activation="relu")(_steps(x)),
    "einsum": lambda x: L.EinsumDense("abc,cd->abd", (None, 6), bias_axes="d")(_steps(x)),
    "batch norm first": lambda x: L.Conv2D(6, 3)(L.ReLU()(L.BatchNormalization()(x))),
    "rescaling": lambda x: L.Conv2D(6, 3)(L.Rescaling(0.3, offset=-0.5)(x)),
    "normalization": lambda x: L.Conv2D(6, 3)(
        L.Normalization(mean=[0.1, 0.2, 0.3, 0.4], variance=[1.0, 2.0, 3.0, 4.0])(x)
    ),
    "concatenation": lambda x: L.Concatenate()(
        [L.Conv2D(4, 3, activation="relu")(x), L.Conv2D(4, 3)(x) * 3]
    ),
    "maximum": lambda x: L.Maximum()([L.Conv2D(4, 3)(x), L.Conv2D(4, 3)(x)]),
    "pools": lambda x: L.AveragePooling2D(2)(L.MaxPooling2D(2)(L.ZeroPadding2D()(x))),
    "bilinear": lambda x: L.Conv2D(4, 3)(L.UpSampling2D(interpolation="bilinear")(x)),
    "squeeze and excite": _squeeze_and_excite,
    "operations": lambda x: ops.relu6(L.Conv2D(6, 3)(x) + 3.0) * (1 / 6),
    "three summands": lambda x: L.Add()([L.Conv2D(4, 3)(x) for _ in range(3)]),
    "average": lambda x: L.Average()([L.Conv2D(4, 3)(x), L.Conv2D(4, 3)(x)]),
    "attention": _attention(),
    "causal attention": _attention(use_causal_mask=True),
    "shared": _shared,
    "nested": _nested,
    "residual": _residual,
    "a mask": lambda x: L.Softmax()(L.Dense(16)(L.Flatten()(x)), mask=np.arange(16) < 8),
    "pooled twice": lambda x: (lambda p: [p(x * 0.1), p(L.Conv2D(4, 3)(x) * 20.0)])(
        L.AveragePooling2D(2)
    ),
    "an inner output": lambda x: (lambda y: [y, L.ReLU()(y)])(L.Conv2D(4, 3)(x)),
}
# Layers of which TFLite has no integer operators, or of which nothing is known.
SOME_FLOATS = {
    "elu": (lambda x: L.Conv2D(6, 3, activation="elu", name="odd")(x), {"ELU"}),
    "layer norm": (
        lambda x: L.Dense(6)(L.LayerNormalization(name="odd")(_steps(x))),
        {"RSQRT", "MUL"},
    ),
    "custom": (lambda x: L.Conv2D(4, 3)(Wave(name="odd")(L.Conv2D(4, 3)(x))), {"SIN"}),
    "lambda": (lambda x: L.Conv2D(4, 3)(L.Lambda(ops.sin, name="odd")(x)), {"SIN"}),
    "small lstm": (
        lambda x: L.LSTM(4, unroll=True, name="odd")(_steps(x) * 0.02),
        {"TANH", "LOGISTIC", "MUL"},
    ),
    "lstm": (
        lambda x: L.Dense(4)(L.LSTM(4, unroll=True, name="odd")(_steps(x))),
        {"TANH", "LOGISTIC"},
    ),
}


@keras.saving.register_keras_serializable("tests")
class Wave(L.Layer):
    def call(self, x):
        return ops.sin(x)


def build(head):
    """A network whose BatchNormalization has other factors than 1, some of them negative."""
    keras.utils.set_random_seed(1)
    image = keras.Input(SHAPE)
    model = keras.Model(image, head(image))
    rng = np.random.default_rng(2)
    for layer in model._flatten_layers():
        if isinstance(layer, L.BatchNormalization):
            gamma, beta, mean, variance = layer.get_weights()
            gamma = rng.uniform(0.5, 1.5, gamma.shape) * rng.choice([-1, 1], gamma.shape)
            layer.set_weights([gamma, beta + 0.1, mean + 0.2, variance * 1.5])
    return model


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(3).normal(size=(32, *SHAPE)).astype("float32")


def _compare(model, x):
    """Shares of answers within so many steps, decibels, and the operators on floats."""
    aware = te.quantize_aware(model, x)
    content = convert_quantized(aware).content
    tree = flatbuffer.read(content)
    floats = {
        o.name
        for o in flatbuffer.operators(tree)
        if "float32" in o.output_types and not {"int8", "uint8"} & set(o.input_types)
    }
    wanted, found = keras.tree.map_structure(np.asarray, aware(x)), te.load(content).run(x)
    pairs = list(zip(keras.tree.flatten(wanted), keras.tree.flatten(found), strict=True))
    ends = tree.subgraphs[0].outputs
    for (one, other), end in zip(pairs, ends, strict=True):
        stored = flatbuffer.maker(tree, int(end), through=["DEQUANTIZE"]).step
        step = stored or max(np.ptp(one) / 255, 1e-9)
        assert np.mean(np.abs(one - other) <= 2.1 * step) >= 0.98
        assert 10 * np.log10(np.sum(one**2) / max(np.sum((one - other) ** 2), 1e-20)) > 30
    return aware, floats


@pytest.mark.parametrize("name", ALL_INTEGERS)
def test_the_file_has_integers_alone_and_answers_alike(name, x):
    model = build(ALL_INTEGERS[name])
    aware, floats = _compare(model, x)
    assert not floats
    assert not aware.coverage().in_float
    # Rounding is there at all: it differs from floats, by little.
    for one, other in zip(keras.tree.flatten(model(x)), keras.tree.flatten(aware(x)), strict=True):
        assert 1e-5 < np.sqrt(np.mean((one - other) ** 2)) / np.std(one) < 0.1


@pytest.mark.parametrize("name", SOME_FLOATS)
def test_other_layers_stay_in_floats_and_are_named(name, x):
    head, operators = SOME_FLOATS[name]
    aware, floats = _compare(build(head), x)
    assert aware.coverage().in_float == ["odd"]
    assert operators <= floats
    with pytest.raises(ValueError, match=r"\['odd'\] in floats"):
        te.quantize_aware(build(head), strict=True)


def test_what_is_filled_in_may_lie_beyond_all_steps(x):
    around = [[0, 0], [1, 1], [1, 1], [0, 0]]
    aware, _ = _compare(build(lambda i: ops.pad(i, around, constant_values=50.0)), x)
    assert len(aware.coverage().in_float) == 1
    aware, floats = _compare(build(lambda i: L.Conv2D(4, 3)(ops.pad(i, around))), x)
    assert not floats


@keras.saving.register_keras_serializable("tests")
class _Between(L.Layer):
    """Computes between two layers that it holds."""

    def __init__(self, **how):
        super().__init__(**how)
        self.first, self.second = L.Dense(6), L.Dense(4)

    def call(self, x):
        return self.second(ops.sin(self.first(x)))


@keras.saving.register_keras_serializable("tests")
class _Whole(keras.Model):
    def __init__(self, **how):
        super().__init__(**how)
        self.first, self.second = L.Dense(6), L.Dense(4)

    def call(self, x):
        return self.second(ops.sin(self.first(x)))


def test_what_a_layer_computes_between_its_layers_is_in_floats_and_named(x):
    aware, floats = _compare(build(lambda i: _Between(name="odd")(i)), x)
    assert aware.coverage().in_float == ["odd"]
    assert [c.weights for c in aware.coverage() if c.layer == "odd"] == [""]
    assert "SIN" in floats
    attends = build(lambda i: L.GroupQueryAttention(4, 2, 1, name="odd")(_steps(i), _steps(i)))
    assert "odd" in te.quantize_aware(attends).coverage().in_float
    for head in (_Between, _Whole):
        with pytest.raises(ValueError, match=r"\['odd'\] in floats"):
            te.quantize_aware(build(lambda i: head(name="odd")(i)), strict=True)  # noqa: B023
    whole = _Whole(name="odd")
    whole(x)
    assert te.quantize_aware(whole).coverage().in_float == ["odd"]


def test_an_average_pool_over_the_whole_picture_has_steps_of_its_own(x):
    def head(image):
        pooled = L.AveragePooling2D(6)(L.Conv2D(4, 3, activation="relu")(image))
        return L.Dense(3)(L.Flatten()(pooled))

    aware, floats = _compare(build(head), x)
    assert not floats
    pool = next(p for p in aware._plan.placements if isinstance(p.layer, L.AveragePooling2D))
    assert pool.rounds_output
    assert pool.like is None


def test_halves_in_an_average_pool_go_where_the_file_rounds_them(x):
    # A quarter of all means of four whole numbers are halves.
    aware = te.quantize_aware(build(lambda i: L.AveragePooling2D(2)(i)), x)
    wanted, found = np.asarray(aware(x)), te.load(convert_quantized(aware).content).run(x)
    step = aware.range_quantizers[0].step
    assert np.abs(wanted - found).max() < 0.01 * step
    assert len(np.unique(np.round(found / step))) > 50


def test_a_batch_normalization_behind_a_convolution_and_something_else(x):
    def head(image):
        shared = L.BatchNormalization()
        y = shared(L.Conv2D(4, 3, padding="same", use_bias=False)(image))
        return L.Add()([y, shared(L.ReLU()(image))])

    _, floats = _compare(build(head), x)
    assert not floats


def test_a_place_where_only_zeros_passed_is_in_integers(x):
    model = build(lambda i: L.Conv2D(3, 1)(L.Conv2D(4, 3, activation="relu", name="dead")(i)))
    kernel, bias = model.get_layer("dead").get_weights()
    model.get_layer("dead").set_weights([kernel * 0, bias - 1])
    model.layers[-1].set_weights([np.ones((1, 1, 4, 3)), np.float32([-1, 0.5, 2])])
    _, floats = _compare(model, x)
    assert not floats


def test_a_loaded_model_keeps_its_clusters(tmp_path, x):
    model = build(lambda i: L.Dense(16)(L.Flatten()(i)))
    aware = te.quantize_aware(te.cluster(model, 4), x)
    aware.save(tmp_path / "a.keras")
    loaded = keras.models.load_model(tmp_path / "a.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), aware.predict(x, verbose=0))
    assert len(np.unique(te.strip(loaded).layers[-1].kernel)) <= 4
    assert len(loaded.weights) == len(aware.weights)


def test_half_precision(x):
    keras.config.set_dtype_policy("mixed_float16")
    model = build(
        lambda i: L.Dense(3, dtype="float32")(L.Flatten()(L.Conv2D(4, 3, activation="relu")(i)))
    )
    _, floats = _compare(model, x)
    assert not floats


def test_two_inputs_and_outputs_of_other_types(rng):
    words, image = keras.Input((6,), dtype="int32", name="words"), keras.Input(SHAPE, name="image")
    seen = L.GlobalAveragePooling2D()(L.Conv2D(8, 3, activation="relu")(image))
    read = L.GlobalAveragePooling1D()(L.Embedding(20, 8)(words))
    both = L.Concatenate()([seen, read])
    model = keras.Model(
        {"words": words, "image": image},
        {"kind": L.Dense(3, name="kind")(both), "size": L.Dense(1)(both)},
    )
    x = {
        "words": rng.integers(0, 20, (32, 6)).astype("int32"),
        "image": rng.normal(size=(32, *SHAPE)).astype("float32"),
    }
    aware = te.quantize_aware(model, x)
    found = te.load(convert_quantized(aware).content).run(x)
    for name, wanted in aware.predict(x, verbose=0).items():
        assert np.abs(found[name] - wanted).max() <= 2.1 * np.ptp(wanted) / 255
