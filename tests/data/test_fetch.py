"""Fetching original files: what comes is whole, the right one, and never in place of another. No network is used."""

import gzip
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import requests
from command_line import Command, Outcome, refused
from file_host import (
    MODIFIED,
    Host,
    alters,
    answers,
    breaks_off,
    breaks_off_unannounced,
    hosting,
    ignores_ranges,
    stalls,
    write_manifest,
)
from filelock import FileLock
from refusals import refusal
from tqdm import tqdm

from bm3 import ConfigError
from harness import cli, cli_fetch
from harness.cli_fetch import fetch_command, transfer_progress
from harness.data.fetch import LOCK, Display, fetch, make_order, new_session, survey
from harness.data.manifest import find_source, load_manifest
from harness.data.remote import BLOCK
from harness.data.transfer import Patience

RATINGS = bytes(range(256)) * 1200  # 300 kB: some blocks
META = gzip.compress(bytes(range(256)) * 80, mtime=0).ljust(20_000, b"\0")  # unpacked, it would be something else
FIRST = 3 * BLOCK  # where connections break off
GIVE_UP_AFTER = 60


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


@pytest.fixture
def manifest(host: Host, tmp_path: Path) -> Path:
    return write_manifest(tmp_path / "shop.toml", host.url + "/raw")


class Fetching(NamedTuple):
    """A fetch that waits for nothing, and what it said and waited."""

    run: Callable[..., Any]
    folder: Path
    told: list[str]
    waited: list[float]
    positions: list[int]

    @property
    def ratings(self) -> Path:
        return self.folder / "ratings.csv"

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
    """`fetching.run(only=…)` fetches the file of ratings alone unless it says otherwise."""
    told: list[str] = []
    waited: list[float] = []
    positions: list[int] = []

    class Reported:
        def __init__(self, name: str) -> None:
            self.name = name

        def __enter__(self) -> Callable[[int, int | None], None]:
            return lambda position, total: None if "checking" in self.name else positions.append(position)

        def __exit__(self, *_: object) -> None:
            pass

    def run(
        only: tuple[str, ...] = ("ratings.csv",),
        retries: int = 5,
        stall: float = 20.0,
        base: str | None = None,
        checksums: dict[str, str] | None = None,
        session: requests.Session | None = None,
    ) -> Any:
        source = find_source("shop", load_manifest(manifest))
        order = make_order(source, tmp_path / "raw", base=base, only=only, checksums=checksums or {})
        with session or new_session() as opened:
            found = survey(order, opened, stall)
            return fetch(order, found, opened, Patience(retries, stall, waited.append), Display(told.append, Reported))

    return Fetching(run, tmp_path / "raw", told, waited, positions)


def test_files_come_whole_and_are_recorded(fetching: Fetching, host: Host) -> None:
    fetching.run(only=())
    assert fetching.names == {"ratings.csv", "meta.json.gz", "fetched.json"}
    assert fetching.ratings.read_bytes() == RATINGS
    assert (fetching.folder / "meta.json.gz").read_bytes() == META
    entry = fetching.record["ratings.csv"]
    assert entry["url"] == f"{host.url}/raw/ratings.csv"
    assert (entry["bytes"], entry["sha256"]) == (len(RATINGS), hashed(RATINGS))
    assert entry["when"].endswith("+00:00")
    assert fetching.positions[-1] == len(META)


def test_what_is_there_as_recorded_is_not_asked_for_again(fetching: Fetching, host: Host) -> None:
    fetching.run(only=())
    record, asked = (fetching.folder / "fetched.json").read_bytes(), len(host.asked)
    fetching.run(only=())
    assert len(host.asked) == asked
    assert (fetching.folder / "fetched.json").read_bytes() == record


def test_a_connection_that_breaks_off_is_gone_on_with(fetching: Fetching, host: Host) -> None:
    host.faults.extend([breaks_off(FIRST), breaks_off(BLOCK)])
    fetching.run()
    assert [asked.range for asked in host.gets] == [None, f"bytes={FIRST}-", f"bytes={FIRST + BLOCK}-"]
    assert host.gets[1].condition == f'"{hashed(RATINGS)[:16]}"'
    assert fetching.ratings.read_bytes() == RATINGS
    assert fetching.positions == sorted(fetching.positions)  # never from the beginning again
    assert "the connection broke off" in fetching.told[0]


