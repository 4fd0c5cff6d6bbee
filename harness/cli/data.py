"""The commands of `bm3 data`: look at data sets, check them, and bring them in and out."""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bm3 import ConfigError
from harness.cli.options import COUNT, DATA, PAPER, PATH
from harness.cli.output import say, say_table, to_stderr
from harness.common import size
from harness.data.words import DEFAULT_SPLIT_SEED, IMAGE_MODEL, SPLIT_CHOICE, SPLIT_RULES, TEXT_MODEL
from harness.ending import keeping

if TYPE_CHECKING:
    from harness.data.dataset import Dataset
    from harness.paper.load import Paper

RULES = f"{', '.join(SPLIT_RULES)}, {SPLIT_CHOICE}"
SPLIT = f"{RULES}; or the folder or file (.npz, .inter) of a split of the same interactions."
SOURCES = "downloads.toml"
"""In a paper's folder: where original files are."""
PARENT = click.option(
    "--out", type=PATH, metavar="DIR", help="Parent of the new folder. Default: $BM3_DATA, else ./data."
)
K_CORE = "Keep users and items with at least K interactions among themselves."
USER, ITEM = (
    click.option(f"--{kind}", metavar="COLUMN", help=f"Column with {kind} ids, or its number where there is no header.")
    for kind in ("user", "item")
)
REPLACE = click.option("--replace", is_flag=True, help="Replace features of this modality.")


@click.group()
def data() -> None:
    """Look at data sets, check them, and bring them in and out."""


def _default_root() -> Path:
    from harness.data.layouts import data_roots

    return data_roots()[0]


@data.command(name="import")
@click.argument("source", type=PATH)
@click.option("--name", required=True, help="Name of the data set, and of its folder.")
@PARENT
@USER
@ITEM
@click.option("--time", metavar="COLUMN", help="Column with times: numbers, or dates as in ISO 8601.")
@click.option("--part", metavar="COLUMN", help="Column with train, valid or test (or 0, 1, 2).")
@click.option("--rating", metavar="COLUMN", help="Column with ratings, for --min-rating.")
@click.option("--min-rating", type=float, metavar="R", help="Leave out rows with a lower rating.")
@click.option("--k-core", type=COUNT, metavar="K", help=K_CORE)
@click.option("--table", metavar="FILE", help="The one with the interactions, of several in a folder or archive.")
@click.option("--split", metavar="RULE", help=f"How to divide without parts: {RULES}. Default: {SPLIT_RULES[0]}.")
@click.option("--split-seed", type=click.IntRange(min=0), metavar="N", help="Seed of the division. Default: 0.")
def import_command(
    source: Path,
    name: str,
    out: Path | None,
    min_rating: float | None,
    k_core: int | None,
    table: str | None,
    split: str | None,
    split_seed: int | None,
    **columns: str | None,
) -> None:
    """Bring SOURCE in as the data set NAME, a new folder DIR/NAME with NAME.inter and feature files.

    SOURCE is a folder or file in a layout that can be read (.inter, interactions.npz); a table, or one for each part
    (NAME.train.csv, NAME.valid.csv, NAME.test.csv); RecBole's atomic files; or a .zip or .tar of one of these.

    Tables are text (.csv, .tsv, .txt, .dat, .data) with commas, tabs, semicolons, | or :: between columns, JSON lines
    (.json, .jsonl, .ndjson), both also packed (.gz, .bz2, .xz), or .parquet. Columns with usual names (user_id,
    item_id, parent_asin, timestamp, ...) are found. Ids may be any text; every row counts as one positive interaction,
    whatever its rating, unless --min-rating says otherwise.

    \b
    bm3 data import ~/downloads/shop.zip --name shop
    bm3 data import ratings.csv --name shop --user reviewerID --item asin --time unixReviewTime --split leave_one_out
    bm3 data import ml-1m/ratings.dat --name ml --user 1 --item 2 --rating 3 --min-rating 4 --k-core 5
    bm3 data import ~/recbole/ml-100k --name ml --split-seed 7
    """
    from harness.ingest.importing import Division, import_dataset
    from harness.ingest.tables import Columns

    root, division = out or _default_root(), Division(split, split_seed, min_rating, k_core)
    found = import_dataset(source, name, root, Columns(**columns), division, table)
    say(found.notes, "note: ")
    _say_written(found.dataset, root / name)


