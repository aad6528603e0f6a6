"""Small networks by name, all with the same input: pixels normalised to −1..1.

    student = students.build("MobileNetV2", (96, 96, 3), num_classes=10, width=0.35)
    student = students.build("resnet8", (32, 32, 3), num_classes=10)

`NORMALIZATION` is the (mean, std) that turns pixels 0..255 into this input, for the pipeline that
trains and for `te.export`. Networks that carry preprocessing layers of their own in keras.applications
are built without them: one convention for all, nothing to quantise but the network, and no layer that
quantisation-aware training refuses. For EfficientNetB0, whose padding follows its normalisation,
pretrained weights keep their meaning through one Rescaling layer in front; see `build`.
"""

import difflib
import functools
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

NORMALIZATION = (127.5, 127.5)
LARGEST_WIDTH = 16  # beyond it a number is mistyped, and memory runs out


def resnet8(input_shape, num_classes, width=1.0, activation="softmax") -> keras.Model:
    """The ResNet-8 of MLPerf Tiny (Banbury et al. 2021, arXiv 2106.07597): 78,666 parameters.

    That is for 32×32×3 and 10 classes at width 1. Three residual stages of 16, 32 and 64 channels,
    times `width`. Below 16 channels a stage's shortcut is pooled, not strided.
    """

    # Every layer with weights has a name, by which `weights=` finds it.
    def convolution(x, filters, kernel_size, strides, name):
        return keras.layers.Conv2D(
            filters,
            kernel_size,
            strides=strides,
            padding="same",
            kernel_initializer="he_normal",
            kernel_regularizer=keras.regularizers.L2(1e-4),
            name=name,
        )(x)

    def normalised(x, filters, strides, name):
        x = convolution(x, filters, 3, strides, name)
        return keras.layers.BatchNormalization(name=f"{name}_bn")(x)

    inputs = keras.Input(input_shape)
    first, *later = (max(1, round(filters * width)) for filters in (16, 32, 64))
    x = keras.layers.ReLU()(normalised(inputs, first, 1, "stem"))
    for number, filters in enumerate((first, *later), 1):
        strides, stage = (1 if number == 1 else 2), f"stage{number}"
        y = keras.layers.ReLU()(normalised(x, filters, strides, f"{stage}_conv1"))
        y = normalised(y, filters, 1, f"{stage}_conv2")
        if strides > 1:
            if x.shape[-1] < 16:
                # TensorFlow 2.21 on CPU (oneDNN) crashes in the gradient of a strided 1×1 convolution
                # of so few channels when a batch is odd. ResNet-D's shortcut (He et al. 2019,
                # arXiv 1812.01187) pools instead.
                x, strides = keras.layers.AveragePooling2D(2, padding="same")(x), 1
            x = convolution(x, filters, 1, strides, f"{stage}_shortcut")
        x = keras.layers.ReLU(name=f"{stage}_out")(keras.layers.Add()([x, y]))
    x = keras.layers.GlobalAveragePooling2D()(x)
    outputs = keras.layers.Dense(
        num_classes, activation=activation, kernel_initializer="he_normal", name="predictions"
    )(x)
    return keras.Model(inputs, outputs, name="resnet8")


def _mobilenet(application: Callable, input_shape, num_classes, width=1.0, activation="softmax"):
    if application is keras.applications.MobileNetV3Small:
        application = functools.partial(application, include_preprocessing=False)
    return _for_few_photos(
        application(
            input_shape=input_shape,
            alpha=width,
            weights=None,
            classes=num_classes,
            classifier_activation=activation,
        )
    )


def _for_few_photos(model: keras.Model) -> keras.Model:
    """Let the moving averages of BatchNormalization follow within an epoch or two.

    MobileNetV2 and V3 have momentum 0.999, for ImageNet's million steps: after the 1,500 steps that a
    training on 2,000 photos takes, a fifth of each average would still be its initial value.
    """
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.95
    return model