def test_the_next_command_goes_on_where_the_last_one_gave_up(fetching: Fetching, host: Host) -> None:
    host.faults.append(breaks_off(FIRST))
    message = refusal(lambda: fetching.run(retries=0))
    assert f"{FIRST:,} bytes are kept in {fetching.ratings}.part" in message
    assert "--base-url" in message
    assert fetching.names == {"ratings.csv.part", "ratings.csv.part.json"}
    fetching.run()
    assert host.gets[-1].range == f"bytes={FIRST}-"
    assert fetching.ratings.read_bytes() == RATINGS
    assert fetching.names == {"ratings.csv", "fetched.json"}


def test_a_stalled_connection_is_given_up_and_gone_on_with(fetching: Fetching, host: Host) -> None:
    host.faults.append(stalls(FIRST))
    fetching.run(stall=0.4)
    assert "no byte for 0.4 s" in fetching.told[0]
    assert host.gets[1].range == f"bytes={FIRST}-"
    assert fetching.ratings.read_bytes() == RATINGS


def test_a_host_that_ignores_ranges_sends_all_of_it_once_more(fetching: Fetching, host: Host) -> None:
    host.faults.extend([breaks_off(FIRST), ignores_ranges()])
    fetching.run()
    assert fetching.ratings.read_bytes() == RATINGS
    assert any("comes from the beginning" in line for line in fetching.told)


def test_a_host_that_always_begins_anew_and_breaks_off_is_given_up(fetching: Fetching, host: Host) -> None:
    host.faults.extend([breaks_off(FIRST), *[ignores_ranges(breaks_off(FIRST))] * 9])
    refusal(lambda: fetching.run(retries=3))
    assert len(host.gets) == 4  # the first one brought something


@pytest.mark.parametrize("validators", [True, False], ids=["with ETag", "by size alone"])
@pytest.mark.parametrize("change", [b"another file " * 30_000, RATINGS[: FIRST - 5]], ids=["longer", "shorter"])
def test_pieces_of_two_files_are_never_joined(fetching: Fetching, host: Host, validators: bool, change: bytes) -> None:
    host.validators = validators
    host.faults.append(breaks_off(FIRST))
    refusal(lambda: fetching.run(retries=0))
    host.files["/raw/ratings.csv"] = change
    fetching.run()
    assert fetching.ratings.read_bytes() == change


def test_a_changed_file_of_equal_size_is_told_by_its_tag_also_where_conditions_are_ignored(
    fetching: Fetching, host: Host
) -> None:
    host.faults.append(breaks_off(FIRST))
    refusal(lambda: fetching.run(retries=0))
    changed = bytes(len(RATINGS))
    host.files["/raw/ratings.csv"] = changed
    rest = {"Content-Range": f"bytes {FIRST}-{len(changed) - 1}/{len(changed)}", "ETag": '"other"'}
    host.faults.append(answers(206, rest | {"Content-Length": str(len(changed) - FIRST)}, changed[FIRST:]))
    fetching.run()
    assert fetching.ratings.read_bytes() == changed
    assert any("another file on the server now" in line for line in fetching.told)


@pytest.mark.parametrize(
    "headers",
    [
        {"Content_Range": f"bytes 0-9/{len(RATINGS)}"},
        {"Content_Range": f"bytes {FIRST}-9/{len(RATINGS) + 1}"},
        {"Content_Range": "pages 1-2"},
        {"Content_Range": None},
    ],
    ids=["another place", "another size", "no bytes", "none"],
)
def test_a_range_that_was_not_asked_for_is_not_appended(
    fetching: Fetching, host: Host, headers: dict[str, Any]
) -> None:
    host.faults.extend([breaks_off(FIRST), alters(**headers)])
    fetching.run()
    assert [asked.range for asked in host.gets] == [None, f"bytes={FIRST}-", None]
    assert fetching.ratings.read_bytes() == RATINGS


def test_a_host_that_says_nothing_of_a_file_is_not_gone_on_with(fetching: Fetching, host: Host) -> None:
    host.faults.append(breaks_off_unannounced(FIRST))
    fetching.run()
    assert max(fetching.positions[: fetching.positions.index(0, 1)]) > 0  # something had come
    assert [asked.range for asked in host.gets] == [None, None]
    assert fetching.ratings.read_bytes() == RATINGS


