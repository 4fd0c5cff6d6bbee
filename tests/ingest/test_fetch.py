"""Fetching original files: what comes is whole, the right one, and never in place of another. No network is used."""

import gzip
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from copy import copy
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import requests
from command_line import GIVE_UP_AFTER, Command, Outcome, refused, wait_until
from file_host import MODIFIED, Fault, Host, hosting
from filelock import FileLock
from refusals import refusal

from harness.cli.data import SOURCES, prepare_command
from harness.ingest.fetch import BLOCK, LOCK, Fetch, find_source, load_sources
from harness.paper.load import load_paper

RATINGS = bytes(range(256)) * 1200  # 300 kB: some blocks
META = gzip.compress(bytes(range(256)) * 80, mtime=0).ljust(20_000, b"\0")  # unpacked, it would be something else
FIRST = 3 * BLOCK  # where connections break off
OFF = Fault(after=FIRST)


def hashed(content: bytes) -> str:
    return sha256(content).hexdigest()


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    look_up = socket.getaddrinfo

    def here_only(host: Any, *arguments: Any, **options: Any) -> Any:
        assert host in ("127.0.0.1", b"127.0.0.1"), f"a test asked for {host}"
        return look_up(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", here_only)
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def host() -> Iterator[Host]:
    """With the two files of the data set `shop`."""
    with hosting() as host:
        host.files = {"/raw/ratings.csv": RATINGS, "/raw/texts/meta.json.gz": META}
        yield host


def write_manifest(path: Path, url: str, **changes: str) -> Path:
    """A manifest with the data set `shop` at `url`, and other fields, in TOML."""
    said = {
        "title": '"Shop"',
        "licence": '"CC0 1.0"',
        "page": '"https://shop.example/files"',
        "citation": '"Shopkeeper, Things, 2014"',
        "base": f'"{url}"',
        "prepare": '"bm3 data prepare shop --ratings {folder}/ratings.csv"',
        "files": '["ratings.csv", "texts/meta.json.gz"]',
    }
    lines = [f"{name} = {value}" for name, value in {**said, **changes}.items() if value]
    path.write_text("\n".join(["[shop]", *lines, ""]), encoding="utf-8")
    return path


@pytest.fixture
def manifest(host: Host, tmp_path: Path) -> Path:
    return write_manifest(tmp_path / "shop.toml", host.url + "/raw")


class Fetching:
    """A fetch of the file of ratings that waits for nothing, and what it said and waited."""

    def __init__(self, manifest: Path, folder: Path) -> None:
        self.manifest, self.folder, self.ratings = manifest, folder, folder / "ratings.csv"
        self.told: list[str] = []
        self.waited: list[float] = []

    def run(self, base: str | None = None, **options: Any) -> None:
        options = {"only": ("ratings.csv",), "stall": 20.0, **options}
        source = find_source("shop", self.manifest, base)
        fetch = Fetch(source, self.folder, tell=self.told.append, wait=self.waited.append, **options)
        fetch.run(fetch.survey())

    @property
    def names(self) -> set[str]:
        """What is in the folder."""
        return {path.name for path in self.folder.iterdir()} if self.folder.exists() else set()

    @property
    def record(self) -> dict[str, Any]:
        files: dict[str, Any] = json.loads((self.folder / "fetched.json").read_text())["files"]
        return files


@pytest.fixture
def fetching(manifest: Path, tmp_path: Path) -> Fetching:
    return Fetching(manifest, tmp_path / "raw")


def test_files_come_whole_and_are_recorded_and_not_asked_for_again(fetching: Fetching, host: Host) -> None:
    host.faults.append(Fault(headers={"Content-Encoding": "gzip"}))  # what a host says of a .gz file
    fetching.run(only=("meta.json.gz", "ratings.csv"))
    assert fetching.names == {"ratings.csv", "meta.json.gz", "fetched.json"}
    assert fetching.ratings.read_bytes() == RATINGS
    assert (fetching.folder / "meta.json.gz").read_bytes() == META
    entry = fetching.record["ratings.csv"]
    assert (entry["url"], entry["bytes"]) == (f"{host.url}/raw/ratings.csv", len(RATINGS))
    assert entry["sha256"] == hashed(RATINGS)
    assert entry["when"].endswith("+00:00")
    record, asked = (fetching.folder / "fetched.json").read_bytes(), len(host.asked)
    fetching.run(only=())
    assert len(host.asked) == asked
    assert (fetching.folder / "fetched.json").read_bytes() == record


def test_a_connection_that_breaks_off_or_stalls_is_gone_on_with(fetching: Fetching, host: Host) -> None:
    host.faults.extend([OFF, Fault(after=BLOCK, stall=True)])
    fetching.run(stall=0.4)
    assert host.ranges == [None, f"bytes={FIRST}-", f"bytes={FIRST + BLOCK}-"]
    assert host.gets[1].condition == f'"{hashed(RATINGS)[:16]}"'
    assert fetching.ratings.read_bytes() == RATINGS
    assert "the connection broke off" in fetching.told[0]
    assert "no byte for 0.4 s" in fetching.told[1]


@pytest.mark.parametrize(
    ("fault", "ranges"),
    [
        (Fault(whole=True), [f"bytes={FIRST}-"]),
        (Fault(headers={"Content-Range": f"bytes 0-9/{len(RATINGS)}"}), [f"bytes={FIRST}-", None]),
        (Fault(headers={"Content-Range": f"bytes {FIRST}-9/{len(RATINGS) + 1}"}), [f"bytes={FIRST}-", None]),
        (Fault(headers={"Content-Range": None}), [f"bytes={FIRST}-", None]),
        (Fault(headers={"ETag": '"other"'}), [f"bytes={FIRST}-", None]),
    ],
    ids=["ranges ignored", "another place", "another size", "no range", "another file, conditions ignored"],
)
def test_what_is_of_another_file_is_not_appended(
    fetching: Fetching, host: Host, fault: Fault, ranges: list[str | None]
) -> None:
    host.faults.extend([OFF, fault])
    fetching.run()
    assert host.ranges == [None, *ranges]
    assert fetching.ratings.read_bytes() == RATINGS
    assert any("begins again" in line or "comes from the beginning" in line for line in fetching.told)


MARKS: dict[str, tuple[Any, str | None]] = {
    "tag": (lambda body: f'"{hashed(body)[:16]}"', MODIFIED),
    "weak tag": (lambda body: f'W/"{hashed(body)[:16]}"', MODIFIED),
    "date": (lambda body: None, MODIFIED),
    "same tag": (lambda body: '"the same"', None),
    "none": (lambda body: None, None),
}
ON = f"bytes={FIRST}-"
LONGER, SHORTER = b"another file " * 30_000, RATINGS[: FIRST - 5]


@pytest.mark.parametrize(
    ("marked_by", "content", "kept", "base", "range_"),
    [
        *[(mark, RATINGS, {}, "raw", ON) for mark in ("tag", "weak tag", "date")],
        *[(mark, other, {}, "raw", ON) for mark in ("tag", "weak tag", "date") for other in (LONGER, SHORTER)],
        ("none", RATINGS, {}, "raw", None),
        ("tag", RATINGS, {".part.json": b""}, "raw", None),
        ("tag", RATINGS, {".part.json": b'{"url": "u", "condition": null, "total": 9}'}, "raw", None),
        ("tag", RATINGS, {".part": RATINGS}, "raw", "not asked"),  # killed after the last byte
        ("same tag", bytes(len(RATINGS)), {}, "mirror", None),
    ],
)
def test_the_next_command_goes_on_only_with_what_is_the_same_file(
    fetching: Fetching,
    host: Host,
    marked_by: str,
    content: bytes,
    kept: dict[str, bytes],
    base: str,
    range_: str | None,
) -> None:
    host.tag, host.modified = MARKS[marked_by]
    host.faults.append(OFF)
    message = refusal(lambda: fetching.run(retries=0))
    assert f"{FIRST:,} bytes are kept in {fetching.ratings}.part" in message
    assert "--base-url" in message
    assert fetching.names == {"ratings.csv.part", "ratings.csv.part.json"}
    for ending, changed in kept.items():
        (fetching.folder / f"ratings.csv{ending}").write_bytes(changed)
    host.files[f"/{base}/ratings.csv"] = content
    if content != RATINGS and host.modified:
        host.modified = "Thu, 02 Jan 2014 00:00:00 GMT"
    fetching.run(base=f"{host.url}/{base}/")
    assert host.ranges == ([None] if range_ == "not asked" else [None, range_])
    assert fetching.ratings.read_bytes() == content
    assert fetching.names == {"ratings.csv", "fetched.json"}


def test_what_may_pass_is_tried_again_with_longer_pauses(fetching: Fetching, host: Host) -> None:
    host.faults.extend([*[Fault(status=status) for status in (429, 500, 503)], OFF, Fault(status=502)])
    fetching.run(retries=3)
    assert fetching.waited == [1, 2, 4, 1, 2]
    assert fetching.ratings.read_bytes() == RATINGS


@pytest.mark.parametrize(
    ("fault", "said", "waited"),
    [
        (Fault(status=503), "503 (Service Unavailable)", [1, 2]),
        (Fault(whole=True, after=FIRST), "connection broke off; 196,608", [1, 2]),  # always from the beginning
        (None, "Connection refused", [1, 2]),
        (Fault(status=404), "the server answers 404 (Not Found)", []),
        (Fault(status=302, headers={"Location": "ftp://127.0.0.1/x"}), "cannot be asked for", []),
        (Fault(status=302, headers={"Location": "/raw/ratings.csv"}), "redirects", []),
    ],
)
def test_retries_end_and_what_does_not_pass_is_said_at_once_and_leaves_nothing(
    fetching: Fetching, host: Host, fault: Fault | None, said: str, waited: list[float]
) -> None:
    host.faults.extend([fault] * 40 if fault else ())
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        base = f"{host.url}/raw" if fault else f"http://127.0.0.1:{unused.getsockname()[1]}"
        message = refusal(lambda: fetching.run(retries=2, base=base))
    assert message.startswith(f"{base}/ratings.csv: ")
    assert said in message
    assert "--manifest" in message
    assert fetching.waited == waited
    assert fetching.folder.exists() == ("196,608" in said)


def test_a_later_copy_that_differs_is_kept_aside_and_can_be_accepted(fetching: Fetching, host: Host) -> None:
    fetching.run()
    record = fetching.record
    fetching.ratings.write_bytes(META)  # changed on disk: named and left
    message = refusal(fetching.run)
    assert hashed(RATINGS) in message
    assert hashed(META) in message
    assert fetching.ratings.read_bytes() == META
    fetching.ratings.unlink()
    host.files["/raw/ratings.csv"] = META
    message = refusal(fetching.run)
    aside = fetching.folder / f"ratings.csv.mismatch-{hashed(META)[:8]}"
    assert all(part in message for part in (hashed(RATINGS), hashed(META), str(aside), "fetched.json says"))
    assert aside.read_bytes() == META
    assert fetching.names == {"fetched.json", aside.name}
    assert fetching.record == record
    aside.rename(fetching.ratings)
    assert "--checksum says" in refusal(lambda: fetching.run(checksums={"ratings.csv": hashed(b"other")}))
    fetching.run(checksums={"ratings.csv": hashed(META)})
    assert fetching.record["ratings.csv"]["sha256"] == hashed(META)
    fetching.run()


def test_a_file_that_was_there_before_is_trusted_if_it_is_as_large_as_the_hosts(fetching: Fetching) -> None:
    fetching.folder.mkdir()
    fetching.ratings.write_bytes(RATINGS[:1000])
    assert "1,000 bytes, and http" in refusal(fetching.run)
    assert fetching.names == {"ratings.csv"}
    fetching.ratings.write_bytes(bytes(len(RATINGS)))
    fetching.run()
    assert fetching.record["ratings.csv"]["url"] is None
    assert fetching.record["ratings.csv"]["sha256"] == hashed(bytes(len(RATINGS)))


def test_redirects_are_followed_but_not_to_http_and_that_an_end_may_be_missing_is_said(
    fetching: Fetching, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.files["/moved"] = RATINGS
    host.faults.append(Fault(status=301, headers={"Location": "/moved"}))
    host.faults.append(Fault(headers={"Content-Length": None, "Connection": "close"}))
    fetching.run()
    assert fetching.ratings.read_bytes() == RATINGS
    assert fetching.record["ratings.csv"]["url"] == f"{host.url}/raw/ratings.csv"
    assert any("does not say how long it is" in line for line in fetching.told)
    fetching.ratings.unlink()
    plain, ask = f"{host.url}/moved", requests.request
    monkeypatch.setattr(requests, "request", lambda method, url, **options: ask(method, plain, **options))
    assert "which is not https" in refusal(lambda: fetching.run(base="https://127.0.0.1/raw"))


def test_a_full_disk_keeps_what_has_come_and_only_one_command_fetches_into_a_folder(
    fetching: Fetching, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        if (fetching.folder / "ratings.csv.part.json").exists():  # only the file itself finds no room
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert "No space left on device" in refusal(fetching.run)
    with FileLock(fetching.folder / LOCK):
        assert "another command is fetching into it" in refusal(fetching.run)
    fetching.run()
    assert fetching.ratings.read_bytes() == RATINGS
    assert len(host.gets) == 1


@pytest.mark.parametrize("name", ["ratings.csv", "ratings.csv.part", "ratings.csv.part.json"])
def test_links_and_folders_in_place_of_files_are_refused(fetching: Fetching, tmp_path: Path, name: str) -> None:
    fetching.folder.mkdir()
    (tmp_path / "precious").write_text("mine")
    (fetching.folder / name).symlink_to(tmp_path / "precious")
    assert f"{fetching.folder / name}: is no plain file" in refusal(fetching.run)
    assert (tmp_path / "precious").read_text() == "mine"
    (fetching.folder / name).unlink()
    (fetching.folder / name).mkdir()
    assert f"{fetching.folder / name}: is no plain file" in refusal(fetching.run)


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"format": 2}', '{"format": 1, "files": {"r.csv": {"url": null}}}']
)
def test_a_damaged_record_is_refused_and_left(fetching: Fetching, host: Host, content: str) -> None:
    fetching.folder.mkdir()
    record = fetching.folder / "fetched.json"
    record.write_text(content)
    assert str(record) in refusal(fetching.run)
    assert record.read_text() == content
    assert host.asked == []


# --- manifests ---


def test_the_files_of_every_data_set_are_those_its_prepare_command_reads() -> None:
    sources = load_sources(load_paper().file(SOURCES))
    assert list(sources) == ["baby", "sports", "electronics"]
    for name, source in sources.items():
        words = source.prepare_command(Path("/raw")).split()
        assert words[:3] == ["bm3", "data", "prepare"]
        asked = copy(prepare_command).make_context("prepare", words[3:]).params
        assert asked["name"] == name
        assert {asked[kind] for kind in ("ratings", "metadata", "images")} == {
            Path("/raw") / place.rpartition("/")[2] for place in source.files
        }


ELSEWHERE = ("../x", "a/../b", "/etc/passwd", "a//b", ".hidden", "a\\\\b", "a b", "x/", "a?b", "a%2e", "é")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("files", f'["{path}"]') for path in ELSEWHERE],
        *[("base", f'"{url}"') for url in ("ftp://h/x", "https:///x", "https://h/x?a=b", "https://me:it@h/x", "h/a")],
        ("licence", '"\\u001b[2J"'),
        ("licence", ""),
        ("title", "3"),
        ("files", "[]"),
        ("files", "[3]"),
        ("colour", '"red"'),
    ],
)
def test_a_manifest_with_an_error_is_refused_with_the_field(tmp_path: Path, field: str, value: str) -> None:
    manifest = write_manifest(tmp_path / "shop.toml", "https://h/x", **{field: value})
    assert f"{manifest}: shop.{field}" in refusal(lambda: load_sources(manifest))


