"""Loops compiled by numba, which is optional: whether they can be had, and with how many threads they run."""

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch


@cache
def can_compile() -> bool:
    """Whether numba is installed (`pip install bm3-harness[fast]`)."""
    return find_spec("numba") is not None


def run_compiled(loop: Callable[..., Any], *arguments: Any) -> None:
    """Run a compiled loop on as many threads as torch has."""
    import numba

    numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
    loop(*arguments)
