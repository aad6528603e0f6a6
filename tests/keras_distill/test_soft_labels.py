"""Stored labels: what is stored, that it belongs to the data, and that nothing is lost."""

import json
import os
import signal
import subprocess
import sys
import time
import types
import urllib.error

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_distill as kd
from keras_distill import epoch
from keras_distill.soft_labels import manifest

COUNT, SIZE = 40, 8
SCE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def cnn(width, classes=5, activation=None):
    inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.Conv2D(width, 3, padding="same", activation="relu", name="conv")(inputs)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(classes, activation=activation, name="top")(x))


@pytest.fixture(scope="module")
def teacher():
    keras.utils.set_random_seed(3)
    model = cnn(6)
    model.layers[-1].kernel.assign(model.layers[-1].kernel * 3)
    return model


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 2, (COUNT, SIZE, SIZE, 3)).astype("float32")
    return x, rng.integers(0, 5, COUNT)


def pipeline(arrays, **other):
    return kd.data.arrays(*arrays, batch_size=7, augment=kd.data.CropAndFlip(2), **other)


def stream(arrays, batch_size=7):
    """A data set of somebody's own, whose views are functions of `epoch.view()`."""

    def shift(x, y):
        return tf.roll(x, tf.cast(epoch.view(), tf.int32), axis=1), y

    return tf.data.Dataset.from_tensor_slices(arrays).map(shift).batch(batch_size)


class Py(keras.utils.PyDataset):
    def __init__(self, arrays):
        super().__init__()
        self.arrays = arrays

    def __len__(self):
        return COUNT // 8

    def __getitem__(self, i):
        return tuple(one[8 * i : 8 * i + 8] for one in self.arrays)


KINDS = {"arrays": lambda a: a, "pipeline": pipeline, "stream": stream, "py": Py}
kinds = pytest.mark.parametrize("kind", list(KINDS))


def build(teacher, data, folder, **arguments):
    arguments = {"dtype": "float32", "verbose": False, "batch_size": 7} | arguments
    return kd.SoftLabels.build(teacher, data, folder, **arguments)


def fitted(teacher, student, data, terms=None, epochs=3):
    """The history of soft losses of a student that does not change."""
    model = kd.Distiller(teacher, student, terms or [kd.losses.SoftTargets()])
    model.compile(keras.optimizers.SGD(0.0), SCE)
    return model.fit(data, epochs=epochs, verbose=0).history["distillation_loss"]


@kinds
def test_stored_labels_teach_what_the_teacher_teaches(teacher, arrays, tmp_path, kind):
    views = 1 if kind in ("arrays", "py") else 2
    student, data = cnn(3), KINDS[kind](arrays)
    labels = build(teacher, data, tmp_path / "labels", views=views)
    joined = labels.attach(data, batch_size=7)
    live = joined if kind != "stream" else data
    found = fitted(labels, student, joined)
    expected = fitted(teacher, student, live)
    if kind == "stream":  # without labels each epoch is another view
        expected = expected[:2] + expected[:1]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert len({round(one, 5) for one in found}) == views


def test_mixtures_and_photos_are_seen_as_the_teacher_saw_them(teacher, arrays, tmp_path):
    from PIL import Image

    files = []
    for i, pixels in enumerate((arrays[0][:12] * 127).astype("uint8")):
        files.append(tmp_path / f"{i}.png")
        Image.fromarray(pixels).save(files[-1])
    student = cnn(3)
    light = {"batch_size": 5, "augment": kd.data.Light(), "cache_bytes": 0}
    for number, data in enumerate(
        (pipeline(arrays, mixup=1.0), kd.data.photos(files, arrays[1][:12], SIZE, **light))
    ):
        labels = build(teacher, data, tmp_path / f"labels{number}", views=2)
        joined = labels.attach(data)
        np.testing.assert_allclose(
            fitted(labels, student, joined), fitted(teacher, student, joined), rtol=1e-4
        )


