"""Names of classes, as people give them.

names = class_names(labels)     # ("cat", "dog"), or None
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np


def class_names(labels: Any, one_line: bool = True) -> tuple[str, ...] | None:
    """The names in their order; None for None.

    Names that are there twice are warned of: ImageNet has such, and mistakes have.

    Args:
        one_line: refuse names with a line break, for a file that has one name a line.

    Raises:
        ValueError: it has no order, as a set or a dict, or a name is no such text, or not in UTF-8.
    """
    if labels is None:
        return None
    array = isinstance(labels, np.ndarray) and labels.ndim == 1
    if not array and (isinstance(labels, str) or not isinstance(labels, Sequence)):
        raise ValueError(
            f"labels={labels!r}: give a list of class names, in the order of the output's last axis."
        )
    names = tuple(labels)
    if not all(isinstance(name, str) for name in names):
        raise ValueError(f"labels={labels!r}: give a list of class names.")
    for name in names:
        if not name.strip() or not can_be_stored(name):
            raise ValueError(
                f"The label {name!r} is empty, or no text that UTF-8 can hold: rename it."
            )
        if one_line and name.splitlines() != [name]:
            raise ValueError(f"The label {name!r} has a line break: give one line for each class.")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        warnings.warn(f"labels has {twice[:5]} more than once.", stacklevel=3)
    return tuple(map(str, names))


def can_be_stored(text: str) -> bool:
    """Whether files can hold the text: UTF-8, without NUL."""
    try:
        return b"\x00" not in text.encode("utf-8")
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
