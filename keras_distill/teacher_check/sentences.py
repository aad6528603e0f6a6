"""What is wrong with a teacher, in sentences with figures.

sentences(check)        # of a `TeacherCheck`
"""

import math


def sentences(check) -> list[str]:
    """Return what a `TeacherCheck` should make one think about, the worst first."""
    said = []
    accuracy, count = check.accuracy, check.examples
    error = math.sqrt(max(accuracy * (1 - accuracy), 1e-9) / count)
    if check.reordered:
        said.append(of_order(check.reordered))
    if accuracy <= check.majority + 2 * error:
        said.append(
            f"The teacher is right on {accuracy:.1%}, and always answering the most frequent class on "
            f"{check.majority:.1%}: it has nothing to teach."
        )
    elif check.baseline is not None and _is_weak(accuracy, check.baseline, error):
        said.append(
            f"The teacher is right on {accuracy:.1%}, and a logistic regression on shrunken inputs on "
            f"{check.baseline:.1%}: a weak teacher makes a weak student; train it longer or on more."
        )
    for name, (share, examples) in check.per_class.items():
        spread = 3 * math.sqrt(accuracy * (1 - accuracy) / examples) if examples else 1.0
        if examples >= 5 and share < accuracy - max(0.25, spread):
            said.append(
                f"In class {name!r} the teacher is right on {share:.1%} of {examples} examples, and on "
                f"{accuracy:.1%} of all: the student will learn these mistakes "
                "(example_weighting='true_label' leaves them out)."
            )
    if check.calibration_error > 0.1:
        what = "surer" if check.confidence > accuracy else "less sure"
        said.append(
            f"The teacher is {check.confidence:.1%} sure and {accuracy:.1%} right, {what} than it should be "
            f"(calibration error {check.calibration_error:.1%})."
        )
    trained = check.train_accuracy
    if trained is not None and trained - accuracy > max(0.1, 3 * error):
        said.append(
            f"The teacher is right on {trained:.1%} of its training data and on {accuracy:.1%} of others: "
            "what it says of the former is better than what it knows; augment, or use unlabelled examples."
        )
    if check.entropy < 0.02:
        said.append(
            f"The teacher is certain of nearly all examples (entropy {check.entropy:.2%} of the largest): at "
            f"temperature 1 it says no more than the labels; temperature={check.temperature:g} shows more."
        )
    return said


def of_order(reordered: dict[str, str]) -> str:
    """Return that of classes which changed places."""
    pairs = ", ".join(f"{one!r} as {other!r}" for one, other in reordered.items())
    return (
        f"The teacher answers most examples of {pairs}: its classes are in another order than the labels. "
        "Give the classes in the order in which the teacher was trained (folders are sorted by name)."
    )


def _is_weak(accuracy: float, baseline: float, error: float) -> bool:
    """Whether a small model does as well; where both are nearly always right, nothing is wrong with it."""
    return accuracy < baseline - 2 * error or accuracy <= min(baseline + 2 * error, 0.95)
