"""Numbers that no distillation can use: an exit code, a sentence, and nothing written."""

import pytest

from keras_distill.app import cli, distill


@pytest.mark.parametrize(
    ("option", "value", "code", "sentence"),
    [
        ("--width", "1e9", 1, "lies above 0, and up to 16, got 1000000000.0"),
        ("--image-size", "1000000", 1, "image_size is a number of pixels from 8 to 4096, got 1000"),
        ("--teacher-image-size", "4097", 1, "teacher_image_size is a number of pixels from 8 to"),
        ("--batch-size", str(2**31), 1, "batch_size is a whole number from 1 up, below 2³¹"),
        ("--epochs", str(10**24), 1, "epochs is a whole number from 1 up, below 2³¹"),
        ("--teacher-normalization=nan", "1", 2, "mean and std are finite"),
        ("--teacher-normalization=0", "inf", 2, "mean and std are finite"),
        ("--temperature", "0", 1, "temperature must be a positive number, 0.01 to 1000, got 0.0"),
        ("--temperature", "-2", 1, "temperature must be a positive number, 0.01 to 1000, got -2.0"),
        ("--temperature", "nan", 1, "temperature must be a positive number, 0.01 to 1000, got nan"),
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


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ({"epochs": 0}, "epochs is a whole number from 1 up"),
        ({"teacher_epochs": -1}, "teacher_epochs is a whole number from 1 up"),
        ({"teacher_normalization": (float("nan"), 1.0)}, "mean and std are finite"),
        ({"teacher_normalization": (0.0, 0.0)}, "std is above 0"),
    ],
)
def test_a_number_that_the_function_refuses_too(argument, sentence, photos, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        distill.run(photos, tmp_path / "out", teacher="MobileNetV2", student="resnet8", **argument)
    assert not (tmp_path / "out").exists()
