"""Data sets: the Dataset value, reading it from disk by name, splitting, synthetic data. Models are elsewhere."""

from typing import TYPE_CHECKING

from harness.common import lazily

if TYPE_CHECKING:
    from harness.data.dataset import PARTS, Dataset, Part, checked_dataset
    from harness.data.layouts import load_dataset
    from harness.data.split import random_user_split
else:
    __getattr__ = lazily(__name__, "dataset", "layouts", "split")

__all__ = ["PARTS", "Dataset", "Part", "checked_dataset", "load_dataset", "random_user_split"]
