import keras
import numpy as np
import pytest
from keras import layers

import keras_distill as kd
from keras_distill.network import Network
from keras_distill.pairs import TOKENS, stages, suggest_pairs


def application(name, side=64, top=False, **options):
    """A network of keras.applications with random weights."""
    build = getattr(keras.applications, name)
    return build(weights=None, include_top=top, input_shape=(side, side, 3), **options)


def cifar_resnet(blocks=2):
    """The ResNet of He et al. (2015), section 4.2, strides in the second and third stage: 6·blocks + 2."""

    def convolution(x, filters, size, strides, name):
        x = layers.Conv2D(filters, size, strides=strides, padding="same", name=f"{name}_conv")(x)
        return layers.BatchNormalization(name=f"{name}_bn")(x)

    inputs = keras.Input((32, 32, 3))
    x = layers.ReLU(name="stem_relu")(convolution(inputs, 4, 3, 1, "stem"))
    for stage, filters in enumerate((4, 8, 16), 1):
        for block in range(blocks):
            name, strides = f"s{stage}b{block}", 2 if stage > 1 and block == 0 else 1
            y = layers.ReLU(name=f"{name}_relu1")(convolution(x, filters, 3, strides, f"{name}_1"))
            y = convolution(y, filters, 3, 1, f"{name}_2")
            if strides > 1:
                x = convolution(x, filters, 1, strides, f"{name}_shortcut")
            x = layers.ReLU(name=f"{name}_out")(layers.Add(name=f"{name}_add")([x, y]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10)(x), name="resnet")


def last(model):
    """The end of each stage."""
    return {stage: names[-1] for stage, names in stages(model).items()}


def test_resnet50_and_mobilenetv2():
    teacher = application("ResNet50", 224)
    student = kd.students.build("MobileNetV2", (96, 96, 3), num_classes=2, width=0.35)
    pairs = suggest_pairs(teacher, student)
    assert pairs == [
        ("conv1_relu", "expanded_conv_project_BN"),
        ("conv2_block3_out", "block_2_add"),
        ("conv3_block4_out", "block_5_add"),
        ("conv4_block6_out", "block_12_add"),
        ("conv5_block3_out", "out_relu"),
    ]
    theirs = Network(teacher, layer_names=[name for name, _ in pairs]).inner_specs()
    ours = Network(student, layer_names=[name for _, name in pairs]).inner_specs()
    assert [spec.shape[1] for spec in theirs.values()] == [112, 56, 28, 14, 7]
    assert [spec.shape[1] for spec in ours.values()] == [48, 24, 12, 6, 3]


def test_resnets_for_small_photos():
    teacher, student = cifar_resnet(3), kd.students.build("resnet8", (32, 32, 3), num_classes=10)
    assert suggest_pairs(teacher, student) == [
        ("s1b2_out", "stage1_out"),
        ("s2b2_out", "stage2_out"),
        ("s3b2_out", "stage3_out"),
    ]
    assert stages(teacher) == {
        2 ** (s - 1): [f"s{s}b{b}_out" for b in range(3)] for s in (1, 2, 3)
    } | {1: ["s1b0_out", "s1b1_out", "s1b2_out"]}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # No block ends in a sum there: what counts is the last activation before a stride or pooling.
        ("VGG16", {1: "block1_conv2", 4: "block3_conv3", 16: "block5_conv3", 32: "block5_pool"}),
        ("MobileNet", {2: "conv_pw_1_relu", 4: "conv_pw_3_relu", 32: "conv_pw_13_relu"}),
        # Squeeze-and-excitation lies beside the trunk, and an expansion belongs to the block that it opens.
        ("MobileNetV3Small", {4: "expanded_conv_project_bn", 8: "expanded_conv_2_add"}),
        ("EfficientNetB0", {2: "block1a_project_bn", 16: "block5c_add", 32: "top_activation"}),
        ("DenseNet121", {2: "conv1_relu", 4: "pool2_relu", 16: "pool4_relu", 32: "relu"}),
        ("ResNet50V2", {4: "conv2_block2_out", 16: "conv4_block5_out", 32: "post_relu"}),
    ],
)
def test_stages_of_networks_that_are_much_used(name, expected):
    found = last(application(name))
    assert {stage: found[stage] for stage in expected} == expected


def test_residuals_that_are_written_as_sums():
    x = inputs = keras.Input((16, 16, 3))
    for filters, strides in [(4, 1), (8, 2)]:
        x = layers.Conv2D(filters, 3, strides=strides, padding="same")(x)
        for _ in range(2):
            x = x + layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
    model = keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))
    sums = [one.name for one in model.operations if not isinstance(one, keras.Layer)]
    assert stages(model) == {1: sums[:2], 2: sums[2:]}


