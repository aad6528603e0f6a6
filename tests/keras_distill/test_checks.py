"""What a Distiller refuses when it is made, seen by a stranger: the sentence says what to pass."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_distill as kd


def network(side=8, channels=3, classes=3, outputs=1):
    """A classifier of pictures."""
    inputs = keras.Input((side, side, channels))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(inputs))
    found = [layers.Dense(classes)(x) for _ in range(outputs)]
    return keras.Model(inputs, found[0] if outputs == 1 else found)


def distiller(teacher=None, **arguments):
    """Of a student that takes 8×8 pictures and knows three classes."""
    losses = arguments.pop("distillation_losses", "soft_targets")
    return kd.Distiller(teacher or network(), network(), losses, **arguments)


def trained(**arguments):
    """One epoch."""
    model = distiller(**arguments)
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model.fit(np.ones((4, 8, 8, 3), "float32"), np.zeros(4, "int32"), verbose=0).history


def test_another_size_names_both_shapes_and_the_layer_that_helps():
    sentence = (
        r"Teacher: \(None, 24, 24, 3\), Student: \(None, 8, 8, 3\)\. Pass teacher_inputs= .*"
        r"teacher_inputs=keras.layers.Resizing\(24, 24\)"
    )
    with pytest.raises(ValueError, match=sentence):
        distiller(network(24))
    history = trained(teacher=network(24), teacher_inputs=keras.layers.Resizing(24, 24))
    assert np.isfinite(history["loss"]).all()


def test_a_teacher_of_grey_pictures():
    with pytest.raises(ValueError, match=r"teacher_inputs=keras.ops.image.rgb_to_grayscale\)"):
        distiller(network(channels=1))
    history = trained(teacher=network(channels=1), teacher_inputs=keras.ops.image.rgb_to_grayscale)
    assert np.isfinite(history["loss"]).all()


def test_a_teacher_of_open_size_takes_the_students_pictures():
    assert np.isfinite(trained(teacher=network(None))["loss"]).all()


def test_a_teacher_of_other_classes():
    with pytest.raises(
        ValueError, match=r"ends in 1000 classes and student in 3: pass class_indices="
    ):
        distiller(network(classes=1000))


def test_a_teacher_of_two_outputs():
    with pytest.raises(
        ValueError, match="Teacher answers 2 outputs and student one output: pass output="
    ):
        trained(teacher=network(outputs=2))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            {"student_loss_weight": -0.1},
            r"student_loss_weight must be between 0.0 and 1.0, got -0.1",
        ),
        ({"student_loss_weight": 1.1}, r"student_loss_weight must be between 0.0 and 1.0, got 1.1"),
        ({"student_loss_weight": float("nan")}, r"must be between 0.0 and 1.0, got nan"),
        (
            {"student_loss_weight": "0.5"},
            r"student_loss_weight must be a number, got <class 'str'>",
        ),
        ({"distillation_loss_weights": -1}, r"must be finite numbers of at least 0, got -1"),
        ({"distillation_loss_weights": [float("nan")]}, r"finite numbers of at least 0, got nan"),
        ({"distillation_loss_weights": [float("inf")]}, r"finite numbers of at least 0, got inf"),
        ({"distillation_loss_weights": [True]}, r"finite numbers of at least 0, got True"),
        (
            {"distillation_losses": ["soft_targets"], "distillation_loss_weights": 2.0},
            r"must be a list of numbers, one for each of the 1 losses, got 2.0",
        ),
        ({"distillation_losses": []}, r"'distillation_losses' is empty: give one loss at least"),
        ({"teacher": "teacher.keras"}, r"got <class 'str'>. Load a file with teachers.load"),
    ],
)
def test_numbers_that_cannot_be_meant(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        distiller(**arguments)


@pytest.mark.parametrize("share", [0, 1, np.float32(0.5)])
def test_numbers_at_the_ends_are_taken(share):
    assert distiller(student_loss_weight=share, distillation_loss_weights=[0.0]).built
