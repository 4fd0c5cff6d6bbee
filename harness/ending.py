"""How a command ends: its exit codes, and what Ctrl-C and SIGTERM do. Loaded before all else, so it loads little."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

MISUSED = 2  # wrong usage, configuration or data, and a disk that is full
NOTHING_MEASURED = 3
IN_USE = 75  # another process runs the trial of `bm3 train --no-wait`
INTERRUPTED, CLOSED_PIPE, TERMINATED = 130, 141, 143  # as a shell reports SIGINT, SIGPIPE and SIGTERM

LOADERS = ("__main__", "harness.__main__", "harness.cli", "harness.models.registry")
"""Modules, and beginnings of their names, that load others before a command begins."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, as a scheduler sends it: to be taken like Ctrl-C."""


class Interrupted(Exception):  # noqa: N818 - it is no error
    """Ctrl-C, after what was finished has been kept; the message says what is not."""


@contextmanager
def keeping(what: Callable[[], str]) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the block as Interrupted, with what is kept then."""
    try:
        yield
    except KeyboardInterrupt as interruption:
        raise Interrupted(what()) from interruption


@contextmanager
def heeding_signals() -> Iterator[None]:
    """Ctrl-C and SIGTERM end the process in one line, and after the block, when nothing is left to say, in silence.

    A Ctrl-C that is ignored, as by nohup, stays so; in another than the main thread nothing changes.
    """
    heeded = []
    if threading.current_thread() is threading.main_thread():
        heeded = [signal.SIGTERM]
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            heeded.append(signal.SIGINT)
    for number in heeded:
        signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number in heeded:
            signal.signal(number, signal.SIG_DFL)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    if _loading(frame):  # an exception here would become another one in the modules being loaded
        word, code = ("terminated", TERMINATED) if number == signal.SIGTERM else ("interrupted", INTERRUPTED)
        os.write(2, f"bm3: {word}\n".encode())
        os._exit(code)
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


def _loading(frame: FrameType | None) -> bool:
    """Whether modules are being loaded for a command that has begun nothing yet."""
    loader = None
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            loader = frame.f_back  # in the end that of the outermost import
        frame = frame.f_back
    while loader is not None and loader.f_globals["__name__"] in ("importlib", "bm3", "harness.common"):
        loader = loader.f_back
    return loader is not None and loader.f_globals["__name__"].startswith(LOADERS)
