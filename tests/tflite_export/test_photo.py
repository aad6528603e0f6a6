"""A photo becomes the same upright, opaque, 8-bit pixels whatever kind of file it lies in."""

import io
import re
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from tflite_export.photo import UnreadablePhoto, find_photos, read_photo

# Flat quarters: neither resampling nor the compression of a JPEG changes their middles.
QUARTERS = np.array([[[200, 40, 40], [40, 200, 40]], [[40, 40, 200], [230, 230, 30]]], "uint8")
GREY = np.array([[10, 90], [170, 250]], "uint8")
SIDE = 32


def big(small):
    """Each pixel as a square of 16."""
    return np.asarray(small).repeat(SIDE // 2, 0).repeat(SIDE // 2, 1)


def middles(pixels):
    return pixels[SIDE // 4 :: SIDE // 2, SIDE // 4 :: SIDE // 2].astype(int)


def read(image, path, **options):
    image.save(path, **options)
    return middles(read_photo(path, (SIDE, SIDE)))


def grey_as_rgb():
    return GREY[..., None].repeat(3, -1)


COLOUR = Image.fromarray(big(QUARTERS))


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "webp", "gif"])
def test_colours(suffix, tmp_path):
    lossy = {"jpg": 12, "webp": 12}.get(suffix, 0)
    np.testing.assert_allclose(read(COLOUR, tmp_path / f"x.{suffix}"), QUARTERS, atol=lossy)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_greyscale(suffix, tmp_path):
    pixels = read(Image.fromarray(big(GREY)), tmp_path / f"x.{suffix}")
    np.testing.assert_allclose(pixels, grey_as_rgb(), atol=2 if suffix == "jpg" else 0)


def test_one_channel_is_the_luma_of_itu_601(tmp_path):
    COLOUR.save(tmp_path / "x.png")
    pixels = read_photo(tmp_path / "x.png", (SIDE, SIDE), channels=1)
    assert pixels.shape == (SIDE, SIDE, 1)
    luma = QUARTERS @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(middles(pixels)[..., 0], luma, atol=1)


def test_sixteen_bits_keep_their_high_byte(tmp_path):
    values = big(GREY).astype("uint16") * 256 + 255
    pixels = read(Image.fromarray(values), tmp_path / "x.png")
    np.testing.assert_array_equal(pixels, grey_as_rgb())


def test_one_bit_is_black_and_white(tmp_path):
    bits = Image.fromarray(big(GREY) > 100).convert("1")
    pixels = read(bits, tmp_path / "x.png")
    np.testing.assert_array_equal(pixels, (grey_as_rgb() > 100) * 255)


@pytest.mark.parametrize("inverted", [True, False])
def test_cmyk_with_adobe_s_marker_is_inverted_and_without_it_not(inverted, tmp_path):
    ink = np.array([[[0, 200, 200, 10], [200, 0, 200, 10]], [[200, 200, 0, 10], [0, 0, 0, 90]]])
    path = tmp_path / "x.jpg"
    image = Image.frombytes("CMYK", (SIDE, SIDE), big(ink).astype("uint8").tobytes())
    image.save(path, quality=95)  # Pillow writes the marker, and the inks inverted
    if not inverted:
        Image.frombytes("CMYK", (SIDE, SIDE), (255 - big(ink)).astype("uint8").tobytes()).save(
            path, quality=95
        )
        path.write_bytes(without_segment(path.read_bytes(), 0xEE))
    pixels = middles(read_photo(path, (SIDE, SIDE)))
    want = (255 - ink[..., :3]) * (255 - ink[..., 3:]) / 255
    np.testing.assert_allclose(pixels, want, atol=8)


def without_segment(jpeg, marker):
    start = jpeg.index(bytes([0xFF, marker]))
    size = int.from_bytes(jpeg[start + 2 : start + 4], "big")
    return jpeg[:start] + jpeg[start + 2 + size :]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "palette", "transparent colour", "webp"])
