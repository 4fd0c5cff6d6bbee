"""`bm3 pack`: what a package holds, what other programs say of it, and that nothing of one can be changed unseen."""

import errno
import hashlib
import json
import random
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import Command, refused

from harness.data.layouts import load_dataset
from harness.paper.load import load_paper
from harness.runs.store import write_failure
from harness.runs.trial import make_trial, run_trial
from harness.tools import pack as packing
from harness.tools.pack import CRATE, SUMS, check_package, pack

pytestmark = pytest.mark.filterwarnings("ignore:Duplicate name")
Files = dict[str, bytes]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished runs, one that failed and one that is unfinished."""
    out = tmp_path_factory.mktemp("store")
    settings = {"epochs": 2, "batch_size": 512, "learning_rate": 0.05}
    for seed in (1, 2, 3, 4):
        run_trial(make_trial("bpr", load_dataset("mini"), "mini", settings, seed, torch.device("cpu")), out)
    for seed in (3, 4):
        (path,) = out.glob(f"mini/*-seed{seed}")
        (path / "result.json").unlink()
        if seed == 3:
            write_failure(path, "out of memory", "bpr on mini: out of memory")
    return out


@pytest.fixture(scope="module")
def package(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("rocrate", reason="needs rocrate: nox -s crate")
    out = tmp_path_factory.mktemp("package") / "evidence.zip"
    runs, unfinished, digest = pack(store, out, load_paper())
    assert (len(runs), [path.name[-5:] for path in unfinished]) == (3, ["seed4"])
    assert digest == hashlib.sha256(out.read_bytes()).hexdigest()
    return out


def files_of(package: Path) -> Files:
    with zipfile.ZipFile(package) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}


def packed_anew(files: Files, path: Path, *, sums: bool) -> Path:
    """The files as another program packs them, with digests made anew or as they were."""
    if sums:
        lines = [f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files) if name != SUMS]
        files = {**files, SUMS: "".join(lines).encode()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def edited(content: bytes, old: str, new: str) -> bytes:
    text = content.decode()
    assert old in text
    return text.replace(old, new, 1).encode()


def file_called(files: Files, end: str) -> str:
    return next(name for name in files if name.endswith(end))


# --- what it holds ---


def test_it_holds_runs_report_commands_data_and_a_digest_of_every_file(package: Path) -> None:
    files = files_of(package)
    sums = dict(reversed(line.split("  ")) for line in files[SUMS].decode().splitlines())
    assert sums == {name: hashlib.sha256(content).hexdigest() for name, content in files.items() if name != SUMS}
    assert {name.split("/")[0] for name in files} == {
        *("runs", "report", "data", "commands.txt", "environments.json", "README.md", "CITATION.cff", CRATE, SUMS)
    }
    assert sum(name.endswith("result.json") for name in files) == 2
    assert sum(name.endswith("failure.json") for name in files) == 1
    assert {"report/report.md", "report/report.tex", "report/cells.json"} <= files.keys()
    assert files["commands.txt"].count(b"bm3 train bpr mini") == 3
    data = json.loads(files[file_called(files, ".croissant.json")])
    assert data["identifier"] == f"sha256:{load_dataset('mini').content_hash}"
    assert {"parts/name": "train", "parts/interactions": 4123} in data["recordSet"][0]["data"]


def test_the_same_runs_give_the_same_bytes(package: Path, store: Path, tmp_path: Path) -> None:
    pack(store, tmp_path / "again.zip", load_paper())
    assert (tmp_path / "again.zip").read_bytes() == package.read_bytes()


def test_it_is_a_process_run_crate(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    services = pytest.importorskip("rocrate_validator.services", reason="needs roc-validator: nox -s crate")
    import requests
    import rocrate
    from rocrate_validator.utils.http import HttpRequester

    def offline(self: Any, url: str, **options: Any) -> requests.Response:
        """The validator asks for the context alone, which rocrate brings along, of a later version with more terms."""
        assert url == "https://w3id.org/ro/crate/1.1/context"
        answer = requests.Response()
        answer.status_code, answer.headers["Content-Type"] = 200, "application/ld+json"
        answer._content = (Path(rocrate.__file__).parent / "data" / "ro-crate.jsonld").read_bytes()
        return answer

    monkeypatch.setattr(HttpRequester, "get", offline, raising=False)
    asked = services.ValidationSettings(rocrate_uri=str(package), profile_identifier="process-run-crate")
    found = services.validate(asked)
    assert [issue.message for issue in found.get_issues()] == []
    assert found.passed()


def test_its_data_sets_are_described_in_croissant(package: Path, tmp_path: Path) -> None:
    croissant = pytest.importorskip("mlcroissant", reason="needs mlcroissant: nox -s crate")
    files = files_of(package)
    (tmp_path / "data.json").write_bytes(files[file_called(files, ".croissant.json")])
    described = croissant.Dataset(jsonld=tmp_path / "data.json")
    assert next(iter(described.records("modalities")))["modalities/name"] in (b"text", "text")


# --- that nothing changes unseen ---


def test_one_flipped_bit_anywhere_is_found(package: Path, tmp_path: Path, command: Command) -> None:
    whole, draw = package.read_bytes(), random.Random(1)
    places = [*range(20), *(draw.randrange(len(whole)) for _ in range(40)), *range(len(whole) - 120, len(whole), 3)]
    for place in places:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << draw.randrange(8)
        (tmp_path / "flipped.zip").write_bytes(flipped)
        outcome = command("pack", "verify", tmp_path / "flipped.zip")
        assert outcome.code in (1, 2), place
        assert outcome.code == 1 or len(outcome.err.splitlines()) == 1


def changed(files: Files, what: str) -> Files:
    run = file_called(files, "-seed1/run.json").rpartition("/")[0]
    if what == "verdict":
        return {**files, "report/cells.json": edited(files["report/cells.json"], "unpublished", "reproduced")}
    if what == "run":
        return {name: content for name, content in files.items() if not name.startswith(run)}
    if what == "epochs":
        return {name: content for name, content in files.items() if name != f"{run}/epochs.jsonl"}
    if what == "more":
        return {**files, "report/more.md": b"more"}
    return {**files, f"{run}/run.json": edited(files[f"{run}/run.json"], '"surrogates": []', '"surrogates": ["text"]')}


@pytest.mark.parametrize(
    ("what", "sums", "problem"),
    [
        ("verdict", False, "report/cells.json: is not as it was packed"),
        ("run", False, "seed1: is missing\n"),
        ("epochs", False, "seed1: is missing in part\n"),
        ("more", False, "report/more.md: is in no line of SHA256SUMS"),
        ("record", False, "seed1/run.json: is not as it was packed"),
        ("record", True, "seed1/run.json: is not as the run left it"),
        ("epochs", True, "seed1/epochs.jsonl: is missing\n"),
    ],
)
def test_what_was_changed_is_named_in_one_line(
    package: Path, tmp_path: Path, command: Command, what: str, sums: bool, problem: str
) -> None:
    files = changed(files_of(package), what)
    outcome = command("pack", "verify", packed_anew(files, tmp_path / "changed.zip", sums=sums))
    assert outcome.code == 1
    told, note = outcome.out.splitlines(keepends=True)
    assert told.startswith("damaged: ")
    assert problem in told
    assert note.startswith("note: packed anew by another program")


def test_who_makes_all_digests_anew_is_found_by_one_kept_elsewhere(
    package: Path, tmp_path: Path, command: Command
) -> None:
    digest = hashlib.sha256(package.read_bytes()).hexdigest()
    assert command("pack", "verify", package, "--sha256", digest).code == 0
    forged = packed_anew(changed(files_of(package), "verdict"), tmp_path / "forged.zip", sums=True)
    assert command("pack", "verify", forged).code == 0
    outcome = command("pack", "verify", forged, "--sha256", digest)
    assert (outcome.code, outcome.out.count("damaged: is another file")) == (1, 1)


def test_it_may_be_packed_anew_by_another_program(package: Path, tmp_path: Path) -> None:
    found = check_package(packed_anew(files_of(package), tmp_path / "anew.zip", sums=False))
    assert (found.problems, found.sealed, found.runs) == ((), False, 3)


# --- what is refused ---


def foreign(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("letter.txt", "Dear Sir")


def with_member(name: str, mode: int = 0) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for each in (SUMS, CRATE, name):
                info = zipfile.ZipInfo(each)
                info.external_attr = mode << 16 if each == name else 0
                archive.writestr(info, "/etc/passwd")

    return write


def bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in (SUMS, CRATE, "zeros"):
            archive.writestr(name, bytes(2**21))
    content = path.read_bytes()
    claim, size = struct.pack("<L", 2**21), struct.pack("<L", 2**31 - 1)
    path.write_bytes(content.replace(claim, size))


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (lambda path: path.write_bytes(b""), "File is not a zip file"),
        (lambda path: path.write_text("no archive"), "File is not a zip file"),
        (lambda path: path.mkdir(), "cannot be read"),
        (lambda path: None, "No such file"),
        (foreign, "is no package of evidence"),
        (with_member("../escaped"), "would lie outside"),
        (lambda path: with_member(f"{path.parent}/escaped")(path), "would lie outside"),
        (with_member("runs\\..\\escaped"), "would lie outside"),
        (with_member("link", 0o120777), "a link or device"),
        (with_member("report/"), "a folder that holds 11 bytes itself"),
        (with_member(SUMS), "two files of one name"),
        (bomb, "made to exhaust memory"),
    ],
)
def test_what_is_no_package_or_does_harm_is_refused(
    tmp_path: Path, command: Command, write: Callable[[Path], None], says: str
) -> None:
    write(tmp_path / "bad.zip")
    assert says in refused(command("pack", "verify", tmp_path / "bad.zip"))
    assert not [*tmp_path.rglob("*escaped*")]


def test_compressed_epochs_are_packed_and_a_full_disk_is_no_damage(
    store: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("rocrate", reason="needs rocrate: nox -s crate")
    runs = Path(shutil.copytree(store, tmp_path / "runs"))
    assert "compressed files of 2 runs" in command("runs", "gc", runs, "--compress").out
    assert command("pack", runs, "--out", tmp_path / "evidence.zip").code == 0
    assert command("pack", "verify", tmp_path / "evidence.zip").code == 0
    with zipfile.ZipFile(tmp_path / "evidence.zip") as archive:
        assert sum(name.endswith("epochs.jsonl.xz") for name in archive.namelist()) == 2
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(shutil, "copyfileobj", lambda *_: (_ for _ in ()).throw(full))
    assert "No space left" in refused(command("pack", "verify", tmp_path / "evidence.zip"))


def test_bad_input_to_packing_is_one_line(
    store: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("rocrate", reason="needs rocrate: nox -s crate")
    out = tmp_path / "evidence.zip"
    assert "does not exist" in refused(command("pack", tmp_path / "none", "--out", out))
    assert "there is no finished run in it" in refused(command("pack", tmp_path, "--out", out))
    assert "is no .zip file" in refused(command("pack", store, "--out", tmp_path / "evidence"))
    damaged = Path(shutil.copytree(store, tmp_path / "damaged"))
    next(damaged.glob("mini/*-seed2/epochs.jsonl")).unlink()
    assert "is damaged, so nothing is packed" in refused(command("pack", damaged, "--out", out))
    assert not out.exists()
    out.write_text("mine")
    assert "is there already" in refused(command("pack", store, "--out", out))
    assert out.read_text() == "mine"
    monkeypatch.setattr(packing, "find_spec", lambda name: None)
    assert "pip install 'bm3-harness[pack]'" in refused(command("pack", store, "--out", tmp_path / "other.zip"))


def test_ctrl_c_leaves_nothing_half_written(
    package: Path, store: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object) -> None:
        assert [path.suffix for path in tmp_path.glob("e.zip*")] == [".part"]
        raise KeyboardInterrupt

    monkeypatch.setattr(packing, "_digest_before_seal", interrupted)
    monkeypatch.setattr(packing, "_digests", lambda folder: {})
    monkeypatch.setattr(packing, "_describe", lambda inside, runs: None)
    outcome = command("pack", store, "--out", tmp_path / "e.zip")
    assert (outcome.code, outcome.err) == (130, "bm3: interrupted\n")
    assert [*tmp_path.glob("e.zip*")] == []
