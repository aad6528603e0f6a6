"""scikit-learn's handwritten digits as images: a real data set that needs no download."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Digits:
    """scikit-learn's digits as images: x (examples, 8, 8, 1) uint8 0..255, y int32."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    class_names: list[str]


def digits(test_size: float = 0.25, seed: int = 0) -> Digits:
    """1,797 handwritten digits of 8×8 pixels (UCI, Alpaydin and Kaynak 1998), stratified split.

    They come with scikit-learn: nothing is downloaded.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    loaded = load_digits()
    images = np.round(loaded.images[..., None] * (255 / 16)).astype(np.uint8)
    x_train, x_test, y_train, y_test = train_test_split(
        images,
        loaded.target.astype(np.int32),
        test_size=test_size,
        random_state=seed,
        stratify=loaded.target,
    )
    return Digits(x_train, y_train, x_test, y_test, [str(i) for i in range(10)])
