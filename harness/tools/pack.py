"""Making a package of evidence of stored runs, and finding what of one is not as it was made.

A package is a zip archive that ends in a comment with the SHA-256 of all bytes before it, and has SHA256SUMS with that
of each file. Both tell damage and edits; whoever makes them anew as well is found by a digest that is kept elsewhere.

Other programs are told what it holds by a Process Run Crate of its runs and Croissant of their data sets. Sources:
https://w3id.org/ro/wfrun/process/0.5 (on RO-Crate 1.1) and http://mlcommons.org/croissant/1.0.
"""

import errno
import hashlib
import json
import mimetypes
import os
import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import IO, Any

import harness
from bm3 import ConfigError, DataError
from harness.common import check_writable, sha256_of, whole_file, write_whole, writing
from harness.data.files import printable, reading
from harness.ingest.archives import checked, zip_members
from harness.paper.growth import BEFORE, RECORDS
from harness.paper.load import Paper
from harness.paper.study import make_study
from harness.report.write import FORMATS, write_report
from harness.runs.record import FAILURE, RESULT, DatasetRecord, RunRecord
from harness.runs.store import in_use, kept_files, run_folders
from harness.runs.verify import verify

PROGRAM = "bm3-harness"
PROFILE, CROISSANT = "https://w3id.org/ro/wfrun/process/0.5", "http://mlcommons.org/croissant/1.0"
LICENCE = "https://spdx.org/licenses/Apache-2.0"
DATA_LICENCE = "not stated here; ask whoever publishes the data set"
RUNS, SUMS, CRATE, CITATION = "runs", "SHA256SUMS", "ro-crate-metadata.json", "CITATION.cff"
SUM = re.compile(r"([0-9a-f]{64})  (.+)")
SEAL, HEX, CHUNK = b"SHA-256 of all bytes before this: ", 64, 2**20
MEND = "name another file with --out"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
READ_ME = f"""# A package of evidence

- `runs/`: stored runs as they ended; `commands.txt` trains each again, `environments.json` says where they were trained
- `report/`: the report on them; `cells.csv` and `cells.json` have every verdict
- `data/`: what the data sets are, in Croissant, without their files
- `{CRATE}`: all of it as a Process Run Crate

`bm3 pack verify FILE` says whether it is as it was made, and `sha256sum -c {SUMS}` does so for the files alone.
`bm3 report runs` makes the report anew.
"""


@dataclass(frozen=True)
class Checked:
    """What was found out about a package: it is not as it was made where there are problems."""

    problems: tuple[str, ...]
    sealed: bool
    """Whether its bytes could be checked; another program that packs the files anew leaves the comment out."""
    runs: int
    digest: str
    """SHA-256 of the archive, to be compared with one that was kept elsewhere."""


def pack(folder: Path, out: Path, paper: Paper) -> tuple[dict[str, RunRecord], list[Path], str]:
    """Write a package of the runs below `folder`: the runs, by their folder in it; unfinished ones, which are left out;
    and the SHA-256 of the archive.

    Raises DataError where there is no run, one is damaged, or `out` is there already; ConfigError where a library is
    not installed; WriteError.
    """
    if find_spec("rocrate") is None:
        raise ConfigError("bm3 pack needs rocrate: pip install 'bm3-harness[pack]'")
    if out.exists():
        raise DataError(f"{out}: is there already; remove it, or {MEND}")
    check_writable(out, MEND)
    runs, unfinished = _whole_runs(folder)
    with TemporaryDirectory() as scratch, writing(out, "make room there and in the folder for temporary files, TMPDIR"):
        inside = Path(scratch)
        for key, run in runs.items():
            (inside / key).mkdir(parents=True)
            ending = filter(Path.is_file, (run.path / name for name in (RESULT, FAILURE)))
            for file in (*kept_files(run.path), *ending):
                shutil.copyfile(file, inside / key / file.name)
        for record in (*folder.glob(BEFORE), *folder.glob(RECORDS)):
            shutil.copyfile(record, inside / RUNS / record.name)
        asked = f"a report on the runs in {RUNS}"
        write_report(make_study(inside / RUNS, asked, paper=paper), inside / "report", FORMATS)
        _describe(inside, runs)
        return runs, unfinished, _archive(inside, out)


