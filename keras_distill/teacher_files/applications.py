"""Networks of `keras.applications` by their names, with weights that are downloaded or lie in a file."""

import difflib
import inspect
import os
from pathlib import Path

import keras


def names() -> list[str]:
    """Return the names of the networks."""
    return sorted(
        name
        for name, value in vars(keras.applications).items()
        if inspect.isfunction(value) and name[0].isupper()
    )


def find(name: str) -> str | None:
    """Return the name as keras.applications spells it, or None: capitals do not count."""
    return {known.lower(): known for known in names()}.get(name.lower())


def near(name: str) -> str:
    """Return ", such as …" with the names that are most like `name`, or an empty string."""
    spelled = {known.lower(): known for known in names()}
    found = [spelled[one] for one in difflib.get_close_matches(name.lower(), spelled, n=3)]
    return f", such as {', '.join(found)}" if found else ""


def build(
    name: str, weights: str | os.PathLike | None, argument: str = "weights", **options
) -> keras.Model:
    """Return a network.

    Args:
        name: as `find` returns it.
        weights: "imagenet" (downloaded), a file that Keras's `load_weights` takes, or None (random).
        argument: what sets the weights, for the errors.
        **options: as for the functions of keras.applications.

    Raises:
        ValueError: weights that cannot be had.
    """
    if weights not in (None, "imagenet") and not Path(weights).is_file():
        raise ValueError(f"There is no weights file {weights}.")
    given = None if weights is None else os.fspath(weights)
    try:
        return getattr(keras.applications, name)(weights=given, **options)
    except Exception as error:
        if weights is None:
            raise
        if weights == "imagenet":
            raise ValueError(
                f"The ImageNet weights of {name} cannot be downloaded: pass {argument} with a file that "
                f"holds them. ({error})"
            ) from error
        top = "" if options.get("include_top", True) else " without its classifier"
        raise ValueError(f"{weights} does not hold the weights of {name}{top}: {error}") from error
