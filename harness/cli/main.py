"""The `bm3` command: options, messages and exit codes. Everything it does is done elsewhere."""

import errno
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from io import TextIOWrapper

import click
from click.shell_completion import shell_complete

from bm3 import BM3Error
from harness.cli.data import data
from harness.cli.pack import pack
from harness.cli.paper import paper, reference
from harness.cli.recommend import export, recommend
from harness.cli.report import evaluate, expected, literature, report_command, tables
from harness.cli.results import results
from harness.cli.runs import replay, runs
from harness.cli.study import reproduce
from harness.cli.suite import suite, watch
from harness.cli.tools import audit, doctor, profile, regress, scaling
from harness.cli.train import conformance_command, metrics_command, models_command, settings_command, train, variants
from harness.ending import CLOSED_PIPE, INTERRUPTED, MISUSED, TERMINATED, Interrupted, Terminated

RENAMED: Mapping[str, Mapping[str, str]] = {
    "data prepare": {"--core": "--k-core"},
    **{key: {"--to": "--out"} for key in ("data fetch", "replay", "report", "scaling")},
}
"""By command: options whose old spelling goes on working until the next release, with a line that says so."""
COMPLETION = "_BM3_COMPLETE"
MENDED: Mapping[int, str] = {
    errno.EACCES: "check its permissions, or those of its folder",
    errno.EPERM: "check its permissions, or those of its folder",
    errno.ENAMETOOLONG: "use a shorter name",
    errno.ELOOP: "its links lead in a circle: name what they should lead to",
    errno.ENOSPC: "make room and give the same command again",
}
LONG = re.compile(r"(\S{80})\S{220,}")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class _InOrder(click.Group):
    """Lists its commands in the order in which they were added."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_InOrder, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(package_name="bm3-harness")
def bm3() -> None:
    """Does BM3 do what was published, here, now, and at what cost?

    \b
    bm3 reproduce                   what reproduces on this machine, as a report
    bm3 train bm3 mini              one model on one data set
    bm3 recommend RUN --user 0      what a model recommends that was kept (train --keep-model)
    bm3 doctor                      what can be run and measured on this machine

    Exit codes: 0 everything asked for was measured and held, 1 something lies outside its band or failed, 2 wrong
    usage, configuration or data, 3 nothing could be judged, 130 interrupted, 141 nobody reads the output.
    """


for command in (
    reproduce,
    *(suite, watch, runs, replay, train, recommend, export, report_command, tables, evaluate, literature, doctor),
    *(models_command, settings_command, variants, metrics_command, data, conformance_command),
    *(audit, results, pack, paper, expected, reference, profile, regress, scaling),
):
    bm3.add_command(command)


def main() -> None:
    """Run the command and leave with its exit code, in silence where nobody reads what it prints."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        if isinstance(stream, TextIOWrapper):  # names of files need not be text
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _outcome(sys.argv[1:])
        if sys.stdout is not None:  # as where a shell has closed it
            sys.stdout.flush()
    except OSError as error:
        broken = isinstance(error, BrokenPipeError)
        if not broken and (error.errno not in FULL or error.filename is not None):
            raise
        _let_go_of_output()
        room = f"{error.strerror}, on standard output or elsewhere; make room and give the same command again"
        code = CLOSED_PIPE if broken else _told(MISUSED, room)
    sys.exit(code)


def _outcome(arguments: Sequence[str]) -> int:
    """Run the command; its exit code. What ends it early is told in one line."""
    try:
        if instruction := os.environ.get(COMPLETION):
            return shell_complete(bm3, {}, "bm3", COMPLETION, instruction)
        if "" in arguments:  # which would be the folder that the command is given in
            return _told(MISUSED, "an argument is empty, as where a variable of the shell is: name what is meant")
        # Not by click's own `main`, which ends a closed pipe with 1.
        with bm3.make_context("bm3", list(_respelled(arguments))) as context:
            bm3.invoke(context)
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except SystemExit as leaving:
        if isinstance(leaving.__context__, BrokenPipeError):  # as rich ends
            return CLOSED_PIPE
        return leaving.code if isinstance(leaving.code, int) else 0
    except BM3Error as error:
        return _told(error.exit_code, str(error))
    except OSError as error:
        if error.filename is None:
            raise
        mended = MENDED.get(error.errno or 0, "see what is there")
        return _told(MISUSED, f"{error.filename}: {error.strerror}; {mended}")
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return MISUSED
    except click.ClickException as error:
        return _told(error.exit_code, error.format_message())
    except Interrupted as interruption:
        terminated = isinstance(interruption.__cause__, Terminated)
        return _told(TERMINATED if terminated else INTERRUPTED, f"interrupted: {interruption}")
    except Terminated:
        return _told(TERMINATED, "terminated")
    except (KeyboardInterrupt, click.Abort):
        return _told(INTERRUPTED, "interrupted")
    return 0


def _respelled(arguments: Sequence[str]) -> Iterator[str]:
    """The arguments, with options as they are spelled now."""
    words = [word for word in arguments if not word.startswith("-")]
    renamed = {**RENAMED.get(" ".join(words[:1]), {}), **RENAMED.get(" ".join(words[:2]), {})}
    for argument in arguments:
        option, equals, value = argument.partition("=")
        if option in renamed:
            click.echo(f"{option} is now {renamed[option]}; the old spelling goes with the next release", err=True)
        yield renamed.get(option, option) + equals + value


def _told(code: int, message: str) -> int:
    with suppress(OSError):  # standard error may be where nobody reads either
        print("bm3:", LONG.sub(r"\1…", " ".join(message.split())), file=sys.stderr, flush=True)
    return code


def _let_go_of_output() -> None:
    """Send what standard streams still hold nowhere, or the interpreter would complain of it in the end."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
