"""A version for TF Serving: its signatures, what they answer, and the requests that warm it up."""

import importlib.util
import io
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import tflite_export as te
from tests.tflite_export.conftest import SIDE
from tflite_export.normalization import Normalization
from tflite_export.photo import read_photo
from tflite_export.serving.signatures import signatures
from tflite_export.serving.warmup import replay
from tflite_export.traced import trace

LABELS = ["猫, cat", "naïve\n", "a b"]
PAIR = (127.5, 127.5)
MESSAGES = importlib.util.find_spec("tensorflow_serving") is not None
needs_messages = pytest.mark.skipif(
    not MESSAGES,
    reason="tensorflow-serving-api is not installed: pip install 'keras-distill[serving]'",
)


@pytest.fixture(scope="module")
def served(net, examples, tmp_path_factory):
    """`net` with labels, normalisation and warm-up, and the loaded version."""
    exported = te.export_saved_model(
        net,
        tmp_path_factory.mktemp("serving") / "blobs",
        examples if MESSAGES else None,
        LABELS,
        PAIR,
        num_warmup_examples=3,
    )
    return exported, tf.saved_model.load(str(exported.path))


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def png(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def in_class_order(answer):
    """{label: score} of each row; and that the best comes first."""
    scores = answer["scores"].numpy()
    assert (np.diff(scores) <= 0).all()
    return [
        {label.decode(): score for label, score in zip(labels, row, strict=True)}
        for labels, row in zip(answer["classes"].numpy(), scores, strict=True)
    ]


def test_the_default_signature_has_the_model_s_names_and_any_batch(served, net, examples):
    exported, loaded = served
    for name in ("serving_default", "predict"):
        for count in (1, 7):
            answer = loaded.signatures[name](image=tf.constant(examples[:count]))
            np.testing.assert_allclose(answer["logits"], net(examples[:count]), atol=1e-5)
    (image,), (logits,) = (
        exported.signatures["predict"].inputs,
        exported.signatures["predict"].outputs,
    )
    assert (image.name, image.shape, image.dtype) == ("image", (None, SIDE, SIDE, 3), "float32")
    assert (logits.name, logits.shape, logits.dtype) == ("logits", (None, 3), "float32")


def test_files_of_any_size_are_read_as_training_reads_them(served, net, photos, tmp_path):
    """Labels come with their probabilities, although the model ends in logits."""
    _, loaded = served
    contents, pixels = [], []
    for number, photo in enumerate(photos[0][:3]):
        image = Image.fromarray(photo).resize((50 + number, 37))
        path = tmp_path / f"{number}"
        image.save(path, "JPEG" if number else "PNG")
        contents.append(path.read_bytes())
        pixels.append(read_photo(path, (SIDE, SIDE)))
    answer = loaded.signatures["image_bytes"](image_bytes=tf.constant(contents))
    want = softmax(np.asarray(net((np.array(pixels) - 127.5).astype("float32") / 127.5)))
    for row, scores in zip(in_class_order(answer), want, strict=True):
        np.testing.assert_allclose([row[label] for label in LABELS], scores, atol=1e-5)


def test_classify_takes_examples_and_is_a_classify_call(served, photos):
    exported, loaded = served
    content = png(photos[0][0])
    example = tf.train.Example()
    example.features.feature["image_bytes"].bytes_list.value.append(content)
    have = loaded.signatures["classify"](inputs=tf.constant([example.SerializeToString()] * 2))
    want = loaded.signatures["image_bytes"](image_bytes=tf.constant([content] * 2))
    np.testing.assert_array_equal(have["classes"], want["classes"])
    np.testing.assert_array_equal(have["scores"], want["scores"])
    # TF Serving looks at the names and at the method.
    from tensorflow.core.protobuf import saved_model_pb2

    written = saved_model_pb2.SavedModel.FromString((exported.path / "saved_model.pb").read_bytes())
    definitions = written.meta_graphs[0].signature_def
    assert set(definitions) >= {"serving_default", "predict", "image_bytes", "classify"}
    assert definitions["classify"].method_name == "tensorflow/serving/classify"
    assert definitions["predict"].method_name == "tensorflow/serving/predict"
    assert set(definitions["classify"].inputs) == {"inputs"}
    assert {n: tf.as_dtype(o.dtype).name for n, o in definitions["classify"].outputs.items()} == {
        "classes": "string",
        "scores": "float32",
    }


def test_saved_model_cli_shows_and_runs_it(served, net, examples, tmp_path):
    exported, _ = served
    np.save(tmp_path / "x.npy", examples[:2])
    where = ["--dir", str(exported.path)]
    runs = ["--tag_set", "serve", "--signature_def", "predict", "--outdir", str(tmp_path)]
    calls = [
        ["show", "--all", *where],
        ["run", *runs, "--inputs", f"image={tmp_path / 'x.npy'}", *where],
    ]
    # The tool's main, as its console script calls it; TensorFlow is imported once for both.
    code = (
        "import sys; from tensorflow.python.tools.saved_model_cli import main\n"
        f"for call in {calls}:\n"
        "    sys.argv = ['saved_model_cli', *call]\n"
        "    try: main()\n"
        "    except SystemExit as end: assert not end.code, end"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    for words in (r"signature_def\['classify'\]", r"shape: \(-1, 12, 12, 3\)", "DT_STRING"):
        assert re.search(words, shown)
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), net(examples[:2]), atol=1e-5)


