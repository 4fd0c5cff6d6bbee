"""Loops compiled by numba, which is optional: whether they can be had, how they are compiled and run."""

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any, cast

import torch

Loop = Callable[..., None]


@cache
def can_compile() -> bool:
    """Whether numba is installed (`pip install bm3-harness[fast]`)."""
    return find_spec("numba") is not None


def compile_loop(loop: Loop) -> Loop:
    """The loop, compiled for all threads when first called and kept on disk for the next process where that can be."""
    from numba import njit

    options: dict[str, Any] = {"parallel": True, "error_model": "numpy"}
    try:
        return cast(Loop, njit(cache=True, **options)(loop))
    except RuntimeError:  # numba finds no folder that it may write to
        return cast(Loop, njit(**options)(loop))


def run_compiled(loop: Loop, *arguments: Any) -> None:
    """Run a compiled loop on as many threads as torch has."""
    from numba import config, set_num_threads

    set_num_threads(min(torch.get_num_threads(), config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]  # numba sets it by name
    loop(*arguments)
