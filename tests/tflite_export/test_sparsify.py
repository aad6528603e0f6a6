"""Students with many zeros, or with few different weights, in training and in the file."""

import keras
import numpy as np
import pytest

import keras_distill as kd
import tflite_export as te
from tflite_export import flatbuffer
from tflite_export.rounding.tfmot import tfmot

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
PRUNED = ("conv2d", "logits")


@pytest.fixture(scope="module")
def wide(photos):
    """A trained network that is large enough to zip well."""
    keras.utils.set_random_seed(4)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((12, 12, 3), name="image"),
            layers.Conv2D(16, 3, strides=2, use_bias=False, name="conv2d"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.DepthwiseConv2D(3, name="depthwise"),
            layers.Flatten(),
            layers.Dense(64, activation="relu", name="dense"),
            layers.Dense(3, name="logits"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), LOSS)
    model.fit(photos[0] / 127.5 - 1, photos[1], epochs=3, batch_size=16, verbose=0)
    normalization = model.layers[1]
    normalization.gamma.assign(normalization.gamma * ([-1.0] + [1.0] * 15))
    return model


def _distilled(net, student, photos, epochs=4):
    distiller = kd.Distiller(net, student, kd.losses.SoftTargets(4.0))
    distiller.compile(keras.optimizers.Adam(0.003), LOSS)
    distiller.fit(photos[0] / 127.5 - 1, photos[1], epochs=epochs, batch_size=16, verbose=0)
    return student


def _zeros(model, name):
    return float(np.mean(model.get_layer(name).kernel.numpy() == 0))


def _integers(path, size):
    """The int8 weights of the file that have so many values."""
    tree = flatbuffer.read(path.read_bytes())
    for tensor in tree.subgraphs[0].tensors:
        data = tree.buffers[tensor.buffer].data
        if data is not None and tensor.type == 9 and len(data) == size:
            return np.asarray(data, "uint8").view("int8")
    raise AssertionError(f"no int8 tensor of {size} values")


def test_the_share_of_zeros_rises_to_what_was_asked(net, wide, photos):
    pruned = _distilled(net, te.prune(wide, 0.75, steps=12), photos)  # 16 batches
    assert pruned.sparsity == pytest.approx(0.75, abs=0.01)
    student = te.strip(pruned)
    assert _zeros(student, "dense") == pytest.approx(0.75, abs=0.01)
    assert _zeros(student, "depthwise") == _zeros(wide, "dense") == 0
    x = photos[0] / 127.5 - 1
    np.testing.assert_allclose(
        student.predict(x, verbose=0), pruned.predict(x, verbose=0), atol=1e-5
    )
    # The largest stay.
    kernel, before = (m.get_layer("dense").kernel.numpy() for m in (student, wide))
    assert np.abs(before[kernel != 0]).mean() > 1.5 * np.abs(before[kernel == 0]).mean()


def test_two_of_four(net, wide, photos):
    schedule = tfmot().sparsity.keras.ConstantSparsity(0.5, begin_step=0, frequency=1)
    pruned = te.prune(wide, schedule=schedule, m_by_n=(2, 4), layers=["dense"])
    student = te.strip(_distilled(net, pruned, photos, epochs=1))
    kernel = student.get_layer("dense").kernel.numpy()
    groups = kernel.reshape(-1, 4, kernel.shape[1]) if kernel.shape[0] % 4 == 0 else None
    assert groups is not None
    along = [(kernel.T.reshape(kernel.shape[1], -1, 4) != 0).sum(-1), (groups != 0).sum(1)]
    assert any((one <= 2).all() for one in along)


def test_zeros_stay_zeros_in_the_int8_file_which_zips_well(net, wide, photos, tmp_path):
    x = (photos[0] / 127.5 - 1).astype("float32")
    pruned = _distilled(net, te.prune(wide, 0.75, steps=8), photos, epochs=3)
    aware = _distilled(net, te.quantize_aware(pruned, x), photos, epochs=1)
    sparse, dense = (
        te.export(m, tmp_path / f"{n}.tflite")
        for n, m in enumerate((aware, te.quantize_aware(wide, x)))
    )
    size = wide.get_layer("dense").kernel.shape[0] * 64
    assert np.mean(_integers(sparse.path, size) == 0) >= 0.74
    assert te.compressed_size(sparse) < 0.65 * te.compressed_size(dense)
    assert te.verify(aware, sparse, x).agreement == 1.0
    assert _zeros(te.strip(aware), "dense") >= 0.74


@pytest.mark.parametrize("init", ["linear", "density"])
def test_first_centroids_are_tfmots(init, wide):
    clustered = te.cluster(wide, 8, init=init, layers=["dense"])
    kernel = wide.get_layer("dense").kernel.numpy()
    centroids = np.sort(clustered.constraints[0].centroids.numpy())
    if init == "linear":
        np.testing.assert_allclose(centroids, np.linspace(kernel.min(), kernel.max(), 8), rtol=1e-5)
    slack = 0.05 * np.ptp(kernel)
    assert kernel.min() - slack < centroids[0] < centroids[-1] < kernel.max() + slack


