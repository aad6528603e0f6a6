import keras
import numpy as np
import pytest

import keras_distill as kd
from tests.keras_distill.networks import examples, mlp

SCE = "sparse_categorical_crossentropy"


def distiller(student, **arguments):
    model = kd.Distiller(mlp(), student, "soft_targets", **arguments)
    model.compile("sgd", loss=SCE)
    return model


def test_the_student_remembers_what_it_saw():
    x, y = examples()
    model = distiller(mlp())
    model.fit(x[:8], y[:8], batch_size=3, verbose=0)
    [(low, high)] = model.student.recorded_input_ranges
    assert (low, high) == (x[:8].min(), x[:8].max())
    model.fit(0.1 * x, y, verbose=0)  # another training: what was fitted by mistake is forgotten
    [(low, high)] = model.student.recorded_input_ranges
    assert (low, high) == pytest.approx((0.1 * x.min(), 0.1 * x.max()))


def test_it_is_the_range_of_the_students_own_inputs():
    x, y = examples()
    model = distiller(mlp(), student_inputs=lambda batch: 10 * batch + 1)
    model.fit(x, y, verbose=0)
    [(low, high)] = model.student.recorded_input_ranges
    assert low == pytest.approx(10 * x.min() + 1)
    assert high == pytest.approx(10 * x.max() + 1)


def test_each_input_has_its_own_and_integers_have_none():
    x, y = examples()
    words = np.arange(len(x) * 2).reshape(-1, 2).astype("int32") % 5
    inputs = {"a": keras.Input((4,), name="a"), "b": keras.Input((2,), dtype="int32", name="b")}
    embedded = keras.layers.Flatten()(keras.layers.Embedding(5, 2)(inputs["b"]))
    joined = keras.layers.Concatenate()([inputs["a"], embedded])
    student = keras.Model(inputs, keras.layers.Dense(3)(joined))
    model = distiller(student, teacher_inputs="a")
    model.fit({"a": x, "b": words}, y, verbose=0)
    assert student.recorded_input_ranges == ((x.min(), x.max()), None)


def test_it_is_saved_with_the_distillers_weights_and_is_no_weight(tmp_path):
    x, y = examples()
    model = distiller(mlp())
    model.fit(x, y, verbose=0)
    model.save_weights(tmp_path / "resumed.weights.h5")
    assert len(model.get_weights()) == len(model.student.get_weights())
    again = distiller(mlp())
    again.load_weights(tmp_path / "resumed.weights.h5")
    again.fit(0.1 * x, y, initial_epoch=1, epochs=2, verbose=0)
    assert again.student.recorded_input_ranges == ((x.min(), x.max()),)


def test_validation_is_not_training():
    x, y = examples()
    model = distiller(mlp())
    model.fit(x, y, validation_data=(100 * x, y), verbose=0)
    model.evaluate(1000 * x, y, verbose=0)
    [(low, high)] = model.student.recorded_input_ranges
    assert (low, high) == (x.min(), x.max())


def test_inputs_given_by_name_are_recorded_in_the_models_order():
    b, a = keras.Input((4,), name="b"), keras.Input((4,), name="a")
    network = keras.Model([b, a], keras.layers.Dense(3)(keras.layers.Concatenate()([b, a])))
    x, y = examples()
    model = kd.Distiller(keras.models.clone_model(network), network, "soft_targets")
    model.compile("sgd", loss=SCE)
    model.fit({"a": x, "b": 100 * x}, y, verbose=0)
    assert network.recorded_input_ranges[0] == pytest.approx((100 * x.min(), 100 * x.max()))
    assert network.recorded_input_ranges[1] == pytest.approx((x.min(), x.max()))


def test_a_batch_that_is_not_finite_is_left_out():
    x, y = examples()
    x[0, 0] = np.nan
    inputs = keras.Input((4,))
    student = keras.Model(inputs, keras.layers.Dense(3)(keras.ops.nan_to_num(inputs)))
    model = distiller(student, teacher_inputs=keras.ops.nan_to_num)
    model.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    assert student.recorded_input_ranges == ((x[8:].min(), x[8:].max()),)
