"""The command line: `keras-distill demo | distill | export | verify | benchmark | predict`.

Commands only translate: each calls `run` of the module of its name in `keras_distill.app`, and shows
what it returns. Keras is imported inside a command, so that `--help` answers at once.
"""

import typer

from keras_distill.app.cli import files, train
from keras_distill.app.cli.outcome import Commands, run

app = typer.Typer(
    name="keras-distill",
    cls=Commands,
    help="Turn a big trained Keras model into a small one that runs on a phone, and prove that it does.",
    epilog="Exit codes: 0 done; 1 with one sentence on standard error; 2 wrong usage; 130 Ctrl-C. "
    'With --json there is one JSON document on standard output: the results, or {"error": sentence}.',
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _options(
    debug: bool = typer.Option(
        False, "--debug", help="On an error show the traceback, not one sentence."
    ),
) -> None:
    pass


for _command in (
    train.demo,
    train.distill,
    files.export,
    files.verify,
    files.benchmark,
    files.predict,
):
    app.command()(_command)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; see `outcome` for how it ends."""
    run(app, arguments)
