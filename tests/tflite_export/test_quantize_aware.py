"""A quantisation-aware student is a Keras model in all that users do with one."""

import keras
import numpy as np
import pytest

import keras_distill as kd
import tflite_export as te
from keras_distill.activations import heads
from keras_distill.taps import recording


@pytest.fixture
def aware(net, examples):
    net.trainable = True  # it taught in another test, which freezes it
    return te.quantize_aware(net, examples)


def _compiled(model, lr=0.001, **how):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(lr), loss, metrics=["accuracy"], **how)
    return model


def _answers(model, examples):
    return model.predict(examples, verbose=0)


def test_it_has_the_students_layers_and_weights_and_its_ranges(net, aware):
    assert [layer.name for layer in net.layers] == [layer.name for layer in aware.layers]
    assert aware.output_names == net.output_names
    assert len(aware.weights) == len(net.weights) + 2 * len(aware.range_quantizers)
    assert len(aware.trainable_weights) == len(net.trainable_weights)
    assert "int8" in str(aware.coverage())


def test_the_student_is_left_alone(net, examples):
    before = _answers(net, examples)
    aware = te.quantize_aware(net, examples)
    _compiled(aware, 0.1).fit(examples, np.zeros(64), verbose=0)
    np.testing.assert_array_equal(_answers(net, examples), before)


def test_weights_go_out_and_in(net, aware, examples, tmp_path):
    wanted = _answers(aware, examples)
    aware.save_weights(tmp_path / "a.weights.h5")
    other = te.quantize_aware(net)
    other.load_weights(tmp_path / "a.weights.h5")
    np.testing.assert_array_equal(_answers(other, examples), wanted)
    third = te.quantize_aware(net)
    third.set_weights(aware.get_weights())
    np.testing.assert_array_equal(_answers(third, examples), wanted)


def test_a_saved_model_goes_on_as_the_one_that_was_not(aware, photos, examples, tmp_path):
    _compiled(aware).fit(examples, photos[1], shuffle=False, verbose=0)
    aware.save(tmp_path / "a.keras")
    loaded = keras.models.load_model(tmp_path / "a.keras")
    assert isinstance(loaded, te.QuantizeAware)
    for model in (aware, loaded):
        model.fit(examples, photos[1], shuffle=False, verbose=0)
    np.testing.assert_array_equal(_answers(loaded, examples), _answers(aware, examples))


def test_strip_gives_the_float_student_trained(net, aware, photos, examples):
    _compiled(aware).fit(examples, photos[1], verbose=0)
    student = te.strip(aware)
    assert type(student) is type(net)
    assert [w.path for w in student.weights] == [w.path for w in net.weights]
    for kept, trained in zip(student.weights, aware.weights, strict=False):
        np.testing.assert_array_equal(kept, trained)
    difference = np.abs(_answers(student, examples) - _answers(aware, examples)).max()
    assert 0 < difference < 0.1 * np.ptp(_answers(aware, examples))


