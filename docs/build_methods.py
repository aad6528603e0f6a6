"""Writes docs/methods.md from the docstrings of the losses.

    python docs/build_methods.py

A loss's docstring has its name, a colon and what it transfers in the first line, then the formula between
backticks, and lines that begin with "When:", "Customary weights:" and "Source:".
"""

import inspect
import re
from pathlib import Path

from keras_distill import losses

PAGE = Path(__file__).parent / "methods.md"
HEAD = """# What can be taught

Made by `python docs/build_methods.py` from the docstrings of `keras_distill.losses`, which say more.

z are logits, p probabilities, f features, T the temperature; _t is the teacher's, _s the student's; i an
example, c a class. Weights are those of the papers, of the hard labels and of the loss itself:
`kd.Distiller(teacher, student, **kd.losses.mix(loss))` sets them. Every loss also works by itself:
`loss.compute_loss(teacher_outputs, student_outputs, labels=None, sample_weight=None)`.
"""
GROUPS = {
    "Responses: final outputs": losses.RESPONSES,
    "Features: inner layers": losses.FEATURES,
    "Relations: between examples, or between layers": losses.RELATIONS,
    "Adversaries: who judges the student": losses.ADVERSARIES,
}
COLUMNS = ("loss", "what it transfers", "formula", "when", "weights (labels, loss)", "paper")


def row(loss: type) -> tuple[str, ...]:
    """Return the cells of one loss.

    Raises:
        ValueError: its docstring lacks one of the parts.
    """
    text = inspect.getdoc(loss) or ""
    first = text.partition("\n")[0]
    formula = re.search(r"^`(.+?)`", text, re.MULTILINE | re.DOTALL)
    if formula is None or ":" not in first:
        raise ValueError(f"{loss.__name__}: the docstring wants 'Name: what.' and then `formula`.")
    what = first.partition(": ")[2]
    cells = (what, f"`{formula[1]}`", *(_part(loss, text, name) for name in _PARTS))
    return (f"`{loss.__name__}`", *(_one_line(cell) for cell in cells))


_PARTS = ("When", "Customary weights", "Source")


def _part(loss: type, text: str, name: str) -> str:
    found = re.search(rf"^{name}: (.+?)(?:\n\n|\n(?=[A-Z][a-z ]+: )|\Z)", text, re.M | re.S)
    if found is None:
        raise ValueError(f"{loss.__name__}: the docstring has no '{name}:'.")
    return found[1]


def _one_line(cell: str) -> str:
    return " ".join(cell.split()).replace("|", "\\|")


def page() -> str:
    """Return the page's text."""
    lines = [HEAD]
    for group, members in GROUPS.items():
        lines += [f"## {group}\n", f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
        lines += [f"| {' | '.join(row(loss))} |" for loss in members]
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page())
