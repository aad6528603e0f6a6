"""TensorFlow quiet, on the CPU, and every test from the same seed."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
# Two processes share two cores. What tests start has it too, for bits depend on it.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")

import keras
import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _same_seed_for_every_test():
    keras.utils.set_random_seed(7)
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture
def rng():
    """A NumPy generator, the same in every test."""
    return np.random.default_rng(7)


def pytest_collection_modifyitems(items):
    """The longest file first: processes take whole files, and none is to be waited for at the end."""
    items.sort(key=lambda item: not item.nodeid.startswith("tests/test_readme.py"))