@data.command(name="export")
@click.argument("dataset")
@click.option("--out", type=PATH, required=True, metavar="DIR", help="The folder to write; it must be new.")
@DATA
def export_command(dataset: str, out: Path, data: Path | None) -> None:
    """Write DATASET into the new folder DIR: NAME.inter, a feature file for each modality, dataset.json.

    Other tools read this layout too. Original ids go into users.csv and items.csv. Surrogate features keep their marker
    in the file's name. Imported again, the data set has the same content hash and ids.

    \b
    bm3 data export tiktok --out tiktok-files
    bm3 data export ./data/mine --out ~/mine
    """
    from harness.data.layouts import load_dataset
    from harness.ingest.exporting import export, own_ids

    found = load_dataset(dataset, data)
    export(found, out, *own_ids(dataset, data, found))
    _say_written(found, out)


@data.command(name="verify")
@click.argument("dataset")
@DATA
@PAPER
def verify_command(dataset: str, data: Path | None, paper: Paper) -> None:
    """Check DATASET: published counts, split rule, leakage, features, and whether rows are in the order of the items.

    Exit code 0 without a problem, 1 with one, 2 if the data set cannot be read. A note is worth reading and no problem.

    \b
    bm3 data verify baby --data ~/data
    bm3 data verify ./data/mine
    """
    from harness.data.layouts import folder_of, load_dataset
    from harness.ingest.exporting import recorded_hash
    from harness.ingest.verify import Finding, Severity, verify

    found = load_dataset(dataset, data)
    folder = folder_of(dataset, data)
    recorded = None if folder is None else recorded_hash(folder)
    findings = verify(found, _printed(paper, found.name), paper.split(found.name), recorded)
    findings += [Finding("files", Severity.NOTE, note) for note in unread(dataset, data)]
    table = [[finding.check, finding.severity.value, finding.text] for finding in findings]
    say_table(["check", "result", "what was found"], table, [26, 8, 80])
    found_of = Counter(finding.severity for finding in findings)
    counts = [f"{found_of[kind]} {kind}{'s' * (found_of[kind] != 1)}" for kind in (Severity.PROBLEM, Severity.NOTE)]
    click.echo(f"\n{found.name}: {', '.join(counts)}")
    sys.exit(1 if found_of[Severity.PROBLEM] else 0)


def unread(dataset: str, data: Path | None) -> list[str]:
    """What a user should know of files in the data set's folder that are not read: a line, or none."""
    from harness.data.files import listed
    from harness.data.layouts import folder_of, unread_files

    folder = folder_of(dataset, data)
    found = unread_files(folder) if folder else []
    needed = "read are interactions, and features from MODALITY.npy or MODALITY_feat.npy"
    return [f"not read in {folder}: {listed(found)}; {needed}"] if found else []


def _printed(paper: Paper, name: str) -> dict[str, dict[str, tuple[float, str]]]:
    """What the paper's sources print of the data set called `name`, as `verify` takes it."""
    from harness.paper.published import Status

    printed: dict[str, dict[str, tuple[float, str]]] = {}
    for value in paper.values:
        if value.cell[:2] == (name.lower(), "") and value.value is not None:
            disputed = value.note if value.status is Status.DISPUTED else ""
            printed.setdefault(value.source, {})[value.metric] = (value.value, disputed)
    return printed


