"""Starting: help and wrong usage load nothing that computes, and whatever ends a command early ends it in one line."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import click
import pytest
from command_line import GIVE_UP_AFTER

from harness.cli import main as cli
from harness.ending import heeding_signals

HEAVY = {"torch", "numpy", "scipy", "matplotlib", "pydantic", "rich", "requests", "numba"}
OF_FEW = ("torch", "matplotlib", "scipy.stats")  # which reading stored runs needs none of
HEED = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # what runs in the background may ignore Ctrl-C


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Python with these arguments; output is captured unless `stdout` says otherwise."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "timeout": GIVE_UP_AFTER, **options}
    return subprocess.run([sys.executable, *arguments], text=True, check=False, **options)


def usages(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], int]]:
    """Ways to ask a command and those below it for help, and to get it wrong, with the exit code of each."""
    yield (*words, "--help"), 0
    yield (*words, "--no-such-option"), 2
    if isinstance(command, click.Group):
        yield (*words, "no-such-command"), 2
        for name, child in command.commands.items():
            yield from usages(child, (*words, name))
        return
    if any(parameter.required for parameter in command.params):
        yield words, 2
    if all(parameter.nargs == 1 for parameter in command.params):
        yield (*words, *["mini"] * (len(command.params) + 1)), 2
    for option in command.params:
        if isinstance(option, click.Option) and isinstance(option.type, click.Choice | click.IntRange):
            yield (*words, option.opts[0], "no-such-value"), 2


def in_one_process(arguments: list[tuple[str, ...]]) -> tuple[list[int], set[str]]:
    """The exit codes of the commands, run one after another, and which heavy packages are loaded in the end."""
    program = f"""
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout
from harness.cli import main as cli
codes = []
for sys.argv in json.loads({json.dumps([["bm3", *words] for words in arguments])!r}):
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            cli.main()
    except SystemExit as leaving:
        codes.append(leaving.code)
print(json.dumps([codes, sorted(name.partition(".")[0] for name in sys.modules)]))
"""
    ran = run("-c", program)
    codes, loaded = json.loads(ran.stdout)
    return codes, HEAVY & set(loaded)


def test_help_and_wrong_usage_of_every_command_load_nothing_that_computes() -> None:
    known = [*usages(cli.bm3), (("--version",), 0), (("reproduce", "no-such"), 2), (("suite", "show", "no-such"), 2)]
    arguments = [words for words, _ in known]
    assert {("train", "--device", "no-such-value"), ("runs", "diff"), ("data", "no-such-command")} <= {*arguments}
    codes, loaded = in_one_process(arguments)
    assert list(zip(arguments, codes, strict=True)) == known
    assert loaded == set()


def test_what_computes_is_seen_to_load_it() -> None:
    assert in_one_process([("train", "no-such", "mini")])[1] >= {"torch", "numpy"}


@pytest.mark.parametrize("word", ["--help", "--version", "no-such-command"])
def test_the_entry_point_loads_nothing_that_computes_either(word: str) -> None:
    ran = run("-X", "importtime", "-m", "harness", word)
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in ran.stderr.splitlines()}
    assert "click" in loaded
    assert not HEAVY & loaded


BEGIN = "from pathlib import Path; store = Path('docs/results/runs/mini'); "
READERS = {
    "errors": "from bm3 import BM3Error, ConfigError, DataError",
    "list": "from harness.runs.index import entries; from harness.runs.text import list_text; "
    "list_text(entries(store))",
    "show and diff": "from harness.runs.store import stored_runs; from harness.runs.text import *; "
    "from harness.runs.difference import difference; one, other, *_ = stored_runs(store); "
    "run_text(one, 'x'); difference_text(difference(one, other), 'x', 'y')",
    "verify": "from harness.runs.store import run_folders; from harness.runs.verify import verify; "
    "assert not any(verify(path).problems for path in run_folders(store))",
    "gc": "from harness.runs.clean import unneeded; unneeded(store, ['unfinished'])",
    "expected": "from harness.paper.load import load_paper; load_paper().claims",
    "tables": "import harness.report.paper_tables, harness.report.latex",
    "watch": "import harness.cli.progress, harness.studies.status",
    "suites": "from harness.studies.suite import load_suite, outline; "
    "from harness.paper.load import load_paper; "
    # `opponents` has models that the paper does not state, whose grids are in their classes
    "names = [name for name in load_paper().suites if name != 'opponents']; "
    "assert all(outline(load_suite(name, check=False), variants=False) for name in names)",
    "report": "from harness.paper.study import make_study; from harness.report.write import made; "
    "study = make_study(store, 'x'); [made(study, form) for form in ('md', 'csv', 'json', 'tex')]",
}


@pytest.mark.parametrize("name", READERS)
def test_what_only_reads_imports_nothing_heavy(name: str) -> None:
    # A report compares models over users, which is a test of scipy's.
    heavy = OF_FEW[:2] if name == "report" else OF_FEW
    code = f"{BEGIN}{READERS[name]}\nimport sys; print([name for name in {heavy} if name in sys.modules])"
    done = run("-c", code, cwd=Path(__file__).parents[2])
    assert (done.stdout, done.stderr) == ("[]\n", "")


# --- signals ---


def module_that_is_interrupted(folder: Path, name: str, sent: signal.Signals) -> dict[str, str]:
    """The environment in which loading the module `name` meets a signal, and takes the exception for one of its own."""
    (folder / f"{name}.py").write_text(
        "import os, signal, time\n"
        "try:\n"
        f"    os.kill(os.getpid(), {int(sent)})\n"
        "    time.sleep(60)\n"
        "except KeyboardInterrupt as interruption:\n"
        "    raise ImportError('the extension did not initialise') from interruption\n"
    )
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(folder), *sys.path)))}


@pytest.mark.parametrize("module", ["click", "torch"])
@pytest.mark.parametrize(
    ("sent", "code", "line"),
    [(signal.SIGINT, 130, "bm3: interrupted"), (signal.SIGTERM, 143, "bm3: terminated")],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_signal_while_modules_are_loaded_is_one_line(
    tmp_path: Path, module: str, sent: signal.Signals, code: int, line: str
) -> None:
    environment = module_that_is_interrupted(tmp_path, module, sent)
    command = ("-m", "harness", "train", "bpr", "mini", "--out", str(tmp_path / "runs"))
    ran = run(*command, env=environment, preexec_fn=HEED)
    assert (ran.returncode, ran.stdout, ran.stderr) == (code, "", f"{line}\n")


def test_a_signal_while_a_library_loads_something_amid_work_leaves_time_to_keep_it(tmp_path: Path) -> None:
    environment = module_that_is_interrupted(tmp_path, "late", signal.SIGINT)
    (tmp_path / "library.py").write_text(
        "def work():\n    try:\n        import late\n    except ImportError as error:\n        raise error.__cause__\n"
    )
    program = """
