"""Compiled loops where numba may write its cache, where it may not, and on as many threads as torch has."""

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from bm3 import ConfigError
from harness.evaluation.compiling import compile_loop, run_compiled

numba = pytest.importorskip("numba", reason="loops are compiled where numba is installed")


def add_one(values: Any) -> None:
    for i in numba.prange(len(values)):
        values[i] += 1


@pytest.mark.parametrize("can_cache", [True, False])
def test_a_loop_compiles_also_where_nothing_can_be_kept(can_cache: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    real, tried = numba.njit, []

    def njit(*loops: Any, cache: bool = False, **options: Any) -> Any:
        if loops:  # numba's own use of it, as a plain decorator
            return real(*loops)
        tried.append(cache)
        if cache and not can_cache:
            raise RuntimeError("cannot cache function: no locator available")
        return real(**options)  # no file is written in the test

    monkeypatch.setattr(numba, "njit", njit)
    values = np.zeros(5)
    run_compiled(compile_loop(add_one), values)
    assert values.tolist() == [1] * 5
    assert tried == ([True] if can_cache else [True, False])


def test_a_numba_that_cannot_be_imported_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    with pytest.raises(ConfigError, match="numba is installed but cannot be used"):
        compile_loop(add_one)


def test_loops_have_as_many_threads_as_torch() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    run_compiled(compile_loop(add_one), np.zeros(5))
    assert numba.get_num_threads() == 1
    torch.set_num_threads(before)


NUMBA_FIRST = """import torch, numpy as np, numba; from harness.evaluation.compiling import run_compiled
def add(v):
    for i in numba.prange(len(v)): v[i] += 1
torch.set_num_threads(3)
run_compiled(numba.njit(parallel=True)(add), np.zeros(5))
print(torch.get_num_threads())"""
BOTH = """import torch; from harness.evaluation.compiling import use_threads; use_threads(1); import numba
print(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS)"""
BEFORE_TORCH = """import os, sys, builtins; real = builtins.__import__
def spy(name, *rest, **options):
    if name == 'torch' and 'torch' not in sys.modules: print(os.environ.get('OMP_WAIT_POLICY'))
    return real(name, *rest, **options)
builtins.__import__ = spy; import harness.__main__; import torch"""


@pytest.mark.parametrize(
    ("code", "setting", "found"),
    [
        pytest.param(NUMBA_FIRST, {"NUMBA_NUM_THREADS": "2"}, ["3"], id="a loop leaves torch its threads"),
        pytest.param(BOTH, {"NUMBA_NUM_THREADS": None}, ["1", "1"], id="a number of threads holds for both"),
        pytest.param(BEFORE_TORCH, {"OMP_WAIT_POLICY": None}, ["passive"], id="threads wait passively"),
        pytest.param(BEFORE_TORCH, {"OMP_WAIT_POLICY": "active"}, ["active"], id="unless asked otherwise"),
    ],
)
def test_threads_are_as_many_as_asked_for_and_wait_as_asked(
    code: str, setting: dict[str, str | None], found: list[str]
) -> None:
    """In processes of their own: libraries read such settings once, when they are loaded."""
    environment = {name: value for name, value in (os.environ | setting).items() if value is not None}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split()[: len(found)] == found
