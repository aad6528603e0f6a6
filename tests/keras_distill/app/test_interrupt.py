import signal

import pytest

from keras_distill.app import interrupt
from keras_distill.app.progress import Progress


@pytest.fixture(autouse=True)
def as_at_a_terminal():
    """Shells start what runs in the background with Ctrl-C ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press():
    """Ctrl-C, in a place where Python drops the exception."""
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_a_ctrl_c_that_was_dropped_counts_after_the_batch():
    before = signal.getsignal(signal.SIGINT)
    with Progress("t", 1, 2) as progress:
        with interrupt.watching():
            progress.step()
            press()
            with pytest.raises(KeyboardInterrupt):
                progress.step()
        progress.step()  # another command does not know of it
    assert signal.getsignal(signal.SIGINT) is before


def test_where_ctrl_c_is_ignored_it_stays_so():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupt.watching():
            signal.raise_signal(signal.SIGINT)
            interrupt.check()
    finally:
        signal.signal(signal.SIGINT, before)
