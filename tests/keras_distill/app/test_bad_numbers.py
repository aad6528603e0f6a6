"""Numbers that no distillation can use: an exit code, a sentence, and nothing written."""

import pytest

from keras_distill.app import cli


@pytest.mark.parametrize(
    ("option", "value", "code", "sentence"),
    [
        ("--temperature", "0", 1, "temperature must be a positive number, got 0.0"),
        ("--temperature", "-2", 1, "temperature must be a positive number, got -2.0"),
        ("--temperature", "nan", 1, "temperature must be a positive number, got nan"),
        ("--temperature", "warm", 2, "--temperature"),
        ("--student-loss-weight", "1.5", 2, "--student-loss-weight"),
        ("--student-loss-weight", "-0.1", 2, "--student-loss-weight"),
        ("--student-loss-weight", "nan", 2, "--student-loss-weight"),
        ("--learning-rate", "nan", 1, "learning_rate is a number above 0, got nan"),
    ],
)
def test_a_number_that_cannot_be_used(option, value, code, sentence, photos, tmp_path, capsys):
    output = tmp_path / "out"
    arguments = ["--teacher", "MobileNetV2", "--student", "resnet8", "--output", str(output)]
    with pytest.raises(SystemExit) as stopped:
        cli.main(["distill", str(photos), *arguments, option, value])
    assert stopped.value.code == code
    assert sentence in capsys.readouterr().err
    assert not output.exists()