@pytest.mark.parametrize("kind", ["tflite", "saved_model", "callable"])
def test_teachers_of_other_kinds_label(teacher, arrays, tmp_path, kind):
    import tflite_export as te

    if kind == "tflite":
        te.export(teacher, tmp_path / "teacher.tflite")
        other = kd.teachers.load(tmp_path / "teacher.tflite")
    elif kind == "saved_model":
        teacher.export(tmp_path / "served", verbose=False)
        other = kd.teachers.load(tmp_path / "served", activation="linear")
    else:
        other = kd.teachers.CallableTeacher(lambda x: np.asarray(teacher(x)), (5,))
    labels = build(other, arrays, tmp_path / "labels")
    batch = next(iter(labels.attach(arrays, batch_size=COUNT)))[0]
    np.testing.assert_allclose(
        labels.targets(batch).logits, teacher(batch["inputs"]), rtol=1e-4, atol=1e-5
    )
    build(other, arrays, tmp_path / "labels")
    with pytest.raises(ValueError, match="holds other labels: their teacher is"):
        build(teacher, arrays, tmp_path / "labels")


def named(factor=1.0, count=3):
    """A teacher of NumPy arrays that has the same name whatever it answers."""

    def answer(x):
        return factor * np.stack([x.reshape(len(x), -1)[:, i] for i in range(count)], -1)

    return kd.teachers.CallableTeacher(answer, (count,))


def test_a_teacher_that_answers_otherwise_is_refused(arrays, tmp_path, monkeypatch):
    monkeypatch.setattr("keras_distill.soft_labels.plan._SHARD_ROWS", 8)
    build(named(), arrays, tmp_path)
    build(named(), arrays, tmp_path)  # finished
    for gone in (slice(0), slice(-1, None), slice(1)):
        for path in sorted(tmp_path.glob("*/*.tfrecord"))[gone]:
            path.unlink()
        with pytest.raises(ValueError, match=r"labels of another teacher: to example number \d"):
            build(named(1.1), arrays, tmp_path)
    build(named(), arrays, tmp_path)
    with pytest.raises(ValueError, match="labels of 40 examples, and the arrays has 39"):
        build(named(), tuple(one[:-1] for one in arrays), tmp_path)


def test_dropout_is_no_other_teacher_in_another_process(arrays, tmp_path):
    inputs = keras.Input((SIZE, SIZE, 3))
    dropped = layers.Dropout(0.5)(layers.GlobalAveragePooling2D()(inputs))
    keras.Model(inputs, layers.Dense(5)(dropped)).save(tmp_path / "teacher.keras")
    first, second = (
        build(keras.models.load_model(tmp_path / "teacher.keras"), arrays, tmp_path / "labels")
        for _ in range(2)  # each time with another seed
    )
    assert first.manifest == second.manifest


def test_half_precision_is_close(teacher, arrays, tmp_path):
    student = cnn(3)
    labels = build(teacher, arrays, tmp_path, dtype="float16")
    found = fitted(labels, student, labels.attach(arrays), epochs=1)
    np.testing.assert_allclose(
        found, fitted(teacher, student, labels.attach(arrays), epochs=1), rtol=1e-3
    )


def test_features_are_stored_and_connected(teacher, arrays, tmp_path):
    labels = build(teacher, arrays, tmp_path, features=["conv"])
    student, hint = cnn(3), kd.losses.Hint("conv", "conv")
    found = fitted(labels, student, labels.attach(arrays), [hint], epochs=1)
    assert hint.connectors[0].activation is keras.activations.relu
    expected = fitted(teacher, student, labels.attach(arrays), [hint], epochs=1)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    with pytest.raises(ValueError, match=r"Layers \['top'\] .* has only \['conv'\]"):
        kd.Distiller(labels, student, kd.losses.CosineFeatures("top", "top"))


@pytest.mark.parametrize("top_k", [1, 2, 4, 5])
def test_the_largest_logits_are_exact_and_the_rest_share_what_is_left(
    teacher, arrays, tmp_path, top_k
):
    labels = build(teacher, arrays, tmp_path, top_k=top_k)
    logits = teacher.predict(arrays[0], verbose=0)
    batch = next(iter(labels.attach(arrays, batch_size=COUNT)))[0]
    order = np.argsort(batch["inputs"].numpy().reshape(COUNT, -1)[:, 0])
    found = labels.targets(batch).logits.numpy()[order]
    logits = logits[np.argsort(arrays[0].reshape(COUNT, -1)[:, 0])]
    p, q = (np.exp(one) / np.exp(one).sum(-1, keepdims=True) for one in (logits, found))
    largest = np.argsort(-logits, -1)[:, :top_k]
    np.testing.assert_allclose(
        np.take_along_axis(q, largest, -1), np.take_along_axis(p, largest, -1), rtol=1e-4
    )
    rest = np.ones_like(p, bool)
    np.put_along_axis(rest, largest, False, -1)
    for row, left in zip(q, rest, strict=True):
        np.testing.assert_allclose(row[left], row[left].mean() if left.any() else 0, rtol=1e-4)


