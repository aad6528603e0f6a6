"""TensorFlow quiet, on the CPU, and every test from the same seed."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import keras
import numpy as np
import pytest
import tensorflow as tf

# Two processes share two cores.
tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)


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
