"""Files of Keras: whole, damaged, with code inside."""

import base64
import errno
import json
import marshal
import zipfile

import keras
import numpy as np
import pytest
import tf_keras

import keras_distill as kd
from keras_distill.teacher_files import unsafe
from tests.keras_distill.networks import Subclassed, mlp


def test_keras_3_files_are_keras_models(tmp_path):
    model = mlp()
    x = np.ones((2, 4), "float32")
    for name in ("new.keras", "new.h5"):
        model.save(tmp_path / name)
        again = kd.teachers.load(str(tmp_path / name))
        assert isinstance(again, keras.Model)
        np.testing.assert_array_equal(again(x), model(x))


def lambda_of(library, path):
    """A file whose Lambda layer makes a file when it is called, if it is ever loaded."""
    code = f"lambda x: (x, open({str(path.with_suffix('.made'))!r}, 'w').close())[0]"
    model = library.Sequential(
        [
            library.Input((4,)),
            library.layers.Lambda(eval(code), name="trap"),
            library.layers.Dense(3),
        ]
    )
    path.with_suffix(".made").unlink()  # made while the model was built
    model.save(path)
    path.with_suffix(".made").unlink(missing_ok=True)
    return path


@pytest.mark.parametrize("library", [keras, tf_keras])
@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_code_in_a_file_is_never_run(library, name, tmp_path):
    path = lambda_of(library, tmp_path / name)
    with pytest.raises(ValueError, match=r"carries Python code \(layer 'trap'\), which is not run"):
        kd.teachers.load(path)
    assert not path.with_suffix(".made").exists()


def with_function(path, function, call=None):
    """An `.h5` of Keras 2 that calls a function of TensorFlow."""
    import h5py

    x = tf_keras.Input((4,))
    tf_keras.Model(x, x * 2.0).save(path)
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        for layer in config["config"]["layers"]:
            if layer["class_name"] == "TFOpLambda":
                layer["config"]["function"] = function
                layer["inbound_nodes"] = call or layer["inbound_nodes"]
        file.attrs["model_config"] = json.dumps(config)
    return path


@pytest.mark.parametrize(
    "function",
    [
        "io.write_file",
        "compat.v1.write_file",
        "compat.v1.read_file",
        "compat.v1.py_func",
        "compat.v1.set_random_seed",
        "nn.fixed_unigram_candidate_sampler",
        "random.set_seed",
        "xla_custom_call",
        "rpc_call",
    ],
)
def test_functions_of_tensorflow_that_are_no_layers_are_not_run(function, tmp_path):
    with pytest.raises(ValueError, match=rf"calls tf.{function}.* it is not run"):
        kd.teachers.load(with_function(tmp_path / "old.h5", function))


def test_a_native_library_that_a_file_names_is_not_loaded(tmp_path):
    call = [["_CONSTANT_VALUE", -1, str(tmp_path / "trap.so"), {}]]
    path = with_function(tmp_path / "old.h5", "compat.v1.load_file_system_library", call)
    with pytest.raises(ValueError, match=r"load_file_system_library.* it is not run"):
        kd.teachers.load(path)


def test_nodes_of_graphs_that_are_no_layers_are_not_run(tmp_path):
    import h5py

    path = with_function(tmp_path / "old.h5", "math.multiply")
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        for layer in config["config"]["layers"]:
            if layer["class_name"] == "TFOpLambda":
                layer["class_name"] = "TensorFlowOpLayer"
                layer["config"] = {"name": "trap", "node_def": {"name": "trap", "op": "WriteFile"}}
        file.attrs["model_config"] = json.dumps(config)
    with pytest.raises(ValueError, match=r"calls tf.raw_ops.WriteFile \(layer 'trap'\)"):
        kd.teachers.load(path)


def test_code_in_a_cell_is_not_run(tmp_path):
    import h5py

    x = tf_keras.Input((5, 4))
    tf_keras.Model(x, tf_keras.layers.RNN(tf_keras.layers.GRUCell(4))(x)).save(tmp_path / "old.h5")
    marker = tmp_path / "made"
    made = {}
    exec(f"def trap(i, o):\n    open({str(marker)!r}, 'w').close()\n    return o", made)
    code = base64.b64encode(marshal.dumps(made["trap"].__code__)).decode()
    with h5py.File(tmp_path / "old.h5", "r+") as file:
        config = json.loads(file.attrs["model_config"])
        inner = config["config"]["layers"][1]["config"]
        inner["cell"] = {
            "class_name": "ResidualWrapper",
            "config": {
                "name": "trap",
                "cell": inner["cell"],
                "residual_fn": [code, None, None],
                "residual_fn_type": "lambda",
                "residual_fn_module": "builtins",
            },
        }
        file.attrs["model_config"] = json.dumps(config)
    with pytest.raises(ValueError, match=r"carries Python code \(layer 'trap'\)"):
        kd.teachers.load(tmp_path / "old.h5")
    assert not marker.exists()


@pytest.mark.parametrize("function", ["compat.v1.transpose", "reshape", "nn.relu"])
def test_functions_of_tensorflow_that_are_layers_are(function):
    unsafe.refuse_code({"class_name": "TFOpLambda", "config": {"function": function}}, "old.h5")


@pytest.mark.parametrize("library", [keras, tf_keras])
def test_the_loss_that_a_model_was_trained_with_is_not_asked_for(library, tmp_path):
    def own(truth, answer):
        return truth - answer

    model = library.Sequential([library.Input((4,)), library.layers.Dense(3)])
    model.compile("sgd", own)
    model.save(tmp_path / "model.keras")
    x = np.ones((2, 4), "float32")
    np.testing.assert_allclose(kd.teachers.load(tmp_path / "model.keras")(x), model(x), atol=1e-6)