@data.command(name="add-features")
@click.argument("name")
@click.argument("file", type=PATH)
@click.option("--modality", required=True, help="What the features are of, such as audio.")
@click.option("--ids", type=PATH, metavar="FILE", help="Original item ids of the rows: one a line, or a CSV file.")
@click.option("--id-column", metavar="COLUMN", help="Column of --ids. Default: id, item_id or the like.")
@click.option("--fill", type=click.Choice(["mean", "zero"]), help="What items without a row get; else an error.")
@click.option("--surrogate", is_flag=True, help="The vectors stand in for the original ones.")
@REPLACE
@DATA
def add_features_command(
    name: str,
    file: Path,
    modality: str,
    ids: Path | None,
    id_column: str | None,
    fill: Any,
    surrogate: bool,
    replace: bool,
    data: Path | None,
) -> None:
    """Add the table in FILE (.npy, items x width) to the data set NAME as a modality, in float32.

    Row i belongs to item i, unless --ids says whose rows they are: ids as in the data set's items.csv, or item numbers
    where it has none. Rows of other items are left out. A modality may have any name; `image` means `visual`. Runs from
    before are of other data then, also those of models that read no features.

    \b
    bm3 data add-features shop vectors.npy --modality audio
    bm3 data add-features shop vectors.npy --modality image --ids products.csv --id-column asin --fill mean
    """
    from harness.data.files import read_array
    from harness.data.layouts import read_folder
    from harness.ingest.features import add_features, item_ids, join_by_id, read_row_ids

    folder = _folder(name, data)
    table: Any = read_array(file)
    if ids is not None:
        items = item_ids(folder, read_folder(folder).n_items)
        joined = join_by_id(table, read_row_ids(ids, id_column), items, str(file), fill=fill)
        table = joined.table
        say(joined.notes(fill), "note: ")
    elif id_column or fill:
        raise ConfigError("--id-column and --fill go with --ids FILE, which says whose rows are there")
    path, dataset = add_features(folder, table, modality, str(file), surrogate=surrogate, replace=replace)
    _say_written(dataset, path)


@data.command(name="encode")
@click.argument("name")
@click.option("--text", type=PATH, metavar="FILE", help="CSV file: a column id, and the texts' columns.")
@click.option("--images", type=PATH, metavar="DIR", help="Folder of images, named by item id.")
@click.option("--modality", help="What the features are of. Default: text or visual.")
@click.option("--model", metavar="MODEL", help=f"Name or folder. Default: {TEXT_MODEL}, {IMAGE_MODEL}.")
@click.option("--revision", help="State of the model on its hub, such as a commit.")
@click.option("--batch-size", type=COUNT, default=64, metavar="N")
@REPLACE
@DATA
def encode_command(
    name: str,
    text: Path | None,
    images: Path | None,
    modality: str | None,
    model: str | None,
    revision: str | None,
    data: Path | None,
    **options: Any,
) -> None:
    """Make features of the items of the data set NAME from their texts or their images, and add them as a modality.

    Ids are those of the data set's items.csv, or item numbers where it has none. Items without a text or an image get
    the mean of the others; an empty text is encoded as one. The model and its revision are recorded beside the table. A
    model in a folder needs no network. Texts need the extra `text` (sentence-transformers), images the extra `images`
    (timm).

    \b
    bm3 data encode shop --text descriptions.csv
    bm3 data encode shop --images covers --model ~/models/resnet50 --modality cover
    """
    if (text is None) == (images is None):
        raise ConfigError("give either --text FILE or --images DIR; for both, run the command twice")
    from harness.cli.progress import items_progress
    from harness.ingest.encoders import ImageEncoder, SentenceEncoder
    from harness.ingest.features import encode_features, find_images, read_texts

    folder = _folder(name, data)
    contents: Any
    encoder: Any
    contents, encoder, usual, default = (
        (read_texts(text), SentenceEncoder, TEXT_MODEL, "text")
        if text is not None
        else (find_images(images or Path()), ImageEncoder, IMAGE_MODEL, "visual")
    )
    made, where = encoder(model or usual, revision), str(text or images)
    encoded = encode_features(folder, contents, made, modality or default, where, progress=items_progress, **options)
    if encoded.left_out:
        click.echo(f"note: ids of other items, left out: {encoded.left_out:,}")
    if encoded.filled:
        click.echo(f"note: items with nothing to encode, given the mean of the others: {encoded.filled:,}")
    _say_written(encoded.dataset, encoded.file, encoded.record)


def _folder(name: str, data: Path | None) -> Path:
    from harness.data.layouts import folder_of

    if (folder := folder_of(name, data)) is None:
        raise ConfigError(f"{name} is made in memory: export it, and add features to what was exported")
    return folder


