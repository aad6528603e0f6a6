"""How a command ends: what is printed where, and with which exit code.

    answer("benchmark", as_json, files=files)       # keras_distill.app.benchmark: run and show

Results go to standard output, as a table or, with `--json`, as one JSON document; progress and
sentences go to standard error. 0: done. 1: one sentence says what went wrong. 2: wrong usage. 130:
Ctrl-C, with the command that goes on. With `--json` whatever went wrong is {"error": sentence} too.
"""

import contextlib
import dataclasses
import errno
import importlib
import json
import logging
import os
import shlex
import sys
from typing import Any

import typer

from keras_distill.app import interrupt
from tflite_export.chatter import hushed


class Stopped(Exception):
    """Ctrl-C in a command."""


class Commands(typer.core.TyperGroup):
    """The commands; versions of typer differ in what they do with a KeyboardInterrupt."""

    def invoke(self, ctx):
        """Called by typer."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Stopped from None


def run(app: typer.Typer, arguments: list[str] | None) -> None:
    """Run a command line to its end."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments  # wherever it stands
    arguments = [argument for argument in arguments if argument != "--debug"]
    as_json = "--json" in arguments
    try:
        with interrupt.watching():
            app(arguments)
    except (Stopped, KeyboardInterrupt):
        _end(130, _stopped(arguments), as_json)
    except SystemExit as end:
        if as_json and end.code == 2:
            _print_json({"error": "Wrong usage: standard error says what."})
        raise
    except Exception as error:
        if debug:
            if as_json:
                _print_json({"error": sentence(error)})
            raise
        _end(1, sentence(error), as_json)


def answer(job: str, as_json: bool, /, *shown_with: Any, **arguments: Any) -> None:
    """Call `run` of `keras_distill.app.<job>`, and print what it returns or have it shown.

    A result that says "error" is one that was refused: exit code 1.
    """
    _quiet()
    with hushed():  # what TensorFlow writes while it is imported obeys no level
        module = importlib.import_module(f"keras_distill.app.{job}")
    if as_json:
        with contextlib.redirect_stdout(sys.stderr):  # whatever a library prints
            result = module.run(**arguments)
        _print_json(result)
    else:
        result = module.run(**arguments)
        module.show(result, *shown_with)
    if isinstance(result, dict) and "error" in result:
        typer.echo(f"keras-distill: {result['error']}", err=True)
        raise typer.Exit(1)


def _quiet() -> None:
    """Keep TensorFlow's and absl's notes off the screen; whoever set a level keeps it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    for name in ("tensorflow", "absl"):
        logging.getLogger(name).setLevel(logging.ERROR)


def sentence(error: Exception) -> str:
    """What went wrong, on one line; the type too, where the author of the message was not us."""
    data = sys.modules.get("keras_distill.data")  # not loaded for this alone
    stopped = data.stopped_by(error) if data else None
    if stopped:
        return stopped
    message = " ".join(str(error).split())
    if isinstance(error, OSError) and error.strerror:
        message = error.strerror + (f": {error.filename}" if error.filename else "")
        if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
            message += (
                ". Earlier files are as they were: make room, and give the same command again."
            )
    if isinstance(error, ValueError | OSError | ImportError) and message:
        return message
    return f"{type(error).__name__}: {message} (--debug shows where)"


def _stopped(arguments: list[str]) -> str:
    command = shlex.join(["keras-distill", *arguments])
    if arguments[:1] == ["distill"]:
        return f"Stopped by Ctrl-C; the epochs that were finished are kept. To go on: {command}"
    return f"Stopped by Ctrl-C; no file is half-written. To start again: {command}"


def _end(code: int, said: str, as_json: bool) -> None:
    with contextlib.suppress(OSError):  # standard output may be what cannot be written
        typer.echo(f"keras-distill: {said}", err=True)
        if as_json:
            _print_json({"error": said})
    sys.exit(code)


def _print_json(result: Any) -> None:
    plain = _plain(result)
    text = json.dumps(plain, indent=2, ensure_ascii=False)
    # A file's name may be no UTF-8; as JSON it then is what Python has for it, in ASCII.
    typer.echo(text if _is_text(text) else json.dumps(plain, indent=2))


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _plain(value: Any) -> Any:
    """`value` as JSON has it, which knows neither infinity nor NaN: null stands for them."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float) and value - value != 0:
        return None
    return value