def check_package(path: Path) -> Checked:
    """Read a package without trusting it. Raises DataError for what is none, or is made to do harm."""
    with reading(path), path.open("rb") as file, zipfile.ZipFile(file) as archive, TemporaryDirectory() as scratch:
        inside = Path(scratch)
        everything = checked(path, zip_members(archive), shutil.disk_usage(inside).free)
        members = [member.name for member in everything if not member.folder]
        if not {SUMS, CRATE} <= {*members}:
            raise DataError(f"{path}: is no package of evidence, which has {SUMS} and {CRATE}: bm3 pack makes one")
        if len({*members}) < len(members):
            raise DataError(f"{path}: has two files of one name: bm3 pack makes no such archive; obtain it again")
        problems = []
        for name in members:
            (inside / name).parent.mkdir(parents=True, exist_ok=True)
            try:
                with archive.open(name) as content, (inside / name).open("wb") as target:
                    shutil.copyfileobj(content, target, CHUNK)
            except Exception as error:  # damaged bytes raise nearly anything
                if isinstance(error, OSError) and error.errno in NO_ROOM:
                    raise
                problems.append(f"{name}: cannot be read ({error})")
        problems = problems or [*_unlike(inside, members)]
        digest = _digest_before_seal(file)
        wanted, seal = digest.hexdigest().encode(), file.read()
        digest.update(seal)
        if archive.comment and seal != wanted:
            problems.append("its bytes are not those that were written: their SHA-256 is another than in its comment")
        runs = [*run_folders(inside / RUNS)]
        if not problems:  # then the package's digests say nothing, and those of the runs may
            problems = [one for run in runs for one in verify(run).problems]
        told = tuple(printable(problem.replace(f"{scratch}/", "")) for problem in problems)
        return Checked(told, bool(archive.comment), len(runs), digest.hexdigest())


def _whole_runs(folder: Path) -> tuple[dict[str, RunRecord], list[Path]]:
    runs, unfinished = {}, []
    for path in run_folders(folder):
        below = path.relative_to(folder).parts
        key = PurePosixPath(RUNS, *(below if len(below) > 1 else path.resolve().parts[-2:])).as_posix()
        found = verify(path)
        if found.problems:
            raise DataError(f"{path}: is damaged, so nothing is packed: {found.problems[0]}")
        if found.run and (found.run.finished or (found.run.failure and not in_use(path))):
            runs[key] = found.run
        else:
            unfinished.append(path)
    if not runs:
        raise DataError(f"{folder}: there is no finished run in it; bm3 train --out or bm3 reproduce --out makes some")
    return runs, unfinished


def _describe(inside: Path, runs: Mapping[str, RunRecord]) -> None:
    """Write what stands beside the runs and the report."""

    def write(name: str, content: str | Any) -> None:
        text = content if isinstance(content, str) else json.dumps(content, indent=1) + "\n"
        (inside / name).parent.mkdir(exist_ok=True)
        write_whole(inside / name, text)

    data, where = {}, dict[str, list[str]]()
    for key, run in runs.items():
        where.setdefault(json.dumps(run.environment), []).append(key)
        data[run.dataset_hash] = f"data/{run.dataset.name}-{run.dataset_hash[:12]}.croissant.json"
        write(data[run.dataset_hash], _croissant(run.dataset, run.dataset_hash))
    write("environments.json", [{"environment": json.loads(each), "runs": keys} for each, keys in where.items()])
    commands = [f"{run.command}    # {key}" for key, run in runs.items()]
    write("commands.txt", "\n".join([*commands, f"bm3 report {RUNS} --format {','.join(FORMATS)}", ""]))
    write("README.md", READ_ME)
    package = Path(harness.__file__).parent
    # Installed, it is in the package; in a checkout it is beside it.
    citation = next(filter(Path.is_file, (package / CITATION, package.parent / CITATION)))
    write(CITATION, citation.read_text(encoding="utf-8"))
    write(CRATE, _crate(runs, _digests(inside), data))
    write(SUMS, "".join(f"{digest}  {name}\n" for name, digest in _digests(inside).items()))


def _archive(folder: Path, out: Path) -> str:
    """Write the files as an archive that depends on nothing but them, and seal it; its SHA-256."""
    with whole_file(out) as file:
        with zipfile.ZipFile(file, "w") as archive:
            for path in sorted(folder.rglob("*")):
                is_dir = path.is_dir()
                info = zipfile.ZipInfo(path.relative_to(folder).as_posix() + "/" * is_dir)  # of 1980
                info.external_attr = (0o40755 if is_dir else 0o100644) << 16
                if is_dir:
                    archive.writestr(info, b"")
                    continue
                info.compress_type = zipfile.ZIP_DEFLATED
                with path.open("rb") as source, archive.open(info, "w", force_zip64=True) as target:
                    shutil.copyfileobj(source, target, CHUNK)
            archive.comment = SEAL + b"0" * HEX
        digest = _digest_before_seal(file)
        seal = digest.hexdigest().encode()
        file.write(seal)
        digest.update(seal)
    return digest.hexdigest()


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(filter(Path.is_file, folder.rglob("*")))
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}


def _digest_before_seal(file: IO[bytes]) -> "hashlib._Hash":
    """The SHA-256 of a file without the digest at its end, before which it is left."""
    digest, left = hashlib.sha256(), max(0, file.seek(0, os.SEEK_END) - HEX)
    file.seek(0)
    while left and (chunk := file.read(min(CHUNK, left))):
        left -= len(chunk)
        digest.update(chunk)
    return digest