def test_of_labels_that_are_right_or_wrong_the_others_keep_their_mean(tmp_path):
    inputs = keras.Input((10,))
    teacher = keras.Model(inputs, layers.Activation("sigmoid")(inputs))
    logits = np.array([[6, 6, 6, 6, -6, -6, -6, -6, -6, -6], np.linspace(-3, 3, 10)], "float32")
    labels = build(teacher, logits, tmp_path, top_k=3)
    batch = next(iter(labels.attach(logits, batch_size=2)))[0]
    order = np.argsort(-batch["inputs"].numpy()[:, 0])
    found, true = labels.targets(batch).outputs.numpy()[order], 1 / (1 + np.exp(-logits))
    for row, whole in zip(found, true, strict=True):
        largest = np.argsort(-row)[:3]
        np.testing.assert_allclose(np.sort(row[largest]), np.sort(whole)[-3:], rtol=1e-5)
        np.testing.assert_allclose(np.delete(row, largest), np.sort(whole)[:-3].mean(), rtol=1e-5)


def test_pixels_and_several_outputs(tmp_path):
    inputs = keras.Input((4, 4, 3))
    pixels = layers.Conv2D(6, 1, activation="softmax", name="pixels")(inputs)
    yes = layers.Dense(1, activation="sigmoid", name="yes")(layers.GlobalMaxPooling2D()(inputs))
    teacher = keras.Model(inputs, {"pixels": pixels, "yes": yes})
    x = np.random.default_rng(0).normal(size=(9, 4, 4, 3)).astype("float32")
    for top_k in (None, 2):
        labels = build(teacher, x, tmp_path / str(top_k), top_k=top_k)
        batch = next(iter(labels.attach(x, batch_size=9)))[0]
        answer = labels.targets(batch)
        live = teacher(batch["inputs"])
        np.testing.assert_allclose(answer.outputs["yes"], live["yes"], rtol=1e-5)
        assert answer.activations == {"pixels": "softmax", "yes": "sigmoid"}
        if top_k is None:
            np.testing.assert_allclose(answer.outputs["pixels"], live["pixels"], rtol=1e-4)
        else:
            np.testing.assert_allclose(
                np.max(answer.outputs["pixels"], -1), np.max(live["pixels"], -1), rtol=1e-4
            )


# The data


def altered(how, arrays):
    x, y = arrays
    if how == "reversed":
        return x[::-1].copy(), y
    if how == "brighter":
        return x * 1.01, y
    if how == "mirrored":
        return x[:, :, ::-1].copy(), y
    if how == "two swapped":
        x = x.copy()
        x[[30, 31]] = x[[31, 30]]
    return x, y


@pytest.mark.parametrize("how", ["reversed", "brighter", "mirrored", "two swapped"])
def test_other_data_is_refused(teacher, arrays, tmp_path, how):
    labels = build(teacher, arrays, tmp_path)
    with pytest.raises(ValueError, match="is not the one that was labelled"):
        fitted(labels, cnn(3), labels.attach(altered(how, arrays)), epochs=1)


def test_a_shuffled_filtered_or_longer_stream_is_refused(teacher, arrays, tmp_path):
    labels = build(teacher, stream(arrays), tmp_path)
    student = cnn(3)
    for other in (
        stream(arrays).unbatch().shuffle(COUNT, seed=1).batch(7),
        stream(arrays).unbatch().filter(lambda x, y: y != 0).batch(7),
    ):
        with pytest.raises(ValueError, match="is not the one that was labelled"):
            fitted(labels, student, labels.attach(other), epochs=1)
    longer = stream(arrays).concatenate(stream(arrays))
    with pytest.raises(ValueError, match="labels of 40 examples, and the data set has more"):
        fitted(labels, student, labels.attach(longer), epochs=1)
    with pytest.raises(ValueError, match="has no end"):
        labels.attach(stream(arrays).repeat())
    more = tuple(np.concatenate([one, one]) for one in arrays)
    with pytest.raises(ValueError, match="has labels of 40 examples, and the arrays has 80"):
        labels.attach(more)


