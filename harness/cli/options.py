"""Options that commands share. The commands are in the files beside it.

These modules load nothing but click and what is as light: what a command needs is loaded when it runs, so that help and
wrong usage are answered at once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from harness.paper.folders import DEFAULT, paper_folder, suite_path
from harness.report.write import FORMATS
from harness.runs.words import DEVICES, Policy, device_fault

if TYPE_CHECKING:
    import torch

    from harness.paper.load import Paper

Command = Callable[..., Any]


def _made(option: Callable[[Command], Command], name: str, make: Command) -> Callable[[Command], Command]:
    """The option, whose value becomes what the command gets when it begins: making it may load what computes."""

    def decorated(command: Command) -> Command:
        @wraps(command)
        def begun(**given: Any) -> Any:
            return command(**given | {name: make(given[name])})

        return option(begun)

    return decorated


def _paper(folder: Path) -> Paper:
    from harness.paper.load import load_paper

    return load_paper(folder)


def _device(name: str) -> torch.device:
    from harness.runs.trial import resolve_device

    return resolve_device(name)


PATH, COUNT = click.Path(path_type=Path), click.IntRange(min=1)
EXISTING = click.Path(path_type=Path, dir_okay=False, exists=True)
EXISTING_FOLDER = click.Path(path_type=Path, file_okay=False, exists=True)

DATA = click.option(
    "--data", type=PATH, metavar="DIR", help="Folder that holds data sets by name. Default: $BM3_DATA, then ./data."
)
STORE = Path("runs")
"""Where runs are kept unless another folder is named."""
OUT = click.option("--out", type=PATH, default=STORE, metavar="DIR", help="Folder for runs and reports.")
PAPER_FOLDER = click.option(
    "--paper",
    default=DEFAULT,
    metavar="NAME|DIR",
    is_eager=True,  # suites are looked up in it
    callback=lambda context, parameter, name: paper_folder(name),
    help="The paper that is meant: its name (bm3 paper list) or its folder.",
)
PAPER = _made(PAPER_FOLDER, "paper", _paper)


class Device(click.Choice[str]):
    """A kind of device; a number is not one."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return self.fail(fault, param, ctx) if (fault := device_fault(value)) else value


DEFAULT_SEED = 999
DEVICE_NAME = click.option("--device", type=Device(DEVICES), default="auto", help="Where to compute.")
DEVICE = _made(DEVICE_NAME, "device", _device)
THREAD_COUNT = click.IntRange(min=1, max=1024)
THREADS = click.option(
    "--threads", type=THREAD_COUNT, metavar="N", help="CPU threads of torch. Default: torch's own choice."
)


def computing(command: Command) -> Command:
    """The options --device and --threads: the command gets the device, and torch has the threads."""

    @wraps(command)
    def begun(*, device: str, threads: int | None, **given: Any) -> Any:
        from harness.evaluation.compiling import use_threads

        if threads is not None:
            use_threads(threads)
        return command(device=_device(device), **given)

    return DEVICE_NAME(THREADS(begun))


THREADS_EACH = click.option(
    "--threads", type=THREAD_COUNT, metavar="N", help="CPU threads of each trial. Default: cores / workers."
)
WORKERS = click.option(
    "--workers", type=COUNT, metavar="N", help="Trials side by side. Default: 1; on CUDA, one per GPU."
)
RAY = click.option(
    "--ray", "ray_address", metavar="ADDRESS", help="Run trials on the Ray cluster there; local: one on this machine."
)
IN_PROCESS = click.option(
    "--in-process", is_flag=True, help="Run trials in this process, for debugging: memory figures add up."
)
RERUN = click.option(
    "--rerun",
    type=click.Choice(get_args(Policy)),
    default="missing",
    help="Which trials to run: missing, those without a result that did not fail; failed, these too; all, also those "
    "that are finished, whose runs are moved aside; none, report on what is there.",
)
EXECUTION = (PAPER, OUT, DATA, THREADS_EACH, DEVICE_NAME, IN_PROCESS, RAY, WORKERS, RERUN)
"""Of commands that run trials: where and how."""
DRY_RUN = click.option("--dry-run", is_flag=True, help="List the trials and run none.")
DATASETS = click.option(
    "--dataset", "datasets", multiple=True, metavar="NAME", help="Instead of the suite's; may be repeated."
)
MODELS = click.option("--model", "models", multiple=True, metavar="NAME", help="Only this model; may be repeated.")


SHOWN_METRICS = click.option(
    "--metrics",
    metavar="LIST",
    help="Show these, such as mrr,hit@10 (bm3 metrics lists them), or all. Default: the usual.",
)
USERS = click.option(
    "--users", type=EXISTING, help="Test metrics of these users alone: a file with an id of the data set in each line."
)


LAYOUT = click.option(
    "--format", "form", type=click.Choice(["text", "md", "tex", "csv"]), default="text", help="Layout."
)


def _formats(context: click.Context, parameter: click.Parameter, value: str) -> list[str]:
    chosen = [name.strip() for name in value.split(",") if name.strip()]
    for name in chosen:
        if name not in FORMATS:
            raise click.BadParameter(f"{name!r} is no format; choose from {', '.join(FORMATS)}")
    return chosen or ["md"]


REPORT_FORMATS = click.option(
    "--format",
    "formats",
    default="md",
    callback=_formats,
    metavar="LIST",
    help=f"Formats of the report, with commas between: {', '.join(FORMATS)}.",
)


def _seeds(context: click.Context, parameter: click.Parameter, value: str | None) -> list[int]:
    """`1-3,7` as 1, 2, 3, 7."""
    found: dict[int, None] = {}
    for part in value.split(",") if value else []:
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or len(part) > 20:
            raise click.BadParameter(f"{part!r} is no seed and no range of seeds, such as 7 or 1-3")
        if int(last or first) - int(first) not in range(MOST_SEEDS):
            raise click.BadParameter(f"{part!r} is not from low to high, or has more than {MOST_SEEDS:,} seeds")
        found |= dict.fromkeys(range(int(first), int(last or first) + 1))
    return list(found)


MOST_SEEDS = 10_000
SEEDS = click.option(
    "--seeds",
    callback=_seeds,
    metavar="LIST",
    help="In place of the suite's, such as 1-3,7; points are chosen with the first. A row with a seed that the suite "
    "does not declare is no evidence.",
)
SEEDS_OF_OURS = click.option("--seeds", callback=_seeds, metavar="LIST", help="Train with these. Default: 1-3.")


def known_suite(context: click.Context, parameter: click.Parameter, name: str) -> str:
    """A suite's name or path, refused before anything that computes is loaded where there is none."""
    suite_path(name, context.params["paper"])
    return name
