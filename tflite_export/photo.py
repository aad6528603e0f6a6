"""One photo as a network's input, read the same way to train, to calibrate and to predict.

    pixels = read_photo("cat.jpg", (96, 96))      # (96, 96, 3) uint8
    files = find_photos("photos/cat")

Needs Pillow and NumPy, and no other room: whoever runs a `.tflite` file can read photos as its
training did.
"""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

# Files that are meant as photos; those of them that cannot be read (HEIC) are named, not passed over.
PHOTO_SUFFIXES = (
    ".avif",
    ".bmp",
    ".gif",
    ".heic",
    ".heif",
    ".jfif",
    ".jpe",
    ".jpeg",
    ".jpg",
    ".png",
    ".tif",
    ".tiff",
    ".webp",
)


class UnreadablePhoto(ValueError):
    """A file that cannot be read as a photo; `path`, and `reason` as the end of a sentence."""

    def __init__(self, path: str | os.PathLike[str], reason: str):
        super().__init__(f"Cannot read {os.fspath(path)} as a photo: {reason}.")
        self.path, self.reason = path, reason


@dataclasses.dataclass(frozen=True)
class Unreadable:
    """A file with the name of a photo that cannot be read, and why."""

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def cannot_be_read(unreadable: Sequence[Unreadable], readable: int) -> str:
    """How many of how many photos, and which: the beginning of a sentence."""
    named = "; ".join(map(str, unreadable[:5]))
    more = f"; and {len(unreadable) - 5} more" if len(unreadable) > 5 else ""
    return f"{len(unreadable)} of {len(unreadable) + readable} photos cannot be read: {named}{more}"


def read_photos(
    files: Sequence[Path],
    image_size: tuple[int, int],
    channels: int = 3,
    strict: bool = False,
    say: Callable[[str], None] = warnings.warn,
) -> Iterator[tuple[int, np.ndarray]]:
    """The photos that can be read, as (place in `files`, pixels); the others are named in the end.

    Args:
        image_size, channels: as in `read_photo`.
        strict: refuse the first that cannot be read.
        say: gets the sentence about those that are left out.

    Raises:
        UnreadablePhoto: a ValueError; with `strict`, or where none can be read.
    """
    unreadable: list[Unreadable] = []
    readable = 0
    try:
        for place, file in enumerate(files):
            try:
                pixels = read_photo(file, image_size, channels)
            except UnreadablePhoto as error:
                if strict or len(unreadable) == len(files) - 1:
                    raise
                unreadable.append(Unreadable(file, error.reason))
                continue
            readable += 1
            yield place, pixels
    finally:  # also where no more of them are asked for
        if unreadable and readable:
            say(f"{cannot_be_read(unreadable, readable)}. They are left out.")


def read_photo(
    path: str | os.PathLike[str], image_size: tuple[int, int], channels: int = 3
) -> np.ndarray:
    """One photo as uint8 (height, width, channels), stretched to `image_size` (height, width).

    Upright as its EXIF says; greyscale, palette, CMYK and 16-bit files in the wanted channels, 3
    (RGB) or 1 (grey); transparency over white; of an animation the first frame. What the file is
    counts, not its suffix.

    Raises:
        UnreadablePhoto: a ValueError; the file is empty, cut off, damaged or no image, or claims
            more pixels than Pillow's guard against decompression bombs allows.
        FileNotFoundError: there is no such file.
    """
    from PIL import Image, UnidentifiedImageError

    height, width = image_size
    try:
        with Image.open(path) as file:
            # libjpeg decodes a large photo straight to a half, a quarter or an eighth of its size.
            file.draft(None, (max(width, height),) * 2)
            turn = _turn(file)
            image = _straight_inks(file)
            image = _opaque(_eight_bits(image if turn is None else image.transpose(turn)))
            wanted = "L" if channels == 1 else "RGB"
            image = image if image.mode == wanted else image.convert(wanted)
            image = image.resize((width, height), Image.Resampling.BILINEAR)
    except FileNotFoundError:
        raise FileNotFoundError(f"There is no file {os.fspath(path)}.") from None
    except UnidentifiedImageError:
        raise UnreadablePhoto(path, _unidentified(path)) from None
    # Decoders raise whatever they stumble over in a damaged file: OSError, SyntaxError, EOFError, …
    except Exception as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UnreadablePhoto(path, reason.rstrip(".")) from error
    return np.asarray(image).reshape(height, width, channels)


def _turn(file: Any) -> Any:
    """What turns the photo upright, or None. With a damaged EXIF, it is taken as it lies."""
    from PIL import Image

    turns = (
        Image.Transpose.FLIP_LEFT_RIGHT,
        Image.Transpose.ROTATE_180,
        Image.Transpose.FLIP_TOP_BOTTOM,
        Image.Transpose.TRANSPOSE,
        Image.Transpose.ROTATE_270,
        Image.Transpose.TRANSVERSE,
        Image.Transpose.ROTATE_90,
    )
    try:
        orientation = file.getexif().get(0x0112)
    except Exception:
        return None
    return dict(enumerate(turns, 2)).get(orientation)


def _straight_inks(file: Any) -> Any:
    """CMYK as ink, not as light: Pillow takes every CMYK JPEG for one of Adobe's, which are inverted."""
    from PIL import ImageChops

    if file.mode == "CMYK" and file.format == "JPEG" and "adobe" not in file.info:
        return ImageChops.invert(file)
    return file


def _eight_bits(image: Any) -> Any:
    """The high byte of 16-bit greyscale, which Pillow would clip at 255."""
    from PIL import Image

    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image).astype(np.int64)
    return Image.fromarray((values >> 8).clip(0, 255).astype(np.uint8))


def _opaque(image: Any) -> Any:
    """The image over white, where some of it is transparent."""
    from PIL import Image

    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)


def _unidentified(path: str | os.PathLike[str]) -> str:
    with open(path, "rb") as file:
        start = file.read(8)
    if not start:
        return "it is empty (0 bytes)"
    if Path(path).suffix.lower() in (".avif", ".heic", ".heif"):
        return "this Pillow does not read this format; convert it to JPEG or PNG"
    return f"it is no image, or its header is damaged (it begins with {start!r})"


def find_photos(folder: str | os.PathLike[str]) -> list[Path]:
    """The photos in a folder and its sub-folders, by suffix, sorted; nothing hidden."""
    return sorted(file for file in visible_files(folder) if file.suffix.lower() in PHOTO_SUFFIXES)


def visible_files(folder: str | os.PathLike[str]) -> list[Path]:
    """All files in a folder and its sub-folders, but for hidden ones and hidden sub-folders.

    A folder that links lead to again, as one to its own parent does, is looked into once.
    """
    found: list[Path] = []
    seen = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        place = os.path.realpath(parent)
        folders[:] = [] if place in seen else sorted(f for f in folders if not f.startswith("."))
        if place in seen:
            continue
        seen.add(place)
        found += [Path(parent) / name for name in files if not name.startswith(".")]
    return found