def test_what_attach_returns_may_be_shuffled_and_batched_anew(teacher, arrays, tmp_path):
    labels, student = build(teacher, stream(arrays), tmp_path), cnn(3)
    joined = labels.attach(stream(arrays))
    found = fitted(labels, student, joined.unbatch().shuffle(COUNT).batch(5), epochs=1)
    np.testing.assert_allclose(found, fitted(labels, student, joined, epochs=1), rtol=1e-5)


def test_what_changes_each_time_it_is_read_is_refused_before_it_is_labelled(arrays, tmp_path):
    shuffled = tf.data.Dataset.from_tensor_slices(arrays).shuffle(COUNT).batch(8)
    with pytest.raises(ValueError, match="shows other examples each time that it is read"):
        build(named(), shuffled, tmp_path / "a")
    ordered = pipeline(arrays).map(lambda x, y: (x, y))  # an order of its own in each epoch
    labels = build(named(), ordered, tmp_path / "b")
    with pytest.raises(ValueError, match="is not the one that was labelled"):
        labels.attach(ordered)


def test_fit_without_attach_is_told(teacher, arrays, tmp_path):
    labels = build(teacher, arrays, tmp_path)
    with pytest.raises(ValueError, match=r"give fit what labels.attach\(dataset\) returns"):
        fitted(labels, cnn(3), tf.data.Dataset.from_tensor_slices(arrays).batch(8))


def test_validation_data_stays_plain(teacher, arrays, tmp_path):
    labels = build(teacher, arrays, tmp_path)
    model = kd.Distiller(labels, cnn(3), "soft_targets")
    model.compile("sgd", SCE, metrics=["accuracy"])
    history = model.fit(labels.attach(arrays), validation_data=arrays, verbose=0).history
    assert "val_accuracy" in history
    model.save(tmp_path / "d.keras")
    again = keras.models.load_model(tmp_path / "d.keras")
    assert again.teacher.path == labels.path
    again.fit(labels.attach(arrays), verbose=0)


# The folder


def test_what_is_there_is_not_asked_for_again(teacher, arrays, tmp_path, monkeypatch):
    monkeypatch.setattr("keras_distill.soft_labels.plan._SHARD_ROWS", 8)
    data = pipeline(arrays)
    first = build(teacher, data, tmp_path / "a", views=2)
    shards = sorted((tmp_path / "a").glob("*/*.tfrecord"))
    assert len(shards) == 10
    for path in shards[2:5]:
        path.unlink()
    with pytest.raises(
        ValueError, match=f"{shards[2].name} is missing: call SoftLabels.build again"
    ):
        first.attach(data)
    before = {path: path.stat().st_mtime_ns for path in shards if path.exists()}
    build(teacher, data, tmp_path / "a", views=2)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    build(teacher, data, tmp_path / "b", views=2)
    for path in shards:
        other = tmp_path / "b" / path.relative_to(tmp_path / "a")
        assert path.read_bytes() == other.read_bytes()


def test_workers_share_the_shards(teacher, arrays, tmp_path, monkeypatch):
    monkeypatch.setattr("keras_distill.soft_labels.plan._SHARD_ROWS", 8)
    assert build(teacher, stream(arrays), tmp_path / "a", views=2, worker=1, num_workers=2) is None
    with pytest.raises(ValueError, match=r"are not finished: call SoftLabels.build again"):
        kd.SoftLabels(tmp_path / "a")
    build(teacher, stream(arrays), tmp_path / "a", views=2, worker=0, num_workers=2)
    build(teacher, stream(arrays), tmp_path / "b", views=2)
    for path in (tmp_path / "b").rglob("[!.]*.*"):
        assert path.read_bytes() == (tmp_path / "a" / path.relative_to(tmp_path / "b")).read_bytes()


