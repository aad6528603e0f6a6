"""`.tflite` files as teachers: float, quantised, of one output and of several."""

import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_distill as kd
import tflite_export as te
from tests.golden import response as golden

SCE = "sparse_categorical_crossentropy"


def network(activation=None, classes=3):
    """A tiny classifier of pictures."""
    inputs = keras.Input((8, 8, 3), name="image")
    x = keras.layers.Conv2D(4, 3, activation="relu")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(classes, activation=activation, name="scores")(x))


def pictures(count=16):
    """Pictures in 0..1, and labels."""
    rng = np.random.default_rng(0)
    return rng.uniform(0, 1, (count, 8, 8, 3)).astype("float32"), rng.integers(0, 3, count)


@pytest.mark.parametrize("activation", ["linear", "softmax", "sigmoid"])
def test_a_float_file_teaches_as_its_network(activation, tmp_path):
    model, (x, y) = network(activation), pictures()
    te.export(model, tmp_path / "teacher.tflite")
    teacher = kd.teachers.load(tmp_path / "teacher.tflite", num_threads=1)
    assert isinstance(teacher, kd.teachers.TFLiteTeacher)
    assert teacher.known
    values = []
    for one in (model, teacher):
        keras.utils.set_random_seed(3)
        distiller = kd.Distiller(one, network(), "soft_targets")
        distiller.compile("sgd", loss="binary_crossentropy" if activation == "sigmoid" else SCE)
        labels = np.eye(3)[y] if activation == "sigmoid" else y
        values.append(distiller.fit(x, labels, epochs=2, verbose=0).history["loss"])
    np.testing.assert_allclose(values[0], values[1], rtol=1e-4)


@pytest.mark.parametrize("kind", ["uint8", "int8"])
def test_a_quantised_file_takes_pixels_or_real_numbers(kind, tmp_path):
    model, (x, _) = network("softmax"), pictures(64)
    te.export(
        model, tmp_path / "teacher.tflite", quantization="int8", representative_dataset=x,
        inference_input_type=kind, inference_output_type=kind, normalization=(0, 255),
    )  # fmt: skip
    teacher = kd.teachers.load(tmp_path / "teacher.tflite")
    assert (teacher.known, teacher.input_dtypes) == (True, {"image": kind})
    answer = teacher.targets(tf.constant(x))
    assert answer.activations == "softmax"
    np.testing.assert_allclose(answer.outputs, model(x), atol=0.03)
    info = te.load(tmp_path / "teacher.tflite").inputs[0]
    stored = teacher.targets(tf.constant(info.quantize(x)))
    np.testing.assert_array_equal(stored.outputs, answer.outputs)


@pytest.mark.parametrize("kind", ["int8", "float32"])
def test_a_quantised_zero_is_half_a_step_not_nothing(kind, tmp_path):
    model = network("softmax")
    model.layers[-1].bias.assign([0.0, 0.0, 20.0])
    x, _ = pictures(64)
    te.export(
        model, tmp_path / "t.tflite", quantization="int8", representative_dataset=x,
        inference_input_type="int8", inference_output_type=kind, normalization=(0, 255),
    )  # fmt: skip
    answer = kd.teachers.load(tmp_path / "t.tflite").targets(tf.constant(x[:1]))
    assert np.min(answer.outputs) == 0
    assert np.min(answer.logits) == pytest.approx(np.log(0.5 / 256), rel=1e-5)


def test_the_loss_is_that_of_the_files_answers(tmp_path):
    model, (x, y) = network("softmax"), pictures()
    te.export(model, tmp_path / "teacher.tflite")
    student = network()
    s = student.predict(x, verbose=0)
    distiller = kd.Distiller(kd.teachers.load(tmp_path / "teacher.tflite"), student, "soft_targets")
    distiller.compile("sgd", loss=SCE)
    logs = distiller.train_on_batch(x, y, return_dict=True)
    expected = golden.soft_targets(np.log(model.predict(x, verbose=0)), s, 4.0)
    assert logs["distillation_loss"] == pytest.approx(expected, rel=1e-3)


def test_several_outputs_come_back_by_name(tmp_path):
    inputs = keras.Input((4,))
    outputs = {
        "b": keras.layers.Dense(3, activation="softmax", name="b")(inputs),
        "a": keras.layers.Reshape((2, 2), name="a")(keras.layers.Dense(4)(inputs)),
    }
    model = keras.Model(inputs, outputs)
    te.export(model, tmp_path / "teacher.tflite")
    teacher = kd.teachers.load(tmp_path / "teacher.tflite")
    x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    answer = teacher.targets(tf.constant(x))
    expected = model(x)
    for name in ("a", "b"):
        np.testing.assert_allclose(answer.outputs[name], expected[name], atol=1e-5)
    assert answer.activations["b"] == "softmax"
    np.testing.assert_allclose(answer.logits["b"], np.log(expected["b"]), atol=1e-4)


def test_threads_do_not_mix_their_batches(tmp_path):
    model = network()
    te.export(model, tmp_path / "teacher.tflite")
    teacher = kd.teachers.load(tmp_path / "teacher.tflite")
    batches = [np.full((4, 8, 8, 3), i / 8, "float32") for i in range(8)]
    wrong = []

    def ask(batch):
        expected = model(batch)
        for _ in range(20):
            answer = teacher.targets(tf.constant(batch)).outputs
            if not np.allclose(answer, expected, atol=1e-5):
                wrong.append(batch[0, 0, 0, 0])

    threads = [threading.Thread(target=ask, args=(batch,)) for batch in batches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_it_is_saved_as_its_path_and_fingerprint(tmp_path):
    path = tmp_path / "teacher.tflite"
    te.export(network("softmax"), path)
    x, y = pictures()
    model = kd.Distiller(kd.teachers.load(path, num_threads=2), network(), "soft_targets")
    model.compile("sgd", loss=SCE)
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "d.keras")
    again = keras.models.load_model(tmp_path / "d.keras")
    assert again.teacher.get_config() == model.teacher.get_config()
    assert again.teacher.num_threads == 2
    histories = [one.fit(x, y, verbose=0).history for one in (model, again)]
    assert histories[0] == histories[1]
    te.export(network("softmax", classes=4), path)
    with pytest.raises(
        Exception, match="is not the file that taught when this distiller was saved"
    ):
        keras.models.load_model(tmp_path / "d.keras")


def test_what_does_not_fit(tmp_path):
    path = tmp_path / "teacher.tflite"
    te.export(network(), path)
    x, y = pictures()
    teacher = kd.teachers.load(path)
    sentence = (
        r"takes \(None, 8, 8, 3\) as its "
        r"input 'image', and .* \(None, 4\)"
    )
    with pytest.raises(ValueError, match=sentence):
        teacher.targets(tf.ones((2, 4)))
    with pytest.raises(ValueError, match="give them to TFLiteTeacher itself"):
        kd.Distiller(teacher, network(), "soft_targets", teacher_activation="softmax")
    distiller = kd.Distiller(teacher, network(classes=5), "soft_targets")
    distiller.compile("sgd", loss=SCE)
    with pytest.raises(ValueError, match="Teacher ends in 3 classes and student in 5"):
        distiller.fit(x, y, verbose=0)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"teacher.tflite is a damaged TFLite file"):
        kd.teachers.load(path)