def test_a_network_in_a_network_of_any_size():
    inner = application("MobileNetV2", side=None, alpha=0.35)
    inner.name = "base"
    outer = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            layers.Rescaling(1 / 127.5, -1),
            inner,
            layers.GlobalAveragePooling2D(),
            layers.Dense(2),
        ]
    )
    assert suggest_pairs(application("MobileNet"), outer) == [
        ("conv_pw_1_relu", "base/expanded_conv_project_BN"),
        ("conv_pw_3_relu", "base/block_2_add"),
        ("conv_pw_5_relu", "base/block_5_add"),
        ("conv_pw_11_relu", "base/block_12_add"),
        ("conv_pw_13_relu", "base/out_relu"),
    ]


class Residual(layers.Layer):
    """A block of a subclassed network; its sum has no layer."""

    def __init__(self, filters, strides, **kwargs):
        super().__init__(**kwargs)
        self.convolution = layers.Conv2D(filters, 3, strides=strides, padding="same")
        self.shortcut = layers.Conv2D(filters, 1, strides=strides)

    def call(self, x):
        return keras.ops.relu(self.convolution(x) + self.shortcut(x))


class Subclassed(keras.Model):
    """A subclassed network of such blocks, one of them called twice."""

    def __init__(self):
        super().__init__(name="subclassed")
        self.stem = layers.Conv2D(4, 3, padding="same", name="stem")
        self.blocks = [Residual(4, 1, name="a"), Residual(8, 2, name="b"), Residual(8, 1, name="c")]
        self.top = layers.Dense(10, name="top")

    def call(self, x):
        x = self.blocks[1](self.blocks[0](self.stem(x)))
        x = self.blocks[2](self.blocks[2](x))
        return self.top(keras.ops.mean(x, axis=(1, 2)))


def test_a_subclassed_network():
    model = Subclassed()
    with pytest.raises(ValueError, match="'subclassed' have no sizes yet: call it on a batch"):
        stages(model)
    model(np.zeros((2, 32, 32, 3), "float32"))
    before = [np.array(weight) for weight in model.weights]
    assert stages(model) == {1: ["a"], 2: ["b", "c:0", "c:1"]}
    assert suggest_pairs(cifar_resnet(), model) == [("s1b1_out", "a"), ("s2b1_out", "c:1")]
    assert all(np.array_equal(a, b) for a, b in zip(before, model.weights, strict=True))
    assert "call" not in vars(model.stem)


def test_a_decoder_is_left_out():
    inputs = keras.Input((32, 32, 3))
    fine = layers.Conv2D(4, 3, padding="same", activation="relu", name="fine")(inputs)
    coarse = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu", name="coarse")(fine)
    wide = layers.UpSampling2D()(coarse)
    outputs = layers.Conv2D(2, 1)(layers.Concatenate()([fine, wide]))
    assert stages(keras.Model(inputs, outputs)) == {1: ["fine"], 2: ["coarse"]}


def test_sides_that_shrink_differently_and_signals():
    inputs = keras.Input((32, 16, 1))
    x = layers.Conv2D(4, 3, strides=(4, 2), padding="same", name="both")(inputs)
    x = layers.Conv2D(4, 3, strides=(2, 1), padding="same", name="one")(x)
    assert stages(keras.Model(inputs, x)) == {(4, 2): ["both"], (8, 2): ["one"]}

    def signal(length, names):
        x = inputs = keras.Input((length, 2))
        for name in names:
            x = layers.Conv1D(4, 5, strides=4, padding="same", activation="relu", name=name)(x)
        return keras.Model(inputs, layers.GlobalMaxPooling1D()(x))

    pairs = suggest_pairs(signal(256, "abc"), signal(None, "xy"))
    assert pairs == [("a", "x"), ("b", "y")]


def transformer(depth, length=8, name="transformer"):
    """Encoder blocks over tokens, normalised before they attend."""
    inputs = keras.Input((length,), dtype="int32")
    x = layers.Embedding(10, 4)(inputs)
    for i in range(depth):
        y = layers.LayerNormalization()(x)
        x = layers.Add(name=f"attended{i}")([x, layers.MultiHeadAttention(1, 4)(y, y)])
        y = layers.Dense(8, activation="gelu")(layers.LayerNormalization()(x))
        x = layers.Add(name=f"block{i}")([x, layers.Dense(4)(y)])
    return keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling1D()(x)), name=name)