def test_a_flipped_byte_is_found_and_named(teacher, arrays, tmp_path):
    labels = build(teacher, arrays, tmp_path)
    (path,) = tmp_path.glob("*/*.tfrecord")
    whole = path.read_bytes()
    for at in (0, 9, 40, len(whole) - 1):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(ValueError, match=f"{path.name} is damaged"):
            labels.attach(arrays)
    record = len(whole) // COUNT
    for short in (b"", whole[:-5], whole[: 3 * record]):  # is named, and made anew
        path.write_bytes(short)
        with pytest.raises(ValueError, match=f"{path.name} (has|is damaged)"):
            labels.attach(arrays)
        build(teacher, arrays, tmp_path)
        assert path.read_bytes() == whole
    labels.attach(arrays)
    manifest = tmp_path / "manifest.json"
    text = manifest.read_text()
    of_version = text.index('"version": ') + len('"version": ')
    damaged = [
        text[:at] + chr(ord(text[at]) ^ 1) + text[at + 1 :]
        for at in (5, 60, len(text) // 2, of_version)
    ]
    for one in (*damaged, "[]", "", '{"a": 1}'):
        manifest.write_text(one)
        with pytest.raises(ValueError, match=r"manifest.json (is damaged|is not the manifest)"):
            kd.SoftLabels(tmp_path)


def test_a_manifest_of_another_version(arrays, tmp_path):
    build(named(), arrays, tmp_path)
    content = json.loads((tmp_path / "manifest.json").read_text())
    for version, sentence in ((99, "update it"), (1, "label anew into another folder")):
        del content["checksum"]
        content["version"] = version
        content["checksum"] = manifest._checksum(content)
        (tmp_path / "manifest.json").write_text(json.dumps(content))
        with pytest.raises(ValueError, match=f"has version {version}, .* {sentence}"):
            kd.SoftLabels(tmp_path)


def test_another_teacher_or_other_settings_are_refused(teacher, arrays, tmp_path):
    build(teacher, arrays, tmp_path)
    with pytest.raises(ValueError, match="holds other labels: their teacher is"):
        build(cnn(6), arrays, tmp_path)
    with pytest.raises(ValueError, match="holds other labels: their fields is"):
        build(teacher, arrays, tmp_path, dtype="float16")


def test_more_views_are_added(teacher, arrays, tmp_path):
    data = pipeline(arrays)
    build(teacher, data, tmp_path)
    before = (tmp_path / "view-0000" / "labels-000000.tfrecord").stat().st_mtime_ns
    labels = build(teacher, data, tmp_path, views=3)
    assert labels.views == 3
    assert (tmp_path / "view-0000" / "labels-000000.tfrecord").stat().st_mtime_ns == before


def test_what_cannot_be_stored_is_told_and_the_good_shards_are_kept(arrays, tmp_path, monkeypatch):
    monkeypatch.setattr("keras_distill.soft_labels.plan._SHARD_ROWS", 8)

    def asked(x):
        answer = np.tile(np.arange(5.0), (len(x), 1)) + x[:, 0, 0, :1]
        bad = np.flatnonzero(np.isclose(x[:, 0, 0, 0], arrays[0][30, 0, 0, 0]))
        answer[bad] = how
        return answer

    for how, sentence in (
        (np.nan, "answers nan to example number 30"),
        (1e6, "pass dtype='float32'"),
    ):
        folder = tmp_path / str(how)
        teacher = kd.teachers.CallableTeacher(asked, (5,))
        with pytest.raises(ValueError, match=sentence):
            build(teacher, arrays, folder, dtype="float16")
        kept = sorted(folder.glob("*/*.tfrecord"))
        assert 1 <= len(kept) <= 30 // 14 + 2
        assert not list(folder.rglob("*.part"))


def slow(x):
    time.sleep(0.02)
    return x.mean((1, 2))


def label_slowly(folder):
    x = np.random.default_rng(0).uniform(0, 2, (200, SIZE, SIZE, 3)).astype("float32")
    build(kd.teachers.CallableTeacher(slow, (3,)), x, folder)


KILLED = """
import sys
sys.path[:0] = {path!r}
from keras_distill.soft_labels import plan
plan._SHARD_ROWS = 8
from tests.keras_distill import test_soft_labels
test_soft_labels.label_slowly({folder!r})
"""


def test_killed_and_called_again_it_ends_as_if_it_had_not_been_killed(tmp_path, monkeypatch):
    code = KILLED.format(path=sys.path, folder=str(tmp_path / "a"))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    while len(list(tmp_path.glob("a/*/*.tfrecord"))) < 3 and process.poll() is None:
        pass
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 3 <= len(list(tmp_path.glob("a/*/*.tfrecord"))) < 25
    monkeypatch.setattr("keras_distill.soft_labels.plan._SHARD_ROWS", 8)
    label_slowly(tmp_path / "a")
    label_slowly(tmp_path / "b")
    names = sorted(path.relative_to(tmp_path / "b") for path in (tmp_path / "b").rglob("[!.]*.*"))
    assert len(names) > 10
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_other_data_does_not_go_on_with_what_is_there(teacher, arrays, tmp_path, monkeypatch):
    monkeypatch.setattr("keras_distill.soft_labels.plan._SHARD_ROWS", 8)
    build(teacher, arrays, tmp_path, views=1)
    sorted(tmp_path.glob("*/*.tfrecord"))[-1].unlink()
    with pytest.raises(ValueError, match="holds labels of other data: example number 0"):
        build(teacher, altered("reversed", arrays), tmp_path)
    build(teacher, arrays, tmp_path)


def test_views_that_are_all_the_same_are_refused(teacher, arrays, tmp_path):
    with pytest.raises(ValueError, match="shows the same in view 1 as in view 0: pass views=1"):
        build(teacher, arrays, tmp_path, views=2)


def test_what_is_there_needs_no_room(arrays, tmp_path, monkeypatch):
    monkeypatch.setattr("keras_distill.soft_labels.plan._SHARD_ROWS", 8)
    build(named(), arrays, tmp_path)
    sorted(tmp_path.glob("*/*.tfrecord"))[1].unlink()
    for free in (100, 10_000):
        monkeypatch.setattr(
            "shutil.disk_usage", lambda path, free=free: types.SimpleNamespace(free=free)
        )
        if free == 100:
            with pytest.raises(
                ValueError, match=r"The labels take [\d,]+ bytes, and .* has 100 bytes"
            ):
                build(named(), arrays, tmp_path)
    build(named(), arrays, tmp_path)


def test_a_teacher_that_raises_says_what_it_said(arrays, tmp_path):
    for error in (
        RuntimeError("the service is down"),
        ConnectionError("reset"),
        urllib.error.URLError("503"),  # an OSError, and not the disk's
        KeyboardInterrupt(),
    ):

        def ask(x, error=error):
            raise error

        with pytest.raises(type(error), match=str(error) or None):
            build(kd.teachers.CallableTeacher(ask, (3,)), arrays, tmp_path)
    with pytest.raises(ValueError, match=r"answered 7 examples with an array of shape \(7, 8"):
        build(kd.teachers.CallableTeacher(lambda x: x, (3,)), arrays, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"batch_size": 0}, "batch_size must be a whole number"),
        ({"worker": "0"}, "worker='0' must be a whole number from 0 to"),
        ({"worker": 2, "num_workers": 2}, "worker=2 must be a whole number from 0 to"),
        ({"dtype": "int8"}, "dtype='int8'"),
        ({"views": 0}, "views must be a whole number"),
        ({"features": "none"}, r"Layers \['none'\] of the teacher are wanted"),
    ],
)
def test_arguments_that_cannot_be_meant(arrays, tmp_path, arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        build(named(), arrays, tmp_path, **arguments)
    assert not list(tmp_path.iterdir())


def test_a_py_dataset_keeps_its_length_its_lists_and_its_errors(arrays, tmp_path):
    class Lists(Py):
        def __getitem__(self, i):
            x, y = super().__getitem__(i)
            if broken:
                raise RuntimeError("no such file")
            return [x, x[:, 0]], y, None

    broken = False
    both = kd.teachers.CallableTeacher(lambda x: x[0][:, 0, 0], (3,))
    labels = build(both, Lists(arrays), tmp_path)
    joined = labels.attach(Lists(arrays))
    assert len(joined) == COUNT // 8
    assert [one.shape[1:] for one in joined.element_spec[0]["inputs"]] == [(8, 8, 3), (8, 3)]
    broken = True
    with pytest.raises(RuntimeError, match="no such file"):
        build(both, Lists(arrays), tmp_path / "b")
    Py.__len__, whole = lambda self: 0, Py.__len__
    try:
        with pytest.raises(ValueError, match="The PyDataset has no batches"):
            build(both, Py(arrays), tmp_path / "c")
    finally:
        Py.__len__ = whole


def test_two_processes_at_once_are_refused(teacher, arrays, tmp_path):
    tmp_path.joinpath(".worker-0-of-1.lock").touch()
    from keras_distill.locking import only_one

    with (
        only_one(tmp_path / ".worker-0-of-1.lock", "mine"),
        pytest.raises(ValueError, match="Another process is worker 0 of 1"),
    ):
        build(teacher, arrays, tmp_path)


def test_a_read_only_folder_or_a_full_disk(teacher, arrays, tmp_path, monkeypatch):
    def full(path, rows):
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr("keras_distill.soft_labels.shards.write", full)
        with pytest.raises(OSError, match=r"No space left on device: the labels .* are kept"):
            build(teacher, arrays, tmp_path / "a")
    build(teacher, arrays, tmp_path / "a").attach(arrays)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="Make room, or give another folder"):
        build(teacher, arrays, tmp_path / "file" / "labels")


