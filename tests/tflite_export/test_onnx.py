"""An ONNX file answers as Keras does, under the model's names, or is not written."""

import keras
import numpy as np
import pytest

import tflite_export as te
from tflite_export.convert import ConversionError

pytest.importorskip("tf2onnx", reason="tf2onnx is missing: pip install 'keras-distill[onnx]'")
onnx = pytest.importorskip("onnx", reason="onnx is missing: pip install 'keras-distill[onnx]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="pip install 'keras-distill[onnx]'")


def session_of(path):
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def test_any_batch_is_answered_as_keras_answers(net, examples, tmp_path):
    made = te.export_onnx(net, tmp_path / "n.onnx", (examples, np.zeros(64)))
    assert made.max_error < 1e-5
    assert made.opset == onnx.load(made.path).opset_import[0].version == 18
    assert made.size_bytes == made.path.stat().st_size
    session = session_of(made.path)
    assert session.get_inputs()[0].shape == ["batch", 12, 12, 3]
    assert session.get_outputs()[0].shape == ["batch", 3]
    for count in (1, 5):
        (answer,) = session.run(["logits"], {"image": examples[:count]})
        np.testing.assert_allclose(answer, net(examples[:count]), atol=1e-5)


def test_a_model_that_was_never_called_is_exported(net, tmp_path):
    """Keras's own export refuses it."""
    net.save(tmp_path / "n.keras")
    loaded = keras.models.load_model(tmp_path / "n.keras")
    with pytest.raises(ValueError, match="never called"):
        loaded.export(tmp_path / "keras.onnx", format="onnx", verbose=False)
    assert te.export_onnx(loaded, tmp_path / "n.onnx").max_error < 1e-5


def several():
    photo, age = keras.Input((6, 6, 3), name="photo"), keras.Input((2,), name="age")
    x = keras.layers.Flatten()(keras.layers.Conv2D(2, 3, activation="hard_swish")(photo))
    x = keras.layers.Concatenate()([x, age])
    yes = keras.layers.Dense(1, activation="sigmoid", name="yes")(x)
    kind = keras.layers.Dense(3, activation="gelu", name="kind")(x)
    return keras.Model({"photo": photo, "age": age}, {"yes": yes, "kind": kind})


def attention():
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    x = keras.layers.Embedding(20, 8)(tokens)
    x = keras.layers.LayerNormalization()(x + keras.layers.MultiHeadAttention(2, 4)(x, x))
    return keras.Model(tokens, keras.layers.Dense(2)(keras.layers.GlobalMaxPooling1D()(x)))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.first, self.second = keras.layers.Dense(4, activation="relu"), keras.layers.Dense(2)

    def call(self, x):
        return self.second(self.first(x))


def subclassed():
    model = Subclassed()
    model(np.zeros((1, 3), "float32"))
    return model


TOKENS = [np.array([[1, 2, 3, 4]]), np.array([[5, 6]]), np.array([[7, 8, 9, 1], [2, 3, 4, 5]])]


@pytest.mark.parametrize(
    ("build", "data", "inputs", "outputs"),
    [
        (several, None, {"age", "photo"}, {"yes", "kind"}),
        (attention, TOKENS, {"tokens"}, {"output"}),
        (subclassed, None, {"input"}, {"output"}),
    ],
)
def test_names_and_answers_of_other_kinds(build, data, inputs, outputs, tmp_path):
    made = te.export_onnx(build(), tmp_path / "m.onnx", data)
    assert made.max_error < 1e-5
    session = session_of(made.path)
    assert {i.name for i in session.get_inputs()} == {i.name for i in made.inputs} == inputs
    assert {o.name for o in session.get_outputs()} == {o.name for o in made.outputs} == outputs


def test_mixed_precision_is_float32_in_the_file(tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    made = te.export_onnx(model, tmp_path / "m.onnx")
    assert made.max_error < 1e-5
    assert {v.data_type for v in onnx.load(made.path).graph.initializer} == {1}


def spectrum():
    inputs = keras.Input((8,))
    return keras.Model(inputs, keras.ops.rfft(inputs)[0])


class Counts(keras.layers.Layer):
    """Not the same when it is traced as when it is called."""

    def call(self, x):
        import tensorflow as tf

        return x + (1.0 if tf.inside_function() else 0.0)


@pytest.mark.parametrize(
    ("build", "options", "error", "sentence"),
    [
        (spectrum, {}, ConversionError, "ONNX has no such operator"),
        (attention, {}, ValueError, "'tokens' has the open sizes .* pass data="),
        (subclassed, {"opset": 99}, ValueError, "opset=99: tf2onnx writes 9 to"),
        (
            lambda: keras.Sequential([keras.Input((2,)), Counts()]),
            {},
            ValueError,
            "ONNX Runtime answers otherwise than Keras, by 1",
        ),
    ],
)
def test_what_cannot_be_exported_leaves_the_earlier_file(build, options, error, sentence, tmp_path):
    (tmp_path / "m.onnx").write_text("earlier")
    with pytest.raises(error, match=sentence):
        te.export_onnx(build(), tmp_path / "m.onnx", **options)
    assert [p.read_text() for p in tmp_path.iterdir()] == ["earlier"]


def test_an_output_that_is_called_like_an_input_gets_another_name(tmp_path):
    given = keras.Input((4,), name="image")
    model = keras.Model({"image": given}, {"image": keras.layers.Dense(4)(given)})
    exported = te.export_onnx(model, tmp_path / "m.onnx")
    assert [o.name for o in exported.outputs] == ["image_out"]


def test_a_model_that_answers_nan_alone_is_refused(tmp_path):
    given = keras.Input((4,))
    model = keras.Model(given, keras.layers.Dense(2)(given))
    model.set_weights([w * np.nan for w in model.get_weights()])
    with pytest.raises(ValueError, match="answers NaN or infinity alone"):
        te.export_onnx(model, tmp_path / "m.onnx")
    with pytest.raises(ValueError, match="num_examples=0: give 1 or more"):
        te.export_onnx(model, tmp_path / "m.onnx", num_examples=0)
    with pytest.raises(ValueError, match=r"^data has examples of shape \(3,\)"):
        te.export_onnx(model, tmp_path / "m.onnx", np.ones((2, 3), "float32"))
    assert not list(tmp_path.iterdir())
