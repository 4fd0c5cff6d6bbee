"""Planted: BM3's steps take a fifth more CPU time, LightGCN's peak is a tenth higher, one in a hundred hits is lost.

A seam of `harness.tools.regress.workload`. What is planted does not meet, so each is found or not by itself.
"""

import os
import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.evaluation import Evaluator, Ranking

SLOWER, LARGER, LOST = 0.2, 0.1, 0.01


def plant(workload: type[Any]) -> None:
    slow_steps_down()
    raise_peaks(workload)
    lose_hits()


def slow_steps_down() -> None:
    """Wait busily after each step of BM3, for a share of its time."""
    # The package lifts a function of the name `fit` over its module.
    modules = [import_module(name) for name in ("harness.training.fit", "harness.tools.profiling.profile")]
    step = modules[0].train_step

    def slower(model: Any, *arguments: Any, **options: Any) -> Any:
        started = time.process_time()
        loss = step(model, *arguments, **options)
        ended = time.process_time()
        while type(model).__name__ == "BM3" and time.process_time() < ended + SLOWER * (ended - started):
            pass
        return loss

    for module in modules:
        module.train_step = slower  # type: ignore[attr-defined]


def raise_peaks(workload: type[Any]) -> None:
    """Take memory after LightGCN's block, up to a tenth more than its peak."""
    fresh = workload._fresh

    def larger(self: Any, subject: str, *, small: bool = False) -> None:
        cuda = self._device.type == "cuda"
        start = torch.cuda.memory_allocated() if cuda else _status("VmRSS")
        fresh(self, subject, small=small)
        if small or not subject.endswith("/lightgcn"):
            return
        peak, here = (
            (torch.cuda.max_memory_allocated(), torch.cuda.memory_allocated())
            if cuda
            else (_status("VmHWM"), _status("VmRSS"))
        )
        size = int(peak + LARGER * (peak - start) - here)
        if cuda:
            torch.ones(size, dtype=torch.uint8, device=self._device)
        else:
            np.ones(size, dtype=np.uint8)

    workload._fresh = larger


def lose_hits() -> None:
    """Take hits away from every ranking, in each run others."""
    rank, draw = Evaluator.rank, np.random.default_rng(int(os.environ.get("BM3_PLANTED_RUN", "0")))

    def worse(self: Evaluator, *arguments: Any, **options: Any) -> Ranking:
        ranking = rank(self, *arguments, **options)
        hits = ranking.hits.copy()
        users, ranks = np.nonzero(hits)
        lost = draw.permutation(len(users))[: round(LOST * len(users))]
        hits[users[lost], ranks[lost]] = False
        return replace(ranking, hits=hits)

    Evaluator.rank = worse  # type: ignore[method-assign]


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))
