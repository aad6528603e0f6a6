"""The plain functions say the same on JAX and PyTorch, gradients too, where these are installed."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.keras_distill.losses import functions


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_values_and_gradients_are_those_on_tensorflow(tmp_path, backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed (pip install 'keras-distill[{backend}]')")
    path = tmp_path / "values.npz"
    subprocess.run(
        [sys.executable, "-m", functions.__name__, path],
        check=True,
        cwd=Path(__file__).parents[3],
        env={**os.environ, "KERAS_BACKEND": backend},
    )
    expected = functions.all_values()
    with np.load(path) as found:
        assert set(found) == set(expected)
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
