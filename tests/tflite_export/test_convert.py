"""The float file answers as Keras does, whatever kind of model; names and order are the model's."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tflite_export as te
from tflite_export import flatbuffer
from tflite_export.convert import convert


def functional():
    x = keras.Input((8, 8, 3), name="photo")
    y = keras.layers.Conv2D(4, 3, activation="relu")(x)
    y = keras.layers.Flatten()(y)
    return keras.Model(x, keras.layers.Dense(3, activation="softmax", name="scores")(y))


def sequential():
    return keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(5, activation="gelu"), keras.layers.Dense(2)]
    )


def nested():
    inner = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(4), keras.layers.BatchNormalization()], name="inner"
    )
    x = keras.Input((6,), name="features")
    return keras.Model(x, keras.layers.Dropout(0.5)(inner(x) * 2))


@keras.saving.register_keras_serializable("tests")
class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden = keras.layers.Dense(4, activation="tanh")
        self.out = keras.layers.Dense(2)

    def call(self, x, training=False):
        return self.out(self.hidden(x))


def subclassed():
    model = Subclassed()
    model(np.zeros((3, 6), "float32"))
    return model


def recurrent():
    x = keras.Input((5, 4))
    y = keras.layers.LSTM(6, return_sequences=True)(x)
    return keras.Model(x, keras.layers.Bidirectional(keras.layers.GRU(3))(y))


def attention():
    x = keras.Input((7, 8))
    y = keras.layers.MultiHeadAttention(2, 4)(x, x)
    return keras.Model(x, keras.layers.LayerNormalization()(x + y))


def tokens():
    x = keras.Input((5,), dtype="int32", name="tokens")
    y = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(10, 4)(x))
    return keras.Model(x, keras.layers.Dense(2)(y))


def unknown_variables():
    """A layer with a tf.Variable, which Keras 3 does not list."""

    class Scaled(keras.layers.Layer):
        def build(self, shape):
            self.hidden = [tf.Variable(3.0)]

        def call(self, x):
            return x * self.hidden[0]

    return keras.Sequential([keras.Input((6,)), Scaled(), keras.layers.Dense(2)])


@pytest.mark.parametrize(
    "make",
    [
        functional, sequential, nested, subclassed, recurrent, attention, tokens, unknown_variables,
    ],
)  # fmt: skip
def test_the_float_file_answers_as_keras(make, rng):
    model = make()
    for weight in model.weights:
        if weight.dtype == "float32":
            weight.assign(rng.uniform(0.1, 0.5, weight.shape))
    shape = (4, *(model.inputs[0].shape[1:] if make is not subclassed else (6,)))
    x = rng.normal(size=shape).astype("float32")
    if make is tokens:
        x = rng.integers(0, 10, shape).astype("int32")
    answers = te.load(convert(model).content).run(x)
    np.testing.assert_allclose(answers, model.predict(x, verbose=0), atol=1e-5)


def several_outputs():
    x = keras.Input((4,), name="x")
    return keras.Model(
        x,
        [keras.layers.Dense(n, name=name)(x) for name, n in (("zebra", 2), ("ant", 3), ("m", 4))],
    )


def test_outputs_keep_the_model_s_order_and_not_the_alphabet_s(rng, tmp_path):
    model = several_outputs()
    exported = te.export(model, tmp_path / "s.tflite")
    assert [o.name for o in exported.outputs] == ["zebra", "ant", "m"]
    x = rng.normal(size=(3, 4)).astype("float32")
    answers = te.load(exported).run(x)
    assert list(answers) == ["zebra", "ant", "m"]
    for have, want in zip(answers.values(), model.predict(x, verbose=0), strict=True):
        np.testing.assert_allclose(have, want, atol=1e-6)


@pytest.mark.parametrize("recipe", [None, "int8"])
def test_the_signature_that_apps_call_by_name(rng, tmp_path, recipe):
    """The right tensor under each name, read by LiteRT's own signature runner."""
    from ai_edge_litert.interpreter import Interpreter

    first, second = keras.Input((3,), name="zoom"), keras.Input((3,), name="age")
    model = keras.Model(
        {"zoom": first, "age": second},
        {
            "sum": keras.layers.Dense(2, name="b")(first),
            "difference": keras.layers.Dense(2, name="a")(second),
        },
    )
    inputs = {n: rng.normal(size=(40, 3)).astype("float32") for n in ("zoom", "age")}
    exported = te.export(model, tmp_path / "s.tflite", recipe, inputs)
    interpreter = Interpreter(str(exported.path))
    assert list(interpreter.get_signature_list()) == ["serving_default"]
    answers = interpreter.get_signature_runner("serving_default")(
        **{n: v[:1] for n, v in inputs.items()}
    )
    wanted = model.predict({n: v[:1] for n, v in inputs.items()}, verbose=0)
    assert set(answers) == {"sum", "difference"}
    for name in answers:
        np.testing.assert_allclose(
            answers[name], wanted[name], atol=1e-6 if recipe is None else 0.1
        )


def test_names_that_keras_counts_up_are_not_in_the_file(tmp_path):
    for _ in range(2):  # the second model's layers have other numbers
        x = keras.Input((4,))
        model = keras.Model(x, keras.layers.Dense(2)(x))
        exported = te.export(model, tmp_path / "s.tflite")
        assert [i.name for i in exported.inputs] == ["input"]
        assert [o.name for o in exported.outputs] == ["output"]


def test_an_input_that_nothing_reads_stays(tmp_path):
    used, unused = keras.Input((4,), name="used"), keras.Input((3,), name="unused")
    model = keras.Model([unused, used], keras.layers.Dense(2)(used))
    exported = te.export(model, tmp_path / "s.tflite")
    assert [i.name for i in exported.inputs] == ["unused", "used"]


