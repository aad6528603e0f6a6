"""Places that cannot be written, and a disk that is full: said before training, and nothing is lost."""

import json
import os
import subprocess
import sys
import textwrap

import pytest

from keras_distill.app import demo, distill, results


@pytest.fixture
def usual(finished, photos):
    """Arguments of a run whose teacher needs no fine-tuning."""
    output, _ = finished
    return {
        "photos": photos,
        "teacher": output / "teacher.keras",
        "student": "resnet8",
        "width": 0.25,
        "epochs": 1,
        "quantization": None,
    }


@pytest.mark.parametrize(
    ("place", "reason"),
    [("file", "File exists"), ("file/below", "Not a directory"), ("file/far/below", "Not a dir")],
)
def test_a_place_that_cannot_be_a_folder_is_said_before_training(
    place, reason, usual, tmp_path, monkeypatch
):
    (tmp_path / "file").write_text("kept")
    monkeypatch.setattr(distill.training, "fit", None)
    sentence = (
        rf"The output folder .*{place} cannot be written \({reason}.*\): give another --output"
    )
    with pytest.raises(ValueError, match=sentence):
        distill.run(output=tmp_path / place, **usual)
    with pytest.raises(ValueError, match=sentence.replace("/", ".*")):
        demo.run(tmp_path / place)
    assert (tmp_path / "file").read_text() == "kept"


def test_a_folder_that_takes_no_files_is_found_by_trying(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with pytest.raises(ValueError, match=r"cannot be written \(No space left on device\)"):
        results.make_folder(tmp_path)


def test_results_do_not_go_among_the_photos(usual, photos):
    before = sorted(photos.rglob("*"))
    for output in (photos, photos / "out", photos / "top" / "out"):
        with pytest.raises(
            ValueError, match=r"lies in .*, where each folder is a class: give another"
        ):
            distill.run(output=output, **usual)
    assert sorted(photos.rglob("*")) == before


PROGRAM = """
    import json, os, resource, sys
    from pathlib import Path
    import keras
    import tflite_export as te
    from keras_distill.app import cli

    def limit(size):
        # Python ignores SIGXFSZ: a file that would grow beyond this meets what a full disk is.
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def distill(size):
        limit(size)
        try:
            cli.main(["distill", *sys.argv[1:]])
        except SystemExit as end:
            files = sorted(str(f) for f in Path("out").rglob("*") if f.is_file())
            limit(resource.RLIM_INFINITY)
            print(json.dumps([end.code, *files]))

    distill(50_000)   # less than the state of the training
    Path("out/student.tflite").write_text("earlier")
    distill(110_000)  # less than student.keras
    assert Path("out/student.tflite").read_text() == "earlier"
    distill(resource.RLIM_INFINITY)

    before = Path("out/student.tflite").read_bytes()
    model = keras.models.load_model("out/student.keras")
    limit(10_000)
    try:
        te.export(model, "out/student.tflite")
    except OSError as error:
        print(json.dumps([error.strerror, error.filename]))
    assert Path("out/student.tflite").read_bytes() == before
"""


def test_a_full_disk_costs_no_file_and_no_epoch(usual, tmp_path):
    arguments = [str(usual.pop("photos")), "--output", "out", "--json"]
    for name, value in usual.items():
        arguments += [f"--{name.replace('_', '-')}", str(value or "none")]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    first, second, third, exported = [
        json.loads(s) for s in done.stdout.splitlines() if s[0] == "["
    ]
    no_room = (
        "keras-distill: File too large: {}. Earlier files are as they were: make room, and give"
    )
    assert no_room.format("out/unfinished/student.npz") in done.stderr
    assert first == [1, "out/unfinished/arguments.json"]
    assert no_room.format("out/student.keras") in done.stderr
    state = ["out/unfinished/arguments.json", "out/unfinished/student.npz"]
    assert second == [1, "out/labels.txt", "out/student.tflite", *state]
    assert third[0] == 0
    assert done.stderr.count("Student 1/1") == 2  # the epoch that had no room, and again with some
    assert exported == ["File too large", "out/student.tflite"]