def test_tokens_are_paired_by_depth():
    assert stages(transformer(1)) == {TOKENS: ["attended0", "block0"]}
    pairs = suggest_pairs(transformer(6), transformer(2, length=None))
    assert pairs == [
        ("attended1", "attended0"),
        ("block2", "block0"),
        ("attended4", "attended1"),
        ("block5", "block1"),
    ]


def test_one_common_stage_is_paired_by_depth():
    def isotropic(depth):
        x = inputs = keras.Input((16, 16, 3))
        x = layers.Conv2D(4, 4, strides=4, name="patches")(x)
        for i in range(depth):
            x = layers.Add(name=f"add{i}")([x, layers.DepthwiseConv2D(3, padding="same")(x)])
        return keras.Model(inputs, layers.GlobalAveragePooling2D()(x))

    assert suggest_pairs(isotropic(4), isotropic(2)) == [("add1", "add0"), ("add3", "add1")]
    deeper = suggest_pairs(isotropic(2), isotropic(4))
    assert deeper == [("add0", "add1"), ("add1", "add3")]


def test_nothing_in_common_lists_the_stages():
    with pytest.raises(
        ValueError, match=r"teacher has 1 \(s1b1_out\), 2 .*student has tokens \(block0\)"
    ):
        suggest_pairs(cifar_resnet(), transformer(1))


def test_cells_that_read_the_last_two_end_in_what_merges_their_branches():
    def cells(width):
        before = last = inputs = keras.Input((16, 16, 3))
        for i in range(6):
            strides = 2 if i in (2, 4) else 1
            if before.shape[1] != last.shape[1]:
                before = layers.AveragePooling2D(2)(before)
            branches = [
                layers.Conv2D(width, 3, strides, padding="same", name=f"{name}{i}")(x)
                for name, x in (("back", before), ("here", last))
            ]
            before, last = last, layers.Concatenate(name=f"cell{i}")(branches)
        return keras.Model(inputs, layers.GlobalAveragePooling2D()(last))

    pairs = kd.suggest_pairs(cells(4), cells(2))
    assert pairs == [(name, name) for name in ("cell0", "cell3", "cell5")]


def preprocessed(width, prepare):
    x = inputs = keras.Input((32, 32, 3))
    x = prepare(x)
    for i in range(3):
        x = layers.Conv2D(width, 3, 2, padding="same", activation="relu", name=f"conv{i}")(x)
    return keras.Model(inputs, layers.GlobalAveragePooling2D()(x))


@pytest.mark.parametrize(
    "prepare",
    [
        lambda x: x / 127.5 - 1,
        keras.applications.resnet50.preprocess_input,
        keras.applications.mobilenet_v2.preprocess_input,
        lambda x: layers.GaussianNoise(0.1)(layers.Resizing(32, 32)(x)),
        lambda x: layers.BatchNormalization()(layers.Concatenate()([x, x])),
        lambda x: layers.Lambda(lambda one: one * 2)(keras.ops.flip(x, 2)),
    ],
)
def test_preprocessing_is_no_stage(prepare):
    pairs = suggest_pairs(preprocessed(4, prepare), preprocessed(2, prepare))
    assert pairs == [(f"conv{i}", f"conv{i}") for i in range(3)]


@pytest.mark.parametrize("mask", [False, True])
def test_masks_do_not_hide_what_they_are_for(mask):
    def recurrent():
        x = inputs = keras.Input((6,))
        x = layers.Embedding(9, 4, mask_zero=mask)(x)
        for i in range(2):
            x = layers.LSTM(4, return_sequences=True, name=f"lstm{i}")(x)
        return keras.Model(inputs, layers.GlobalAveragePooling1D()(x))

    def transformer(blocks):
        x = inputs = keras.Input((6,))
        x = layers.Embedding(9, 4, mask_zero=mask)(x)
        for i in range(blocks):
            normed = layers.LayerNormalization()(x)
            x = layers.Add(name=f"attention{i}")(
                [x, layers.MultiHeadAttention(2, 2)(normed, normed)]
            )
            x = layers.Add(name=f"block{i}")([x, layers.Dense(4)(layers.LayerNormalization()(x))])
        return keras.Model(inputs, layers.GlobalAveragePooling1D()(x))

    assert suggest_pairs(recurrent(), recurrent()) == [("lstm0", "lstm0"), ("lstm1", "lstm1")]
    pairs = suggest_pairs(transformer(4), transformer(2))
    assert pairs[1::2] == [("block1", "block0"), ("block3", "block1")]
