"""Ctrl-C that does not get lost: Python drops an exception that is raised within a library's `__del__`.

with watching():            # around a command
    ...
    check()                 # after each batch: a Ctrl-C that was dropped counts now
"""

import contextlib
import signal
import sys
import threading

_asked = threading.Event()


@contextlib.contextmanager
def watching():
    """Within it, remember Ctrl-C besides raising KeyboardInterrupt; where it is ignored, it stays ignored."""

    def interrupt(*_):
        _asked.set()
        raise KeyboardInterrupt

    _asked.clear()
    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not usual or threading.current_thread() is not threading.main_thread():
        yield
        return
    before, told = signal.signal(signal.SIGINT, interrupt), sys.unraisablehook

    def tell(dropped):  # Python prints what it drops
        if not isinstance(dropped.exc_value, KeyboardInterrupt):
            told(dropped)

    sys.unraisablehook = tell
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        sys.unraisablehook = told
        _asked.clear()


def check() -> None:
    """Raise KeyboardInterrupt if there was one since `watching` began."""
    if _asked.is_set():
        raise KeyboardInterrupt
