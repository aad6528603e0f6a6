"""Applications: what `keras-distill` runs. Each is a module with a function `run` of plain arguments."""
