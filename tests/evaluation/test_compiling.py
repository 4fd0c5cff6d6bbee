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


def test_a_loop_leaves_torch_its_threads() -> None:
    """In a process of its own: numba sets up its threads once."""
    code = "import torch, numpy as np, numba; from harness.evaluation.compiling import compile_loop, run_compiled\n"
    code += "def add(v):\n    for i in numba.prange(len(v)): v[i] += 1\n"
    code += "torch.set_num_threads(3)\nrun_compiled(numba.njit(parallel=True)(add), np.zeros(5))\n"
    code += "print(torch.get_num_threads())"
    environment = os.environ | {"NUMBA_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3"]


def test_a_number_of_threads_holds_for_torch_and_for_numba() -> None:
    code = "import torch; from harness.evaluation.compiling import use_threads; use_threads(1); import numba; "
    code += "print(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS)"
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_NUM_THREADS"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "1"]


@pytest.mark.parametrize(("asked", "found"), [(None, "passive"), ("active", "active")])
def test_threads_of_the_command_wait_passively_unless_asked_otherwise(asked: str | None, found: str) -> None:
    """The setting is there before torch is, which reads it once, and what the command starts inherits it."""
    code = "import os, sys, builtins; real = builtins.__import__\n"
    code += "def spy(name, *rest, **options):\n"
    code += "    if name == 'torch' and 'torch' not in sys.modules: print(os.environ.get('OMP_WAIT_POLICY'))\n"
    code += "    return real(name, *rest, **options)\n"
    code += "builtins.__import__ = spy; import harness.__main__; import torch\n"
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {} if asked is None else {"OMP_WAIT_POLICY": asked}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == found