def _say_written(dataset: Dataset, *paths: Path) -> None:
    click.echo(f"{dataset.name}: {dataset.n_users:,} users, {dataset.n_items:,} items; {_parts(dataset)}")
    say([*_modalities(dataset), f"content hash: {dataset.content_hash}"])
    say(paths, "written: ")


def _parts(dataset: Dataset) -> str:
    from harness.data.dataset import PARTS

    return ", ".join(f"{part} {len(dataset.part(part)):,}" for part in PARTS)


def _modalities(dataset: Dataset) -> list[str]:
    said = {name: " (surrogate vectors)" * (name in dataset.surrogates) for name in dataset.features}
    return [
        f"modality {name}: {table.shape[0]:,} x {table.shape[1]:,} {table.dtype.name}{said[name]}"
        for name, table in dataset.features.items()
    ]


@data.command(name="prepare")
@click.argument("name")
@click.option("--ratings", type=PATH, required=True, metavar="FILE", help="ratings_*.csv, or reviews as JSON lines.")
@click.option("--metadata", type=PATH, metavar="FILE", help="meta_*.json.gz, for the texts of items.")
@click.option("--images", type=PATH, metavar="FILE", help="image_features_*.b, for visual features.")
@USER
@ITEM
@click.option("--k-core", "core", type=COUNT, default=5, metavar="K", help=K_CORE)
@click.option("--split", default=SPLIT_RULES[0], metavar="RULE|PATH", help=SPLIT)
@click.option("--split-seed", type=click.IntRange(min=0), metavar="N", help=f"Default: {DEFAULT_SPLIT_SEED}.")
@PARENT
@click.option("--dry-run", is_flag=True, help="Say what would be read and written, and do neither.")
@PAPER
def prepare_command(
    dry_run: bool, out: Path | None, paper: Paper, user: str | None, item: str | None, **asked: Any
) -> None:
    """Make the data set NAME from the original Amazon files of one category, of 2014, 2018 or 2023.

    Ratings without a header are user, item, rating, time; those of 2018 begin with the item: --user 2 --item 1.
    Every rating is one positive interaction, the first one where a user rated an item repeatedly. Users and items with
    fewer than 5 interactions are removed until all have 5, then numbered in order of first appearance. Items without
    an image get the mean of the others. texts.csv holds title, brand, category path and description of each item, as
    bm3 data encode reads it; users.csv and items.csv what the files call them; prepared.json how all of it was made.

    The published split was drawn without a seed, so no rule gives it again: --split takes it from files. How much of a
    figure is the split, data sets of several names and --split-seed show.

    \b
    bm3 data prepare baby --ratings ratings_Baby.csv --metadata meta_Baby.json.gz --images image_features_Baby.b
    bm3 data prepare baby --ratings reviews_Baby_5.json.gz --split ~/published/baby --dry-run
    bm3 data prepare baby-2 --ratings ratings_Baby.csv --split-seed 2
    bm3 data prepare baby-in-time --ratings ratings_Baby.csv --split temporal_global --out ~/data
    """
    import harness
    from harness.cli.progress import reading_progress
    from harness.ingest.amazon.prepare import Plan, prepare
    from harness.ingest.tables import Columns
    from harness.ingest.verify import check_counts
    from harness.measure.environment import source

    plan = Plan(out=out or _default_root(), columns=Columns(user, item), **asked)
    if dry_run:
        plan.check()
        say((f"{kind}: {path}, {path.stat().st_size:,} bytes" for kind, path in plan.inputs.items()), "reads ")
        click.echo(f"keeps users and items with at least {plan.core} interactions; splits them by {plan.split}")
        click.echo(f"writes {plan.target}")
        return
    with keeping(lambda: f"no data set was left unfinished in {plan.out}; the same command begins anew"):
        record = prepare(plan, source(Path(harness.__file__).parent), reading_progress)
    say(record["notes"], "note: ")
    for kind in ("counts", "metadata", "images"):
        if kind in record:
            counted = {name: len(value) if isinstance(value, list) else value for name, value in record[kind].items()}
            click.echo(f"{kind}: {', '.join(f'{name} {value:,}' for name, value in counted.items())}")
    for broken in record.get("metadata", {}).get("first_broken", ()):
        click.echo(f"note: {plan.metadata}, line {broken['line']}: {broken['reason']}")
    say(f"{one.severity}: {one.text}" for one in check_counts(record["counts"], _printed(paper, plan.name)))
    click.echo(f"written: {plan.target}")


