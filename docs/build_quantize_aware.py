"""Writes docs/quantize_aware.md: what quantisation-aware training makes of networks, and each kind of layer.

    python docs/build_quantize_aware.py                 # all of them, some minutes
    python docs/build_quantize_aware.py --only ViT MobileNetV2

Weights are random, statistics of BatchNormalization those of the images. The file is compared with the model
layer by layer: end to end, a network of random weights blows one step up to many.
"""

# ruff: noqa: E501
import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers

import tflite_export as te
from tflite_export import flatbuffer
from tflite_export.convert_quantized import convert_quantized
from tflite_export.layer_errors import layer_errors

PAGE = Path(__file__).parent / "quantize_aware.md"
SIDE = 96
HEAD = """# Quantisation-aware training: what is covered

Made by `python docs/build_quantize_aware.py`, with random weights, images of 96×96 (resnet8: 32×32), and two
of them to compare with. "Roundings" are the places where the int8 file stores what an operator writes, and
where the model in training rounds. "In floats" are layers that the file computes in floats between integers.
Layer by layer the file's values and the model's are compared in steps of 1/255 of the range; "tfmot" is
whether `tfmot.quantization.keras.quantize_model` takes the same network of `tf_keras.applications`.

| network | layers | roundings | in floats | operators on floats | values within 2 steps | largest difference | tfmot |
|---|---|---|---|---|---|---|---|
"""
LAYERS = """
| layers | in the file |
|---|---|
| Dense, EinsumDense, Conv1D/2D, DepthwiseConv1D/2D, SeparableConv1D/2D, Conv1D/2DTranspose | int8, weights with a step for each channel; a BatchNormalization and a ReLU or ReLU6 behind are a part of it (not behind Einsum and transposed ones) |
| BatchNormalization elsewhere, Rescaling, Normalization | int8, as a depthwise 1×1 convolution, exact before its one rounding |
| MultiHeadAttention, Softmax | int8, with masks too |
| Add, Subtract, Multiply, Average, Maximum, Minimum, Concatenate of any number; `+ - *`, mean, sum, matmul, einsum | int8 |
| ReLU, ReLU6, LeakyReLU, PReLU, sigmoid, tanh, softmax, swish, hard swish, hard sigmoid, GELU, log softmax | int8 |
| pooling, padding, cropping, up-sampling, reshaping, transposing, slicing, dropout, noise, identity | int8, in the steps of what goes in; an average pool over a whole picture becomes a mean, in steps of its own |
| Embedding | int8 |
| LayerNormalization, GroupNormalization, ELU, SELU, softplus, LSTM, GRU, Lambda, custom layers without layers of the above inside, and what others compute between these, channels_first | floats, output rounded to int8 |
"""


def vision_transformer() -> keras.Model:
    """A small ViT: 36 patches of 16×16, two blocks of four heads."""
    image = keras.Input((SIDE, SIDE, 3))
    x = layers.Conv2D(32, 16, strides=16)(image)
    x = layers.Reshape((36, 32))(x)
    for _ in range(2):
        y = layers.LayerNormalization()(x)
        x = layers.Add()([x, layers.MultiHeadAttention(4, 8)(y, y)])
        y = layers.Dense(64, activation="gelu")(layers.LayerNormalization()(x))
        x = layers.Add()([x, layers.Dense(32)(y)])
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    return keras.Model(image, layers.Dense(10)(x), name="ViT")


def application(name: str, **how):
    def build(applications) -> keras.Model:
        return getattr(applications, name)(
            weights=None, input_shape=(SIDE, SIDE, 3), classes=10, classifier_activation=None, **how
        )

    return build


def resnet8(_) -> keras.Model:
    from keras_distill import students

    return students.build("resnet8", (32, 32, 3), 10, activation=None)


NETWORKS = {
    "MobileNet": application("MobileNet", alpha=0.25),
    "MobileNetV2": application("MobileNetV2", alpha=0.35),
    "MobileNetV3Small": application("MobileNetV3Small"),
    "MobileNetV3Large": application("MobileNetV3Large"),
    "EfficientNetB0": application("EfficientNetB0"),
    "EfficientNetV2B0": application("EfficientNetV2B0"),
    "ResNet50": application("ResNet50"),
    "DenseNet121": application("DenseNet121"),
    "NASNetMobile": application("NASNetMobile"),
    "resnet8": resnet8,
    "ViT": lambda _: vision_transformer(),
}
_OF_PIXELS = ("MobileNetV3", "EfficientNet")  # preprocessing is inside


def measured(name: str) -> tuple[str, ...]:
    """The cells of one network, but for tfmot's."""
    keras.utils.set_random_seed(0)
    model = NETWORKS[name](keras.applications)
    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 255, (8, 6, 6, 3)).repeat(16, 1).repeat(16, 2)
    images = np.clip(coarse + rng.normal(0, 20, coarse.shape), 0, 255).astype("float32")
    if not name.startswith(_OF_PIXELS):
        images = images / 127.5 - 1
    images = images[:, : model.input_shape[1], : model.input_shape[2]]
    _as_if_trained(model, images)
    aware = te.quantize_aware(model, images)
    content = convert_quantized(aware).content
    errors = layer_errors(aware, content, images[:2])
    coverage = aware.coverage()
    floats = [
        o.name
        for o in flatbuffer.operators(flatbuffer.read(content))
        if "float32" in o.output_types and "float32" in o.input_types
    ]
    kinds = sorted({one.kind for one in coverage if one.inside == "float"})
    return (
        f"{len(coverage)}",
        f"{len(aware.range_quantizers)}",
        ", ".join(kinds) or "none",
        f"{len(floats)}",
        f"{100 * min(e.within_two_steps for e in errors):.1f} %",
        f"{max(e.largest_steps for e in errors):.0f}",
    )


def _as_if_trained(model: keras.Model, images: np.ndarray) -> None:
    normalizations = [
        layer for layer in model._flatten_layers() if isinstance(layer, layers.BatchNormalization)
    ]
    for layer in normalizations:
        layer.momentum = 0.0
    model(images, training=True)
    for layer in normalizations:
        layer.momentum = 0.99


def accepted(name: str) -> str:
    """Whether tfmot takes the network as it is."""
    import tf_keras

    from tflite_export.rounding.tfmot import tfmot

    if not hasattr(tf_keras.applications, name):
        return ""
    model = NETWORKS[name](tf_keras.applications)
    try:
        tfmot().quantization.keras.quantize_model(model)
    except Exception:  # it ends in errors of many kinds
        return "no"
    return "yes"


def rows(page: str) -> dict[str, str]:
    """{network: its line} of a page."""
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    return {
        line.split("|")[1].strip(): line for line in lines if line.split("|")[1].strip() in NETWORKS
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    only = parser.parse_args().only
    found = rows(PAGE.read_text()) if PAGE.exists() else {}
    for name in only:
        found[name] = f"| {' | '.join((name, *measured(name), accepted(name)))} |"
        print(found[name], flush=True)
        keras.backend.clear_session()
    table = "\n".join(found[name] for name in NETWORKS if name in found)
    PAGE.write_text(f"{HEAD}{table}\n{LAYERS}")


if __name__ == "__main__":
    main()
