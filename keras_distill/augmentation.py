"""Views of images, and orders of examples, that can be made again: functions of (seed, epoch, index) alone.

    augment = Light(shift=0.1, flip=True)
    images = augment(images, lambda count: uniform_numbers(seed, epoch_number, index, count))

Nothing is drawn from a generator that remembers, so it does not matter in which batch, process or order
an example is prepared.
"""

import dataclasses
from collections.abc import Callable, Sequence

import tensorflow as tf

# Takes float32 images (batch, height, width, channels) in 0..255, and a function that gives n
# uniform numbers in 0..1 for each of them: (batch, n). Returns images of the same shape.
Augmentation = Callable[[tf.Tensor, Callable[[int], tf.Tensor]], tf.Tensor]


# Randomness without memory


def _scramble(bits):
    """The finaliser of splitmix64 (Steele, Lea, Flood 2014): each bit in moves every bit out."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        shifted = tf.bitwise.right_shift(bits, tf.constant(shift, tf.uint64))
        bits = (bits ^ shifted) * tf.constant(factor, tf.uint64)
    return bits ^ tf.bitwise.right_shift(bits, tf.constant(31, tf.uint64))


def _random_bits(seed: int, epoch_number, index, stream):
    """64 random bits, a function of the four numbers alone; `index` and `stream` broadcast."""
    bits = tf.constant(seed % 2**64, tf.uint64)
    for number in (epoch_number, index, stream):
        bits = _scramble(bits + tf.constant(0x9E3779B97F4A7C15, tf.uint64))
        bits = bits ^ tf.cast(number, tf.uint64)
    return _scramble(bits + tf.constant(0x9E3779B97F4A7C15, tf.uint64))


def order_of_epoch(seed: int, epoch_number, count: int):
    """The order of the examples in this epoch: a permutation of range(count), int64."""
    keys = _random_bits(seed, epoch_number, tf.range(count, dtype=tf.int64), 0)
    return tf.argsort(tf.cast(tf.bitwise.right_shift(keys, tf.constant(1, tf.uint64)), tf.int64))


def uniform_numbers(seed: int, epoch_number, index, count: int):
    """`count` numbers in 0..1 for each example: (batch, count), float32."""
    streams = tf.range(1, count + 1, dtype=tf.int64)[None, :]  # stream 0 gives the order
    bits = _random_bits(seed, epoch_number, index[:, None], streams)
    top = tf.bitwise.right_shift(bits, tf.constant(40, tf.uint64))
    return tf.cast(top, tf.float32) * 2.0**-24


# Augmentation


def one_after_another(changes: Augmentation | Sequence[Augmentation] | None) -> Augmentation:
    """Return one augmentation that is all of these; each draws numbers of its own."""
    several = [] if changes is None else [changes] if callable(changes) else list(changes)

    def changed(images, uniform):
        used = 0
        for change in several:

            def own(count, first=used):
                nonlocal used
                used = max(used, first + count)
                return uniform(first + count)[:, first:]

            images = change(images, own)
        return images

    return changed


@dataclasses.dataclass(frozen=True)
class Light:
    """Small changes that leave nearly every photo what it was: move, zoom, brightness, contrast.

    Args:
        shift: largest move in each direction, as a share of the side.
        zoom: largest enlargement or reduction, as a share.
        brightness: largest change, as a share of the range 0..255.
        contrast: largest change of the distance from the image's mean, as a share.
        flip: mirror half of the photos. Off, because it changes what letters, digits and signs say.
    """

    shift: float = 0.1
    zoom: float = 0.1
    brightness: float = 0.1
    contrast: float = 0.2
    flip: bool = False

    def __call__(self, images, uniform):
        height, width = (tf.cast(side, tf.float32) for side in tf.unstack(tf.shape(images)[1:3]))
        spread = 2.0 * uniform(6) - 1.0
        scale = 1.0 + self.zoom * spread[:, 0]
        sign = tf.where(self.flip & (spread[:, 5] < 0), -1.0, 1.0)
        images = _move(
            images,
            scale_x=sign * scale,
            scale_y=scale,
            move_x=self.shift * width * spread[:, 1],
            move_y=self.shift * height * spread[:, 2],
            interpolation="BILINEAR",
            fill_mode="NEAREST",
        )
        mean = tf.reduce_mean(images, axis=(1, 2, 3), keepdims=True)
        contrast = 1.0 + self.contrast * spread[:, 3, None, None, None]
        images = (images - mean) * contrast + mean
        images += 255.0 * self.brightness * spread[:, 4, None, None, None]
        return tf.clip_by_value(images, 0.0, 255.0)


@dataclasses.dataclass(frozen=True)
class CropAndFlip:
    """The customary augmentation of CIFAR: pad with black, crop at random, mirror half of them.

    Whole pixels: nothing is interpolated.
    """

    padding: int = 4
    flip: bool = True

    def __call__(self, images, uniform):
        drawn = uniform(3)
        move = tf.floor(drawn[:, :2] * (2 * self.padding + 1)) - self.padding
        sign = tf.where(self.flip & (drawn[:, 2] < 0.5), -1.0, 1.0)
        return _move(
            images,
            scale_x=sign,
            scale_y=tf.ones_like(sign),
            move_x=move[:, 0],
            move_y=move[:, 1],
            interpolation="NEAREST",
            fill_mode="CONSTANT",
        )


def _move(images, scale_x, scale_y, move_x, move_y, interpolation, fill_mode):
    """Output pixel (x, y) shows input (centre + scale·((x, y) − centre) + move); all (batch,)."""
    zero, one = tf.zeros_like(move_x), tf.ones_like(move_x)
    rows = [[scale_x, zero, move_x], [zero, scale_y, move_y], [zero, zero, one]]
    matrices = tf.stack([tf.stack(row, axis=-1) for row in rows], axis=1)
    return transformed(images, matrices, interpolation, fill_mode)


def transformed(images, matrices, interpolation: str, fill_mode: str, fill_value: float = 0.0):
    """Return images whose pixel (x, y, 1) shows the input's at `matrix · (x, y, 1)`, from the centre.

    Args:
        images: float32 `(batch, height, width, channels)`.
        matrices: affine, `(batch, 3, 3)`; x to the right, y downwards, in pixels from the image's centre.
        interpolation: "NEAREST" or "BILINEAR".
        fill_mode: what is outside, "NEAREST" for the next pixel of the image, "CONSTANT" for `fill_value`.
    """
    size = tf.shape(images)[1:3]
    centre = (tf.cast(size[::-1], tf.float32) - 1.0) / 2.0  # (x, y)
    linear, move = matrices[:, :2, :2], matrices[:, :2, 2]
    move = move + centre - tf.linalg.matvec(linear, centre)
    transforms = tf.reshape(tf.concat([linear, move[:, :, None]], axis=2), (-1, 6))
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.pad(transforms, [[0, 0], [0, 2]]),
        output_shape=size,
        fill_value=fill_value,
        interpolation=interpolation,
        fill_mode=fill_mode,
    )
