"""BM3, a multimodal recommender (WWW 2023): the reference implementation, usable without the harness.

Stable names are those of `__all__`; everything else may move. A name's module is imported when the name is asked for,
so that errors and variants do not wait for torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bm3.data import Batch, Data, Loss, TrainingData
    from bm3.errors import BM3Error, ConfigError, DataError
    from bm3.model import BM3, BM3Config
    from bm3.variant import Variant
else:

    def __getattr__(name: str) -> Any:
        from importlib import import_module

        for module, names in _NAMES.items():
            if name in names:
                return getattr(import_module(f"bm3.{module}"), name)
        raise AttributeError(f"module 'bm3' has no attribute {name!r}")


_NAMES = {
    "data": ("Batch", "Data", "Loss", "TrainingData"),
    "errors": ("BM3Error", "ConfigError", "DataError"),
    "model": ("BM3", "BM3Config"),
    "variant": ("Variant",),
}

__all__ = [
    "BM3",
    "BM3Config",
    "BM3Error",
    "Batch",
    "ConfigError",
    "Data",
    "DataError",
    "Loss",
    "TrainingData",
    "Variant",
]
