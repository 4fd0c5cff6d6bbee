"""Data sets: the Dataset value, reading it from disk by name, splitting, synthetic data. Models are elsewhere."""

from harness.data.dataset import PARTS, Dataset, Part, checked_dataset
from harness.data.layouts import load_dataset
from harness.data.split import published_split

__all__ = ["PARTS", "Dataset", "Part", "checked_dataset", "load_dataset", "published_split"]