def _efficientnet_b0(input_shape, num_classes, width=1.0, activation="softmax", front=None):
    """EfficientNetB0 with any width, `front` (a layer) in place of its own preprocessing.

    keras.applications has no public width here: its network is cloned with other channel counts,
    rounded as in the paper (Tan and Le 2019, arXiv 1905.11946).
    """
    original = keras.applications.EfficientNetB0(
        input_shape=input_shape,
        weights=None,
        classes=num_classes,
        classifier_activation=activation,
    )

    def rounded(filters):
        wanted = filters * width
        multiple = max(8, int(wanted + 4) // 8 * 8)
        return multiple + 8 if multiple < 0.9 * wanted else multiple

    def clone(layer):
        config = layer.get_config()
        if isinstance(layer, keras.layers.Conv2D) and not isinstance(
            layer, keras.layers.DepthwiseConv2D
        ):
            narrow = layer.name.endswith("se_reduce")  # a quarter of its block's input, unrounded
            filters = config["filters"]
            config["filters"] = max(1, round(filters * width)) if narrow else rounded(filters)
        elif isinstance(layer, keras.layers.Reshape):
            config["target_shape"] = (1, 1, rounded(config["target_shape"][-1]))
        return type(layer).from_config(config)

    def call(layer, x, *args, **kwargs):
        if isinstance(layer, keras.layers.Normalization):
            return x
        if isinstance(layer, keras.layers.Rescaling):
            return front(x) if front is not None else x
        return layer(x, *args, **kwargs)

    cloned = keras.models.clone_model(original, clone_function=clone, call_function=call)
    cloned.name = original.name
    return _for_few_photos(cloned)


STUDENTS: dict[str, Callable] = {
    "resnet8": resnet8,
    "MobileNet": functools.partial(_mobilenet, keras.applications.MobileNet),
    "MobileNetV2": functools.partial(_mobilenet, keras.applications.MobileNetV2),
    "MobileNetV3Small": functools.partial(_mobilenet, keras.applications.MobileNetV3Small),
    "EfficientNetB0": _efficientnet_b0,
}


def find_name(name: str) -> str:
    """The student's name as it is written here, from any mixture of capitals.

    Raises:
        ValueError: no such name; the message gives the nearest ones.
    """
    known = {key.lower(): key for key in STUDENTS}
    if name.lower() not in known:
        near = difflib.get_close_matches(name.lower(), known, n=3) or known
        raise ValueError(
            f"There is no student named {name!r}. Nearest: {', '.join(known[key] for key in near)}."
        )
    return known[name.lower()]


def build(
    name: str,
    input_shape: tuple[int, int, int],
    num_classes: int,
    width: float | None = None,
    weights: str | os.PathLike | None = None,
    activation: str | None = "softmax",
) -> keras.Model:
    """Build a small network for pixels in −1..1: (batch, *input_shape) → (batch, num_classes).

    Args:
        name: "resnet8", "MobileNet", "MobileNetV2", "MobileNetV3Small" or "EfficientNetB0", in any
            capitals.
        width: multiplies the channels of every layer (the `alpha` of keras.applications); 1.0 when
            None. Any number above 0, up to 16; pretrained ImageNet weights exist for a few only.
        weights: None (random), "imagenet" (downloaded by keras.applications), or a file: `.keras`
            of this network with or without its classifier, or `.weights.h5` / `.h5` of the same.
            All layers up to the last pooling must be in it; those after it are taken where their
            shapes are the same, and fresh where not, as with another number of classes.
        activation: of the last layer; None gives logits.

    EfficientNetB0 from pretrained weights starts with one Rescaling layer, which maps −1..1 to the
    colours that those weights were trained on.

    Raises:
        ValueError: an unknown name, a width or an image size that cannot be built, or weights that
            do not belong to this network.
    """
    name = find_name(name)
    width = 1.0 if width is None else float(width)
    if not 0 < width <= LARGEST_WIDTH:
        raise ValueError(
            f"width multiplies the channels and lies above 0, and up to {LARGEST_WIDTH}, got {width}."
        )
    arguments = {"width": width, "activation": activation or "linear"}
    create = functools.partial(STUDENTS[name], input_shape, num_classes, **arguments)
    if weights is None:
        return create()
    if weights == "imagenet":
        source = _imagenet(name, input_shape[-1], width)
        origin = "ImageNet weights"
    else:
        origin = os.fspath(weights)
        source = _from_file(Path(weights), lambda: STUDENTS[name](input_shape, num_classes, width))
    model = create(front=_colours(source)) if name == "EfficientNetB0" else create()
    _copy_weights(source, model, f"{name} of width {width:g}", origin)
    return model


def _imagenet(name: str, channels: int, width: float) -> keras.Model:
    if name == "resnet8":
        raise ValueError("There are no ImageNet weights for resnet8: leave weights out.")
    if channels != 3:
        raise ValueError(f"ImageNet weights take 3 colour channels, the student has {channels}.")
    arguments: dict = {"weights": "imagenet", "input_shape": (224, 224, 3)}
    if name != "EfficientNetB0":
        arguments["alpha"] = width
    elif width != 1.0:
        raise ValueError(f"ImageNet weights of EfficientNetB0 exist for width 1, not {width:g}.")
    if name == "MobileNetV3Small":
        arguments["include_preprocessing"] = False
    try:
        return getattr(keras.applications, name)(**arguments)
    except ValueError:
        raise
    except Exception as error:  # urllib's errors reach us as plain Exceptions from get_file
        raise ValueError(
            f"The ImageNet weights of {name} cannot be downloaded: pass a file that holds them."
        ) from error


def _from_file(path: Path, create: Callable[[], keras.Model]) -> keras.Model:
    """A network that holds the file's weights."""
    if not path.is_file():
        raise ValueError(f"There is no weights file {path}.")
    if path.suffix == ".keras":
        return keras.models.load_model(path, compile=False)
    if path.suffix != ".h5":
        raise ValueError(f"Weights come in .keras, .weights.h5 or .h5 files, not in {path.name}.")
    source = create()
    before = [keras.ops.convert_to_numpy(variable) for variable in source.trainable_variables]
    legacy = {} if path.name.endswith(".weights.h5") else {"by_name": True}
    with warnings.catch_warnings():  # of what does not fit: it is looked at below
        warnings.simplefilter("ignore")
        source.load_weights(path, skip_mismatch=True, **legacy)
    pooling = _last_pooling(source)
    body = {id(v) for layer in source.layers[:pooling] for v in layer.trainable_variables}
    # A kernel that is as it was drawn was not in the file.
    for variable, old in zip(source.trainable_variables, before, strict=True):
        now = keras.ops.convert_to_numpy(variable)
        if id(variable) in body and old.ndim > 1 and np.array_equal(old, now):
            raise ValueError(
                f"{path} does not hold the weights of {source.name}: none for {variable.path} of "
                f"shape {tuple(variable.shape)}."
            )
    return source


def _last_pooling(model: keras.Model) -> int:
    pooling = [
        i
        for i, layer in enumerate(model.layers)
        if isinstance(layer, keras.layers.GlobalAveragePooling2D)
    ]
    return pooling[-1] if pooling else len(model.layers)


def _colours(source: keras.Model) -> keras.layers.Layer | None:
    """The layer that takes −1..1 to what `source` feeds its first convolution, if it is not that.

    Rescaling and Normalization layers are affine for each channel: two colours show the line.
    """
    ours = [layer for layer in source.layers if layer.name == "colours"]
    if ours:
        return keras.layers.Rescaling.from_config(ours[0].get_config())
    front = [
        layer
        for layer in source.layers
        if isinstance(layer, (keras.layers.Rescaling, keras.layers.Normalization))
    ]
    if not any(isinstance(layer, keras.layers.Normalization) for layer in front):
        return None

    def colour_of(pixel):
        x = np.full((1, 1, 1, 3), pixel, "float32")
        for layer in front:
            x = layer(x)
        return keras.ops.convert_to_numpy(x).ravel()

    middle, white = colour_of(127.5), colour_of(255.0)
    return keras.layers.Rescaling((white - middle).tolist(), middle.tolist(), name="colours")


def _copy_weights(source: keras.Model, model: keras.Model, what: str, origin: str) -> None:
    """Copy weights by layer names, which keras.applications keeps the same in all its networks."""
    found = {layer.name: layer for layer in source.layers}
    pooling = _last_pooling(model)
    for i, layer in enumerate(model.layers):
        shapes = [tuple(weight.shape) for weight in layer.weights]
        if not shapes:
            continue
        other = found.get(layer.name)
        others = [tuple(weight.shape) for weight in other.weights] if other else []
        if other and others == shapes:
            layer.set_weights(other.get_weights())
        elif i < pooling:
            has = f"there it has shapes {others}" if other else "it is not there"
            raise ValueError(
                f"{origin}: not the weights of {what}: layer {layer.name} has shapes {shapes}, "
                f"and {has}."
            )
