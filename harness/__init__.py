"""The harness from Python: load data, train, recommend, judge. Stable are the names of `__all__`, loaded when asked.

Everything else in this package is private by that, and may change with any version. `docs/python.md` shows the way.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

# Without it cuBLAS may sum in any order. torch reads it once in a process, with the first matrix product.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

if TYPE_CHECKING:
    from bm3 import BM3Error, ConfigError, DataError
    from harness.api import Judgement, LoadedData, Run, import_data, judge, load_data, load_run, load_runs, train
    from harness.runs.recommend import Embeddings, Recommendation

__all__ = ["BM3Error", "ConfigError", "DataError", "Embeddings", "Judgement", "LoadedData", "Recommendation", "Run"]
__all__ += ["import_data", "judge", "load_data", "load_run", "load_runs", "train"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("harness.api"), name)
    raise AttributeError(f"module 'harness' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, *globals()]
