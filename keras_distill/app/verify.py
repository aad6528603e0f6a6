"""Two files on the same examples: do they answer alike?

run("student.keras", "student.tflite", "photos/", agreement=0.99)["agreement"]
"""

import dataclasses
from pathlib import Path

import tflite_export as te
from keras_distill import card
from keras_distill.app import examples, model_file, results

FIGURES = ("agreement", "accuracy", "reference_accuracy", "max_error", "mean_error", "snr_db")


def run(
    model: str | Path,
    file: str | Path,
    data: str | Path,
    agreement: float | None = None,
    max_examples: int | None = None,
    normalization: card.Normalization | None = None,
    threads: int | None = None,
    strict: bool = False,
) -> dict:
    """Compare two models; see `tflite_export.verify`.

    Args:
        model: the reference, a `.keras` or `.tflite` file.
        file: what is compared with it, a `.tflite` or `.keras` file.
        data: a folder of photos, or arrays, see `keras_distill.app.examples`.
        agreement: smallest share of equal answers.
        max_examples: stop after so many.
        normalization: (mean, std) of the reference, where its file does not say it.
        threads: of the interpreters.
        strict: refuse photos that cannot be read.

    Returns:
        `examples`, `agreement`, `accuracy` and `reference_accuracy` (None without labels), `max_error`,
        `mean_error`, `snr_db`, `per_class` ({name: {reference_accuracy, accuracy, examples}}), `outputs`
        (the same figures for each); and `error`, a sentence, where `agreement` is missed.

    Raises:
        ValueError: files or data that cannot be used.
    """
    reference, other = model_file.read(model, normalization), model_file.read(file)
    names = reference.class_names or other.class_names
    named = [one.class_names for one in (reference, other) if one.class_names]
    if len(named) == 2 and named[0] != named[1] and sorted(named[0]) == sorted(named[1]):
        raise ValueError(
            f"{model} and {file} know the same classes in another order ({', '.join(named[0][:5])} and "
            f"{', '.join(named[1][:5])}), and answers are compared by their places: export the file "
            f"again with the labels of the model."
        )
    reference = dataclasses.replace(reference, class_names=names)
    # Of a .tflite file the path: its metadata say how it takes pixels.
    ours, theirs = (one.model if one.is_keras else one.path for one in (reference, other))
    found = te.verify(
        ours,
        theirs,
        examples.batches(Path(data), reference, strict),
        max_examples=max_examples,
        num_threads=threads,
    )
    shown = names or found.labels
    result = {
        "examples": found.examples,
        **_figures(found),
        "per_class": {
            shown[number] if shown and number < len(shown) else str(number): {
                "reference_accuracy": before,
                "accuracy": after,
                "examples": count,
            }
            for number, (before, after, count) in found.main.per_class.items()
        },
        "outputs": {name: _figures(one) for name, one in found.outputs.items()},
    }
    if agreement is not None:
        try:
            found.raise_if_worse(agreement=agreement)
        except te.VerificationError as error:
            result["error"] = str(error)
    return result


def show(result: dict) -> None:
    """Print the figures, and those of each class where there are labels."""
    results.show(
        f"On {results.size(result['examples'])} examples",
        ("output", "agreement", "accuracy", "reference", "max error", "SNR"),
        [
            (
                name,
                results.percent(one["agreement"]),
                results.percent(one["accuracy"]),
                results.percent(one["reference_accuracy"]),
                f"{one['max_error']:.3g}",
                f"{one['snr_db']:.1f} dB",
            )
            for name, one in result["outputs"].items()
        ],
    )
    if result["per_class"]:
        results.show(
            "",
            ("class", "accuracy", "reference", "examples"),
            [
                (
                    name,
                    results.percent(one["accuracy"]),
                    results.percent(one["reference_accuracy"]),
                    results.size(one["examples"]),
                )
                for name, one in result["per_class"].items()
            ],
        )


def _figures(found) -> dict:
    return {name: getattr(found, name) for name in FIGURES}
