"""The command line: fast help, exit codes, one sentence for an error."""

import os
import subprocess
import sys

import pytest

from keras_distill.app import cli


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
    for command in ("demo", "distill", "predict"):
        assert command in done.stdout


@pytest.mark.parametrize("command", ["demo", "distill", "predict"])
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


def test_distill_and_predict_from_a_shell(finished, photos, tmp_path):
    output, _ = finished
    program = [sys.executable, "-c", "from keras_distill.app import cli; cli.main()"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "200"}
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
    done = subprocess.run(
        [*program, "predict", output / "student.tflite", photos / "top" / "00.png"],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert "00.png" in done.stdout
    assert "top" in done.stdout or "bottom" in done.stdout
    arguments = [
        "--student",
        "resnet8",
        "--width",
        "0.25",
        "--epochs",
        "1",
        "--quantization",
        "none",
        "--batch-size",
        "8",
    ]
    done = subprocess.run(
        [
            *[*program, "distill", photos, *arguments],
            *["--teacher", output / "teacher.keras", "-o", tmp_path],
        ],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert "Student 1/1" in done.stderr
    assert "student.tflite" in done.stdout
    assert "Traceback" not in done.stderr
