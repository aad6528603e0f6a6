"""Two thousand files that were changed somewhere: each is read, or refused with a sentence, in a process that
stays alive and small."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import tflite_export as te

MUTATIONS = Path(__file__).with_name("mutations.py")
FILES, PARTS = 2000, 2


@pytest.fixture(scope="module")
def paths(net, examples, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    told = {"labels": ["a", "b", "c"], "normalization": (127.5, 127.5)}
    te.export(net, folder / "float.tflite", **told)
    te.export(net, folder / "int8.tflite", "int8", examples, "uint8", **told)
    return [folder / "float.tflite", folder / "int8.tflite"]


@pytest.mark.parametrize("part", range(PARTS))
def test_a_changed_file_is_read_or_refused(paths, tmp_path, part):
    progress = tmp_path / "seed"
    progress.write_text("none yet")
    first, last = (FILES * p // PARTS for p in (part, part + 1))
    command = [sys.executable, MUTATIONS, str(first), str(last), progress, *paths]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, (
        f"the process ended with {done.returncode} at seed {progress.read_text()}: {done.stderr[-500:]}"
    )
    told = json.loads(done.stdout)
    assert told["wrong"] == []
    read, refused = told["read"], told["refused"]
    assert read["flatbuffer"] + refused["flatbuffer"] == FILES // PARTS
    # Most changes are found, and some do no harm: neither a reader that refuses all nor one that takes all.
    assert refused["flatbuffer"] > FILES // PARTS // 2
    assert min(read.values()) > FILES // PARTS // 20
    assert told["peak_mb"] < 300
    assert told["slowest"] < 10
