"""Progress of a training, of reading a file and of a study, on a terminal and elsewhere, and `bm3 watch`."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from command_line import Command, refused
from rich.console import Console

from harness.cli import progress as cli_progress
from harness.cli import suite as cli_watch
from harness.cli.progress import StudyProgress, TrainingProgress, bars, reading_progress, reading_runs, show
from harness.common import duration
from harness.runs.inspect import Course, course, last_log_line
from harness.studies.status import STATUS, Running, Status, vanished, write_status
from harness.training.fit import EpochRecord

START = 1_800_000_000.0
KEY = "mini/bm3-0123456789-seed2"


class Terminal(StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def trial(key: str = KEY, **changes: Any) -> Running:
    command = f"bm3 train bm3 mini --set n_layers={len(key)} --seed 2"
    return replace(Running(key, command, START + 30, attempt=1, epochs=100, place="process 4711"), **changes)


def status(store: Path, **changes: Any) -> Status:
    one = Status(
        suite="table3",
        state="running",
        store=str(store),
        started=START,
        now=START + 60,
        total=18,
        done=3,
        reused=0,
        failed=1,
        waiting=13,
        running=(trial(),),
        seconds_left=300.0,
        recent=("finished: mini/bpr-aaaaaaaaaa-seed1: test R@20 0.0600, 5 s",),
        process=os.getpid(),
        host=socket.gethostname(),
    )
    return replace(one, **{"waiting": 0 if changes.get("state") == "finished" else 13, **changes})


def write_epochs(store: Path, best: int, last: int, key: str = KEY, tail: str = "") -> None:
    """Epochs 1 to `last`, each a new best up to `best`; R@20 is a thousandth of the epoch until then."""
    (store / key).mkdir(parents=True, exist_ok=True)
    records = [
        {"epoch": e, "valid": {"recall@20": min(e, best + 0.5) / 1000}, "improved": e <= best}
        for e in range(1, last + 1)
    ]
    text = "".join(json.dumps(record) + "\n" for record in records) + tail
    (store / key / "epochs.jsonl").write_text(text, encoding="utf-8")


def shown(status: Status, now: float | None = None, width: int = 120) -> str:
    file = StringIO()
    console = Console(width=width, file=file)
    show(on := bars(console), status, now)
    console.print(on)
    return file.getvalue()


# --- a training ---


def test_after_going_on_the_best_epoch_so_far_is_known_and_parts_have_their_names() -> None:
    def record(epoch: int, recall: float, improved: bool) -> EpochRecord:
        parts = {"reconstruction": 2.5, "regulariser": 0.25}
        return EpochRecord(epoch, 2.75, parts, 0.1, 0.1, {"recall@20": recall}, improved, 0.0)

    with redirect_stderr(StringIO()) as said, TrainingProgress("bm3 on mini", 9) as progress:
        progress.earlier([record(1, 0.3, True), record(2, 0.475, True), record(3, 0.4, False)])
        progress.epoch(record(4, 0.41, False))
    assert said.getvalue().startswith(
        "bm3 on mini: epoch 4/9 R@20 0.4100, best 0.4750 in 2, loss 2.75 (reconstruction 2.5, regulariser 0.25)"
    )


@pytest.mark.parametrize(
    ("tail", "epoch"),
    [("", 12), ('{"epoch": 13, "valid": {"reca', 12), ('{"epoch": 13}\n', 13), ("[13]\n", 12), ("\n\n", 12)],
)
def test_the_course_is_the_last_whole_epoch_and_the_best_so_far(tmp_path: Path, tail: str, epoch: int) -> None:
    assert course(tmp_path) == Course(0, 0, None)
    write_epochs(tmp_path, best=7, last=12, tail=tail)
    assert course(tmp_path / KEY) == Course(epoch, 7, 0.007)


def test_the_last_line_of_a_log_is_the_last_that_says_something(tmp_path: Path) -> None:
    assert last_log_line(tmp_path) is None
    (tmp_path / "log.txt").write_bytes(b"bm3: first\nbm3: \xff no room\n  \n\n")
    assert last_log_line(tmp_path) == "bm3: \ufffd no room"


# --- reading a file ---


@pytest.fixture
def moment(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the clock shows."""
    shown = [100.0]
    monkeypatch.setattr(cli_progress, "time", SimpleNamespace(monotonic=lambda: shown[0]))
    return shown


