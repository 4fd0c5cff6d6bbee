"""The index of a store changes what is read, and never what is answered."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import run_files
from hypothesis import given
from hypothesis import strategies as st

from harness.runs import index
from harness.runs.index import INDEX, entries
from harness.runs.inspect import Entry, entry, key_below
from harness.runs.record import EPOCHS, FAILURE, RESULT, RUN
from harness.runs.store import LOCK, SUPERSEDED, run_folders, run_lock

RUNS, TICK = 6, 0.02  # seconds, more than that of any file system's clock that tests run on


def write_run(path: Path, seed: int) -> None:
    path.mkdir(parents=True)
    (path / RUN).write_text(json.dumps({**run_files.DESCRIPTION, "seed": seed}))
    (path / RESULT).write_text(json.dumps(run_files.RESULT))
    (path / EPOCHS).write_text(json.dumps(run_files.EPOCH) + "\n")


def fill(store: Path) -> Path:
    for seed in range(RUNS):
        write_run(store / "mini" / f"bpr-{seed:010x}-seed{seed}", seed)
    return store


def settle() -> None:
    """Wait until what was written is old enough to be trusted."""
    time.sleep(2 * TICK)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores of any size have an index, of files that are older than a tick."""
    for name, value in (("LEAST", 1), ("SHARE", 10**9), ("MARGIN", TICK)):
        monkeypatch.setattr(index, name, value)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    fill(tmp_path)
    settle()
    return tmp_path


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keys of the runs that were read, and not taken out of an index."""
    keys: list[str] = []

    def noted(path: Path, key: str) -> Entry:
        keys.append(key)
        return entry(path, key)

    monkeypatch.setattr(index, "entry", noted)
    return keys


def afresh(store: Path) -> list[Entry]:
    """Every run as it is read without an index."""
    return [entry(path, key_below(store, path)) for path in run_folders(store)]


def edit(file: Path, change: Callable[[bytes], bytes]) -> None:
    """In place, so that the file keeps its inode."""
    with file.open("r+b") as opened:
        content = change(opened.read())
        opened.seek(0)
        opened.write(content)
        opened.truncate()


def test_what_was_read_once_is_not_read_again_unless_it_changes(store: Path, read: list[str]) -> None:
    first = entries(store)
    assert len(read) == RUNS
    assert entries(store) == first == afresh(store)
    assert len(read) == RUNS
    edit(first[2].path / RESULT, lambda content: content.replace(b"0.5", b"0.4"))
    write_run(store / "baby" / "bpr-new", 9)
    shutil.rmtree(first[0].path)
    settle()
    assert (entries(store), read[RUNS:]) == (afresh(store), ["baby/bpr-new", first[2].key])
    assert (entries(store), len(read)) == (afresh(store), RUNS + 2)


def test_a_small_store_has_no_index(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "LEAST", RUNS + 1)
    assert entries(store, lambda number: pytest.fail("so few are shown")) == afresh(store)
    assert not (store / INDEX).exists()


def test_an_edit_to_the_same_size_whose_time_is_set_back_is_seen(store: Path) -> None:
    file = entries(store)[1].path / RESULT
    before = file.stat()
    edit(file, lambda content: content.replace(b"0.5", b"0.4"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    settle()
    after = file.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)
    assert entries(store)[1].test == 0.4


def test_what_changed_a_moment_ago_is_read_and_not_kept(store: Path, read: list[str]) -> None:
    edit(store / "mini" / f"bpr-{0:010x}-seed0" / RUN, lambda content: content)
    fresh, *_ = (entries(store), entries(store))[0]
    assert read.count(fresh.key) == 2
    assert len(read) == RUNS + 1


def test_damaged_runs_are_read_each_time_and_named_as_the_store_is(store: Path, read: list[str]) -> None:
    damaged = store / "mini" / f"bpr-{0:010x}-seed0"
    (damaged / RUN).write_text("{")
    settle()
    for _ in range(2):
        assert str(damaged / RUN) in entries(store)[0].reason
    assert read.count(read[0]) == 2


def test_who_writes_a_run_is_seen_though_the_run_is_known(store: Path, read: list[str]) -> None:
    path = entries(store)[0].path
    (path / RESULT).unlink()
    (path / LOCK).touch()
    settle()
    assert entries(store)[0].state == "unfinished"
    with run_lock(path):
        assert entries(store)[0].state == "running"
    assert entries(store)[0].state == "unfinished"
    assert read.count(f"mini/{path.name}") == 3


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: b"",
        lambda content: content[:-2],
        lambda content: content.replace(b"0.5", b"0.6", 1),
        lambda content: content.replace(b'"bpr"', b'"bp\xff"', 1),
        lambda content: b"0" * 64 + content[64:],
        lambda content: content.partition(b"\n")[2],
    ],
)
def test_a_damaged_index_says_nothing_and_is_made_anew(
    store: Path, read: list[str], spoil: Callable[[bytes], bytes]
) -> None:
    first = entries(store)
    whole = (store / INDEX).read_bytes()
    (store / INDEX).write_bytes(spoil(whole))
    assert entries(store) == first
    assert len(read) == 2 * RUNS
    assert (store / INDEX).read_bytes() == whole


def test_where_it_cannot_be_written_nothing_else_changes(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(index, "write_whole", full)
    assert entries(store) == afresh(store)
    assert not (store / INDEX).exists()


def test_what_was_read_before_an_interruption_stays_known(store: Path, read: list[str]) -> None:
    @contextmanager
    def interrupting(number: int) -> Iterator[Callable[[int], None]]:
        assert number == RUNS

        def tell(done: int) -> None:
            if done == 4:
                raise KeyboardInterrupt

        yield tell

    with pytest.raises(KeyboardInterrupt):
        entries(store, interrupting)
    assert entries(store) == afresh(store)
    assert len(read) == RUNS


def test_several_at_once_answer_the_same(store: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = [*pool.map(entries, [store] * 8)]
    assert found == [afresh(store)] * 8
    assert [path.name for path in store.iterdir() if path.is_file()] == [INDEX]


# --- anything that may happen to a store ---


def of_run(change: Callable[[Path], Any]) -> Callable[[Path, int], None]:
    def changed(store: Path, number: int) -> None:
        folders = [*run_folders(store)]
        if folders:
            change(folders[number % len(folders)])

    return changed


def of_file(name: str, change: Callable[[bytes], bytes], *, set_back: bool = False) -> Callable[[Path, int], None]:
    def changed(path: Path) -> None:
        if (path / name).is_file():
            before = (path / name).stat()
            edit(path / name, change)
            if set_back:
                os.utime(path / name, ns=(before.st_atime_ns, before.st_mtime_ns))

    return of_run(changed)


def other_figure(content: bytes) -> bytes:
    return content.translate(bytes.maketrans(b"45", b"54"))


def restore(path: Path) -> None:
    """As from a backup that has it otherwise: same sizes, same times, other files."""
    shutil.copytree(path, aside := path.parent.parent / SUPERSEDED / path.name)
    edit(aside / RUN, lambda content: content.replace(b'"bpr"', b'"bm3"'))
    shutil.copystat(path / RUN, aside / RUN)
    shutil.rmtree(path)
    aside.rename(path)


def old_index(store: Path, number: int) -> None:
    """An index of earlier takes the place of today's, or becomes that."""
    there, old = store / INDEX, store / "old"
    if number % 2 and old.is_file():
        shutil.copy2(old, there)
    elif there.is_file():
        shutil.copy2(there, old)


