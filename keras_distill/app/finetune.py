"""Make a teacher for these photos out of a network that was trained on others.

    body, normalization = application("MobileNetV2", "imagenet", image_size=128)
    teacher = with_new_head(body, num_classes=10)
    fine_tune(teacher, train, validation, epochs=10)

A backbone is cut at its last feature map and, where it is fully convolutional, built again for the
wanted image size. The new head is trained first, then the whole network with a low learning rate;
BatchNormalization stays as it was trained, because a few hundred photos make poor statistics.
"""

import inspect
from pathlib import Path

import keras
import numpy as np

from keras_distill.app import results, training
from keras_distill.layer_tree import all_layers
from keras_distill.teacher_files import applications

HEAD = "predictions"


def application(
    name: str, weights: str | Path | None, image_size: int
) -> tuple[keras.Model, tuple[float, float]]:
    """A `keras.applications` backbone without its classifier, and the normalisation of its input.

    Args:
        name: as in keras.applications, in any capitals.
        weights: "imagenet", a file of weights without classifier (`.h5`), a `.keras` file of the
            network, or None (random).
        image_size: height and width.

    Raises:
        ValueError: unknown name, or weights that cannot be had.
    """
    found = applications.find(name)
    if found is None:
        raise ValueError(
            f"There is no teacher {name!r}: pass a .keras file or a name of keras.applications"
            f"{applications.near(name)}."
        )
    if weights is not None and str(weights).endswith(".keras"):
        body = features(keras.models.load_model(weights, compile=False), image_size)
    else:
        shape = (image_size, image_size, 3)
        body = applications.build(
            found, weights, "--teacher-weights", include_top=False, input_shape=shape
        )
    return _with_preprocessing(body, found)


def _with_preprocessing(body: keras.Model, name: str):
    """Give the network its own convention, as a (mean, std) or, where that is not enough, as layers.

    keras.applications' `preprocess_input` functions are affine for each channel, and some swap red
    and blue. Shown black, white and red, each says which it is.
    """
    modules = [
        module
        for module in vars(keras.applications).values()
        if inspect.ismodule(module) and hasattr(module, name)
    ]
    if not modules:  # MobileNetV3, whose preprocessing is inside
        return body, (0.0, 1.0)
    black, white, red = (
        np.asarray(modules[0].preprocess_input(np.array([[[colour]]], "float32"))).ravel()
        for colour in ((0, 0, 0), (255, 255, 255), (255, 0, 0))
    )
    swapped = not np.isclose(red[0], white[0])
    scale, offset = (white - black) / 255, black
    if not swapped and np.ptp(scale) == 0 and np.ptp(offset) == 0:
        std = 1 / float(scale[0])
        return body, (round(-float(offset[0]) * std, 4), round(std, 4))
    inputs = keras.Input(body.input_shape[1:])
    x = inputs[..., ::-1] if swapped else inputs
    x = keras.layers.Rescaling(scale.tolist(), offset.tolist())(x)
    return keras.Model(inputs, body(x), name=body.name), (0.0, 1.0)


def features(model: keras.Model, image_size: int | None) -> keras.Model:
    """The network up to its last feature map, for images of `image_size` if it can be built so.

    Where it cannot (it flattens, or has position embeddings), the network keeps the size it has.
    """
    if isinstance(model, keras.Sequential):
        model = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        raise ValueError(
            f"{model.name} is a subclassed model: its layers cannot be cut at the classifier. "
            f"Pass a functional or sequential model."
        )
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ValueError(f"A teacher of photos has one input and one output; {model.name} has not.")
    output = model.outputs[0]
    if len(output.shape) != 4:
        output = _before_classifier(model)
    body = keras.Model(model.inputs[0], output, name=model.name)
    if image_size in (None, body.input_shape[1]) or len(output.shape) != 4:
        return body
    try:
        again = keras.models.clone_model(
            body, input_tensors=keras.Input((image_size, image_size, body.input_shape[-1]))
        )
        again.set_weights(body.get_weights())
    except (ValueError, TypeError) as error:
        results.say(f"{model.name} keeps its own image size {body.input_shape[1:3]}: {error}")
        return body
    return again


def _before_classifier(model: keras.Model):
    """The tensor that goes into the last global pooling, else into the last layer with weights."""
    pooling = (keras.layers.GlobalAveragePooling2D, keras.layers.GlobalMaxPooling2D)
    for layer in reversed(model.layers):
        if isinstance(layer, keras.layers.Flatten) and max(layer.input.shape[1:3]) > 1:
            break  # the classifier knows positions: pooling further up is not its own
        if isinstance(layer, pooling):
            return layer.input
    return next(layer.input for layer in reversed(model.layers) if layer.weights)


def with_new_head(body: keras.Model, num_classes: int) -> keras.Model:
    """Pooling, dropout and a fresh softmax on top of a feature map (or vector)."""
    x = body.outputs[0]
    if len(x.shape) == 4:
        x = keras.layers.GlobalAveragePooling2D(name="head_pooling")(x)
    elif len(x.shape) == 3:
        x = keras.layers.GlobalAveragePooling1D(name="head_pooling")(x)
    x = keras.layers.Dropout(0.2, name="head_dropout")(x)
    x = keras.layers.Dense(num_classes, activation="softmax", name=HEAD)(x)
    return keras.Model(body.inputs[0], x, name=body.name)


def fine_tune(
    teacher: keras.Model,
    train,
    validation,
    epochs: int,
    head_learning_rate: float = 1e-3,
    learning_rate: float = 1e-4,
    states: Path | None = None,
) -> None:
    """Train the head for a quarter of the epochs (at least one), then the whole network.

    `train` and `validation` yield (images as the teacher takes them, class numbers). The two trainings
    go on from what they have recorded in the folder `states`, see `keras_distill.app.training`.
    """
    head_epochs = max(1, epochs // 4)
    head = teacher.get_layer(HEAD)
    # The same layers in another model: the teacher itself stays without optimizer, also in its file.
    trained = keras.Model(teacher.inputs[0], teacher.outputs[0])
    normalizations = [
        layer for layer in all_layers(teacher) if isinstance(layer, keras.layers.BatchNormalization)
    ]

    def fit(part, rate, epochs, first):
        trained.compile(
            keras.optimizers.Adam(
                keras.optimizers.schedules.CosineDecay(rate, epochs * len(train))
            ),
            loss="sparse_categorical_crossentropy",
            metrics=["accuracy"],
        )
        state = None if states is None else states / f"teacher_{part}.npz"
        training.fit(trained, train, validation, epochs, f"Teacher, {part}", first, state)

    for layer in teacher.layers:
        layer.trainable = layer is head
    fit("head", head_learning_rate, head_epochs, 0)
    for layer in teacher.layers:
        layer.trainable = True
    for layer in normalizations:
        layer.trainable = False
    if epochs > head_epochs:
        fit("whole", learning_rate, epochs - head_epochs, head_epochs)
