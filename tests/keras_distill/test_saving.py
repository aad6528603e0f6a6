"""What is saved, and trainings that are interrupted."""

import os
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
from keras import layers

import keras_distill as kd
from tests.keras_distill.networks import (
    Subclassed,
    equal_weights,
    examples,
    mlp,
    weights_of,
    with_state,
)

SCE = "sparse_categorical_crossentropy"


@keras.saving.register_keras_serializable(package="tests.keras_distill")
def halved(batch):
    """What a teacher sees in these tests."""
    return batch / 2.0


def trained(teacher=None, student=None, **options):
    """A distiller after one epoch, with a momentum to lose."""
    model = kd.Distiller(teacher or mlp(width=16), student or mlp(), "soft_targets", **options)
    model.compile(keras.optimizers.Adam(0.01), loss=SCE, metrics=["accuracy"])
    model.fit(*examples(), epochs=1, verbose=0)
    return model


def test_saved_and_loaded_it_goes_on_as_if_nothing_had_happened(tmp_path):
    x, y = examples()
    model = trained(
        with_state(),
        with_state(),
        student_loss_weight=0.2,
        teacher_inputs=halved,
        teacher_activation="linear",
    )
    path = tmp_path / "distiller.keras"
    model.save(path)
    again = keras.models.load_model(path)
    assert type(again) is kd.Distiller
    assert equal_weights(weights_of(again.teacher), weights_of(model.teacher))
    assert equal_weights(weights_of(again.student), weights_of(model.student))
    assert again.student_loss_weight == 0.2
    assert not again.teacher.trainable
    histories = [m.fit(x, y, epochs=2, verbose=0).history for m in (model, again)]
    assert histories[0] == histories[1]
    assert equal_weights(weights_of(again.student), weights_of(model.student))
    assert histories[0]["accuracy"]