def test_few_different_weights(net, wide, photos):
    clustered = te.cluster(wide, 8, layers=["dense", "logits"])
    before = clustered.constraints[0].centroids.numpy()
    _distilled(net, clustered, photos, epochs=2)
    assert np.abs(clustered.constraints[0].centroids.numpy() - before).max() > 1e-4
    student = te.strip(clustered)
    assert len(np.unique(student.get_layer("dense").kernel)) <= 8
    assert len(np.unique(student.get_layer("conv2d").kernel)) > 100
    x = photos[0] / 127.5 - 1
    np.testing.assert_allclose(
        student.predict(x, verbose=0), clustered.predict(x, verbose=0), atol=1e-5
    )


def test_clusters_stay_in_the_int8_file(net, wide, photos, tmp_path):
    x = (photos[0] / 127.5 - 1).astype("float32")
    clustered = _distilled(net, te.cluster(wide, 8), photos, epochs=1)
    aware = _distilled(net, te.quantize_aware(clustered, x), photos, epochs=1)
    exported = te.export(aware, tmp_path / "c.tflite")
    size = wide.get_layer("dense").kernel.shape[0] * 64
    assert len(np.unique(_integers(exported.path, size))) <= 8
    # BatchNormalization has factors of its own for each channel, some below 0.
    assert len(np.unique(np.abs(_integers(exported.path, 3 * 3 * 3 * 16)))) <= 8
    tree = flatbuffer.read(exported.path.read_bytes())
    convolution, dense = (
        next(o for o in flatbuffer.operators(tree) if o.name == name).input_types
        for name in ("CONV_2D", "FULLY_CONNECTED")
    )
    assert set(convolution) == {"int8", "int32"}
    assert set(dense) <= {"int8", "int32"}
    result = te.verify(aware, exported, x)
    assert result.agreement == 1.0
    assert next(iter(result.outputs.values())).snr_db > 40
    plain = te.export(te.quantize_aware(wide, x), tmp_path / "p.tflite")
    assert te.compressed_size(exported) < 0.65 * te.compressed_size(plain)


def test_pruned_then_clustered(net, wide, photos):
    pruned = te.strip(_distilled(net, te.prune(wide, 0.5, steps=4), photos, epochs=1))
    student = te.strip(_distilled(net, te.cluster(pruned, 8, keep_zeros=True), photos, epochs=1))
    assert _zeros(student, "dense") >= _zeros(pruned, "dense") > 0.49
    assert len(np.unique(student.get_layer("dense").kernel)) <= 9


@pytest.mark.parametrize("make", [te.prune, te.cluster], ids=["pruned", "clustered"])
def test_saving(make, net, wide, photos, tmp_path):
    model = _distilled(net, make(wide, layers=list(PRUNED)), photos, epochs=1)
    x = photos[0] / 127.5 - 1
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
    for one in (model, loaded):
        one.compile(keras.optimizers.SGD(0.01), LOSS)
        one.fit(x, photos[1], batch_size=16, shuffle=False, verbose=0)
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))


@pytest.mark.parametrize(
    ("work", "sentence"),
    [
        (lambda m: te.prune(m, 1.0), "sparsity=1.0"),
        (lambda m: te.prune(m, layers=["nobody"]), r"\['nobody'\] are not in"),
        (lambda m: te.prune(m, layers=["re_lu"]), "none of them has a kernel|not in"),
        (lambda m: te.prune(m, m_by_n=(3, 2)), r"m_by_n=\(3, 2\): give two whole numbers"),
        (lambda m: te.prune(m, m_by_n="2:4"), "m_by_n='2:4': give two whole numbers"),
        (lambda m: te.cluster(m, 1), "2 or more"),
        (lambda m: te.cluster(m, init="best"), "init='best'"),
        (lambda m: te.quantize_aware(m, preserve="all"), "preserve='all'"),
    ],
)
def test_what_cannot_be_done_is_said(work, sentence, wide):
    with pytest.raises(ValueError, match=sentence):
        work(wide)


def test_clusters_of_other_layers_stay_in_the_int8_file(tmp_path, rng):
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 4)),
            layers.Conv2DTranspose(6, 3, use_bias=False),
            layers.BatchNormalization(),
            layers.SeparableConv2D(10, 3, activation="relu"),
            layers.Reshape((64, 10)),
            layers.Conv1D(12, 3, use_bias=False),
            layers.BatchNormalization(),
            layers.EinsumDense("abc,cd->abd", (62, 14)),
        ]
    )
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.gamma.assign(rng.uniform(0.5, 1.5, layer.gamma.shape))
    x = rng.normal(size=(32, 8, 8, 4)).astype("float32")
    aware = te.quantize_aware(te.cluster(model, 6), x)
    exported = te.export(aware, tmp_path / "c.tflite")
    assert not aware.coverage().in_float
    for size in (3 * 3 * 4 * 6, 6 * 10, 3 * 10 * 12, 12 * 14):
        assert len(np.unique(_integers(exported.path, size))) <= 6, size
    assert next(iter(te.verify(aware, exported, x).outputs.values())).snr_db > 30
