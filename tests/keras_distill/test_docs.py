"""The pages that are made from the code are those of the code."""

import importlib.util
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_of_methods_is_that_of_the_docstrings():
    spec = importlib.util.spec_from_file_location("build_methods", DOCS / "build_methods.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (DOCS / "methods.md").read_text() == module.page()