def test_a_function_of_ones_own_is_asked_for_by_its_name(tmp_path):
    def own(x):
        return x

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation=own)])
    model.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match=r"custom_objects=\{'own': …\}"):
        kd.teachers.load(tmp_path / "model.keras")
    assert kd.teachers.load(tmp_path / "model.keras", custom_objects={"own": own}).layers


def test_modules_that_a_file_names_are_not_imported(tmp_path):
    marker = tmp_path / "imported"
    (tmp_path / "trap_of_a_file.py").write_text(f"open({str(marker)!r}, 'w').close()")
    model = tf_keras.Sequential([tf_keras.Input((4,)), tf_keras.layers.Dense(3)])
    model.save(tmp_path / "old.h5")
    import sys

    import h5py

    with h5py.File(tmp_path / "old.h5", "r+") as file:
        config = json.loads(file.attrs["model_config"])
        config["config"]["layers"][1]["config"]["kernel_initializer"]["module"] = "trap_of_a_file"
        file.attrs["model_config"] = json.dumps(config)
    sys.path.insert(0, str(tmp_path))
    try:
        sentence = (
            r"has 'GlorotUniform' of "
            r"trap_of_a_file, which is not part of Keras"
        )
        with pytest.raises(ValueError, match=sentence):
            kd.teachers.load(tmp_path / "old.h5")
    finally:
        sys.path.remove(str(tmp_path))
    assert not marker.exists()


def test_custom_classes_are_asked_for_by_name(tmp_path):
    class Mine(keras.layers.Layer):
        """Not registered."""

        def call(self, inputs):
            return inputs + 1

    keras.Sequential([keras.Input((4,)), Mine()]).save(tmp_path / "mine.keras")
    with pytest.raises(ValueError, match=r"mine.keras .*Mine.*custom_objects="):
        kd.teachers.load(tmp_path / "mine.keras")
    model = kd.teachers.load(tmp_path / "mine.keras", custom_objects={"Mine": Mine})
    np.testing.assert_array_equal(model(np.zeros((1, 4))), np.ones((1, 4)))
    registered = Subclassed()
    registered(np.zeros((1, 4)))
    registered.save(tmp_path / "registered.keras")
    assert type(kd.teachers.load(tmp_path / "registered.keras")) is Subclassed


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.99])
def test_a_file_that_is_cut_off_is_named(name, share, tmp_path):
    mlp(width=64).save(tmp_path / name)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=rf"{name} (is damaged|cannot be loaded)"):
        kd.teachers.load(tmp_path / name)


def test_a_keras_file_with_broken_weights(tmp_path):
    mlp().save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as whole:
        entries = {name: whole.read(name) for name in whole.namelist()}
    with zipfile.ZipFile(tmp_path / "broken.keras", "w") as broken:
        for name, content in entries.items():
            broken.writestr(name, content[:1000] if name.endswith(".h5") else content)
    with pytest.raises(ValueError, match=r"broken.keras cannot be loaded"):
        kd.teachers.load(tmp_path / "broken.keras")


def test_weights_alone_are_no_teacher(tmp_path):
    mlp().save_weights(tmp_path / "new.weights.h5")
    tf_keras.Sequential([tf_keras.Input((4,)), tf_keras.layers.Dense(3)]).save_weights(
        tmp_path / "old.h5"
    )
    for name in ("new.weights.h5", "old.h5"):
        with pytest.raises(ValueError, match=rf"{name} holds weights without the network"):
            kd.teachers.load(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("model.onnx", r"model.onnx is of no kind that can be loaded: give a .keras or .h5 file"),
        ("folder", r"The folder .*folder has no saved_model.pb, nor a numbered version with one"),
        ("text.keras", r"text.keras is damaged"),
        ("text.tflite", r"text.tflite"),
        ("hdf.keras", r"hdf.keras is an HDF5 file: rename it to hdf.h5"),
    ],
)
def test_other_files_get_a_sentence(name, sentence, tmp_path):
    (tmp_path / "folder").mkdir()
    for file in ("model.onnx", "text.keras", "text.tflite"):
        (tmp_path / file).write_text("of no use")
    mlp().save(tmp_path / "hdf.h5")
    (tmp_path / "hdf.h5").rename(tmp_path / "hdf.keras")
    with pytest.raises(ValueError, match=sentence):
        kd.teachers.load(tmp_path / name)


def test_what_is_not_there_and_what_has_no_meaning(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no file or folder .*nothing.keras"):
        kd.teachers.load(tmp_path / "nothing.keras")
    mlp().save(tmp_path / "model.keras")
    for argument in ({"signature": "serve"}, {"num_threads": 2}):
        with pytest.raises(ValueError, match=rf"{next(iter(argument))}= has no meaning for"):
            kd.teachers.load(tmp_path / "model.keras", **argument)
    with pytest.raises(ValueError, match="give teacher_activation= to the Distiller"):
        kd.teachers.load(tmp_path / "model.keras", activation="softmax")


def test_a_full_disk_is_no_damage(tmp_path, monkeypatch):
    mlp().save(tmp_path / "model.keras")

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(keras.models, "load_model", full)
    with pytest.raises(OSError, match="No space left on device"):
        kd.teachers.load(tmp_path / "model.keras")