def test_without_a_terminal_bytes_are_told_now_and_then(
    moment: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with reading_progress("ratings.csv") as report:
        for position in range(10_000_000, 35_000_000, 1_000_000):  # a million a second, and ten were there
            report(position, 40_000_000)
            moment[0] += 1
        report(0, None)
        moment[0] += 10
        report(5_000_000, None)
    assert capsys.readouterr() == (
        "",
        "ratings.csv: 20.0 MB of 40.0 MB, about 20 s left\n"
        "ratings.csv: 30.0 MB of 40.0 MB, about 10 s left\n"
        "ratings.csv: 5.0 MB\n",
    )


def test_how_many_runs_were_read_is_told_now_and_then(moment: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with reading_runs(1500) as tell:
        for done in range(1, 1501):
            moment[0] += 0.01
            tell(done)
    told = "reading 1,500 runs that the store's index does not have yet\nstored runs: read 1000/1500, about 5 s left\n"
    assert capsys.readouterr().err == told


def test_on_a_terminal_a_bar_shows_the_bytes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with reading_progress("ratings[1].csv") as report:
        report(1_000, None)
        report(1_300, 2_000)
    assert "ratings[1].csv" in (shown := capsys.readouterr().err)
    assert "1.3/2.0 kB" in shown


# --- a study ---


def test_the_display_has_counts_times_and_each_trial(tmp_path: Path) -> None:
    write_epochs(tmp_path, best=7, last=12)
    first, second = shown(status(tmp_path, reused=2)).splitlines()
    assert first.startswith("table3 ")
    assert first.rstrip().endswith("3 of 18 done (2 stored before), 1 failed; 60 s elapsed, about 5 min left")
    for part in (KEY, "epoch 12 of 100", "R@20 0.0070", "30 s", "process 4711"):
        assert part in second
    assert "attempt" not in second
    assert "process 4711, attempt 2" in shown(status(tmp_path, running=(trial(attempt=2),)))


@pytest.mark.parametrize(
    ("state", "later", "shown_time", "hidden"),
    [
        ("running", 60, "2 min elapsed, about 4 min left", "as of"),
        ("running", 660, "0 s left, as of 11 min ago", "interrupted"),
        ("interrupted", 9939, "60 s elapsed", "left"),
    ],
)
def test_time_goes_on_between_two_writings_of_the_status_and_stands_when_the_study_has_ended(
    tmp_path: Path, state: Any, later: float, shown_time: str, hidden: str
) -> None:
    text = shown(status(tmp_path, state=state, running=()), START + 60 + later)
    assert text.startswith(f"table3 {state if state == 'interrupted' else ''}")
    assert shown_time in text
    assert hidden not in text


# --- without a terminal ---


def plain(updates: Callable[[StudyProgress, list[float]], None]) -> list[str]:
    file, moment = StringIO(), [0.0]
    with StudyProgress(Console(file=file), clock=lambda: moment[0]) as progress:
        updates(progress, moment)
    return file.getvalue().splitlines()


def test_without_a_terminal_lines_are_at_most_every_ten_seconds_and_say_something_new(tmp_path: Path) -> None:
    def updates(progress: StudyProgress, moment: list[float]) -> None:
        for second in range(35):
            moment[0] = float(second)
            progress.update(status(tmp_path, done=3 + (second >= 15), recent=()))

    lines = plain(updates)
    assert [text.partition(",")[0] for text in lines] == ["3 of 18 done", "4 of 18 done"]


def test_a_trial_that_ends_is_told_at_once_and_once_and_so_is_the_end(tmp_path: Path) -> None:
    def updates(progress: StudyProgress, moment: list[float]) -> None:
        for recent in (("a",), ("a", "b"), ("a", "b"), ("b", "c")):
            moment[0] += 0.1
            progress.update(status(tmp_path, recent=recent))
        progress.update(status(tmp_path, state="finished", done=17, running=(), recent=("c",)))

    lines = plain(updates)
    assert [text for text in lines if "done" not in text] == ["a", "b", "c"]
    assert lines[-1] == "17 of 18 done, 1 failed, finished after 60 s"


# --- on a terminal ---


def test_on_a_terminal_the_display_is_drawn_again_and_the_last_state_stays(tmp_path: Path) -> None:
    file = Terminal()
    console = Console(width=100, file=file, force_terminal=True, color_system=None)
    with StudyProgress(console, clock=lambda: START + 60) as progress:
        progress.update(status(tmp_path, recent=("failed: [/red] [bold]",)))
        progress.update(status(tmp_path, state="finished", done=17, running=()))
    assert "failed: [/red] [bold]" in file.getvalue()
    assert "table3 finished" in file.getvalue()
    assert "17 of 18 done, 1 failed" in file.getvalue()
    assert file.getvalue().endswith("\x1b[?25h")  # the cursor is back


def test_a_dumb_terminal_gets_plain_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    file = Terminal()
    with StudyProgress(Console(file=file, force_terminal=True), clock=lambda: START) as progress:
        progress.update(status(tmp_path, recent=()))
    assert "\x1b" not in file.getvalue()
    assert file.getvalue().startswith("3 of 18 done")


# --- bm3 watch ---


def ended_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def study(folder: Path, **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    moment = time.time()
    write_status(folder, status(folder, **{"started": moment - 60, "now": moment, "running": (), **changes}))
    return folder


def test_watch_shows_a_study_once(command: Command) -> None:
    write_epochs(Path("runs/table3"), best=7, last=12)
    study(Path("runs/table3").absolute(), running=(trial(since=time.time() - 30),))
    outcome = command("watch", "runs/table3", "--once")
    assert outcome.code == 0
    assert "3 of 18 done, 1 failed" in outcome.out
    assert "epoch 12 of 100" in outcome.out


def test_watch_finds_the_one_study_that_is_running_and_asks_which_of_several_is_meant(command: Command) -> None:
    study(Path("runs/done").absolute(), state="finished")
    study(Path("runs/dead").absolute(), process=ended_process())
    assert "no study is running there" in refused(command("watch", "--once"))
    study(Path("runs/live").absolute(), suite="the live one")
    assert "the live one" in command("watch", "--once").out
    study(Path("runs/other").absolute())
    said = refused(command("watch", "--once"))
    assert "2 studies are running there" in said
    assert "runs/live (running), runs/other (running)" in said


@pytest.mark.parametrize("options", [[], ["--once"]])
def test_watch_says_when_a_study_was_killed(command: Command, options: list[str]) -> None:
    study(Path("runs/table3").absolute(), process=ended_process())
    outcome = command("watch", "runs/table3", *options)
    assert outcome.code == 0
    assert outcome.out.splitlines()[-1] == (
        "the study in runs/table3 has ended without saying so (killed?); the same command goes on"
    )


def test_nothing_is_said_of_processes_on_other_hosts_or_of_a_study_that_has_ended(tmp_path: Path) -> None:
    gone = status(tmp_path, process=ended_process())
    assert vanished(gone)
    assert not vanished(replace(gone, host="elsewhere"))
    assert not vanished(replace(gone, state="interrupted"))


def test_watch_follows_a_study_until_it_has_ended(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = study(Path("runs/table3").absolute())
    looks: list[float] = []

    def look(seconds: float) -> None:
        looks.append(seconds)
        study(folder, state="finished" if len(looks) == 3 else "running", done=3 + len(looks), running=())

    monkeypatch.setattr(cli_watch.time, "sleep", look)
    outcome = command("watch", "runs/table3")
    assert outcome.code == 0
    assert looks == [1.0, 1.0, 1.0]
    assert "6 of 18 done, 1 failed, finished after" in outcome.out.splitlines()[-1]


def test_ctrl_c_leaves_the_study_alone(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = study(Path("runs/table3").absolute())
    before = (folder / STATUS).read_bytes()

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli_watch.time, "sleep", interrupt)
    outcome = command("watch", "runs/table3")
    assert (outcome.code, outcome.err) == (0, "")
    assert "3 of 18 done" in outcome.out
    assert (folder / STATUS).read_bytes() == before


# --- quantities ---


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0.2, "0 s"),
        (99.4, "99 s"),
        (99.5, "2 min"),
        (7169, "119 min"),
        (7200, "2 h 00 min"),
        (7200 + 299, "2 h 05 min"),
        (48 * 3600 + 4 * 3600, "2 d 4 h"),
    ],
)
def test_durations_have_two_units_at_most(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text