from harness.ending import Interrupted, heeding_signals, keeping
from library import work
try:
    with heeding_signals(), keeping(lambda: "what was done"):
        work()
except Interrupted as interruption:
    print("kept:", interruption)
"""
    ran = run("-c", program, env=environment, preexec_fn=HEED)
    assert ran.stdout == "kept: what was done\n", ran.stderr


def test_in_a_thread_signals_are_left_to_the_main_one() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with ThreadPoolExecutor(1) as pool:
        pool.submit(heeding_signals().__enter__).result()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize(
    ("within", "after", "before", "code", "said"),
    [
        ("os.kill(os.getpid(), signal.SIGINT)", "print('still here')", signal.SIG_IGN, 0, "still here\n"),
        ("pass", "os.kill(os.getpid(), signal.SIGINT)", signal.SIG_DFL, -signal.SIGINT, ""),  # a shell makes it 130
    ],
    ids=["ignored, it stays so", "when all is done, it is silent"],
)
def test_a_ctrl_c_that_interrupts_nothing(within: str, after: str, before: Any, code: int, said: str) -> None:
    program = (
        f"import os, signal\nfrom harness.ending import heeding_signals\nwith heeding_signals(): {within}\n{after}"
    )
    ran = run("-c", program, preexec_fn=partial(signal.signal, signal.SIGINT, before))
    assert (ran.returncode, ran.stdout, ran.stderr) == (code, said, "")


# --- standard output that takes no more ---


def program(statement: str) -> list[str]:
    """Arguments of Python for a command that does this."""
    lines = ["import click, rich", "from harness.cli import main as cli"]
    lines += [f"cli.bm3.add_command(click.Command('prints', callback=lambda: {statement}))", "cli.main()"]
    return ["-c", "\n".join(lines), "prints"]


PRINTING = {
    "long": ["-m", "harness", "tables", "3"],
    "short": ["-m", "harness", "expected", "--help"],
    "in the last flush": program("print('something')"),
    "by rich": program("rich.print('something')"),
}


@pytest.mark.parametrize("arguments", PRINTING.values(), ids=PRINTING)
def test_a_closed_pipe_is_silence_and_no_deviation(arguments: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as pipe:
        ran = run(*arguments, stdout=pipe)
    assert (ran.returncode, ran.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("arguments", PRINTING.values(), ids=PRINTING)
def test_a_full_disk_on_standard_output_is_one_line(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        ran = run(*arguments, stdout=full)
    assert ran.returncode == 2
    (line,) = ran.stderr.splitlines()
    assert line.startswith("bm3: No space left on device")


def test_standard_output_may_be_closed() -> None:
    ran = run("-m", "harness", "--help", stdout=None, preexec_fn=partial(os.close, 1))
    assert (ran.returncode, ran.stderr) == (0, "")


def test_the_shell_is_told_how_to_complete_commands() -> None:
    environment = {**os.environ, "_BM3_COMPLETE": "bash_complete", "COMP_WORDS": "bm3 runs li", "COMP_CWORD": "2"}
    ran = run("-m", "harness", env=environment)
    assert ran.stdout == "plain,list\n"
