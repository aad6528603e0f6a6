"""An encoded photo as a network's input, inside a TensorFlow graph, as photo.py reads it outside.

    pixels = read_photos(encoded, (96, 96))     # strings (batch,) → float32 (batch, 96, 96, 3), 0..255

A server that gets other pixels than the training did is wrong, and nobody sees it. So each step is
the one that photo.py takes with Pillow: libjpeg's accurate DCT, decoded at a half, a quarter or an
eighth of the size where that is enough; upright as the EXIF of a JPEG or PNG says; transparency over
white; ITU 601 luma for one channel; stretched by Pillow's antialiased triangle filter, in its whole
numbers. The pixels are those of Pillow 13 to the bit (test_photo_graph.py), but for CMYK, which
TensorFlow rounds down: a level at most. An orientation that stands in XMP alone is not seen.
GIF, BMP and WebP are read as TensorFlow reads them: of GIFs the first frame, without transparency.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_PNG = b"\x89PNG\r\n\x1a\n"


def read_photos(encoded: Any, image_size: tuple[int, int], channels: int = 3) -> Any:
    """Pixels (batch, height, width, channels), whole numbers 0..255 in float32, of any number of files.

    The graph raises InvalidArgumentError where one of them is no image or is cut off.
    """
    import tensorflow as tf

    return tf.map_fn(
        lambda one: _read_photo(tf, one, image_size, channels),
        encoded,
        fn_output_signature=tf.TensorSpec((*image_size, channels), tf.float32),
    )


def _read_photo(tf: Any, encoded: Any, image_size: tuple[int, int], channels: int) -> Any:
    height, width = image_size
    raw = tf.io.decode_raw(encoded, tf.uint8)
    jpeg = tf.io.is_jpeg(encoded)
    png = tf.equal(tf.strings.substr(encoded, 0, len(_PNG)), _PNG)
    pixels = tf.case(
        [
            (jpeg, lambda: _jpeg(tf, encoded, max(image_size))),
            (png, lambda: _png(tf, encoded, raw)),
        ],
        default=lambda: _other(tf, encoded),
    )
    exif = tf.case(
        [(jpeg, lambda: _exif_of_jpeg(tf, raw)), (png, lambda: _exif_of_png(tf, raw))],
        default=lambda: tf.constant(-1),
    )
    orientation = tf.cond(exif >= 0, lambda: _orientation(tf, raw, exif), lambda: tf.constant(1))
    pixels = tf.ensure_shape(_upright(tf, pixels, orientation), (None, None, 3))
    if channels == 1:
        weights = tf.constant([19595, 38470, 7471])  # Pillow's 16 bits of 0.299, 0.587, 0.114
        sums = tf.reduce_sum(tf.cast(pixels, tf.int32) * weights, -1, keepdims=True)
        pixels = tf.cast(tf.bitwise.right_shift(sums + 0x8000, 16), tf.uint8)
    pixels = _stretched(tf, pixels, (height, width))
    return tf.ensure_shape(tf.cast(pixels, tf.float32), (height, width, channels))


# What is decoded: uint8 (height, width, 3)


def _jpeg(tf: Any, encoded: Any, longest: int) -> Any:
    """At the smallest of libjpeg's sizes whose shorter side is still `longest`, as `Image.draft` does."""
    times = tf.reduce_min(tf.io.extract_jpeg_shape(encoded)[:2]) // longest

    def decoded(ratio: int) -> Any:
        return tf.io.decode_jpeg(encoded, 3, ratio=ratio, dct_method="INTEGER_ACCURATE")

    choice = tf.reduce_sum(tf.cast(times >= [2, 4, 8], tf.int32))
    return tf.switch_case(choice, [lambda r=r: decoded(r) for r in (1, 2, 4, 8)])