@needs_messages
def test_warm_up_records_are_requests_that_the_version_answers(served):
    from tensorflow_serving.apis import prediction_log_pb2

    exported, _ = served
    answers = replay(exported)
    assert exported.warmup_records == len(answers) == 2 * len(exported.signatures)
    assert exported.max_error < 1e-5
    by_name = {}
    for answer in answers:
        by_name.setdefault(answer.signature, []).append(answer.outputs)
    assert set(by_name) == set(exported.signatures)
    assert [len(by_name["classify"][i]["scores"]) for i in (0, 1)] == [1, 3]
    # The PNGs hold the very pixels of the examples.
    scores = np.sort(softmax(by_name["predict"][1]["logits"]))[:, ::-1]
    for name in ("image_bytes", "classify"):
        np.testing.assert_allclose(by_name[name][1]["scores"], scores, atol=1e-5)
    file = exported.path / "assets.extra" / "tf_serving_warmup_requests"
    (first, *_) = tf.data.TFRecordDataset(str(file)).as_numpy_iterator()
    log = prediction_log_pb2.PredictionLog.FromString(first)
    assert log.predict_log.request.model_spec.signature_name == "serving_default"


def test_without_labels_files_are_answered_as_predict_answers(net, photos, examples):
    functions, _ = signatures(trace(net), None, Normalization.parse(PAIR), "auto", None)
    answer = functions["image_bytes"](tf.constant([png(photo) for photo in photos[0][:2]]))
    np.testing.assert_allclose(answer["logits"], net(examples[:2]), atol=1e-5)
    assert set(functions) == {"serving_default", "predict", "image_bytes"}


@needs_messages
def test_a_model_that_answers_otherwise_than_keras_is_no_version(tmp_path):
    class Counts(keras.layers.Layer):
        """Not the same when it is traced as when it is called."""

        def call(self, x):
            return x + (1.0 if tf.inside_function() else 0.0)

    inputs = keras.Input((2,))
    model = keras.Model(inputs, Counts()(inputs))
    with pytest.raises(ValueError, match="answers otherwise than Keras, by 1"):
        te.export_saved_model(model, tmp_path / "m", np.zeros((4, 2), "float32"))
    assert list((tmp_path / "m").iterdir()) == []


def two_inputs():
    photo, age = keras.Input((4, 4, 1), name="photo"), keras.Input((2,), name="age in years")
    x = keras.layers.Concatenate()([keras.layers.Flatten()(photo), age])
    return keras.Model(
        [photo, age],
        {
            "kind": keras.layers.Dense(3, activation="softmax")(x),
            "sure": keras.layers.Dense(1)(x),
        },
    )


class Text(keras.Model):
    """Subclassed, of integers, any length; ends in a sigmoid."""

    def __init__(self):
        super().__init__(name="text")
        self.embed = keras.layers.Embedding(10, 4)
        self.out = keras.layers.Dense(1, activation="sigmoid")

    def call(self, tokens):
        return self.out(keras.ops.mean(self.embed(tokens), 1))


def strings():
    layer = keras.layers.TextVectorization(output_sequence_length=4, vocabulary=["good", "bad"])
    text = keras.Input((), dtype="string", name="text")
    x = keras.layers.Flatten()(keras.layers.Embedding(4, 3)(layer(text)))
    return keras.Model(text, keras.layers.Dense(2, name="logits")(x))


CASES = {
    "two inputs": (
        two_inputs,
        {},
        {"photo": np.ones((3, 4, 4, 1), "float32"), "age in years": np.ones((3, 2), "float32")},
        ["a", "b", "c"],
    ),
    "integers of any length": (
        Text,
        {"input_shape": keras.InputSpec(shape=(None, None), dtype="int32")},
        [np.array([[1, 2, 3]]), np.array([[4, 5, 6]])],
        ["no", "yes"],
    ),
    "strings": (strings, {}, np.array(["good", "bad bad", "new"]), ["bad", "good"]),
}


