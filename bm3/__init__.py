"""BM3, a multimodal recommender (WWW 2023), usable alone. Stable are the names of `__all__`, loaded when asked for."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bm3.base import Batch, Loss, Recommender
    from bm3.data import Data
    from bm3.errors import BM3Error, ConfigError, DataError
    from bm3.model import BM3, BM3Config

__all__ = ["BM3", "BM3Config", "BM3Error", "Batch", "ConfigError", "Data", "DataError", "Loss", "Recommender"]


def __getattr__(name: str) -> Any:
    for module in ("errors", "data", "base", "model") if name in __all__ else ():  # light ones first
        if name in (found := vars(import_module(f"bm3.{module}"))):
            return found[name]
    raise AttributeError(f"module 'bm3' has no attribute {name!r}")
