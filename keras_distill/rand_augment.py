"""RandAugment: a few changes drawn for each image out of many, all of about the same strength.

    train = data.arrays(x, y, augment=RandAugment(steps=2, magnitude=9))

Cubuk et al. 2020, RandAugment, arXiv 1909.13719, in one pass over the batch: all images are moved once, by
the product of what was drawn for them. Equalisation, which needs a histogram of each image, is left out.
"""

import dataclasses

import tensorflow as tf

from keras_distill.augmentation import transformed

# What a step may draw, each as often as the others.
_MOVES = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
_COLOURS = ("brightness", "colour", "contrast", "sharpness", "posterize", "solarize")
_CHANGES = ("identity", "autocontrast", *_COLOURS, *_MOVES)
_GREY = 128.0  # what comes in from outside the image


@dataclasses.dataclass(frozen=True)
class RandAugment:
    """Rotation, shear, shift, brightness, colour, contrast, sharpness, posterisation, solarisation.

    Args:
        steps: how many changes each image gets (the paper's N).
        magnitude: their strength, 0..10 (the paper's M): at 10 rotations reach 30°, shears 0.3, shifts
            0.45 of the side, and the factors of brightness, colour, contrast and sharpness lie in 1 ± 0.9.
    """

    steps: int = 2
    magnitude: float = 9.0

    def __post_init__(self):
        if self.steps < 1 or not 0 <= self.magnitude <= 10:
            raise ValueError(
                f"RandAugment takes steps of at least 1 and a magnitude of 0..10, got {self.steps} and "
                f"{self.magnitude}."
            )

    def __call__(self, images, uniform):
        drawn = uniform(2 * self.steps)
        strength = self.magnitude / 10.0
        moves = _identity(tf.shape(images)[0])
        for step in range(self.steps):
            change = tf.cast(drawn[:, 2 * step] * len(_CHANGES), tf.int32)
            amount = (2.0 * drawn[:, 2 * step + 1] - 1.0) * strength  # −1..1
            is_ = {name: tf.equal(change, place) for place, name in enumerate(_CHANGES)}
            images = _coloured(images, is_, amount)
            moves = moves @ _move(images, is_, amount)
        return transformed(images, moves, "BILINEAR", "CONSTANT", _GREY)


def _coloured(images, is_: dict, amount):
    def only(name, value, otherwise):
        return tf.where(is_[name][:, None, None, None], value, otherwise)

    # Away from, or towards: black, the image without colour, its mean brightness, the image blurred.
    grey = tf.reduce_mean(images, axis=-1, keepdims=True)
    away = only("brightness", tf.zeros_like(images), images)
    away = only("colour", tf.broadcast_to(grey, tf.shape(images)), away)
    away = only("contrast", tf.reduce_mean(grey, axis=(1, 2), keepdims=True), away)
    away = only("sharpness", _blurred(images), away)
    changed = away + (1.0 + 0.9 * amount)[:, None, None, None] * (images - away)

    size = tf.abs(amount)[:, None, None, None]
    level = 2.0 ** tf.round(4.0 * size)  # 4 bits at the strongest
    changed = only("posterize", tf.floor(images / level) * level, changed)
    threshold = 255.0 * (1.0 - size)
    changed = only("solarize", tf.where(images > threshold, 255.0 - images, images), changed)
    low, high = (extreme(images, axis=(1, 2), keepdims=True) for extreme in _EXTREMES)
    stretched = (images - low) * 255.0 / tf.maximum(high - low, 1e-6)
    changed = only("autocontrast", tf.where(high > low, stretched, images), changed)
    return tf.clip_by_value(changed, 0.0, 255.0)


_EXTREMES = (tf.reduce_min, tf.reduce_max)


def _blurred(images):
    padded = tf.pad(images, [[0, 0], [1, 1], [1, 1], [0, 0]], "SYMMETRIC")
    mean = tf.nn.avg_pool2d(padded, 3, 1, "VALID")
    return (9.0 * mean + 4.0 * images) / 13.0  # 5 for the middle, 1 for each neighbour


def _identity(count):
    return tf.eye(3, batch_shape=[count])


def _move(images, is_: dict, amount):
    """The matrix `(batch, 3, 3)` of one step's movement, of pixels seen from the image's centre."""
    height, width = (tf.cast(side, tf.float32) for side in tf.unstack(tf.shape(images)[1:3]))
    zero = tf.zeros_like(amount)

    def only(name, value):
        return tf.where(is_[name], value, zero)

    angle = only("rotate", amount * tf.constant(3.141592653589793 / 6))
    cosine, sine = tf.cos(angle), tf.sin(angle)
    rows = [
        [cosine, sine + only("shear_x", 0.3 * amount), only("translate_x", 0.45 * width * amount)],
        [only("shear_y", 0.3 * amount) - sine, cosine, only("translate_y", 0.45 * height * amount)],
        [zero, zero, zero + 1.0],
    ]
    return tf.stack([tf.stack(row, axis=-1) for row in rows], axis=1)