@needs_messages
@pytest.mark.parametrize("case", CASES)
def test_other_kinds_of_models_are_served_whole(case, tmp_path):
    build, options, data, labels = CASES[case]
    model = build()
    if case == "integers of any length":
        model(keras.Input((None,), dtype="int32"))  # a call on two tokens would fix the length
    exported = te.export_saved_model(model, tmp_path / "m", data, labels, **options)
    assert not exported.left_out
    assert exported.warmup_records == 6
    assert exported.max_error < 1e-5
    loaded = tf.saved_model.load(str(exported.path))
    if case == "two inputs":
        names = [i.name for i in exported.signatures["predict"].inputs]
        assert names == ["photo", "age_in_years"]
        assert [o.name for o in exported.signatures["predict"].outputs] == ["kind", "sure"]
        answer = loaded.signatures["predict"](
            photo=tf.zeros((5, 4, 4, 1)), age_in_years=tf.zeros((5, 2))
        )
        want = model([np.zeros((5, 4, 4, 1)), np.zeros((5, 2))])
        np.testing.assert_allclose(answer["sure"], want["sure"], atol=1e-5)
        np.testing.assert_allclose(answer["kind"], want["kind"], atol=1e-5)
    if case == "integers of any length":
        example = [tf.train.Example(), tf.train.Example()]
        for one, tokens in zip(example, ([3, 1, 4, 1, 5], [2, 2, 2, 2, 2]), strict=True):
            one.features.feature["input"].int64_list.value.extend(tokens)
        content = tf.constant([e.SerializeToString() for e in example])
        answer = in_class_order(loaded.signatures["classify"](inputs=content))
        yes = np.asarray(model(np.array([[3, 1, 4, 1, 5], [2, 2, 2, 2, 2]])))[:, 0]
        np.testing.assert_allclose([row["yes"] for row in answer], yes, atol=1e-5)
        np.testing.assert_allclose([row["no"] for row in answer], 1 - yes, atol=1e-5)
    if case == "strings":
        answer = loaded.signatures["serving_default"](text=tf.constant(["bad", "good"]))
        np.testing.assert_allclose(answer["logits"], model(tf.constant(["bad", "good"])), atol=1e-5)


@pytest.mark.parametrize(
    ("end", "units", "scores", "want"),
    [
        ("softmax", 3, "auto", lambda x: softmax(x)),
        (None, 3, "auto", lambda x: softmax(x)),
        ("log_softmax", 3, "auto", lambda x: softmax(x)),
        ("sigmoid", 3, "auto", lambda x: 1 / (1 + np.exp(-x))),
        (None, 3, "sigmoid", lambda x: 1 / (1 + np.exp(-x))),
        (None, 1, "auto", lambda x: 1 / (1 + np.exp(-x))),
        ("relu", 3, "identity", lambda x: np.maximum(x, 0)),
        ("relu", 3, "softmax", lambda x: softmax(np.maximum(x, 0))),
    ],
)
def test_scores_are_probabilities_whatever_the_model_ends_in(end, units, scores, want, rng):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(units, activation=end)])
    x = rng.normal(size=(5, 4)).astype("float32")
    logits = x @ np.asarray(model.weights[0])
    labels = ["a", "b", "c"][:units]
    functions, _ = signatures(trace(model), labels, None, scores, None)
    rows = []
    for row in x:
        example = tf.train.Example()
        example.features.feature["input"].float_list.value.extend(row)
        rows.append(example.SerializeToString())
    answer = in_class_order(functions["classify"](tf.constant(rows)))
    have = [[row[label] for label in labels] for row in answer]
    np.testing.assert_allclose(have, want(logits), atol=1e-5)
    functions, _ = signatures(trace(model), labels, None, scores, 1)
    assert functions["classify"](tf.constant(rows))["scores"].shape == (5, 1)


def unknown_end():
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(2), keras.layers.ReLU()])


@pytest.mark.parametrize(
    ("build", "options", "sentence"),
    [
        (unknown_end, {"labels": ["a", "b"]}, "It does not show .* pass scores='softmax'"),
        (unknown_end, {"labels": list("abc")}, r"3 labels were given, and the outputs have"),
        (unknown_end, {"labels": "ab"}, "give a list of class names"),
        (unknown_end, {"labels": ["a", "\udce4"]}, "no text that UTF-8 can hold"),
        (unknown_end, {"labels": ["a", "b"], "scores": "logits"}, "it is one of 'auto', 'softmax'"),
        (
            unknown_end,
            {"labels": ["a", "b"], "scores": "softmax", "top_k": 3},
            "a whole number up to 2, that of the labels",
        ),
        (unknown_end, {"top_k": 1}, "are about classes: give labels= too"),
        (unknown_end, {"normalization": PAIR}, "is for a model with one image input"),
        (
            lambda: keras.Sequential(
                [keras.Input((None, None, 3)), keras.layers.GlobalAveragePooling2D()]
            ),
            {"normalization": PAIR},
            r"pass input_shape=, for example input_shape=\(96, 96, 3\)",
        ),
        (
            lambda: keras.Sequential([keras.layers.Dense(2)]),
            {"input_shape": (3,)},
            "was never called, so it has no weights yet",
        ),
    ],
)
def test_what_cannot_be_served_is_said_and_no_version_is_there(build, options, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        te.export_saved_model(build(), tmp_path / "m", **options)
    assert not (tmp_path / "m").exists()


def test_without_tf_serving_s_messages_warm_up_says_what_to_install(
    net, examples, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "tensorflow_serving", None)
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis", None)
    with pytest.raises(ImportError, match=r"pip install 'keras-distill\[serving\]'"):
        te.export_saved_model(net, tmp_path / "m", examples)
    assert not (tmp_path / "m").exists()
    assert te.export_saved_model(net, tmp_path / "m").version == 1
