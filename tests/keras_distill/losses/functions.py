"""Value and gradient of every plain function, on whatever backend Keras runs.

KERAS_BACKEND=jax python -m tests.keras_distill.losses.functions values.npz
"""

import sys

import keras
import numpy as np
from keras import ops

from keras_distill import losses

_rng = np.random.default_rng(11)


def _normal(*shape):
    return _rng.normal(size=shape).astype("float32")


LOGITS = (_normal(6, 5), _normal(6, 5))
MAPS = (_normal(6, 6, 6, 4), _normal(6, 4, 4, 4))
LOW = _normal(6, 8, 8, 3), _normal(6, 8, 8, 3)
FLAT = (_normal(6, 7), _normal(6, 4))
LABELS = _rng.integers(0, 5, 6)
WEIGHTS = np.array([0, 2, 0.5, 1, 0, 3], "float32")

FUNCTIONS = {
    "soft_targets": (LOGITS, lambda t, s: losses.soft_targets(t, s, 4.0)),
    "decoupled_kd": (LOGITS, lambda t, s: losses.decoupled_kd(t, s, LABELS)),
    "dist": (LOGITS, lambda t, s: losses.dist(t, s, sample_weight=WEIGHTS)),
    "normalized_kd": (LOGITS, lambda t, s: losses.normalized_kd(t, s, LABELS)),
    "logit_mse": (LOGITS, losses.logit_mse),
    "virtual_teacher": (LOGITS, lambda t, s: losses.virtual_teacher(s, LABELS, 2.0)),
    "standardized": (LOGITS, lambda t, s: losses.logit_mse(t, losses.standardized(s))),
    "hint": (MAPS, losses.hint),
    "attention_transfer": (MAPS, losses.attention_transfer),
    "neuron_selectivity": (MAPS, losses.neuron_selectivity),
    "channel_wise": (MAPS, losses.channel_wise),
    "cosine_features": (MAPS, losses.cosine_features),
    "variational_information": (
        LOGITS,
        lambda t, s: losses.variational_information(t, s, np.ones(5, "float32")),
    ),
    "hierarchical_context": (LOW, losses.hierarchical_context),
    "rkd_distance": (FLAT, lambda t, s: losses.rkd_distance(t, s, WEIGHTS)),
    "rkd_angle": (FLAT, lambda t, s: losses.rkd_angle(t, s, WEIGHTS)),
    "similarity_preserving": (FLAT, losses.similarity_preserving),
    "correlation_congruence": (FLAT, losses.correlation_congruence),
    "pkt": (FLAT, losses.pkt),
    "fsp": (MAPS, lambda t, s: losses.fsp(LOW[0], t, LOW[1], s)),
    "contrastive_distillation": (
        LOGITS,
        lambda t, s: losses.contrastive_distillation(t, s, LABELS % 3, WEIGHTS, 0.5),
    ),
}


def value_and_gradient(function, teacher, student):
    """The mean of what `function` returns, and its gradient to the student, as NumPy arrays."""
    backend = keras.backend.backend()

    def mean(student):
        return ops.mean(function(ops.convert_to_tensor(teacher), student))

    student = ops.convert_to_tensor(student)
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(student)
            value = mean(student)
        gradient = tape.gradient(value, student)
    elif backend == "jax":
        import jax

        value, gradient = jax.jit(jax.value_and_grad(mean))(student)
    else:
        student.requires_grad_()
        value = mean(student)
        value.backward()
        gradient = student.grad
    return ops.convert_to_numpy(value), ops.convert_to_numpy(gradient)


def all_values() -> dict[str, np.ndarray]:
    """Value and gradient of every function, by "name" and "name/gradient"."""
    found = {}
    for name, (inputs, function) in FUNCTIONS.items():
        found[name], found[f"{name}/gradient"] = value_and_gradient(function, *inputs)
    return found


if __name__ == "__main__":
    np.savez(sys.argv[1], **all_values())
    assert "tensorflow" not in sys.modules, "another backend needs no TensorFlow"