def test_a_partial_file_of_unknown_origin_is_not_gone_on_with(fetching: Fetching, host: Host) -> None:
    fetching.folder.mkdir()
    (fetching.folder / "ratings.csv.part").write_bytes(b"something else")
    fetching.run()
    assert host.gets[0].range is None
    assert fetching.ratings.read_bytes() == RATINGS


def test_a_tag_that_does_not_promise_equal_bytes_is_no_condition(fetching: Fetching, host: Host) -> None:
    host.weak = True
    host.faults.append(breaks_off(FIRST))
    fetching.run()
    assert host.gets[1].condition == MODIFIED
    assert fetching.ratings.read_bytes() == RATINGS


def test_a_partial_file_is_not_gone_on_with_from_another_host(fetching: Fetching, host: Host) -> None:
    host.validators = False  # and the sizes are equal
    host.faults.append(breaks_off(FIRST))
    refusal(lambda: fetching.run(retries=0))
    host.files["/mirror/ratings.csv"] = bytes(len(RATINGS))
    fetching.run(base=f"{host.url}/mirror")
    assert fetching.ratings.read_bytes() == bytes(len(RATINGS))


def test_a_partial_file_that_is_whole_is_not_asked_for(fetching: Fetching, host: Host) -> None:
    host.faults.append(breaks_off(FIRST))
    refusal(lambda: fetching.run(retries=0))
    (fetching.folder / "ratings.csv.part").write_bytes(RATINGS)  # killed after the last byte
    fetching.run()
    assert len(host.gets) == 1
    assert fetching.ratings.read_bytes() == RATINGS


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_what_may_pass_is_tried_again(fetching: Fetching, host: Host, status: int) -> None:
    host.faults.extend([answers(status)] * 3)
    fetching.run()
    assert fetching.waited == [1, 2, 4]
    assert f"the server answers {status}" in fetching.told[0]
    assert fetching.ratings.read_bytes() == RATINGS


def test_the_pause_a_server_asks_for_is_made(fetching: Fetching, host: Host) -> None:
    host.faults.append(answers(503, {"Retry-After": "90"}))
    host.faults.append(answers(503, {"Retry-After": "100000"}))
    host.faults.append(answers(503, {"Retry-After": "tomorrow"}))
    fetching.run()
    assert fetching.waited == [90, 600, 4]


def test_pauses_are_doubled_to_a_minute() -> None:
    assert [Patience().pause(failures, None) for failures in range(1, 9)] == [1, 2, 4, 8, 16, 32, 60, 60]


def test_progress_takes_failures_back(fetching: Fetching, host: Host) -> None:
    host.faults.extend([answers(500), breaks_off(FIRST), answers(500), breaks_off(BLOCK), answers(500)])
    fetching.run(retries=2)
    assert fetching.waited == [1, 1, 2, 1, 2]


def test_retries_end(fetching: Fetching, host: Host) -> None:
    host.faults.extend([answers(503)] * 9)
    message = refusal(lambda: fetching.run(retries=2))
    assert "503 (Service Unavailable)" in message
    assert "kept" not in message
    assert len(host.gets) == 3
    assert not fetching.folder.exists()


def test_a_missing_file_is_said_at_once_and_works_when_it_is_there(fetching: Fetching, host: Host) -> None:
    host.faults.append(answers(404))
    message = refusal(fetching.run)
    assert f"{host.url}/raw/ratings.csv: the server answers 404 (Not Found)" in message
    assert "--base-url" in message
    assert "--manifest" in message
    assert fetching.waited == []
    assert fetching.names == set()
    fetching.run()
    assert fetching.ratings.read_bytes() == RATINGS


def test_nobody_there_is_said_in_one_line(fetching: Fetching) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    message = refusal(lambda: fetching.run(retries=1, base=f"http://127.0.0.1:{port}"))
    assert "Connection refused" in message
    assert fetching.waited == [1]


def test_redirects_are_followed_and_the_url_of_the_manifest_recorded(fetching: Fetching, host: Host) -> None:
    host.files["/moved/to/here"] = RATINGS
    host.faults.extend([answers(301, {"Location": "/moved"}), answers(302, {"Location": f"{host.url}/moved/to/here"})])
    fetching.run()
    assert fetching.names == {"ratings.csv", "fetched.json"}
    assert fetching.record["ratings.csv"]["url"] == f"{host.url}/raw/ratings.csv"


