"""`benchmark` counts and measures; no test asks how fast anything is."""

import pytest

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


def test_what_it_refuses(files):
    with pytest.raises(ValueError, match="at least 1 run"):
        te.benchmark(files[0], runs=0)
    with pytest.raises(ValueError, match="No files"):
        te.benchmark([])