def test_a_model_that_has_labelled_can_be_trained(arrays, tmp_path):
    model = cnn(4)
    model.layers[1].trainable = False

    def flags():
        return [layer.trainable for layer in (model, *model.layers)]

    before = flags()
    build(model, arrays, tmp_path / "a")
    with pytest.raises(ValueError, match=r"teacher are wanted|no layer"):
        build(model, arrays, tmp_path / "b", features="none")
    assert flags() == before


def test_a_function_labels(arrays, tmp_path):
    def ask(x):
        return np.tile(x["photo"].mean((1, 2))[:, None], (1, 2, 1))

    x = {"photo": arrays[0]}
    labels = build(ask, x, tmp_path / "a", teacher_activation="linear")
    assert labels.manifest.fields[1].shape == (2, 3)
    build(ask, x, tmp_path / "a", teacher_activation="linear")
    build(lambda x: x.mean((1, 2)) - 9, x, tmp_path / "b", teacher_inputs="photo")
    with pytest.raises(
        ValueError, match=r"7 examples with an array of shape \(3,\); expected \(7, "
    ):
        build(lambda x: x["photo"].mean((0, 1, 2)), x, tmp_path / "c")
    for other in ("resnet", layers.Dense(3), 3):
        with pytest.raises(ValueError, match=r"Teacher must be a keras\.Model or one of"):
            build(other, x, tmp_path / "c")