@pytest.mark.parametrize("target", ["ftp://127.0.0.1/x", "file:///etc/hosts", "javascript:1"])
def test_redirects_lead_to_no_other_kind_of_place(fetching: Fetching, host: Host, target: str) -> None:
    host.faults.append(answers(302, {"Location": target}))
    assert "redirects from" in refusal(fetching.run)
    assert fetching.names == set()


def test_endless_redirects_end(fetching: Fetching, host: Host) -> None:
    host.faults.extend([answers(302, {"Location": "/raw/ratings.csv"})] * 50)
    assert "redirects more than 10 times" in refusal(fetching.run)


def test_redirects_do_not_lead_from_https_to_http(fetching: Fetching, host: Host) -> None:
    class Secure(requests.adapters.BaseAdapter):
        """A host with TLS that knows better places."""

        def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
            response = requests.Response()
            response.status_code, response.url, response.request = 302, str(request.url), request
            response.headers["Location"] = f"{host.url}/raw/ratings.csv"
            return response

        def close(self) -> None:
            pass

    session = new_session()
    session.mount("https://", Secure())
    message = refusal(lambda: fetching.run(base="https://127.0.0.1/raw", session=session))
    assert "which is not https" in message
    assert host.asked == []


def test_a_file_called_compressed_by_its_host_is_stored_as_it_is(fetching: Fetching, host: Host) -> None:
    host.faults.append(alters(Content_Encoding="gzip"))
    fetching.run(only=("meta.json.gz",))
    assert len(host.gets) == 1
    assert (fetching.folder / "meta.json.gz").read_bytes() == META


def test_a_later_copy_that_differs_is_kept_aside_and_named_with_both_hashes(fetching: Fetching, host: Host) -> None:
    fetching.run()
    record = fetching.record
    fetching.ratings.unlink()
    corrupted = RATINGS[:-1] + b"!"
    host.files["/raw/ratings.csv"] = corrupted
    message = refusal(fetching.run)
    assert hashed(RATINGS) in message
    assert hashed(corrupted) in message
    aside = fetching.folder / f"ratings.csv.mismatch-{hashed(corrupted)[:8]}"
    assert str(aside) in message
    assert aside.read_bytes() == corrupted
    assert fetching.names == {"fetched.json", aside.name}
    assert fetching.record == record
    host.files["/raw/ratings.csv"] = RATINGS
    fetching.run()
    assert fetching.ratings.read_bytes() == RATINGS


def test_what_was_kept_aside_can_be_accepted(fetching: Fetching, host: Host) -> None:
    fetching.run()
    fetching.ratings.unlink()
    host.files["/raw/ratings.csv"] = META
    refusal(fetching.run)
    (fetching.folder / f"ratings.csv.mismatch-{hashed(META)[:8]}").rename(fetching.ratings)
    fetching.run(checksums={"ratings.csv": hashed(META)})
    assert fetching.record["ratings.csv"]["sha256"] == hashed(META)
    fetching.run()


def test_a_file_that_changed_on_disk_is_named_and_left(fetching: Fetching, host: Host) -> None:
    fetching.run()
    fetching.ratings.write_bytes(META)
    gets = len(host.gets)
    message = refusal(fetching.run)
    assert hashed(RATINGS) in message
    assert hashed(META) in message
    assert fetching.ratings.read_bytes() == META
    assert len(host.gets) == gets


def test_a_file_that_was_there_before_is_recorded_as_of_unknown_origin(fetching: Fetching, host: Host) -> None:
    fetching.folder.mkdir()
    fetching.ratings.write_bytes(RATINGS)
    fetching.run()
    assert host.gets == []
    assert fetching.record["ratings.csv"]["url"] is None
    assert fetching.record["ratings.csv"]["sha256"] == hashed(RATINGS)


def test_a_file_that_was_there_before_with_another_size_than_the_hosts_is_not_trusted(fetching: Fetching) -> None:
    fetching.folder.mkdir()
    fetching.ratings.write_bytes(RATINGS[:1000])
    assert "1,000 bytes, and http" in refusal(fetching.run)
    assert fetching.names == {"ratings.csv"}