def _png(tf: Any, encoded: Any, raw: Any) -> Any:
    pixels = tf.io.decode_png(encoded, 4)
    colour, alpha = pixels[..., :3], pixels[..., 3:]
    # With fewer than 8 bits, TensorFlow's opaque is the highest number that the file's bits have.
    bits = tf.minimum(_number(tf, raw, 24, 1), 8)
    opaque = tf.cast(tf.bitwise.left_shift(1, bits) - 1, tf.uint8)

    def over_white() -> Any:
        c, a = tf.cast(colour, tf.float32), tf.cast(alpha, tf.float32)
        return tf.cast(tf.floor((c * a + 255 * (255 - a)) / 255 + 0.5), tf.uint8)

    return tf.cond(tf.reduce_all(tf.equal(alpha, opaque)), lambda: colour, over_white)


def _other(tf: Any, encoded: Any) -> Any:
    return tf.io.decode_image(encoded, 3, expand_animations=False)


# Resampled as Pillow's Resample.c does it for 8 bits


_BITS = 22  # of the weights, behind the point


def _stretched(tf: Any, pixels: Any, size: tuple[int, int]) -> Any:
    """uint8 of another size, first to the new width, then to the new height.

    Pillow 13 goes the other way round where the height shrinks by more than twice as many pixels as
    the width, as it does for tall photos; older ones never do, and differ there by a level at most.
    """
    height, width = size
    rows, columns = tf.shape(pixels)[0], tf.shape(pixels)[1]
    tall = (rows > height) & (rows - height > 2 * (columns - width))

    def transposed(image: Any) -> Any:
        return tf.cond(tall, lambda: tf.transpose(image, [1, 0, 2]), lambda: image)

    pixels = transposed(pixels)
    first, second = tf.where(tall, height, width), tf.where(tall, width, height)
    return transposed(_one_pass(tf, _by_strips(tf, pixels, first), second, axis=0))


def _by_strips(tf: Any, pixels: Any, width: Any, strip: int = 256) -> Any:
    """The pass along the rows, some rows at once: a large PNG takes little memory."""
    rows, columns, channels = tf.shape(pixels)[0], tf.shape(pixels)[1], pixels.shape[-1]
    strips = tf.map_fn(
        lambda some: _one_pass(tf, some, width, axis=1),
        tf.reshape(
            tf.pad(pixels, [[0, -rows % strip], [0, 0], [0, 0]]), (-1, strip, columns, channels)
        ),
        parallel_iterations=1,
        fn_output_signature=tf.TensorSpec((strip, None, channels), tf.uint8),
    )
    return tf.reshape(strips, (-1, width, channels))[:rows]


def _one_pass(tf: Any, pixels: Any, size: Any, axis: int) -> Any:
    length = tf.shape(pixels)[axis]
    scale = tf.cast(length, tf.float64) / tf.cast(size, tf.float64)
    support = tf.maximum(scale, 1.0)
    centre = (tf.cast(tf.range(size), tf.float64) + 0.5) * scale
    low = tf.maximum(tf.cast(centre - support + 0.5, tf.int32), 0)
    high = tf.minimum(tf.cast(centre + support + 0.5, tf.int32), length)
    places = low[:, None] + tf.range(tf.reduce_max(high - low))
    distance = tf.abs(tf.cast(places, tf.float64) - centre[:, None] + 0.5) / support
    weights = tf.where(places < high[:, None], tf.maximum(1.0 - distance, 0.0), 0.0)
    weights /= tf.reduce_sum(weights, 1, keepdims=True)
    weights = tf.cast(tf.floor(weights * 2**_BITS + 0.5), tf.int32)
    windows = tf.gather(pixels, tf.minimum(places, length - 1), axis=axis)
    weights = weights[..., None] if axis else weights[..., None, None]
    sums = tf.reduce_sum(tf.cast(windows, tf.int32) * weights, axis + 1)
    rounded = tf.bitwise.right_shift(sums + (1 << (_BITS - 1)), _BITS)
    return tf.cast(tf.clip_by_value(rounded, 0, 255), tf.uint8)


# How the camera was held