def test_a_class_that_the_teacher_excludes_stays_so(arrays, tmp_path):
    excluding = kd.teachers.CallableTeacher(
        lambda x: x[:, 0, 0] + np.array([0, -np.inf, 0]), 3, "linear"
    )
    for _ in range(2):
        labels = build(excluding, arrays, tmp_path)
    batch = next(iter(labels.attach(arrays)))[0]
    assert np.isneginf(labels.targets(batch).logits[:, 1]).all()
    other = kd.teachers.CallableTeacher(lambda x: x[:, 0, 0], 3, "linear")
    other.function.__qualname__ = excluding.function.__qualname__
    with pytest.raises(ValueError, match="holds labels of another teacher"):
        build(other, arrays, tmp_path)


def ahead(arrays):
    """Batches that are made before they are asked for."""
    return stream(arrays, 4).prefetch(4)


def test_each_epoch_begins_anew_with_its_view(teacher, arrays, tmp_path):
    labels, student = build(teacher, ahead(arrays), tmp_path, views=2), cnn(3)
    joined = labels.attach(ahead(arrays))
    model = kd.Distiller(labels, student, "soft_targets")
    model.compile(keras.optimizers.SGD(0.0), SCE, run_eagerly=True)
    found, expected = (
        model.fit(data, epochs=2, steps_per_epoch=steps, verbose=0).history["distillation_loss"]
        for data, steps in ((joined, 2), (joined.take(2), None))
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found[0] != pytest.approx(found[1], rel=1e-5)
    for steps in (None, 2):
        with pytest.raises(ValueError, match=r"leave out repeat\(\); fit repeats by itself"):
            model.fit(joined.repeat(), steps_per_epoch=steps, verbose=0)


def uneven(arrays):
    """Two data sets, each of which ends in a batch that is not full."""
    halves = ([one[:18] for one in arrays], [one[18:36] for one in arrays])
    first, second = (stream(tuple(half)) for half in halves)
    return first.concatenate(second)


def shown(arrays, count):
    return stream(tuple(one[:count] for one in arrays))


def of_unknown_length(arrays, count):
    return stream(arrays).unbatch().filter(lambda x, y: True).take(count).batch(7)


@pytest.mark.parametrize("make", [shown, of_unknown_length])
def test_data_of_another_length_is_refused_where_all_is_labelled(arrays, tmp_path, make):
    build(named(), make(arrays, 20), tmp_path)
    for count in (40, 10):
        with pytest.raises(
            ValueError, match=f"has {count} examples in view 0, and 20 were expected"
        ):
            build(named(), make(arrays, count), tmp_path)
    build(named(), make(arrays, 20), tmp_path)


def test_batches_of_any_lengths_are_no_other_data(arrays, tmp_path):
    build(named(), uneven(arrays), tmp_path)
    before = {file: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}
    build(named(), uneven(arrays), tmp_path)
    assert {file: file.read_bytes() for file in before} == before


def test_room_is_looked_for_where_the_number_of_batches_is_known(
    arrays, tmp_path, monkeypatch, capsys
):
    build(named(), stream(arrays), tmp_path / "a", views=2, verbose=True)
    each = kd.SoftLabels(tmp_path / "a").manifest.dtype.itemsize + 16
    expected = f"Labels of 2 views of up to 42 examples: up to {2 * 42 * each:,} bytes in "
    assert expected in capsys.readouterr().out
    build(named(), of_unknown_length(arrays, 9), tmp_path / "b", verbose=True)
    assert f"Labels of 1 views of each example: {each} bytes in" in capsys.readouterr().out
    monkeypatch.setattr("shutil.disk_usage", lambda path: types.SimpleNamespace(free=1000))
    with pytest.raises(ValueError, match=r"The labels take .* has 1,000 bytes left"):
        build(named(), stream(arrays), tmp_path / "c")


def test_a_saved_distiller_finds_its_labels_from_elsewhere(arrays, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    labels = build(named(count=5), arrays, "labels")
    model = kd.Distiller(labels, cnn(3), "soft_targets")
    model.compile("sgd", SCE)
    model.save("d.keras")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert keras.models.load_model(tmp_path / "d.keras").teacher.path == tmp_path / "labels"
    labels.attach(arrays)


def test_what_a_killed_worker_had_begun_is_removed_by_the_next(arrays, tmp_path):
    build(named(), arrays, tmp_path)
    (path,) = tmp_path.glob("*/*.tfrecord")
    path.unlink()
    parts = [path.with_name(f".labels-{i:06}.tfrecord.00c0ffee.part") for i in (0, 1)]
    for part in parts:
        part.touch()
    build(named(), arrays, tmp_path, worker=0, num_workers=2)
    assert [part.exists() for part in parts] == [False, True]  # that is the other's


def test_shapes_that_cannot_be_joined_are_told(arrays, tmp_path):
    ragged = tf.ragged.constant([[1, 2], [3], [4, 5, 6]])
    sparse = tf.sparse.from_dense(np.eye(3))
    for x in (ragged, sparse):
        data = tf.data.Dataset.from_tensor_slices((x, [0, 1, 0])).batch(2)
        with pytest.raises(ValueError, match=f"holds a {type(x).__name__}, .* pad them"):
            build(named(), data, tmp_path)


class Pair(keras.utils.PyDataset):
    """One batch of two inputs without labels."""

    def __init__(self, arrays):
        super().__init__()
        self.arrays = arrays

    def __len__(self):
        return 1

    def __getitem__(self, i):
        return ([self.arrays[0], self.arrays[0][:, 0]],)


@pytest.mark.parametrize("kind", ["list", "py"])
def test_a_list_is_of_several_inputs(arrays, tmp_path, kind):
    x = arrays[0]
    data = [x, x[:, 0]] if kind == "list" else Pair(arrays)
    labels = build(lambda x: x[0][:, 0, 0] + x[1].mean(1), data, tmp_path)
    spec = labels.attach(data).element_spec
    inputs = (spec if isinstance(spec, dict) else spec[0])["inputs"]
    assert [one.shape[1:] for one in inputs] == [(8, 8, 3), (8, 3)]


def test_labels_in_a_list_are_an_input_too_many(teacher, arrays, tmp_path):
    with pytest.raises(ValueError, match="input"):
        build(teacher, list(arrays), tmp_path)