def test_a_checksum_of_the_user_is_enforced_on_the_first_copy(fetching: Fetching) -> None:
    message = refusal(lambda: fetching.run(checksums={"ratings.csv": hashed(META)}))
    assert hashed(RATINGS) in message
    assert f"--checksum says {hashed(META)}" in message
    assert fetching.names == {f"ratings.csv.mismatch-{hashed(RATINGS)[:8]}"}
    fetching.run(checksums={"ratings.csv": hashed(RATINGS)})
    assert fetching.ratings.read_bytes() == RATINGS


def test_a_checksum_of_the_manifest_is_enforced_and_cannot_be_overruled(
    fetching: Fetching, manifest: Path, host: Host
) -> None:
    write_manifest(manifest, f"{host.url}/raw", f', sha256 = "{hashed(META)}"')
    message = refusal(fetching.run)
    assert f"the manifest says {hashed(META)}" in message
    assert "--checksum" not in message
    other = {"ratings.csv": hashed(RATINGS)}
    assert "the manifest" in refusal(lambda: fetching.run(checksums=other), ConfigError)


@pytest.mark.parametrize(
    "said",
    [f", bytes = {len(RATINGS) - 1}", f", bytes = {len(RATINGS) + 1}", f", max_bytes = {len(RATINGS) - 1}"],
    ids=["more than said", "less than said", "more than admitted"],
)
@pytest.mark.parametrize("chunked", [False, True], ids=["size known", "size found out"])
def test_a_size_that_the_manifest_does_not_admit_is_refused(
    fetching: Fetching, manifest: Path, host: Host, said: str, chunked: bool
) -> None:
    write_manifest(manifest, f"{host.url}/raw", said)
    if chunked:
        host.faults.extend([alters(Content_Length=None, Connection="close")] * 9)
    assert refusal(lambda: fetching.run(retries=1))
    assert "ratings.csv" not in fetching.names
    assert "fetched.json" not in fetching.names


def test_a_file_that_does_not_end_is_given_up_at_the_limit(fetching: Fetching, manifest: Path, host: Host) -> None:
    write_manifest(manifest, f"{host.url}/raw", f", max_bytes = {2 * BLOCK}")
    host.faults.append(alters(Content_Length=None, Connection="close"))
    assert f"more than the {2 * BLOCK:,} bytes that the manifest admits" in refusal(fetching.run)
    assert max(fetching.positions) == 2 * BLOCK
    assert fetching.names == set()


def test_files_within_the_limits_of_the_manifest_come(fetching: Fetching, manifest: Path, host: Host) -> None:
    said = f', bytes = {len(RATINGS)}, max_bytes = {len(RATINGS)}, sha256 = "{hashed(RATINGS)}"'
    write_manifest(manifest, f"{host.url}/raw", said)
    host.faults.append(alters(Content_Length=None, Connection="close"))
    fetching.run()
    assert fetching.ratings.read_bytes() == RATINGS


def test_that_an_end_may_be_missing_is_said_where_no_size_is_known(fetching: Fetching, host: Host) -> None:
    host.faults.append(alters(Content_Length=None, Connection="close"))
    fetching.run()
    assert any("does not say how long it is" in line for line in fetching.told)


def test_a_disk_that_is_too_small_is_said_before_anything_is_fetched(
    fetching: Fetching, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, len(RATINGS) - 1))  # type: ignore[attr-defined]
    message = refusal(fetching.run)
    assert f"{len(RATINGS):,} bytes are still to come and {len(RATINGS) - 1:,} are free" in message
    assert host.gets == []
    assert not fetching.folder.exists()


