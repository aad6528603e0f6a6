"""`benchmark` counts and measures; no test asks how fast anything is."""

import pytest
import tensorflow as tf

import tflite_export as te


@pytest.fixture(scope="module")
def files(net, examples, tmp_path_factory):
    folder = tmp_path_factory.mktemp("b")
    return [
        te.export(net, folder / "float.tflite"),
        te.export(net, folder / "int8.tflite", "int8", examples, "uint8", normalization=(128, 128)),
        te.export(net, folder / "dynamic.tflite", "dynamic_int8"),
    ]


def test_files_in_alternation(files):
    results = te.benchmark(files, runs=7, warmup=1, num_threads=1, measure_memory=False)
    assert [r.size_bytes for r in results] == [f.size_bytes for f in files]
    assert [r.runs for r in results] == [7, 7, 7]
    for result in results:
        assert 0 < result.median_ms <= result.p90_ms
        assert result.peak_memory_bytes is None
    assert [r.delegate_partitions for r in results[:2]] == [1, 1]


def test_operators_are_counted_with_their_types(files):
    floats, integers, dynamic = te.benchmark(files, runs=1, measure_memory=False)
    assert floats.operators["CONV_2D", "float32"] == 2
    assert integers.operators["CONV_2D", "int8"] == 2
    assert integers.operators["QUANTIZE", "uint8"] == 1
    assert dynamic.operators["CONV_2D", "float32×int8"] == 2
    assert sum(floats.operators.values()) == 6


def test_peak_memory_in_a_fresh_process(files):
    result = te.benchmark(files[0], runs=1, num_threads=1)
    assert 0 < result.peak_memory_bytes < 100 << 20
    assert "peak memory" in str(result)
    assert "CONV_2D float32" in str(result)


def test_bytes_are_a_file_too(files):
    result = te.benchmark(files[0].path.read_bytes(), runs=1, measure_memory=False)
    assert result.size_bytes == files[0].size_bytes


@pytest.fixture(scope="module")
def open_sizes(tmp_path_factory):
    """A file of the plain TensorFlow converter that takes pictures of any size."""

    class Any(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], name="photo")])
        def __call__(self, x):
            return tf.reduce_mean(tf.nn.conv2d(x, tf.ones([3, 3, 3, 4]), 1, "VALID"), [1, 2])

    module = Any()
    function = module.__call__.get_concrete_function()
    path = tmp_path_factory.mktemp("o") / "open.tflite"
    path.write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([function], module).convert())
    return path


def test_open_sizes_are_asked_for_and_used(open_sizes, files):
    with pytest.raises(ValueError, match=r"'photo' open.*input_shapes=\(1, 96, 96, 3\)"):
        te.benchmark(open_sizes, measure_memory=False)
    small, big = (
        te.benchmark(open_sizes, runs=9, input_shapes={"photo": (1, side, side, 3)}).median_ms
        for side in (8, 256)
    )
    assert small < big
    for shape, sentence in (((1, 9, 9, 1), "the file takes"), ({"image": (1, 9, 9, 3)}, "image")):
        with pytest.raises(ValueError, match=sentence):
            te.benchmark(open_sizes, input_shapes=shape)
    fixed = te.benchmark(files[0], runs=1, measure_memory=False, input_shapes=(1, 12, 12, 3))
    assert fixed.runs == 1


def test_what_it_refuses(files):
    with pytest.raises(ValueError, match="at least 1 run"):
        te.benchmark(files[0], runs=0)
    with pytest.raises(ValueError, match="No files"):
        te.benchmark([])
    with pytest.raises(ValueError, match="1 runtimes for 2 files"):
        te.benchmark(files[:2], runtime=["litert"])