def _exif_of_jpeg(tf: Any, raw: Any) -> Any:
    """Where the TIFF header of the EXIF begins, or -1: segments before the picture are walked through."""
    size = tf.shape(raw)[0]
    name = np.frombuffer(b"Exif\0\0", "uint8")

    def is_exif(at: Any) -> Any:
        return tf.equal(_number(tf, raw, at, 2), 0xFFE1) & tf.reduce_all(
            tf.equal(_bytes(tf, raw, at + 4, 6), name)
        )

    def further(at: Any) -> Any:
        marker = _number(tf, raw, at, 2)
        # The picture itself begins at SOS.
        in_head = (marker >= 0xFF01) & tf.not_equal(marker, 0xFFDA)
        return (at < size) & in_head & tf.logical_not(is_exif(at))

    def after(at: Any) -> Any:
        filling = tf.equal(_number(tf, raw, at, 2), 0xFFFF)
        return (tf.where(filling, at + 1, at + 2 + tf.maximum(2, _number(tf, raw, at + 2, 2))),)

    (at,) = tf.while_loop(further, after, (tf.constant(2),))
    return tf.where(is_exif(at), at + 10, -1)


def _exif_of_png(tf: Any, raw: Any) -> Any:
    """Where the eXIf chunk's content begins, or -1."""
    size = tf.shape(raw)[0]

    def kind_is(at: Any, name: bytes) -> Any:
        return tf.equal(_number(tf, raw, at + 4, 4), int.from_bytes(name, "big"))

    def further(at: Any) -> Any:
        return (at < size) & tf.logical_not(kind_is(at, b"eXIf") | kind_is(at, b"IEND"))

    def after(at: Any) -> Any:
        length = _number(tf, raw, at, 4)
        # A length that does not fit in the file ends the walk.
        return (tf.where((length < 0) | (length > size), size, at + 12 + length),)

    (at,) = tf.while_loop(further, after, (tf.constant(len(_PNG)),))
    return tf.where(kind_is(at, b"eXIf"), at + 8, -1)


def _orientation(tf: Any, raw: Any, start: Any) -> Any:
    """The value of tag 0x0112 in the first directory of a TIFF header, 1..8; 1 where it has none."""
    little = tf.equal(_number(tf, raw, start, 2), 0x4949)

    def number(at: Any, count: int) -> Any:
        return tf.where(
            little, _number(tf, raw, at, count, little=True), _number(tf, raw, at, count)
        )

    size = tf.shape(raw)[0]
    offset = number(start + 4, 4)
    directory = start + tf.where((offset < 0) | (offset > size), size, offset)
    entries = directory + 2 + 12 * tf.range(tf.minimum(number(directory, 2), 1000))
    found = tf.equal(number(entries, 2), 0x0112)
    value = tf.reduce_max(tf.where(found, number(entries + 8, 2), 0), axis=0)
    return tf.where((value >= 1) & (value <= 8), value, 1)


def _upright(tf: Any, pixels: Any, orientation: Any) -> Any:
    def step(*turned: int) -> Any:
        return tf.where(tf.reduce_any(tf.equal(orientation, turned)), -1, 1)

    pixels = tf.cond(orientation >= 5, lambda: tf.transpose(pixels, [1, 0, 2]), lambda: pixels)
    return pixels[:: step(3, 4, 7, 8), :: step(2, 3, 6, 7)]


def _bytes(tf: Any, raw: Any, at: Any, count: int) -> Any:
    """`count` bytes from each place in `at`; zeros behind the end."""
    places = tf.expand_dims(at, -1) + tf.range(count)
    inside = places < tf.shape(raw)[0]
    return tf.where(inside, tf.gather(raw, tf.where(inside, places, 0)), tf.zeros((), tf.uint8))


def _number(tf: Any, raw: Any, at: Any, count: int, little: bool = False) -> Any:
    """The whole number in `count` bytes from each place in `at`."""
    powers = 256 ** np.arange(count)
    weights = tf.constant(powers if little else powers[::-1], tf.int32)
    return tf.reduce_sum(tf.cast(_bytes(tf, raw, at, count), tf.int32) * weights, -1)
