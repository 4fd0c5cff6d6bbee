"""Planted: each training step of BM3 alone takes a fifth more CPU time. A seam of `harness.measure.workload`."""

import time
from importlib import import_module
from typing import Any

SHARE = 0.2


def plant(workload: type[Any]) -> None:
    """Wait busily after each step of BM3, for a share of its time."""
    # The package lifts a function of the name `fit` over its module.
    modules = [import_module(name) for name in ("harness.training.fit", "harness.measure.profile")]
    step = modules[0].train_step

    def slower(model: Any, *arguments: Any, **options: Any) -> Any:
        started = time.process_time()
        loss = step(model, *arguments, **options)
        ended = time.process_time()
        while type(model).__name__ == "BM3" and time.process_time() < ended + SHARE * (ended - started):
            pass
        return loss

    for module in modules:
        module.train_step = slower  # type: ignore[attr-defined]
