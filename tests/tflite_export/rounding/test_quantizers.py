"""Weights and activations are rounded as TFLite's specification and tfmot say."""

import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from tflite_export.rounding.quantizers import RangeQuantizer, rounded_kernel
from tflite_export.rounding.tfmot import tfmot


@pytest.mark.parametrize("channels", [(-1,), (-2, -1), (2,), ()])
def test_kernels_have_127_steps_on_either_side_of_0(channels, rng):
    kernel = rng.normal(size=(3, 3, 4, 5)).astype("float32")
    kernel[..., 0] = 0
    others = tuple(a for a in range(4) if a not in {c % 4 for c in channels})
    largest = np.abs(kernel).max(axis=others, keepdims=True)
    step = np.where(largest > 0, largest, 1) / 127
    rounded = rounded_kernel(tf.constant(kernel), channels).numpy()
    np.testing.assert_allclose(rounded, np.round(kernel / step) * step, atol=1e-6)
    assert np.abs(rounded - kernel).max() > 0.1 * step.max()


def test_the_gradient_passes_the_rounding_by(rng):
    kernel = tf.Variable(rng.normal(size=(4, 5)).astype("float32"))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(rounded_kernel(kernel, (-1,)) ** 2)
    rounded = rounded_kernel(kernel, (-1,))
    np.testing.assert_allclose(tape.gradient(loss, kernel), 2 * rounded, rtol=1e-5)


def test_a_range_begins_with_the_first_batch_and_moves_as_tfmots(rng):
    quantizer = RangeQuantizer()
    first, second = (rng.normal(size=(8, 3)).astype("float32") * s for s in (1, 3))
    passed = quantizer(tf.constant(first)).numpy()
    np.testing.assert_array_equal(passed, first)  # nothing is known yet
    quantizer(tf.constant(first), training=True)
    assert quantizer.ends == pytest.approx((first.min(), first.max()))
    quantizer(tf.constant(second), training=True)
    wanted = [
        0.999 * a + 0.001 * b for a, b in ((first.min(), second.min()), (first.max(), second.max()))
    ]
    assert quantizer.ends == pytest.approx(tuple(wanted), rel=1e-5)
    ends = [tf.constant(v, tf.float32) for v in wanted]
    np.testing.assert_allclose(
        quantizer(tf.constant(second)).numpy(),
        tf.quantization.fake_quant_with_min_max_vars(second, *ends).numpy(),
        atol=1e-5,
    )


def test_a_range_that_is_not_trained_stays(rng):
    quantizer = RangeQuantizer()
    quantizer(tf.constant([-1.0, 2.0]), observing=True)
    quantizer.trainable = False
    quantizer(tf.constant(rng.normal(size=(8, 3)).astype("float32") * 9), training=True)
    assert quantizer.ends == (-1.0, 2.0)


def test_room_below_for_what_a_mask_takes_down():
    quantizer = RangeQuantizer(room_below=10.0)
    quantizer(tf.constant([-1.0, 2.0]), observing=True)
    assert quantizer(tf.constant([-30.0, 2.0])).numpy() == pytest.approx([-11, 2], abs=0.05)
    assert float(quantizer.lowest()) == -11


def test_one_of_tfmots_other_quantizers(rng):
    given = tfmot().quantization.keras.quantizers.AllValuesQuantizer(8, False, False, False)
    quantizer = RangeQuantizer(given)
    for scale in (1, 3, 2):
        x = rng.normal(size=(8, 3)).astype("float32") * scale
        quantizer(tf.constant(x), training=True)
        last = quantizer.ends[1]
    assert last > x.max()


def test_importing_tfmot_changes_nothing_for_the_user():
    work = (
        "import os, tflite_export.rounding.tfmot as t; before = dict(os.environ); t.tfmot(); "
        "assert dict(os.environ) == before; import tensorflow as tf; print(tf.keras.__version__)"
    )
    made = subprocess.run(
        [sys.executable, "-c", work],
        capture_output=True,
        text=True,
        env={k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"},
    )
    assert made.stdout.strip().startswith("3."), made.stderr[-2000:]
