"""Names that moved to `harness.paper.load` and `harness.paper.published`, until all that use them have moved too."""

from pathlib import Path

from pydantic import TypeAdapter

from harness.paper.folders import paper_folder
from harness.paper.load import (
    STRICT,
    Bands,
    Scalar,
    Seeds,
    SelfCheckRule,
    Share,
    Source,
    Tolerance,
    Tolerances,
    load_tolerances,
    validated_toml,
)
from harness.paper.published import (
    COLUMNS,
    PublishedValue,
    Status,
    canonical_cell,
    canonical_metric,
    load_values,
    read_rows,
    short_metric,
    values_of_cell,
)

__all__ = [
    "COLUMNS",
    "STRICT",
    "Bands",
    "PublishedValue",
    "Scalar",
    "Seeds",
    "SelfCheckRule",
    "Share",
    "Source",
    "Status",
    "Tolerance",
    "Tolerances",
    "canonical_cell",
    "canonical_metric",
    "expected_dir",
    "load_expected",
    "load_grids",
    "load_sources",
    "load_tolerances",
    "read_rows",
    "short_metric",
    "validated_toml",
    "values_of_cell",
]


def expected_dir() -> Path:
    """The folder of the paper bm3."""
    return paper_folder("bm3")


def load_expected(directory: Path) -> tuple[PublishedValue, ...]:
    """The figures in a paper's folder."""
    return load_values(directory / "published", {key: place for place, key in enumerate(load_sources(directory))})


def load_sources(directory: Path) -> dict[str, Source]:
    """The sources in a paper's folder."""
    return validated_toml(directory / "sources.toml", TypeAdapter(dict[str, Source]))


def load_grids(directory: Path) -> dict[str, dict[str, list[Scalar]]]:
    """The grids in a paper's folder."""
    return validated_toml(directory / "grids.toml", TypeAdapter(dict[str, dict[str, list[Scalar]]]))
