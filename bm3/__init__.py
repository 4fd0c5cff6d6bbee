"""BM3, a multimodal recommender (WWW 2023): the reference implementation, usable without the harness.

Stable names are those of `__all__`; everything else may move. They are loaded when first asked for, torch with them.
"""

from typing import TYPE_CHECKING

from bm3.lazy import lazily

if TYPE_CHECKING:
    from bm3.data import Batch, Data, Loss, TrainingData
    from bm3.errors import BM3Error, ConfigError, DataError
    from bm3.model import BM3, BM3Config
    from bm3.variant import Variant
else:
    __getattr__ = lazily(__name__, "errors", "variant", "data", "model")

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