def test_teachers_of_words_keep_their_vocabulary(tmp_path):
    def network(width):
        lookup = layers.StringLookup(output_mode="count", name="lookup")
        lookup.adapt(np.array(["one", "two", "three"]))
        inputs = keras.Input((2,), dtype="string")
        return keras.Model(inputs, layers.Dense(3)(layers.Dense(width)(lookup(inputs))))

    words = np.array([["one", "two"], ["three", "one"]], dtype=object)
    model = kd.Distiller(network(8), network(4), "soft_targets")
    import tensorflow as tf

    expected = model.teacher(tf.constant(words.tolist())).numpy()
    model.save(tmp_path / "words.keras")
    again = keras.models.load_model(tmp_path / "words.keras")
    np.testing.assert_allclose(
        again.teacher(tf.constant(words.tolist())), expected, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("network", ["sequential", "subclassed"])
def test_other_kinds_of_networks_are_saved_too(tmp_path, network):
    x, _ = examples()
    if network == "sequential":
        teacher = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="softmax")])
        student = keras.Sequential([layers.Dense(4), layers.Dense(3)])
    else:
        teacher, student = Subclassed(), Subclassed()
        teacher(x)
        student(x)
    model = trained(teacher, student)
    model.save(tmp_path / "d.keras")
    again = keras.models.load_model(tmp_path / "d.keras")
    np.testing.assert_allclose(
        again.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(again.teacher(x), model.teacher(x), rtol=1e-5, atol=1e-6)


def test_weights_are_the_students_and_the_optimizers_not_the_teachers(tmp_path):
    import h5py

    big = mlp(width=4096, name="big_teacher")
    model = trained(big)
    path = tmp_path / "d.weights.h5"
    model.save_weights(path)
    assert os.path.getsize(path) < 100_000
    with h5py.File(path) as file:
        names: list[str] = []
        file.visit(names.append)
    assert any("optimizer" in name for name in names)
    other = kd.Distiller(mlp(width=16), mlp(), "soft_targets")
    before = weights_of(other.teacher)
    other.load_weights(path)
    assert equal_weights(weights_of(other.student), weights_of(model.student))
    assert equal_weights(weights_of(other.teacher), before)
    model.student.save(tmp_path / "student.keras")
    assert os.path.getsize(tmp_path / "student.keras") < 50_000


def test_a_fresh_process_loads_it_after_nothing_but_the_import(tmp_path):
    model = trained()
    model.save(tmp_path / "d.keras")
    program = "import keras_distill, keras, sys; print(keras.models.load_model(sys.argv[1]).name)"
    command = [sys.executable, "-c", program, str(tmp_path / "d.keras")]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    assert result.stdout.strip() == "distiller", result.stderr


@keras.saving.register_keras_serializable(package="tests.keras_distill")
class Scaled(layers.Layer, kd.losses.DistillationLoss):
    """A loss with a weight of its own."""

    def __init__(self, name="scaled", **config):
        layers.Layer.__init__(self)
        kd.losses.DistillationLoss.__init__(self, name="scaled")
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")

    def compute_loss(self, teacher_outputs, student_outputs, labels=None, sample_weight=None):
        return keras.ops.mean(keras.ops.square(self.scale * student_outputs - teacher_outputs))


def test_the_weights_of_losses_are_saved_with_the_distiller(tmp_path):
    model = kd.Distiller(mlp(width=16), mlp(), Scaled())
    model.compile(keras.optimizers.SGD(0.1), loss=SCE)
    model.fit(*examples(), verbose=0)
    scale = float(model.distillation_losses[0].scale)
    assert scale != 1.0
    model.save(tmp_path / "d.keras")
    assert (
        float(keras.models.load_model(tmp_path / "d.keras").distillation_losses[0].scale) == scale
    )
    model.save_weights(tmp_path / "d.weights.h5")
    other = kd.Distiller(mlp(width=16), mlp(), Scaled())
    other.load_weights(tmp_path / "d.weights.h5")
    assert float(other.distillation_losses[0].scale) == scale


def test_config_round_trip():
    model = kd.Distiller(
        mlp(width=16),
        mlp(),
        [kd.losses.SoftTargets(2.0), keras.distillation.FeatureDistillation("mse", "top", "top")],
        [3.0, 0.5],
        student_loss_weight=0.1,
        student_inputs=halved,
        student_activation="linear",
    )
    again = kd.Distiller.from_config(model.get_config())
    config = again.get_config()
    assert config == model.get_config()
    assert config["student_loss_weight"] == 0.1
    assert config["distillation_loss_weights"] == [3.0, 0.5]
    assert config["student_activation"] == "linear"
    assert again._network.inputs is halved
    assert again.distillation_losses[0].temperature == 2.0


def test_a_teacher_that_cannot_be_saved_says_so_and_weights_still_can(tmp_path):
    teacher = kd.teachers.CallableTeacher(lambda x: np.zeros((len(x), 3), "float32"), (3,))
    model = trained(teacher)
    path = tmp_path / "d.keras"
    with pytest.raises(
        ValueError, match=r"Python callable, which cannot be saved: save `distiller.student`"
    ):
        model.save(path)
    assert not path.exists()
    model.save_weights(tmp_path / "d.weights.h5")


def test_the_seeds_are_saved(tmp_path):
    model = trained(student=with_state())
    model.save_weights(tmp_path / "d.weights.h5")
    keras.utils.set_random_seed(99)
    other = kd.Distiller(mlp(width=16), with_state(), "soft_targets")
    other.compile(keras.optimizers.Adam(0.01), loss=SCE)
    other.optimizer.build(other.trainable_variables)
    other.load_weights(tmp_path / "d.weights.h5")
    states = [[np.asarray(seed) for seed in m._seed_states()] for m in (model, other)]
    assert len(states[0]) == 2
    assert equal_weights(*states)


SCRIPT = """
    import os, sys
    import keras, numpy as np
    import keras_distill as kd
    from tests.keras_distill.networks import examples, mlp, with_state

    folder, kill_at = sys.argv[1], int(sys.argv[2])
    keras.utils.set_random_seed(5)
    teacher = mlp(width=16)
    inputs = keras.Input((4,))
    noisy = keras.layers.GaussianNoise(0.3)(inputs)          # augmentation within the model
    student = keras.Model(inputs, with_state()(noisy))
    if kill_at < 0:
        keras.utils.set_random_seed(1234)                    # a resumed process need not know the seed
    model = kd.Distiller(teacher, student, "soft_targets")
    model.compile(keras.optimizers.Adam(0.01), loss="sparse_categorical_crossentropy")

    class Kill(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if self.epoch == kill_at and batch == 1:
                os._exit(9)
        def on_epoch_begin(self, epoch, logs=None):
            self.epoch = epoch

    backup = keras.callbacks.BackupAndRestore(os.path.join(folder, "backup"))
    model.fit(*examples(24), batch_size=8, epochs=4, verbose=0, callbacks=[backup, Kill()])
    np.savez(os.path.join(folder, "end.npz"), *student.get_weights())
"""


def test_a_killed_and_resumed_training_ends_bit_identical(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(textwrap.dedent(SCRIPT))
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

    def run(folder, kill_at):
        folder.mkdir(exist_ok=True)
        environment = {**os.environ, "PYTHONPATH": root, "TF_CPP_MIN_LOG_LEVEL": "2"}
        command = [sys.executable, str(script), str(folder), str(kill_at)]
        return subprocess.run(command, env=environment, check=False, capture_output=True, text=True)

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    result = run(whole, 99)
    assert result.returncode == 0, result.stderr
    assert run(killed, 2).returncode == 9
    assert not (killed / "end.npz").exists()
    result = run(killed, -1)
    assert result.returncode == 0, result.stderr
    ends = [list(np.load(folder / "end.npz").values()) for folder in (whole, killed)]
    assert equal_weights(*ends)
