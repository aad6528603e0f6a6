"""What native code writes is dropped, and nothing else is changed."""

import os
import subprocess
import sys

EXPORTS = """
import keras, logging, sys, tensorflow as tf, tflite_export as te
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
te.export(model, sys.argv[1])
print("AFTER", file=sys.stderr)
tf.get_logger().warning("hello")
logging.getLogger("mine").warning("good day")
from absl import logging as absl
absl.warning("good evening")
"""

HUSHES = """
import logging, os, sys
from tflite_export.chatter import hushed
with hushed():
    logging.basicConfig()
    os.write(2, b"native")
    inside = sys.stderr
assert inside is sys.stderr
logging.warning("hello")
"""


def _stderr(code, *arguments):
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True, text=True, check=True, env=environment,
    )  # fmt: skip
    return done.stderr


def test_logging_works_as_before_after_an_export(tmp_path):
    after = _stderr(EXPORTS, tmp_path / "m.tflite").split("AFTER")[1]
    for word in ("hello", "good day", "good evening"):
        assert word in after
    assert "Logging error" not in after
    assert "Traceback" not in after


def test_a_handler_made_inside_keeps_a_stream_that_stays_open():
    assert _stderr(HUSHES) == "WARNING:root:hello\n"
