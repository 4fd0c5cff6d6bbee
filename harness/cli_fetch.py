"""The command `bm3 data fetch`: options and messages. What it does is in `harness.data.fetch`."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from tqdm import tqdm

from bm3 import ConfigError
from harness.ending import keeping
from harness.quantities import duration, size

if TYPE_CHECKING:
    from harness.data.fetch import Found, Order

SECONDS_BETWEEN_LINES = 10.0  # where there is no terminal
CHECKSUM = re.compile(r"([^=]+)=([0-9a-fA-F]{64})")
PATH = click.Path(path_type=Path)


@click.command(name="fetch")
@click.argument("name")
@click.option(
    "--to",
    type=PATH,
    metavar="DIR",
    help="Folder for the files. Default: raw/NAME in $BM3_DATA if set, else in ./data.",
)
@click.option("--only", multiple=True, metavar="FILE", help="Fetch this file alone; may be repeated.")
@click.option("--base-url", metavar="URL", help="Another host with the same folders, in place of the manifest's.")
@click.option("--manifest", type=PATH, metavar="FILE", help="A list of data sets and their files of your own.")
@click.option(
    "--checksum", "checksums", multiple=True, metavar="FILE=SHA256", help="What FILE must be; may be repeated."
)
@click.option(
    "--retries",
    type=click.IntRange(min=0),
    default=5,
    show_default=True,
    metavar="N",
    help="Attempts after one that brought nothing more, with longer and longer pauses.",
)
@click.option(
    "--stall",
    type=click.FloatRange(min=0, min_open=True, max=86400),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="Without a byte for so long, the connection is given up and tried again.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be fetched, and fetch and write nothing.")
def fetch_command(
    name: str,
    to: Path | None,
    only: tuple[str, ...],
    base_url: str | None,
    manifest: Path | None,
    checksums: tuple[str, ...],
    retries: int,
    stall: float,
    dry_run: bool,
) -> None:
    """Fetch the original files of the data set NAME: baby, sports or electronics of Amazon 2014.

    The same command goes on after whatever stopped it, also within a file. Files that are there stay as they are.

    The publisher prints no checksums. So a file is trusted when it first comes, and recorded in fetched.json beside it.
    One that comes later must be the same; if it is not, it is kept under another name, and the command says so.

    \b
    bm3 data fetch baby
    bm3 data fetch electronics --only ratings_Electronics.csv --only meta_Electronics.json.gz --to ~/raw
    bm3 data fetch baby --base-url https://mirror.example.org/productGraph
    bm3 data fetch shop --manifest shop.toml --dry-run
    """
    from harness.data.fetch import Display, fetch, make_order, new_session, survey
    from harness.data.layouts import data_roots
    from harness.data.manifest import MANIFEST, find_source, load_manifest
    from harness.data.transfer import Patience

    order = make_order(
        find_source(name, load_manifest(manifest or MANIFEST)),
        data_roots()[0] / "raw" / name if to is None else to,
        base=None if base_url is None else _base(base_url),
        only=only,
        checksums=dict(map(_checksum, checksums)),
    )
    with new_session() as session, keeping(lambda: _kept(order)):
        found = survey(order, session, stall)
        for line in _intentions(order, found):
            click.echo(line)
        if dry_run:
            return
        fetch(order, found, session, Patience(retries, stall), Display(_tell, transfer_progress))
    click.echo(f"fetched: {order.folder}")
    if set(order.files) == set(order.source.files):
        click.echo(f"next: {order.source.prepare_command(order.folder)}")


def _base(url: str) -> str:
    from harness.data.manifest import checked_base

    try:
        return checked_base(url)
    except ValueError as error:
        raise ConfigError(f"--base-url {url!r}: {error}") from error


def _checksum(text: str) -> tuple[str, str]:
    match = CHECKSUM.fullmatch(text)
    if match is None:
        raise ConfigError(f"--checksum {text!r}: needed is FILE=SHA256, the latter in 64 hexadecimal digits")
    return match[1], match[2].lower()


def _intentions(order: Order, found: Sequence[Found]) -> list[str]:
    """What a user should know before anything is fetched."""
    source = order.source
    lines = [source.title, f"licence: {source.licence}", f"source: {source.page}", f"please cite: {source.citation}"]
    lines.append(f"into {order.folder}:")
    for each in found:
        known = f"size not known{f', {each.trouble}' if each.trouble else ''}" if each.size is None else size(each.size)
        state = {"there": "there already", "begun": f"{known}, of which {size(each.here)} are there", "missing": known}
        lines.append(f"  {order.url(each.file)} ({state[each.state]})")
    missing = [each for each in found if each.state != "there"]
    total = sum(max(0, each.size - each.here) for each in missing if each.size is not None)
    unknown = sum(each.size is None for each in missing)
    lines.append(f"to fetch: {size(total)}" + (f", and files of unknown size: {unknown}" if unknown else ""))
    return lines


def _kept(order: Order) -> str:
    from harness.data.transfer import partial

    begun = [path for file in order.files if (path := partial(order.target(file))).exists()]
    kept = ", ".join(f"{path.stat().st_size:,} bytes are kept in {path}" for path in begun)
    return f"{kept or 'no file is left unfinished'}; the same command goes on"


def _tell(line: str) -> None:
    tqdm.write(line, file=sys.stderr)  # above a bar, if there is one


@contextmanager
def transfer_progress(name: str) -> Iterator[Callable[[int, int | None], None]]:
    """A function to be told the position in the file `name`, and its size where that is known.

    A bar on a terminal, plain lines elsewhere, both on standard error. Positions may begin late and go back.
    """
    if sys.stderr.isatty():
        with tqdm(desc=name, unit="B", unit_scale=True, dynamic_ncols=True, leave=False) as bar:
            shown: int | None = None

            def show(position: int, total: int | None) -> None:
                nonlocal shown
                if shown is None or position < shown:
                    bar.reset(total)
                    bar.n = bar.initial = bar.last_print_n = position  # what was there before says nothing of speed
                else:
                    bar.update(position - shown)
                shown = position

            yield show
        return
    began: tuple[float, int] | None = None
    last_line, last = time.monotonic(), 0

    def advance(position: int, total: int | None) -> None:
        nonlocal began, last_line, last
        now = time.monotonic()
        if began is None or position < last:
            began = now, position
        last = position
        if now - last_line < SECONDS_BETWEEN_LINES:
            return
        last_line = now
        come, seconds = position - began[1], now - began[0]
        left = None if total is None or come <= 0 else seconds / come * (total - position)
        of = "" if total is None else f" of {size(total)}"
        print(f"{name}: {size(position)}{of}, about {duration(left)} left", file=sys.stderr, flush=True)

    yield advance
