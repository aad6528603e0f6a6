"""The networks that benchmarks build themselves: CIFAR's residual networks, with weights at random.

    teacher, student = networks.resnet(56), networks.resnet(20)
    networks.like_trained(teacher, images)
    teacher.get_layer("stage3")     # the ends of stages: stage1, stage2, stage3, embedding

Run as `python benchmarks/speed.py`, whose folder Python searches for `import networks`.
"""

import keras


def resnet(depth: int, input_shape=(32, 32, 3), num_classes=10) -> keras.Model:
    """The ResNet-20, -32, … -56 of the CIFAR-10 section of He et al. 2015 (arXiv 1512.03385), to logits."""

    def convolution(x, filters, strides=1, kernel_size=3):
        x = keras.layers.Conv2D(
            filters, kernel_size, strides=strides, padding="same", use_bias=False
        )(x)
        return keras.layers.BatchNormalization()(x)

    blocks = (depth - 2) // 6
    inputs = keras.Input(input_shape)
    x = keras.layers.ReLU()(convolution(inputs, 16))
    for stage, filters in enumerate((16, 32, 64), 1):
        for block in range(1, blocks + 1):
            strides = 2 if stage > 1 and block == 1 else 1
            y = keras.layers.ReLU()(convolution(x, filters, strides))
            y = convolution(y, filters)
            if strides > 1:
                x = convolution(x, filters, strides, kernel_size=1)
            name = f"stage{stage}" if block == blocks else None
            x = keras.layers.ReLU(name=name)(keras.layers.Add()([x, y]))
    x = keras.layers.GlobalAveragePooling2D(name="embedding")(x)
    return keras.Model(inputs, keras.layers.Dense(num_classes)(x), name=f"resnet{depth}")


def like_trained(model: keras.Model, x) -> None:
    """Statistics of BatchNormalization that belong to the data, so that no activation is denormal."""
    model.compile("sgd", "mse")
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(x, training=True)


def copy(model: keras.Model) -> keras.Model:
    """Another model with the same weights."""
    other = keras.models.clone_model(model)
    other.set_weights(model.get_weights())
    return other
