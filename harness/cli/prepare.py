"""The command `bm3 data prepare`: options and messages. What it does is in `harness.ingest.amazon`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.data.words import DEFAULT_SPLIT_SEED, SPLIT_RULES
from harness.ending import keeping

if TYPE_CHECKING:
    from harness.ingest.amazon import Prepared
    from harness.ingest.prepare_plan import Plan
    from harness.paper.expected import PublishedValue

HEADERS = ("data set", "users", "items", "interactions", "sparsity")
PRINTED = {"users": 0, "items": 0, "interactions": 0, "sparsity_percent": 2}  # decimals in the paper's Table 2
FILE = click.Path(path_type=Path)


@click.command(name="prepare", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("name")
@click.option("--ratings", type=FILE, required=True, metavar="FILE", help="ratings_*.csv, or reviews_*.json.gz.")
@click.option("--metadata", type=FILE, metavar="FILE", help="meta_*.json.gz, for the texts of items.")
@click.option("--images", type=FILE, metavar="FILE", help="image_features_*.b, for visual features.")
@click.option(
    "--core",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    metavar="K",
    help="Keep users and items with at least K interactions among themselves.",
)
@click.option(
    "--split",
    default="published",
    show_default=True,
    metavar="RULE|PATH",
    help=", ".join(SPLIT_RULES)
    + "; or the folder or file (.npz, .inter) of an existing split of the same interactions.",
)
@click.option(
    "--split-seed",
    "seeds",
    type=click.IntRange(min=0),
    multiple=True,
    metavar="N",
    help=f"Seed of the split, {DEFAULT_SPLIT_SEED} by default. Given several times: a data set NAME-splitN for each.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder for the data sets. Default: $BM3_DATA if set, else ./data.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be read and written, and do neither.")
def prepare_command(
    name: str,
    ratings: Path,
    metadata: Path | None,
    images: Path | None,
    core: int,
    split: str,
    seeds: tuple[int, ...],
    out: Path | None,
    dry_run: bool,
) -> None:
    """Make the data set NAME from the original Amazon 2014 files of one category.

    Every rating is one positive interaction, the first one where a user rated an item repeatedly. Users and items with
    fewer than 5 interactions are removed until all have 5, then numbered in order of first appearance. Items without
    an image get the mean of the others. texts.csv holds title, brand, category path and description of each item, as
    bm3 data encode reads it; users.csv and items.csv what the files call them; prepared.json how all of it was made.

    The published split was drawn without a seed, so no rule gives it again: --split takes it from files. Several
    --split-seed show how much of a figure is the split; their folders share the features.

    \b
    bm3 data prepare baby --ratings ratings_Baby.csv --metadata meta_Baby.json.gz --images image_features_Baby.b
    bm3 data prepare baby --ratings reviews_Baby_5.json.gz --split ~/published/baby --dry-run
    bm3 data prepare baby --ratings ratings_Baby.csv --split-seed 1 --split-seed 2 --split-seed 3
    bm3 data prepare baby-in-time --ratings ratings_Baby.csv --split temporal_global --out ~/data
    """
    from harness.data.layouts import data_roots
    from harness.ingest.amazon import prepare
    from harness.ingest.prepare_plan import Plan, checked
    from harness.paper.expected import expected_dir, load_expected

    plan = Plan(
        name=name,
        ratings=ratings,
        metadata=metadata,
        images=images,
        core=core,
        split=split,
        given_seeds=seeds,
        out=data_roots()[0] if out is None else out,
    )
    if dry_run:
        for line in _intentions(checked(plan)):
            click.echo(line)
        return
    with keeping(lambda: f"no data set was left unfinished in {plan.out}; the same command begins anew"):
        prepared = prepare(plan, _watch)
    published = [value for value in load_expected(expected_dir()) if value.cell[:2] == (name.lower(), "")]
    for line in [*_summary(prepared, published), *_notes(plan, prepared[0].record)]:
        click.echo(line)
    for one in prepared:
        click.echo(f"written: {one.folder}")


@contextmanager
def _watch(name: str, size: int) -> Iterator[Callable[[int], None]]:
    from harness.cli.reading_progress import reading_progress

    done = 0
    with reading_progress(name) as report:

        def advance(n: int) -> None:
            nonlocal done
            done += n
            report(done, size)

        yield advance


def _intentions(plan: Plan) -> list[str]:
    lines = [f"reads {kind}: {path}, {path.stat().st_size:,} bytes" for kind, path in plan.inputs.items()]
    files = "interactions.npz, users.csv, items.csv, prepared.json"
    if plan.metadata is not None:
        files += ", texts.csv"
    if plan.images is not None:
        files += ", visual.npy (16,384 bytes per item)"
    lines.append(f"keeps users and items with at least {plan.core} interactions; splits them by {plan.split}")
    return lines + [f"writes {target}: {files}" for target in plan.targets]


def _summary(prepared: Sequence[Prepared], published: Sequence[PublishedValue]) -> list[str]:
    """A row of Table 2 for what was made and for every source that prints one, and which of them agree."""
    from tabulate import tabulate

    from harness.paper.expected import Status

    ours = _figures(prepared[0].record["counts"])
    rows = [[prepared[0].record["name"] if len(prepared) == 1 else "each data set", *_printed(ours)]]
    verdicts = []
    for source in dict.fromkeys(value.source for value in published):
        theirs = {value.metric: value for value in published if value.source == source and value.metric in PRINTED}
        rows.append([f"as in {source}", *_printed({name: value.value for name, value in theirs.items()})])
        different = [
            f"{value.metric} {_number(name, ours[name])} here, {_number(name, value.value)} there"
            + (f" ({value.status}: {value.note})" if value.status is Status.DISPUTED else "")
            for name, value in theirs.items()
            if _number(name, ours[name]) != _number(name, value.value)
        ]
        verdicts.append(f"differs from {source}: {'; '.join(different)}" if different else f"agrees with {source}")
    table = tabulate(rows, HEADERS, disable_numparse=True, colalign=("left", *["right"] * 4))
    return [table, "", *verdicts]


def _figures(counts: Mapping[str, int]) -> dict[str, float | None]:
    cells = counts["users"] * counts["items"]
    figures: dict[str, float | None] = {name: counts[name] for name in ("users", "items", "interactions")}
    return {**figures, "sparsity_percent": 100 * (1 - counts["interactions"] / cells)}


def _printed(figures: Mapping[str, float | None]) -> list[str]:
    return [_number(name, figures.get(name)) for name in PRINTED]


def _number(name: str, value: float | None) -> str:
    percent = " %" if name == "sparsity_percent" else ""
    return "" if value is None else f"{value:,.{PRINTED[name]}f}{percent}"


def _notes(plan: Plan, record: Mapping[str, Any]) -> list[str]:
    """What was left out or filled in, where anything was."""
    counts = record["counts"]
    lines = [
        "parts: " + ", ".join(f"{part} {counts[part]:,}" for part in ("train", "valid", "test")),
        f"note: {counts['ratings']:,} ratings read, {counts['core_interactions']:,} left after {counts['core_rounds']} "
        f"rounds of removing users and items with fewer than {plan.core}",
    ]
    if counts["duplicates"]:
        lines.append(f"note: {counts['duplicates']:,} repeated ratings of one item by one user left out")
    if counts["interactions"] < counts["core_interactions"]:
        lines.append(
            f"note: {counts['core_interactions'] - counts['interactions']:,} interactions of "
            f"{counts['core_users'] - counts['users']:,} users left out, which have none in training; with them went "
            f"{counts['core_items'] - counts['items']:,} items"
        )
    if plan.metadata is not None:
        texts = record["metadata"]
        if texts["broken"]:
            shown = "; ".join(f"line {broken['line']}: {broken['reason']}" for broken in texts["first_broken"])
            lines.append(f"note: {texts['broken']:,} of {texts['lines']:,} lines of {plan.metadata} broken ({shown})")
        if texts["without_text"]:
            lines.append(f"note: {texts['without_text']:,} items have no text")
    if plan.images is not None and record["images"]["without_image"]:
        lines.append(f"note: {record['images']['without_image']:,} items without an image got the mean of the others")
    return lines
