"""The command line: fast help, exit codes, one sentence for an error."""

import json
import os
import shlex
import subprocess
import sys

import pytest
import tensorflow as tf

from keras_distill.app import cli, predict


def test_help_imports_neither_tensorflow_nor_keras():
    code = (
        "import sys; sys.argv[0] = 'keras-distill'; from keras_distill.app import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = {'tensorflow', 'keras', 'tf_keras', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for command in ("demo", "distill", "export", "verify", "benchmark", "predict"):
        assert command in done.stdout


@pytest.mark.parametrize("command", ["demo", "distill", "export", "verify", "benchmark", "predict"])
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main([command, "--help"])
    assert end.value.code == 0
    assert "Usage" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["distill"],
        ["nonsense"],
        ["distill", "x", "--teacher", "t", "--student", "s", "-o", "o", "--epochs", "0"],
        ["distill", "x", "--teacher", "t", "--student", "s", "-o", "o", "--quantization", "int3"],
        ["distill", "x", "--teacher", "t", "--student", "s", "-o", "o", "--seed", "-1"],
        [
            *["distill", "x", "--teacher", "t.keras", "--student", "s", "-o", "o"],
            *["--teacher-normalization", "1,2", "3"],
        ],
    ],
)
def test_wrong_usage_is_2(arguments):
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 2


def test_an_error_is_one_sentence_and_1(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["predict", str(tmp_path / "no.keras"), "x.jpg"])
    assert end.value.code == 1
    said = capsys.readouterr().err
    assert said == f"keras-distill: There is no model file {tmp_path / 'no.keras'}.\n"


def test_debug_raises_wherever_it_stands(tmp_path):
    with pytest.raises(FileNotFoundError):
        cli.main(["predict", str(tmp_path / "no.keras"), "x.jpg", "--debug"])


def test_predict_from_a_shell(finished, photos, tmp_path):
    output, _ = finished
    program = (
        "import sys; sys.argv[0] = 'keras-distill'; from keras_distill.app import cli; cli.main()"
    )
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "200"}
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            program,
            "predict",
            output / "student.tflite",
            photos / "top" / "00.png",
        ],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert "00.png" in done.stdout
    assert "top" in done.stdout or "bottom" in done.stdout
    assert done.stderr == ""


def end_of(capsys, *arguments):
    """Exit code, standard output and standard error of a command."""
    with pytest.raises(SystemExit) as end:
        cli.main(list(arguments))
    told = capsys.readouterr()
    return end.value.code, told.out, told.err


def test_with_json_an_error_is_one_document_too(tmp_path, capsys):
    code, out, err = end_of(capsys, "predict", str(tmp_path / "no.keras"), "x.jpg", "--json")
    sentence = f"There is no model file {tmp_path / 'no.keras'}."
    assert (code, json.loads(out)) == (1, {"error": sentence})
    assert err == f"keras-distill: {sentence}\n"
    code, out, err = end_of(capsys, "predict", "--json")
    assert (code, json.loads(out)) == (2, {"error": "Wrong usage: standard error says what."})
    assert "Missing argument" in err


def test_with_json_and_debug_there_is_a_document_beside_the_traceback(tmp_path, capsys):
    with pytest.raises(FileNotFoundError):
        cli.main(["predict", str(tmp_path / "no.keras"), "x.jpg", "--json", "--debug"])
    assert "There is no model file" in json.loads(capsys.readouterr().out)["error"]


def test_with_json_a_name_that_is_no_text_is_escaped(capsys, monkeypatch):
    name = os.fsdecode(b"caf\xe9.jpg")
    monkeypatch.setattr(predict, "run", lambda **_: [predict.Answer(name, "é", 1.0, {"é": 1.0})])
    code, out, _ = end_of(capsys, "predict", "a.keras", "x.jpg", "--json")
    assert (code, json.loads(out)[0]["photo"]) == (0, name)
    assert out.isascii()


def test_with_json_nothing_else_is_on_standard_output(capsys, monkeypatch):
    def talkative(**_):
        print("Downloading data from …")
        return [predict.Answer("x.jpg", "cat", float("nan"), {"cat": float("inf")})]

    monkeypatch.setattr(predict, "run", talkative)
    code, out, err = end_of(capsys, "predict", "a.keras", "x.jpg", "--json")
    answer = {"photo": "x.jpg", "label": "cat", "score": None, "scores": {"cat": None}}
    assert (code, json.loads(out)) == (0, [answer])
    assert err == "Downloading data from …\n"


@pytest.mark.parametrize("as_json", [False, True])
def test_ctrl_c_says_how_to_start_again(as_json, capsys, monkeypatch):
    def interrupted(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr(predict, "run", interrupted)
    more = ["--json"] if as_json else []
    code, out, err = end_of(capsys, "predict", "a.keras", "my photo.jpg", *more)
    sentence = (
        "Stopped by Ctrl-C; no file is half-written. To start again: "
        f"{shlex.join(['keras-distill', 'predict', 'a.keras', 'my photo.jpg', *more])}"
    )
    assert code == 130
    assert err == f"keras-distill: {sentence}\n"
    assert out == (json.dumps({"error": sentence}, indent=2) + "\n" if as_json else "")


def test_a_full_disk_says_what_to_do(capsys, monkeypatch):
    def full(**_):
        raise OSError(28, "No space left on device", "out/student.npz")

    monkeypatch.setattr(predict, "run", full)
    code, _, err = end_of(capsys, "predict", "a.keras", "x.jpg")
    assert code == 1
    assert err == (
        "keras-distill: No space left on device: out/student.npz. Earlier files are as they were: "
        "make room, and give the same command again.\n"
    )


def test_a_photo_that_goes_bad_in_mid_training_is_named(capsys, monkeypatch):
    def stopped(**_):
        said = "UnreadablePhoto: Cannot read photos/a.jpg as a photo: it is empty (0 bytes)."
        raise tf.errors.InvalidArgumentError(
            None, None, f"{said}\nTraceback (most recent call last):"
        )

    monkeypatch.setattr(predict, "run", stopped)
    code, _, err = end_of(capsys, "predict", "a.keras", "x.jpg")
    sentence = "Cannot read photos/a.jpg as a photo: it is empty (0 bytes)."
    assert (code, err) == (1, f"keras-distill: {sentence}\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no such device")
@pytest.mark.parametrize("more", [[], ["--json"]])
def test_standard_output_that_is_full_is_said_without_a_traceback(more, tmp_path):
    program = "from keras_distill.app import cli, predict; predict.run = lambda **_: []; cli.main()"
    command = [sys.executable, "-c", program, "predict", "m.tflite", "x.jpg", *more]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert "keras-distill: No space left on device. Earlier files are" in done.stderr
    assert "Traceback" not in done.stderr