OPERATIONS: dict[str, Callable[[Path, int], Any]] = {
    "look": lambda store, number: entries(store),
    "wait": lambda store, number: settle(),
    "add": lambda store, number: write_run(store / "mini" / f"bpr-{time.time_ns():x}", number),
    "delete": of_run(shutil.rmtree),
    "rename": of_run(lambda path: path.rename(path.with_name(f"{path.name}x"))),
    "restore": of_run(restore),
    "edit a result": of_file(RESULT, other_figure),
    "edit a result and set its time back": of_file(RESULT, other_figure, set_back=True),
    "edit epochs": of_file(EPOCHS, lambda content: content.replace(b"1.0", b"2.5"), set_back=True),
    "truncate a result": of_file(RESULT, lambda content: content[:-9]),
    "truncate a description": of_file(RUN, lambda content: content[:-9]),
    "remove a result": of_run(lambda path: (path / RESULT).unlink(missing_ok=True)),
    "remove epochs": of_run(lambda path: (path / EPOCHS).unlink(missing_ok=True)),
    "fail": of_run(lambda path: (path / FAILURE).write_text('{"kind": "error", "message": "x", "when": "now"}')),
    "flip a bit of the index": lambda store, number: (
        (store / INDEX).is_file()
        and edit(store / INDEX, lambda content: content[:number] + bytes([content[number] ^ 1]) + content[number + 1 :])
    ),
    "an old index": old_index,
}


@given(st.lists(st.tuples(st.sampled_from(sorted(OPERATIONS)), st.integers(0, 60)), min_size=3, max_size=12))
def test_whatever_happens_to_a_store_the_answers_are_those_without_an_index(done: list[tuple[str, int]]) -> None:
    with TemporaryDirectory() as folder:
        store = fill(Path(folder))
        settle()
        entries(store)
        for name, number in done:
            OPERATIONS[name](store, number)
        first = [replace(one, path=Path(one.key)) for one in entries(store)]
        assert first == [replace(one, path=Path(one.key)) for one in afresh(store)]
        settle()
        assert (entries(store), entries(store)) == (afresh(store), afresh(store))
