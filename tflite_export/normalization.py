"""From raw pixels 0..255 to what the model takes: `(pixel - mean) / std`.

    Normalization.parse((127.5, 127.5))                                   # -1..1
    Normalization.parse(([123.7, 116.3, 103.5], [58.4, 57.1, 57.4]))      # per channel
    Normalization.parse((0, 1))                                           # the model takes 0..255

A float file carries it as metadata, and the app applies it. A file with an integer input takes the
pixels as they are. Where the mean is one whole number, an integer input can say so by itself (scale
1/std, zero point mean). Any other mean has no such zero point: 127.5 would be off by half a pixel.
Then the file's input is the pixel (scale 1, zero point 0) and the first operator is a depthwise 1×1
convolution, one weight and one bias for each channel: weights have a scale of their own for each
channel and the bias has 32 bits, so that it is exact before its one rounding, and it stays int8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

PIXELS = 256


def spread(low: Any, high: Any) -> tuple[Any, Any]:
    """The ends of 255 steps for 256 pixels from `low` to `high`, numbers or tensors.

    With these ends themselves each pixel of a mean of 127.5 would lie halfway between two steps, all rounded
    alike; one step less between them spreads the rounding evenly.
    """
    slack = (high - low) / (PIXELS - 2) / 2
    return low - slack, high + slack


@dataclass(frozen=True)
class Normalization:
    """Model input = (pixel - mean) / std; one value for all channels, or one for each."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of_input(cls, pair: Any, name: str, dtype: str, channels: int | None) -> Normalization:
        """That of one input of a model.

        Raises:
            ValueError: it is none, or the input takes integers, which are the pixels themselves.
        """
        found = cls.parse(pair, channels)
        if "int" in dtype and (found.mean, found.std) != ((0.0,), (1.0,)):
            raise ValueError(
                f"normalization={pair!r}, and {name!r} takes {dtype}: pixels go in as they are, which is "
                "normalization=(0, 1)."
            )
        return found

    @classmethod
    def parse(cls, pair: Any, channels: int | None = None) -> Normalization:
        """Raises ValueError unless `pair` is (mean, std) of numbers or lists of `channels`."""
        if isinstance(pair, Normalization):
            return pair
        if not isinstance(pair, Sequence) or len(pair) != 2:
            raise ValueError(
                f"normalization={pair!r}: give (mean, std), for example (127.5, 127.5)."
            )
        mean, std = (tuple(float(v) for v in np.atleast_1d(np.asarray(p, float))) for p in pair)
        if len(mean) != len(std):
            length = max(len(mean), len(std))
            mean, std = (v * length if len(v) == 1 else v for v in (mean, std))
        if channels is not None and len(mean) not in (1, channels):
            raise ValueError(
                f"normalization has {len(mean)} values and the input {channels} channels: "
                "give one number, or one for each channel."
            )
        if not np.isfinite(mean + std).all() or min(std) <= 0 or len(mean) != len(std):
            raise ValueError(
                f"normalization={pair!r}: mean and std are finite, and std is above 0."
            )
        if len(set(mean)) == len(set(std)) == 1:
            mean, std = mean[:1], std[:1]
        made = cls(mean, std)
        with np.errstate(over="ignore"):
            ends = [made.apply(np.full(len(mean), pixel)) for pixel in (0, PIXELS - 1)]
        if not np.isfinite(ends).all() or (ends[0] == ends[1]).any():
            raise ValueError(
                f"normalization={pair!r} takes pixels 0..255 to {ends[0]}..{ends[1]} in float32: give the "
                "mean and standard deviation of pixels, for example (127.5, 127.5)."
            )
        return made

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """Raw pixels, channels last, to the model's input."""
        mean, std = np.array(self.mean, "float32"), np.array(self.std, "float32")
        return (np.asarray(pixels, "float32") - mean) / std

    def invert(self, values: np.ndarray) -> np.ndarray:
        """The model's input to raw pixels, not rounded, clipped to 0..255."""
        pixels = np.asarray(values, "float64") * self.std + self.mean
        return np.clip(pixels, 0, PIXELS - 1).astype("float32")

    @property
    def fits_an_integer_input(self) -> bool:
        """Whether a uint8 tensor with scale 1/std and zero point mean says exactly this."""
        mean = self.mean[0]
        return len(self.mean) == 1 and mean == int(mean) and 0 <= mean < PIXELS

    @property
    def range(self) -> tuple[float, float]:
        """Smallest and largest model input that pixels 0..255 lead to."""
        ends = self.apply(np.array([[0.0], [PIXELS - 1.0]]))
        return float(ends.min()), float(ends.max())

    def to_json(self) -> list[list[float]]:
        """What our metadata entry holds of it."""
        return [list(self.mean), list(self.std)]
