"""The checks in .ci/ that run beside other packages can fail."""

import importlib.util
import math
import subprocess
import sys
from pathlib import Path

import pytest

CI = Path(__file__).parents[1] / ".ci"


def test_no_files_for_the_old_runtime_are_no_success(tmp_path):
    command = [sys.executable, CI / "old_runtime.py", "check", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"{tmp_path} holds 0 files, and `make` writes 14" in done.stderr


@pytest.mark.parametrize(
    ("errors", "largest"),
    [
        ([0.001, 0.02], 0.02),
        ([0.0, math.nan, 0.0], math.inf),
        ([math.nan], math.inf),
        ([], math.inf),
    ],
)
def test_a_score_that_is_nan_is_far_from_every_other(errors, largest):
    spec = importlib.util.spec_from_file_location("check_mediapipe", CI / "check_mediapipe.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.farthest(errors) == largest