def test_transparency_is_white(mode, tmp_path):
    path = tmp_path / ("x.webp" if mode == "webp" else "x.png")
    options = {"lossless": True} if mode == "webp" else {}
    want = np.array([[[0, 0, 0]] * 2, [[255, 255, 255]] * 2])
    alpha = Image.fromarray(big([[255, 255], [0, 0]]).astype("uint8"))
    if mode in ("RGBA", "LA", "webp"):
        image = Image.new("LA" if mode == "LA" else "RGBA", (SIDE, SIDE), 0)
        alpha.putpixel((24, 8), 127)  # a half transparent pixel among the black ones
        want[0, 1] = 128
        image.putalpha(alpha)
    else:
        image = alpha.point(lambda value: 0 if value else 1)
        if mode == "palette":
            image.putpalette([0, 0, 0, 90, 90, 90])
        options["transparency"] = 1
    np.testing.assert_allclose(read(image, path, **options), want, atol=1)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_of_an_animation_the_first_frame(suffix, tmp_path):
    options = {"lossless": True} if suffix == "webp" else {}
    later = [Image.new("RGB", COLOUR.size, colour) for colour in ("white", "black")]
    path = tmp_path / f"x.{suffix}"
    pixels = read(COLOUR, path, save_all=True, append_images=later, duration=100, **options)
    with Image.open(path) as file:
        assert file.n_frames == 3
    np.testing.assert_array_equal(pixels, QUARTERS)


