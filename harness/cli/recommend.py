"""The commands `bm3 recommend` and `bm3 export`: what a kept model gives. Everything they do is `runs.recommend`."""

from pathlib import Path

import click

from harness.cli.options import COUNT, DATA, EXISTING, PATH, STORE
from harness.cli.output import say_table

RUN = click.argument("run")


@click.command()
@RUN
@click.option("--user", "users", multiple=True, metavar="ID", help="Whom the list is for; may be repeated.")
@click.option(
    "--users",
    "file",
    type=EXISTING,
    help="A file with a user's id in each line. Default: all users, which needs --out.",
)
@click.option("--top", type=COUNT, default=10, metavar="K", help="Items of a list.")
@click.option("--out", type=PATH, metavar="FILE", help="Write them: .parquet, .csv, .tsv or .json (lines).")
@DATA
def recommend(
    run: str, users: tuple[str, ...], file: Path | None, top: int, out: Path | None, data: Path | None
) -> None:
    """List what the model of RUN recommends, which bm3 train --keep-model has kept.

    RUN is the path of a stored run, or a part of its name that no other below runs has. Ids are the data set's own.
    Items of a user's training are left out, as in the evaluation, and bm3 evaluate reads what --out writes.

    \b
    bm3 train bm3 mini --keep-model
    bm3 recommend bm3-164e --user 0
    bm3 recommend bm3-164e --users newsletter.txt --top 20 --out lists.parquet
    """
    from harness.ingest.features import read_row_ids
    from harness.runs.inspect import find
    from harness.runs.recommend import LISTS, KeptModel, check_file, write_lists

    if out is None and not (users or file):
        raise click.UsageError("say for whom, with --user ID or --users FILE, or give --out FILE for all users")
    if out is not None:
        check_file(out, LISTS)
    asked = [*users, *(filter(None, read_row_ids(file, kind="user")) if file else ())]
    lists = KeptModel.load(find(run, STORE), data).recommend(asked if users or file else None, top)
    if out is not None:
        write_lists(out, lists)
        click.echo(f"{len({line.user for line in lists}):,} lists: {out}")
        return
    rows = [(line.user, line.item, line.rank, f"{line.score:.4f}") for line in lists]
    say_table(["user", "item", "rank", "score"], rows)


@click.command()
@RUN
@click.option("--embeddings", is_flag=True, help="The vectors of all users and items, with their ids.")
@click.option("--out", type=PATH, required=True, metavar="FILE", help="An .npz or .parquet.")
@DATA
def export(run: str, embeddings: bool, out: Path, data: Path | None) -> None:
    """Write what the model of RUN has learned, for other programs. RUN is named as for bm3 recommend.

    Vectors are those whose dot products are the scores. In .npz they are users and items, their ids user_ids and
    item_ids; in .parquet a row each, with kind, id and vector.

    \b
    bm3 export bm3-164e --embeddings --out vectors.npz
    """
    from harness.runs.inspect import find
    from harness.runs.recommend import EMBEDDINGS, KeptModel, check_file, write_embeddings

    if not embeddings:
        raise click.UsageError("say what is to be written: --embeddings")
    check_file(out, EMBEDDINGS)
    found = KeptModel.load(find(run, STORE), data).embeddings()
    write_embeddings(out, found)
    shape = f"{len(found.user_ids):,} users and {len(found.item_ids):,} items, {found.users.shape[1]}-d"
    click.echo(f"{shape}: {out}")