@pytest.mark.parametrize("content", [b"[shop", b"\xff", b"x = 1", b"['../x']\n"])
def test_what_is_no_manifest_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.toml").write_bytes(content)
    assert str(tmp_path / "m.toml") in refusal(lambda: load_sources(tmp_path / "m.toml"))


# --- the command ---


@pytest.fixture
def fetch_data(command: Command, manifest: Path) -> Command:
    """`bm3 data fetch shop` by the manifest, and more arguments."""

    def run(*arguments: object, name: str = "shop") -> Outcome:
        return command("data", "fetch", name, "--manifest", manifest, *arguments)

    return run


def test_the_terms_come_first_and_the_next_command_last(
    fetch_data: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BM3_DATA", str(tmp_path))
    outcome = fetch_data()
    assert outcome.code == 0
    folder = tmp_path / "raw" / "shop"
    lines = outcome.out.splitlines()
    assert lines[:2] == ["Shop", "licence: CC0 1.0"]
    assert lines[3] == "please cite: Shopkeeper, Things, 2014"
    assert lines[-2:] == [f"fetched: {folder}", f"next: bm3 data prepare shop --ratings {folder}/ratings.csv"]
    assert any(line.endswith("ratings.csv (307.2 kB)") for line in lines)
    assert (folder / "ratings.csv").read_bytes() == RATINGS
    assert "recorded, and later copies must equal it" in outcome.err


def test_a_dry_run_asks_for_sizes_and_writes_nothing(fetch_data: Command, host: Host) -> None:
    del host.files["/raw/texts/meta.json.gz"]
    outcome = fetch_data("--dry-run")
    assert outcome.code == 0
    assert f"{host.url}/raw/ratings.csv (307.2 kB)" in outcome.out
    assert "meta.json.gz (size not known)" in outcome.out
    assert {asked.method for asked in host.asked} == {"HEAD"}
    assert list(Path.cwd().iterdir()) == []


def test_folder_file_host_and_checksum_can_be_chosen(fetch_data: Command, host: Host, tmp_path: Path) -> None:
    host.files["/new/ratings.csv"] = META
    elsewhere = ("--base-url", f"{host.url}/new/", "--only", "ratings.csv", "--out", tmp_path / "x y")
    outcome = fetch_data(*elsewhere, "--checksum", f"ratings.csv={hashed(META).upper()}")
    assert "next:" not in outcome.out
    assert (tmp_path / "x y" / "ratings.csv").read_bytes() == META
    assert fetch_data(*elsewhere, "--checksum", f"ratings.csv={hashed(RATINGS)}").code == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--only", "x.csv"), "no file 'x.csv' in Shop; there are: ratings.csv, meta.json.gz"),
        (("--checksum", f"x.csv={'0' * 64}"), "no file 'x.csv'"),
        (("--checksum", "ratings.csv=12"), "FILE=SHA256"),
        (("--base-url", "h/x"), "--base-url 'h/x'"),
        (("--manifest", "nowhere.toml"), "No such file"),
    ],
)
def test_bad_input_of_the_command_is_one_line(
    fetch_data: Command, command: Command, host: Host, arguments: tuple[object, ...], said: str
) -> None:
    assert said in refused(fetch_data(*arguments))
    assert "nearest: baby" in refused(command("data", "fetch", "babby"))
    assert host.asked == []
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_a_command_that_is_stopped_is_gone_on_with(
    fetch_data: Command, manifest: Path, host: Host, tmp_path: Path, number: signal.Signals
) -> None:
    host.faults.append(Fault(after=FIRST, stall=True))
    program = """
import signal
from harness.__main__ import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background would ignore it
main()
"""
    folder = tmp_path / "raw"
    arguments = ["data", "fetch", "shop", "--manifest", str(manifest), "--out", str(folder), "--only", "ratings.csv"]
    with subprocess.Popen([sys.executable, "-c", program, *arguments], stderr=subprocess.PIPE, text=True) as process:
        part = folder / "ratings.csv.part"
        # Buffered bytes are written when the file is closed, which SIGKILL prevents.
        wait_until(lambda: process.poll() is not None or (part.exists() and part.stat().st_size >= FIRST - BLOCK))
        process.send_signal(number)
        _, error = process.communicate(timeout=GIVE_UP_AFTER)
    if number is signal.SIGKILL:
        assert process.returncode == -number
    else:
        assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[number]
        last = error.splitlines()[-1]
        assert last == f"bm3: interrupted: {FIRST:,} bytes are kept in {part}; the same command goes on"
    kept = part.stat().st_size
    assert not (folder / "ratings.csv").exists()
    assert fetch_data("--out", folder, "--only", "ratings.csv").code == 0
    assert host.gets[-1].range == f"bytes={kept}-"
    assert (folder / "ratings.csv").read_bytes() == RATINGS