def test_static_batch_unless_asked(rng, tmp_path):
    model = sequential()
    x = rng.normal(size=(5, 6)).astype("float32")
    for batch, shape in ((1, 1), (4, 4), (None, None)):
        exported = te.export(model, tmp_path / "s.tflite", batch_size=batch)
        assert exported.inputs[0].shape == (shape, 6)
        np.testing.assert_allclose(te.load(exported).run(x), model.predict(x, verbose=0), atol=1e-5)


def test_a_missing_operator_names_its_layer(tmp_path):
    @keras.saving.register_keras_serializable("tests")
    class Beta(keras.layers.Layer):
        def call(self, x):
            return tf.math.betainc(tf.abs(x) + 1.0, tf.abs(x) + 1.0, tf.sigmoid(x))

    inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), Beta(name="strange")])
    inner.name = "tail"
    x = keras.Input((4,))
    with pytest.raises(te.ConversionError, match="'Betainc' in 'tail/strange'") as raised:
        te.export(keras.Model(x, inner(x)), tmp_path / "s.tflite")
    assert len(str(raised.value)) < 400
    assert not list(tmp_path.iterdir())


def test_only_builtin_operators():
    for operator in flatbuffer.operators(flatbuffer.read(convert(recurrent()).content)):
        assert not operator.name.startswith("CUSTOM")


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_a_mixed_precision_model_becomes_float32(policy, rng):
    keras.config.set_dtype_policy(policy)
    model = nested()
    keras.config.set_dtype_policy("float32")
    x = rng.normal(size=(4, 6)).astype("float32")
    content = convert(model).content
    types = {t for o in flatbuffer.operators(flatbuffer.read(content)) for t in o.input_types}
    assert not {t for t in types if "float16" in t}
    np.testing.assert_allclose(
        te.load(content).run(x), model.predict(x, verbose=0).astype("float32"), atol=0.05
    )
    assert model.get_layer("inner").layers[0].compute_dtype == policy.removeprefix("mixed_"), (
        "changed the model"
    )


@pytest.mark.parametrize("policy", ["float16", "bfloat16", "float64"])
def test_weights_that_are_not_float32_are_named_in_one_sentence(policy):
    keras.config.set_dtype_policy(policy)
    model = nested()
    keras.config.set_dtype_policy("float32")
    with pytest.raises(te.ConversionError, match=rf"weights in '{policy}'.*set_dtype_policy"):
        convert(model)
    again = nested()
    again.set_weights(model.get_weights())
    convert(again)


def test_a_subclassed_model_of_tokens_is_told_their_type(rng, tmp_path):
    class Text(keras.Model):
        def __init__(self):
            super().__init__()
            self.embedding, self.out = keras.layers.Embedding(10, 4), keras.layers.Dense(2)

        def call(self, tokens):
            return self.out(keras.ops.mean(self.embedding(tokens), 1))

    tokens = rng.integers(0, 10, (6, 5)).astype("int32")
    for called in (False, True):
        model = Text()
        if called:
            model(tokens)
        for spec in (
            keras.InputSpec(shape=(None, 5), dtype="int32"),
            keras.KerasTensor((None, 5), dtype="int32"),
        ):
            exported = te.export(model, tmp_path / "t.tflite", input_shape=spec)
            assert exported.inputs == (te.TensorInfo("input", (1, 5), "int32"),)
        assert te.verify(model, exported, tokens).max_error < 1e-5


def test_unknown_and_open_sizes_are_asked_for(tmp_path):
    path = tmp_path / "s.tflite"
    with pytest.raises(ValueError, match=r"call the model once .* or pass input_shape="):
        te.export(Subclassed(), path)
    assert te.export(Subclassed(), path, input_shape=(6,)).inputs[0].shape == (1, 6)
    x = keras.Input((None, None, 3), name="photo")
    any_size = keras.Model(x, keras.layers.GlobalAveragePooling2D()(x))
    with pytest.raises(ValueError, match=r"input_shape=\(96, 96, 3\)"):
        te.export(any_size, path)
    assert te.export(any_size, path, input_shape=(8, 9, 3)).inputs[0].shape == (1, 8, 9, 3)
    with pytest.raises(ValueError, match="sizes"):
        te.export(any_size, path, input_shape=(8, 9, 1))


@pytest.mark.parametrize("many", [False, True])
def test_tensors_that_no_keras_variable_holds_are_constants_of_the_file(many, rng, monkeypatch):
    """Small ones TensorFlow writes into the graph by itself, and freezing it anew takes long."""
    if not many:
        monkeypatch.setattr(tf.lite.TFLiteConverter, "from_concrete_functions", None)
    offset = rng.normal(size=(400 if many else 4,)).astype("float32")

    class Minus(keras.layers.Layer):
        held = tf.constant(offset)

        def call(self, x):
            return x - self.held

    model = keras.Sequential([keras.Input(offset.shape), Minus(), keras.layers.Dense(2)])
    x = rng.normal(size=(1, *offset.shape)).astype("float32")
    answers = te.load(convert(model).content).run(x)
    np.testing.assert_allclose(answers, model(x), atol=1e-5)


def test_weights_begin_at_multiples_of_16_bytes():
    content = convert(functional()).content
    model = flatbuffer.schema.Model.GetRootAs(content, 0)
    buffers = [model.Buffers(i) for i in range(model.BuffersLength())]
    starts = [b._tab.Vector(b._tab.Offset(4)) for b in buffers if b.DataLength()]
    assert starts
    assert not [s for s in starts if s % 16]


def test_the_model_is_left_as_it_was(rng):
    model = functional()
    before = [w.copy() for w in model.get_weights()]
    convert(model)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