def test_training_that_was_interrupted_ends_alike(net, photos, examples, tmp_path):
    class Killed(Exception):
        pass

    class Kill(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                raise Killed

    def trained(*callbacks):
        keras.utils.set_random_seed(0)
        model = _compiled(te.quantize_aware(net))
        model.fit(
            examples, photos[1], epochs=4, shuffle=False, verbose=0, callbacks=list(callbacks)
        )
        return model

    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    with pytest.raises(Killed):
        trained(keras.callbacks.BackupAndRestore(tmp_path / "backup"), Kill())
    resumed, whole = trained(backup), trained()
    for one, other in zip(resumed.weights, whole.weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_early_stopping_restores_weights_and_ranges(aware, photos, examples):
    stop = keras.callbacks.EarlyStopping("loss", mode="max", patience=2, restore_best_weights=True)
    first = []
    note = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: first.append(aware.get_weights()) if not first else None
    )
    _compiled(aware, 0.01).fit(examples, photos[1], epochs=6, verbose=0, callbacks=[note, stop])
    for one, other in zip(first[0], aware.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_it_is_a_student_of_a_distiller(net, photos, examples, tmp_path):
    image = keras.Input(net.input_shape[1:], name="image")
    features = keras.layers.Conv2D(4, 3, padding="same", use_bias=False)(image)
    features = keras.layers.ReLU(name="features")(keras.layers.BatchNormalization()(features))
    pooled = keras.layers.GlobalAveragePooling2D()(features)
    student = keras.Model(
        image, keras.layers.Dense(3, activation="softmax", name="probabilities")(pooled)
    )
    aware = te.quantize_aware(student, examples)
    hint = kd.losses.Hint(teacher_layer_name="depthwise", student_layer_name="features")
    distiller = kd.Distiller(
        net, aware, [kd.losses.SoftTargets(4.0), hint], distillation_loss_weights=[1.0, 1.0]
    )
    distiller.compile(keras.optimizers.Adam(0.03), "sparse_categorical_crossentropy")
    history = distiller.fit(examples, photos[1], epochs=12, batch_size=16, verbose=0).history
    assert history["soft_targets"][-1] < 0.9 * history["soft_targets"][0]
    assert history["hint"][-1] < history["hint"][0]
    exported = te.export(
        aware, tmp_path / "s.tflite", labels=["red", "green", "blue"], normalization=(127.5, 127.5)
    )
    assert exported.quantization == "int8"
    assert te.verify(aware, exported, examples).agreement == 1.0
    assert te.read_metadata(exported.path).labels == ("red", "green", "blue")


def test_the_tapped_logits_are_those_that_are_stored(net, examples):
    student = keras.Sequential(
        [keras.Input(net.input_shape[1:]), keras.layers.Flatten(), keras.layers.Dense(3, "softmax")]
    )
    aware = te.quantize_aware(student, examples)
    (head,) = heads(aware)
    assert head.activation == "softmax"
    with recording({"logits": head.tap}) as recorded:
        aware(examples)
    values = np.unique(np.asarray(recorded["logits"][0]))
    assert len(values) <= 256


def test_its_own_average_teaches_it(aware, photos, examples):
    teacher = kd.teachers.EMATeacher(0.9)
    distiller = kd.Distiller(teacher, aware, kd.losses.SoftTargets(4.0), student_loss_weight=0.5)
    distiller.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    history = distiller.fit(examples, photos[1], verbose=0).history
    assert np.isfinite(history["loss"]).all()


@pytest.mark.parametrize("kind", ["float32", "uint8", "int8"])
@pytest.mark.parametrize("mean", [127.5, 128.0])
def test_pixels_go_in_exactly(aware, photos, kind, mean, tmp_path):
    exported = te.export(
        aware,
        tmp_path / "a.tflite",
        inference_input_type=kind,
        normalization=(mean, 127.5),
        inference_output_type="float32" if kind == "float32" else kind,
    )
    assert exported.inputs[0].dtype == kind
    assert te.verify(aware, exported, (photos[0] - mean) / 127.5).agreement >= 0.98


def test_layers_kept_in_floats(net, examples, tmp_path):
    kept = te.quantize_aware(net, examples, keep_float=["logits"])
    assert "logits" in kept.coverage().in_float
    plain = te.export(net, tmp_path / "plain.tflite", "int8", examples)
    exported = te.export(net, tmp_path / "kept.tflite", "int8", examples, keep_float=["logits"])
    error = [
        np.abs(te.load(e.path).run(examples) - _answers(net, examples)).mean()
        for e in (plain, exported)
    ]
    assert error[1] < error[0]


WRONG = {
    "unknown": (
        lambda net, x: te.quantize_aware(net, keep_float=["nobody"]),
        r"\['nobody'\]; the layers",
    ),
    "twice": (
        lambda net, x: te.quantize_aware(te.quantize_aware(net)),
        "quantisation-aware already",
    ),
    "no clusters": (
        lambda net, x: te.quantize_aware(net, preserve="clusters"),
        "no kernel of 'blobs' has clusters",
    ),
    "no model": (lambda net, x: te.quantize_aware(len), "A keras.Model is wanted"),
    "stripped": (lambda net, x: te.strip(net), "Functional was given"),
    "unseen": (lambda net, x: te.export(te.quantize_aware(net), "x.tflite"), "seen no example yet"),
    "recipe": (
        lambda net, x: te.export(te.quantize_aware(net, x), "x.tflite", "float16"),
        "becomes 'int8'",
    ),
    "examples": (
        lambda net, x: te.export(te.quantize_aware(net, x), "x.tflite", representative_dataset=x),
        "learned in training",
    ),
    "float": (
        lambda net, x: te.export(net, "x.tflite", keep_float=["logits"]),
        "is for quantization='int8'",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_cannot_be_done_is_said(what, net, examples, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    work, sentence = WRONG[what]
    with pytest.raises(ValueError, match=sentence):
        work(net, examples)
    assert not list(tmp_path.iterdir())
