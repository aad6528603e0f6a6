"""Stored labels: what is stored, that it belongs to the data, and that nothing is lost."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_distill as kd
from keras_distill import epoch

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
    for number, data in enumerate(
        (
            pipeline(arrays, mixup=1.0),
            kd.data.photos(files, arrays[1][:12], SIZE, batch_size=5, augment=kd.data.Light()),
            kd.data.photos(files, arrays[1][:12], SIZE, batch_size=5, cache_bytes=0),
        )
    ):
        views = 1 if number == 2 else 2
        labels = build(teacher, data, tmp_path / f"labels{number}", views=views)
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
    monkeypatch.setattr("keras_distill.soft_labels.labels._SHARD_BYTES", 600)
    data = pipeline(arrays)
    first = build(teacher, data, tmp_path / "a", views=2)
    shards = sorted((tmp_path / "a").glob("*/*.tfrecord"))
    assert len(shards) > 6
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
    monkeypatch.setattr("keras_distill.soft_labels.labels._SHARD_BYTES", 600)
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
    path.write_bytes(whole)
    labels.attach(arrays)
    manifest = tmp_path / "manifest.json"
    text = manifest.read_text()
    for at in (5, 60, len(text) // 2):
        manifest.write_text(text[:at] + chr(ord(text[at]) ^ 1) + text[at + 1 :])
        with pytest.raises(ValueError, match=r"manifest.json (is damaged|is not the manifest)"):
            kd.SoftLabels(tmp_path)


def test_a_manifest_of_a_newer_version(teacher, arrays, tmp_path):
    from keras_distill.soft_labels import manifest

    build(teacher, arrays, tmp_path)
    content = json.loads((tmp_path / "manifest.json").read_text())
    content["version"] = 99
    content.pop("checksum")
    content["checksum"] = manifest._checksum(content)
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"has version 99, .* update it"):
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
    monkeypatch.setattr("keras_distill.soft_labels.labels._SHARD_BYTES", 600)

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


KILLED = textwrap.dedent(
    """
    import sys
    sys.path[:0] = {path!r}
    import numpy as np
    import keras_distill as kd
    from keras_distill.soft_labels import labels
    labels._SHARD_BYTES = 600
    def slow(x):
        import time
        time.sleep(0.03)
        return x.mean((1, 2))
    x = np.random.default_rng(0).uniform(0, 2, (200, 8, 8, 3)).astype("float32")
    kd.SoftLabels.build(kd.teachers.CallableTeacher(slow, (3,)), x, {folder!r}, batch_size=4)
    """
)


def test_killed_and_called_again_it_ends_as_if_it_had_not_been_killed(tmp_path):
    def run(folder, kill_at=None):
        code = KILLED.format(path=sys.path, folder=str(folder))
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
        if kill_at is not None:
            while len(list(Path(folder).glob("*/*.tfrecord"))) < kill_at and process.poll() is None:
                pass
            os.kill(process.pid, signal.SIGKILL)
        return process.wait()

    assert run(tmp_path / "a", kill_at=2) == -signal.SIGKILL
    assert run(tmp_path / "a", kill_at=9) == -signal.SIGKILL
    assert run(tmp_path / "a") == 0
    assert run(tmp_path / "b") == 0
    names = sorted(path.relative_to(tmp_path / "b") for path in (tmp_path / "b").rglob("[!.]*.*"))
    assert len(names) > 10
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_other_data_does_not_go_on_with_what_is_there(teacher, arrays, tmp_path, monkeypatch):
    monkeypatch.setattr("keras_distill.soft_labels.labels._SHARD_BYTES", 600)
    build(teacher, arrays, tmp_path, views=1)
    sorted(tmp_path.glob("*/*.tfrecord"))[-1].unlink()
    with pytest.raises(ValueError, match="holds labels of other data: example number 0"):
        build(teacher, altered("reversed", arrays), tmp_path)
    build(teacher, arrays, tmp_path)


def test_views_that_are_all_the_same_are_refused(teacher, arrays, tmp_path):
    with pytest.raises(ValueError, match="shows the same in view 1 as in view 0: pass views=1"):
        build(teacher, arrays, tmp_path, views=2)


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