# What the camera saw for each way in which it was held (EXIF 2.32, 4.6.4 A, Orientation).
SEEN = {
    1: QUARTERS,
    2: QUARTERS[:, ::-1],
    3: QUARTERS[::-1, ::-1],
    4: QUARTERS[::-1],
    5: QUARTERS.transpose(1, 0, 2),
    6: QUARTERS[::-1].transpose(1, 0, 2),
    7: QUARTERS[::-1, ::-1].transpose(1, 0, 2),
    8: QUARTERS[:, ::-1].transpose(1, 0, 2),
}


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("orientation", SEEN)
def test_photos_are_turned_upright(orientation, suffix, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = read(COLOUR, tmp_path / f"x.{suffix}", exif=exif)
    np.testing.assert_allclose(pixels, SEEN[orientation], atol=0 if suffix == "png" else 12)


def test_a_turned_photo_is_stretched_after_turning(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    tall = Image.fromarray(big(QUARTERS)[:16])  # 16 high, 32 wide
    tall.save(tmp_path / "x.png", exif=exif)
    pixels = read_photo(tmp_path / "x.png", (32, 16))
    np.testing.assert_array_equal(pixels[8, 8], QUARTERS[0, 0])
    np.testing.assert_array_equal(pixels[24, 8], QUARTERS[0, 1])


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("exif", [b"Exif\0\0no TIFF header here", b"Exif\0\0MM"])
def test_a_damaged_exif_does_not_hide_the_photo(exif, suffix, tmp_path):
    path = tmp_path / f"x.{suffix}"
    COLOUR.save(path, exif=exif)
    np.testing.assert_allclose(middles(read_photo(path, (SIDE, SIDE))), QUARTERS, atol=12)


def test_a_photo_is_turned_although_its_exif_cannot_be_written_again(tmp_path):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 3, "abc"
    content = exif.tobytes().replace(b"\x01\x0f", b"\x01\x00", 1)  # a width that is a text
    COLOUR.save(tmp_path / "x.png", exif=content)
    pixels = middles(read_photo(tmp_path / "x.png", (SIDE, SIDE)))
    np.testing.assert_array_equal(pixels, QUARTERS[::-1, ::-1])


def test_a_suffix_may_lie(tmp_path):
    COLOUR.save(tmp_path / "x.jpg", format="PNG")
    np.testing.assert_array_equal(middles(read_photo(tmp_path / "x.jpg", (SIDE, SIDE))), QUARTERS)


def test_a_large_jpeg_looks_as_if_it_were_decoded_at_full_size(tmp_path, rng):
    """Decoding at a reduced size is for speed alone."""
    coarse = Image.fromarray(rng.integers(0, 256, (15, 20, 3), dtype="uint8"))
    coarse.resize((640, 480), Image.Resampling.BICUBIC).save(tmp_path / "x.jpg", quality=95)
    with Image.open(tmp_path / "x.jpg") as file:
        full = np.asarray(file.resize((96, 96), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(read_photo(tmp_path / "x.jpg", (96, 96)) - full).mean() < 2


def saved(kind):
    stream = io.BytesIO()
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype="uint8"))
    options = {"progressive": True} if kind == "progressive" else {}
    if kind == "animated":
        options = {"save_all": True, "append_images": [image.rotate(90)]}
    form = {"progressive": "jpeg", "animated": "webp"}.get(kind, kind)
    image.save(stream, form, **options)
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["jpeg", "progressive", "png", "gif", "webp", "animated", "bmp"])
def test_a_file_that_is_cut_off_is_refused_unless_all_its_pixels_are_there(kind, tmp_path):
    path, whole = tmp_path / "x.jpg", saved(kind)
    path.write_bytes(whole)
    pixels, small = read_photo(path, (12, 16)), read_photo(path, (1, 1))
    refused = 0
    for length in range(0, len(whole), 3):
        path.write_bytes(whole[:length])
        try:
            np.testing.assert_array_equal(read_photo(path, (12, 16)), pixels)
        except UnreadablePhoto:
            refused += 1
            with pytest.raises(UnreadablePhoto):  # the cheap check of a folder finds it too
                read_photo(path, (1, 1))
        else:
            np.testing.assert_array_equal(read_photo(path, (1, 1)), small)
    assert refused > 0.9 * len(whole) / 3


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", r"Cannot read .*x\.jpg as a photo: it is empty \(0 bytes\)\."),
        (
            b"<html>404</html>",
            r"it is no image, or its header is damaged \(it begins with b'<html>",
        ),
        (saved("jpeg")[:400], r"Cannot read .*x\.jpg as a photo: Truncated"),
        (None, r"There is no file .*x\.jpg"),
        ("folder", r"Cannot read .*x\.jpg as a photo: Is a directory"),
    ],
    ids=["empty", "no image", "cut off", "missing", "a folder"],
)
def test_what_cannot_be_read_is_named(content, sentence, tmp_path):
    path = tmp_path / "x.jpg"
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError), match=sentence):
        read_photo(path, (8, 8))


def test_a_decompression_bomb_is_refused_unread(tmp_path):
    """A PNG of a few bytes that claims 30000×30000 pixels."""
    header = io.BytesIO()
    Image.new("L", (1, 1)).save(header, "PNG")
    png = bytearray(header.getvalue())
    png[16:24] = (30000).to_bytes(4, "big") * 2
    png[29:33] = zlib.crc32(bytes(png[12:29])).to_bytes(4, "big")
    (tmp_path / "x.png").write_bytes(bytes(png))
    with pytest.raises(UnreadablePhoto, match=r"900000000 pixels\) exceeds limit"):
        read_photo(tmp_path / "x.png", (8, 8))


def test_photos_are_found_in_sub_folders_and_nothing_hidden(tmp_path):
    for name in ("b/2.JPG", "b/deep/1.webp", "a.png", "notes.txt", ".hidden.png", ".trash/3.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [str(file.relative_to(tmp_path)) for file in find_photos(tmp_path)]
    assert found == ["a.png", "b/2.JPG", "b/deep/1.webp"]


def test_it_needs_neither_tensorflow_nor_keras():
    code = (
        "import sys, tflite_export.photo;"
        "print(sorted({'tensorflow', 'keras', 'keras_distill'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"\[\]\s*", done.stdout)