def _unlike(inside: Path, members: list[str]) -> Iterator[str]:
    """What does not fit the list of digests: a line for each file, and for each run of which nothing is there."""
    lines = (inside / SUMS).read_text(encoding="utf-8", errors="replace").splitlines()
    stored = {match[2]: match[1] for match in map(SUM.fullmatch, lines) if match}
    found, folders = _digests(inside), {name.rpartition("/")[0] for name in members}
    lacking = (name.rpartition("/")[0] if name.startswith(RUNS) else name for name in stored if name not in found)
    for name in dict.fromkeys(lacking):
        yield f"{name}: is missing{' in part' * (name in folders)}"
    for name in sorted(found.keys() - {SUMS}):
        if name not in stored:
            yield f"{name}: is in no line of {SUMS}"
        elif found[name] != stored[name]:
            yield f"{name}: is not as it was packed: its SHA-256 is another than in {SUMS}"


def _crate(runs: Mapping[str, RunRecord], digests: Mapping[str, str], data: Mapping[str, str]) -> dict[str, Any]:
    """The RO-Crate of a package: `runs` by folder, `digests` by file, files that describe `data` by content hash."""
    from rocrate.model.contextentity import ContextEntity
    from rocrate.rocrate import ROCrate

    made = ROCrate(version="1.1")
    made.metadata.extra_terms["sha256"] = "https://w3id.org/ro/terms/workflow-run#sha256"
    made.name, made.license = f"Evidence: {len(runs)} runs of {PROGRAM}", LICENCE
    made.description = "Trained models with what decided their numbers, a report on them, and digests"
    made.root_dataset["datePublished"] = max(_ended(run) for run in runs.values())
    profile = {"@type": "CreativeWork", "name": "Process Run Crate", "version": PROFILE.rpartition("/")[2]}
    made.root_dataset["conformsTo"] = made.add(ContextEntity(made, PROFILE, properties=profile))
    about = {"@type": "SoftwareApplication", "name": PROGRAM, "softwareVersion": version(PROGRAM)}
    instrument = made.add(ContextEntity(made, f"#{PROGRAM}", properties=about))
    files = {}
    for path, digest in digests.items():
        kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
        files[path] = made.add_file(dest_path=path, properties={"encodingFormat": kind, "sha256": digest})
    for path, run in runs.items():
        title = f"{run.model} on {run.dataset.name}, seed {run.seed}"
        folder = made.add_dataset(dest_path=f"{path}/", properties={"name": title})
        folder["hasPart"] = [file for name, file in files.items() if name.startswith(f"{path}/")]
        status = {"@id": f"http://schema.org/{'Completed' if run.finished else 'Failed'}ActionStatus"}
        properties = {"name": title, "description": run.command, "endTime": _ended(run), "actionStatus": status}
        properties |= {"startTime": run.started} if run.started else {}
        properties |= {"error": run.failure.message} if run.failure else {}
        action = made.add_action(instrument, f"#{path}", [files[data[run.dataset_hash]]], [folder], properties)
        made.root_dataset.append_to("mentions", action)
    described: dict[str, Any] = made.metadata.generate()
    return described


def _croissant(dataset: DatasetRecord, content_hash: str) -> dict[str, Any]:
    """A data set as runs on it recorded it: what it holds and its content hash, without its files."""
    parts = [{"name": name, "interactions": count} for name, count in dataset.interactions.items()]
    tables = [
        {"name": name, "dimensions": shape[1], "type": shape[2], "surrogate": name in dataset.surrogates}
        for name, shape in dataset.modalities.items()
    ]
    terms = {term: f"cr:{term}" for term in ("field", "recordSet", "isLiveDataset")}
    typed = {"data": {"@id": "cr:data", "@type": "@json"}, "dataType": {"@id": "cr:dataType", "@type": "@vocab"}}
    names = {"@vocab": "https://schema.org/", "sc": "https://schema.org/", "cr": "http://mlcommons.org/croissant/"}
    return {
        "@context": {"@language": "en", **names, "conformsTo": "http://purl.org/dc/terms/conformsTo", **terms, **typed},
        "@type": "sc:Dataset",
        "conformsTo": CROISSANT,
        "name": dataset.name,
        "description": f"Interactions of {dataset.users:,} users with {dataset.items:,} items.",
        "identifier": f"sha256:{content_hash}",
        "license": DATA_LICENCE,
        "recordSet": [_records(name, rows) for name, rows in (("parts", parts), ("modalities", tables)) if rows],
    }


def _records(name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    kinds = {str: "sc:Text", int: "sc:Integer", bool: "sc:Boolean"}
    fields = [
        {"@type": "cr:Field", "@id": f"{name}/{key}", "name": key, "dataType": kinds[type(value)]}
        for key, value in rows[0].items()
    ]
    data = [{f"{name}/{key}": value for key, value in row.items()} for row in rows]
    return {"@type": "cr:RecordSet", "@id": name, "name": name, "field": fields, "data": data}


def _ended(run: RunRecord) -> str:
    return run.result.finished if run.result else run.failure.when if run.failure else ""
