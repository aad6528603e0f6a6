"""A photo that is read inside a graph has the pixels that Pillow gives it outside, to the bit."""

import io

import numpy as np
import PIL
import pytest
import tensorflow as tf
from PIL import Image

from tflite_export.photo import UnreadablePhoto, read_photo
from tflite_export.serving.photo_graph import read_photos

SIZE = (24, 20)
PILLOW = int(PIL.__version__.split(".")[0])


@pytest.fixture(scope="module")
def graphs():
    """{channels: reader}, each traced once for all tests."""

    def reader(channels):
        return tf.function(
            lambda encoded: read_photos(encoded, SIZE, channels),
            input_signature=[tf.TensorSpec((None,), tf.string)],
            autograph=False,
        )

    return {channels: reader(channels) for channels in (1, 3)}


@pytest.fixture(scope="module")
def picture():
    """Smooth colours with noise, 150 wide and 130 high."""
    rng = np.random.default_rng(1)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 10, 3), dtype="uint8"))
    smooth = np.asarray(coarse.resize((150, 130), Image.Resampling.BICUBIC)).astype(int)
    noise = rng.integers(-9, 10, smooth.shape)
    return Image.fromarray(np.clip(smooth + noise, 0, 255).astype("uint8"))


def encoded(image, form, **options):
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def largest(graphs, contents, tmp_path, channels=3):
    """{name of a file: the largest difference between graph and Pillow in its pixels}."""
    have = graphs[channels](tf.constant(list(contents.values()))).numpy()
    assert have.shape == (len(contents), *SIZE, channels)
    found = {}
    for (name, content), pixels in zip(contents.items(), have, strict=True):
        (tmp_path / "photo").write_bytes(content)
        want = read_photo(tmp_path / "photo", SIZE, channels)
        found[name] = np.abs(pixels - want).max()
    return found


def nothing(contents):
    return dict.fromkeys(contents, 0)


@pytest.mark.parametrize("channels", [3, 1])
def test_jpegs_of_every_size_that_libjpeg_decodes(graphs, picture, tmp_path, channels):
    contents = {
        (times, quality): encoded(
            picture.resize((40 * times, 30 * times)), "JPEG", quality=quality, subsampling=sampling
        )
        for times in (1, 2, 4, 8, 16)
        for quality, sampling in ((95, 0), (60, 2))
    }
    assert largest(graphs, contents, tmp_path, channels) == nothing(contents)


def test_larger_smaller_and_equal_pictures(graphs, picture, tmp_path):
    sizes = [(20, 24), (7, 5), (150, 24), (300, 24), (1, 1), (700, 30), (20, 24)]
    if PILLOW >= 13:  # older ones stretch tall pictures in another order
        sizes += [(90, 600), (20, 100), (21, 27), (12, 28)]
    contents = {size: encoded(picture.resize(size), "PNG") for size in sizes}
    assert largest(graphs, contents, tmp_path) == nothing(contents)


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_photos_are_turned_upright(graphs, picture, tmp_path, form):
    contents = {}
    for orientation in range(10):
        for endian in "<>":
            exif = Image.Exif()
            exif.endian = endian
            exif[0x010F], exif[0x0112] = "a maker", orientation
            contents[orientation, endian] = encoded(picture, form, exif=exif.tobytes())
    assert len({content for content in contents.values()}) == 20
    assert largest(graphs, contents, tmp_path) == nothing(contents)
    pixels = graphs[3](tf.constant([contents[1, "<"], contents[6, "<"]])).numpy()
    assert np.abs(pixels[0] - pixels[1]).mean() > 20  # it does turn


def test_an_exif_that_is_hidden_or_damaged(graphs, picture, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    contents = {"comment": encoded(picture, "JPEG", exif=exif.tobytes(), comment=b"\xff\xe1 none")}
    xmp = b"http://ns.adobe.com/xap/1.0/\0<x/>"
    segment = b"\xff\xe1" + (len(xmp) + 2).to_bytes(2, "big") + xmp + b"\xff"  # and a filling byte
    contents["xmp"] = contents["comment"][:2] + segment + contents["comment"][2:]
    for form in ("JPEG", "PNG"):
        for damage in (
            b"no TIFF header",
            b"MM",
            b"II*\0\xff\xff\xff\xff",
            b"MM\0*\0\0\0\x08\xff\xff",
        ):
            contents[form, damage] = encoded(picture, form, exif=b"Exif\0\0" + damage)
    assert largest(graphs, contents, tmp_path) == nothing(contents)


@pytest.mark.parametrize("channels", [3, 1])
def test_pngs_of_every_kind(graphs, picture, tmp_path, channels):
    grey = picture.convert("L")
    contents = {mode: encoded(picture.convert(mode), "PNG") for mode in ("L", "1", "RGB", "P")}
    for bits in (2, 4):
        shifted = grey.point(lambda value, bits=bits: value >> (8 - bits))
        contents[f"grey, {bits} bits"] = encoded(shifted, "PNG", bits=bits)
    wide = Image.fromarray(np.asarray(grey).astype("uint16") * 256 + 99)
    contents["grey, 16 bits"] = encoded(wide, "PNG")
    for mode in ("RGBA", "LA"):
        image = picture.convert(mode)
        image.putalpha(picture.getchannel("G"))
        contents[mode] = encoded(image, "PNG")
    for colours in (2, 4, 9, 40):
        palette = picture.quantize(colours)
        contents[f"palette of {colours}"] = encoded(palette, "PNG")
        contents[f"palette of {colours}, one clear"] = encoded(palette, "PNG", transparency=1)
    assert largest(graphs, contents, tmp_path, channels) == nothing(contents)


def test_inks(graphs, picture, tmp_path):
    """TensorFlow rounds c·k/255 down, Pillow to the nearest."""
    content = encoded(picture.convert("CMYK"), "JPEG", quality=95)
    start = content.index(b"\xff\xee")
    size = int.from_bytes(content[start + 2 : start + 4], "big")
    contents = {"Adobe's": content, "others'": content[:start] + content[start + 2 + size :]}
    assert max(largest(graphs, contents, tmp_path).values()) <= 1


def test_other_kinds_are_read_too(graphs, picture, tmp_path):
    contents = {form: encoded(picture, form) for form in ("GIF", "BMP")}
    contents["WEBP"] = encoded(picture, "WEBP", lossless=True)
    assert largest(graphs, contents, tmp_path) == nothing(contents)


def test_none_of_them_is_a_batch_too(graphs):
    assert graphs[3](tf.zeros((0,), tf.string)).shape == (0, *SIZE, 3)


def test_what_pillow_refuses_the_graph_refuses(graphs, picture, tmp_path):
    broken = [b"", b"<html>404</html>"]
    for form in ("JPEG", "PNG", "GIF"):
        whole = encoded(picture, form)
        broken += [whole[: len(whole) // 2], whole[:20]]
    for content in broken:
        (tmp_path / "photo").write_bytes(content)
        with pytest.raises(UnreadablePhoto):
            read_photo(tmp_path / "photo", SIZE)
        with pytest.raises(tf.errors.InvalidArgumentError):
            graphs[3](tf.constant([content]))
