"""The paper as reports ask for it, until it is loaded as a folder."""

from dataclasses import dataclass

from bm3.errors import ConfigError
from harness.compare.expected import (
    PublishedValue,
    Source,
    Tolerances,
    expected_dir,
    load_expected,
    load_sources,
    load_tolerances,
)


@dataclass(frozen=True)
class PublishedTable:
    number: int
    kind: str
    source: str
    improvement: bool = False
    ratios: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Paper:
    values: tuple[PublishedValue, ...]
    sources: dict[str, Source]
    tolerances: Tolerances
    proposed: str | None = "BM3"
    metrics: tuple[str, ...] = ("R@10", "R@20", "N@10", "N@20")
    stopping: str = "R@20"
    tables: tuple[PublishedTable, ...] = (
        PublishedTable(2, "datasets", "paper-table2"),
        PublishedTable(3, "accuracy", "paper-table3", improvement=True),
        PublishedTable(4, "cost", "paper-table4", ratios=("LightGCN", "BPR")),
    )

    def table(self, number: int) -> PublishedTable:
        for table in self.tables:
            if table.number == number:
                return table
        there = ", ".join(str(table.number) for table in self.tables)
        raise ConfigError(f"the paper bm3 has no table {number}; it has {there}")


def load_paper() -> Paper:
    directory = expected_dir()
    return Paper(
        load_expected(directory), dict(load_sources(directory)), load_tolerances(directory / "tolerances.toml")
    )