@data.command(name="fetch")
@click.argument("name")
@click.option("--out", type=PATH, metavar="DIR", help="Default: raw/NAME in $BM3_DATA if set, else in ./data.")
@click.option("--only", multiple=True, metavar="FILE", help="Fetch this file alone; may be repeated.")
@click.option("--base-url", metavar="URL", help="Another host with the same folders, in place of the manifest's.")
@click.option("--manifest", type=PATH, metavar="FILE", help="Data sets and their files of your own.")
@click.option("--checksum", "checksums", multiple=True, metavar="FILE=SHA256", help="What FILE must be.")
@click.option("--dry-run", is_flag=True, help="Say what would be fetched, and fetch and write nothing.")
@PAPER
def fetch_command(
    name: str,
    out: Path | None,
    only: tuple[str, ...],
    base_url: str | None,
    manifest: Path | None,
    checksums: tuple[str, ...],
    dry_run: bool,
    paper: Paper,
) -> None:
    """Fetch the original files of the data set NAME: baby, sports or electronics of Amazon 2014.

    The same command goes on after whatever stopped it, also within a file, and after a minute without a byte.
    Files that are there stay as they are.

    The publisher prints no checksums. So a file is trusted when it first comes, and recorded in fetched.json beside it.
    One that comes later must be the same; if it is not, it is kept under another name, and the command says so.

    \b
    bm3 data fetch baby
    bm3 data fetch electronics --only ratings_Electronics.csv --only meta_Electronics.json.gz --out ~/raw
    bm3 data fetch baby --base-url https://mirror.example.org/productGraph
    bm3 data fetch shop --manifest shop.toml --dry-run
    """
    from harness.cli.progress import reading_progress
    from harness.ingest.fetch import Fetch, find_source

    source = find_source(name, manifest or paper.file(SOURCES), base_url)
    folder, known = out or _default_root() / "raw" / name, dict(map(_checksum, checksums))
    fetch = Fetch(source, folder, only, known, tell=to_stderr, progress=reading_progress)
    with keeping(fetch.kept):
        found = fetch.survey()
        click.echo(f"{source.title}\nlicence: {source.licence}\nsource: {source.page}\nplease cite: {source.citation}")
        for each in found:
            total = "size not known" if each.size is None else size(each.size)
            begun = f"{total}, of which {size(each.here)} are there" if each.here else total
            click.echo(f"{fetch.url(each.name)} ({'there already' if each.there else begun})")
        if dry_run:
            return
        fetch.run(found)
    click.echo(f"fetched: {folder}")
    if len(found) == len(source.files):
        click.echo(f"next: {source.prepare_command(folder)}")


def _checksum(text: str) -> tuple[str, str]:
    match = re.fullmatch("([^=]+)=([0-9a-fA-F]{64})", text)
    if match is None:
        raise ConfigError(f"--checksum {text!r}: needed is FILE=SHA256, the latter in 64 hexadecimal digits")
    return match[1], match[2].lower()


@data.command()
@click.argument("dataset")
@DATA
def stats(dataset: str, data: Path | None) -> None:
    """Print what is in DATASET: a name, or the path of its folder.

    \b
    bm3 data stats mini
    bm3 data stats baby --data ~/data
    bm3 data stats ./data/mine
    """
    from harness.data.layouts import load_dataset

    found = load_dataset(dataset, data)
    counts = [f"{n:,}" for n in (found.n_users, found.n_items, found.n_interactions)]
    head = ["data set", "users", "items", "interactions", "sparsity"]
    say_table(head, [[found.name, *counts, f"{found.sparsity:.2f} %"]])
    say([f"\nparts: {_parts(found)}", *_modalities(found)])
    for part in ("valid", "test"):
        if unseen := len(found.unseen_users(part)):
            click.echo(f"note: {unseen} users of {part} have no training interaction and are left out of evaluation")
    say(unread(dataset, data), "note: ")
    click.echo(f"content hash: {found.content_hash}")