def test_a_disk_that_becomes_full_keeps_what_has_come(
    fetching: Fetching, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    host.faults.append(breaks_off(FIRST))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert "No space left on device" in refusal(fetching.run)
    fetching.run()
    assert fetching.ratings.read_bytes() == RATINGS


def test_two_commands_do_not_fetch_into_one_folder(fetching: Fetching, host: Host) -> None:
    fetching.folder.mkdir()
    with FileLock(fetching.folder / LOCK):
        assert "another command is fetching into it" in refusal(fetching.run)
    assert host.gets == []
    fetching.run()


def test_a_link_in_place_of_a_partial_file_is_not_followed(fetching: Fetching, tmp_path: Path) -> None:
    fetching.folder.mkdir()
    (tmp_path / "precious").write_text("mine")
    (fetching.folder / "ratings.csv.part").symlink_to(tmp_path / "precious")
    assert "ratings.csv.part: is no file of this command" in refusal(fetching.run)
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_folder_in_place_of_a_file_is_refused(fetching: Fetching) -> None:
    fetching.ratings.mkdir(parents=True)
    assert f"{fetching.ratings}: is no file" in refusal(fetching.run)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{", '{"format": 2}', '{"format": 1, "files": {"ratings.csv": {"url": null}}}'],
    ids=["empty", "a list", "cut off", "another format", "a field missing"],
)
def test_a_damaged_record_is_refused_and_left(fetching: Fetching, host: Host, content: str) -> None:
    fetching.folder.mkdir()
    record = fetching.folder / "fetched.json"
    record.write_text(content)
    assert str(record) in refusal(fetching.run)
    assert record.read_text() == content
    assert host.asked == []


@pytest.mark.parametrize("content", ["", "{", '{"url": 3}', '{"url": "u", "etag": null, "modified": null}'])
def test_a_damaged_note_on_a_partial_file_starts_it_over(fetching: Fetching, host: Host, content: str) -> None:
    host.faults.append(breaks_off(FIRST))
    refusal(lambda: fetching.run(retries=0))
    (fetching.folder / "ratings.csv.part.json").write_text(content)
    fetching.run()
    assert host.gets[-1].range is None
    assert fetching.ratings.read_bytes() == RATINGS


# --- the command ---


@pytest.fixture
def fetch_data(command: Command, monkeypatch: pytest.MonkeyPatch, manifest: Path) -> Command:
    """`bm3 data fetch shop` by the manifest, and more arguments."""
    monkeypatch.setitem(cli.data.commands, "fetch", fetch_command)

    def run(*arguments: object, name: str = "shop") -> Outcome:
        return command("data", "fetch", name, "--manifest", manifest, *arguments)

    return run


def test_the_command_says_the_terms_first_and_the_next_command_last(fetch_data: Command) -> None:
    outcome = fetch_data()
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert lines[:4] == [
        "Shop",
        "licence: CC0 1.0",
        "source: https://shop.example/files",
        "please cite: Shopkeeper, Things, 2014",
    ]
    folder = Path("data") / "raw" / "shop"
    assert lines[-2:] == [f"fetched: {folder}", f"next: bm3 data prepare shop --ratings {folder}/ratings.csv"]
    assert "to fetch: 327.2 kB" in lines
    assert (folder / "ratings.csv").read_bytes() == RATINGS
    assert "recorded, and later copies must equal it" in outcome.err


def test_terms_are_said_before_anything_is_fetched(fetch_data: Command, host: Host) -> None:
    host.faults.append(answers(404))
    outcome = fetch_data()
    assert outcome.code == 2
    assert "licence: CC0 1.0" in outcome.out
    assert len(outcome.err.splitlines()) == 1
    assert list(Path.cwd().iterdir()) == []


def test_a_dry_run_asks_for_sizes_and_writes_nothing(fetch_data: Command, host: Host) -> None:
    outcome = fetch_data("--dry-run")
    assert outcome.code == 0
    assert f"{host.url}/raw/ratings.csv (307.2 kB)" in outcome.out
    assert {asked.method for asked in host.asked} == {"HEAD"}
    assert list(Path.cwd().iterdir()) == []
    del host.files["/raw/ratings.csv"]
    outcome = fetch_data("--dry-run")
    assert "size not known, the server answers 404 (Not Found)" in outcome.out
    assert "to fetch: 20.0 kB, and files of unknown size: 1" in outcome.out


def test_the_folder_and_single_files_can_be_chosen(
    fetch_data: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = fetch_data("--to", tmp_path / "x y", "--only", "meta.json.gz")
    assert (tmp_path / "x y" / "meta.json.gz").exists()
    assert not (tmp_path / "x y" / "ratings.csv").exists()
    assert "next:" not in outcome.out
    monkeypatch.setenv("BM3_DATA", str(tmp_path / "all"))
    (tmp_path / "all").mkdir()
    fetch_data()
    assert (tmp_path / "all" / "raw" / "shop" / "ratings.csv").exists()


def test_another_host_can_be_named(fetch_data: Command, host: Host) -> None:
    host.files = {"/new/ratings.csv": META}
    assert fetch_data("--base-url", f"{host.url}/new/", "--only", "ratings.csv").code == 0
    assert (Path("data/raw/shop/ratings.csv")).read_bytes() == META


def test_a_checksum_can_be_given(fetch_data: Command) -> None:
    right = f"ratings.csv={hashed(RATINGS).upper()}"
    assert fetch_data("--checksum", right).code == 0
    assert fetch_data("--checksum", f"ratings.csv={hashed(META)}").code == 2


def test_bad_input_of_the_command_is_one_line(fetch_data: Command, host: Host) -> None:
    assert "nearest: shop" in refused(fetch_data(name="shpo"))
    assert "no file 'x.csv' in Shop; there are: ratings.csv, meta.json.gz" in refused(fetch_data("--only", "x.csv"))
    assert "no file 'x.csv'" in refused(fetch_data("--checksum", f"x.csv={'0' * 64}"))
    assert "FILE=SHA256" in refused(fetch_data("--checksum", "ratings.csv=12"))
    assert "--base-url 'h/x'" in refused(fetch_data("--base-url", "h/x"))
    assert "--stall" in refused(fetch_data("--stall", 0))
    assert "--retries" in refused(fetch_data("--retries", -1))
    assert "no such file" in refused(fetch_data("--manifest", "nowhere.toml")).lower()
    assert host.asked == []
    assert list(Path.cwd().iterdir()) == []


def test_the_command_without_a_manifest_knows_the_data_sets_of_the_study(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(cli.data.commands, "fetch", fetch_command)
    assert "nearest: baby" in refused(command("data", "fetch", "babby"))
    assert command("data", "fetch", "--help").out.count("bm3 data fetch") >= 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_a_command_that_is_stopped_is_gone_on_with(
    fetch_data: Command, manifest: Path, host: Host, tmp_path: Path, number: signal.Signals
) -> None:
    host.faults.append(stalls(FIRST))
    program = """
import signal
from harness.__main__ import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background would ignore it
main()
"""
    folder = tmp_path / "raw"
    arguments = ["data", "fetch", "shop", "--manifest", str(manifest), "--to", str(folder), "--only", "ratings.csv"]
    with subprocess.Popen([sys.executable, "-c", program, *arguments], stderr=subprocess.PIPE, text=True) as process:
        part, deadline = folder / "ratings.csv.part", time.monotonic() + GIVE_UP_AFTER
        # Buffered bytes are written when the file is closed, which SIGKILL prevents.
        while not (part.exists() and part.stat().st_size >= FIRST - BLOCK):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.02)
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
    assert fetch_data("--to", folder, "--only", "ratings.csv").code == 0
    assert host.gets[-1].range == f"bytes={kept}-"
    assert (folder / "ratings.csv").read_bytes() == RATINGS


# --- progress ---


class Clock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


def test_without_a_terminal_lines_come_every_ten_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    monkeypatch.setattr(cli_fetch, "time", clock)
    with transfer_progress("ratings.csv") as report:
        for position in range(10_000_000, 35_000_000, 1_000_000):  # a million a second, and ten were there
            report(position, 40_000_000)
            clock.now += 1
        report(0, None)
        clock.now += 10
        report(5_000_000, None)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines() == [
        "ratings.csv: 20.0 MB of 40.0 MB, about 20 s left",
        "ratings.csv: 30.0 MB of 40.0 MB, about 10 s left",
        "ratings.csv: 5.0 MB, about – left",
    ]


def test_on_a_terminal_a_bar_shows_the_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    bars: list[Any] = []

    class Bar(tqdm):  # type: ignore[type-arg]
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            bars.append(self)

    monkeypatch.setattr(cli_fetch, "tqdm", Bar)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with transfer_progress("ratings.csv") as report:
        for position in (500, 900, 1300):
            report(position, 2000)
            assert (bars[0].n, bars[0].total, bars[0].initial) == (position, 2000, 500)
        report(0, 1800)
        report(100, 1800)
        assert (bars[0].n, bars[0].total, bars[0].initial) == (100, 1800, 0)
