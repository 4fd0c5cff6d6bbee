"""Options that commands share, and how an interrupted command ends. The commands are in `cli` and `cli_*`."""

from pathlib import Path

import click

DATA = click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder that holds data sets by name. Default: $BM3_DATA, then ./data.",
)
OUT = click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("runs"),
    show_default=True,
    metavar="DIR",
    help="Folder for runs and reports.",
)
DEVICE = click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True, help="Where to compute."
)
THREADS = click.option(
    "--threads", type=click.IntRange(min=1), metavar="N", help="CPU threads of torch. Default: torch's own choice."
)


class Interrupted(Exception):  # noqa: N818 - it is no error
    """Ctrl-C, after what was finished has been kept; the message says what is not."""
