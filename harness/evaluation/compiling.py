"""Loops compiled by numba, which is optional: whether they can be had, how they are compiled and run."""

import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, cast

import torch

from bm3 import ConfigError

Loop = Callable[..., None]


def can_compile() -> bool:
    """Whether numba is installed (`pip install bm3-harness[fast]`), which is loaded where a loop is compiled alone."""
    return find_spec("numba") is not None


def compile_loop(loop: Loop) -> Loop:
    """The loop, compiled for all threads when first called and kept on disk for the next process where that can be.

    Raises ConfigError where numba is installed and cannot be imported.
    """
    try:
        from numba import njit
    except ImportError as error:  # for one, numpy may be newer than it knows
        raise ConfigError(f"numba is installed but cannot be used ({error}): mend it, or uninstall it") from error
    options: dict[str, Any] = {"parallel": True, "error_model": "numpy"}
    try:
        return cast(Loop, njit(cache=True, **options)(loop))
    except RuntimeError:  # numba finds no folder that it may write to
        return cast(Loop, njit(**options)(loop))


def use_threads(threads: int) -> None:
    """Let torch and compiled loops use this many CPU threads, before either is used.

    A compiled loop that was given fewer threads than numba has started still keeps the others busy waiting.
    """
    torch.set_num_threads(threads)
    if "numba" not in sys.modules:  # which refuses another number once it has begun
        os.environ.setdefault("NUMBA_NUM_THREADS", str(threads))


def run_compiled(loop: Loop, *arguments: Any) -> None:
    """Run a compiled loop on as many threads as torch has."""
    from numba import config, set_num_threads

    threads = torch.get_num_threads()
    set_num_threads(min(threads, config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]  # numba sets it by name
    loop(*arguments)
    # Where both use OpenMP, numba's start-up sets the threads of the calling one for torch too, and with them the bits.
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
