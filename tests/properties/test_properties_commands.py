"""Whatever a command is given, and whatever its files have become, it ends as documented: no traceback, no wait without
end, nothing half-written, nothing lost, and nothing damaged taken for whole.

Every command of the group is covered, one that is added too. An input is hostile in a value (`hostile.values`), in a
file (`hostile.edited`), or in both. Trainings end after two epochs, and what measures or asks the network is left out.
"""

import io
import json
import os
import re
import resource
import shutil
import signal
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import click
import hostile
import numpy as np
import pytest
import torch
from command_line import Outcome, leaves
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from raw_files import write_raw

from harness.cli import main as cli
from harness.data.layouts import read_folder
from harness.runs.record import RESULT
from harness.runs.verify import verify

THOROUGH = (settings.default or settings()).max_examples >= 500
FUZZED = settings(
    derandomize=True,  # the same inputs each time
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate, *([Phase.shrink] if not THOROUGH else [])],
)
ENDS = {0, 1, 2, 3, 75, 130, 141}
SECONDS = 120  # for an input of a kilobyte
ROOM = 6 * 2**30  # bytes of addresses beyond those that torch takes
SUITE = """title = "small"
datasets = ["shop"]
seeds = [1, 2]
training = { epochs = 2, batch_size = 8 }
[[experiments]]
model = "bpr"
grid = { reg_weight = [0.1, 0.01] }
[[experiments]]
model = "mostpop"
"""
MANIFEST = """[shop]
title = "a shop"
base = "https://example.org/files"
page = "https://example.org"
licence = "none"
citation = "nobody"
prepare = "bm3 data prepare shop --ratings {folder}/ratings.csv"
files = ["ratings.csv"]
"""
FIGURES = "recall@10: 0.1000    recall@20: 0.2000    ndcg@10: 0.1000    ndcg@20: 0.2000"
EPOCH = "epoch {0} training [time: 0.70s, train loss: 2.5]\nepoch {0} evaluating [time: 5.30s, valid_score: 0.2]\n"
EPOCH += f"valid result: \n{FIGURES}\ntest result: \n{FIGURES}\n"
FITTING = """
run, first, second: seed5 seed6 lightgcn
dataset, datasets: shop mini data/shop
model, models, wanted: bpr bm3 mostpop
name, expected show name: shop
suite, suite show name: small.toml mini
watch folder: runs/small runs
results verify folder, results write folder: results
pack verify file: evidence.zip
paper new folder, data import name, data prepare name, out: new
paper, paper check name: paper
expected show name: table1 tolerances claims
data add-features file: vectors.npy
data encode model: any
data import source: ratings.csv ratings.parquet ratings.jsonl ratings.zip data/shop atomic
recommend out: new.csv new.json new.parquet
export out: new.npz new.parquet
pack write out: new.zip
profile out, reference out: new.json
runs list out, runs show out, runs diff out, runs gc out, runs verify out, literature out, folder, runs: runs
number, core, k_core, threads: 1
lists: lists.csv lists.parquet
path: traces
log: a.log
data: data
users, recommend users: u1 u2
file, runs show users, report users: users.txt
user: user_id
item: item_id
time: timestamp
part, rating: rating
modality: audio visual
ids: ids.csv
id_column: id
text: texts.csv
images: images
ratings: amazon/ratings_Shop.csv
metadata: amazon/meta_Shop.json
data prepare images: amazon/image_features_Shop.b
split: random_user leave_one_out
baseline: baseline.json
manifest: manifest.toml
only: ratings.csv
base_url: https://example.org
sizes: 1,2,4,8
repetitions: 5
vary: E,B
assignments: batch_size=8 reg_weight=0.1 features_location=disk
epochs: 1 2
seeds: 1 1-2
formats: md csv,json tex,html
metrics: recall@20 all
rows: bpr
metric: R@20
"""
GOOD = {
    key: values.split()
    for line in FITTING.strip().splitlines()
    for keys, values in [line.split(": ")]
    for key in keys.split(", ")
}
"""What fits, by the name of a parameter, or of a command and a parameter; of a choice, its values do."""
ALWAYS = {
    "reproduce": ["suite", "paper"],
    "audit": ["dataset", "models", "paper", "seeds"],
    "pack write": ["out", "paper"],
    **{command: ["paper"] for command in ("literature", "tables", "expected show")},
    **{command: ["folder"] for command in ("results verify", "results write")},
    **{"train": ["epochs"], "data add-features": ["replace"], "export": ["embeddings"], "regress": ["baseline"]},
    **{"recommend": ["users"], "data fetch": ["manifest"], "data prepare": ["core"]},
}
"""What is given always, since little happens without."""
EITHER = {"conformance": ["path", "log"], "data encode": ["text", "images"]}
"""Of these, one is given."""
CHANGING = {  # below these, files may be changed or removed by commands that are for that
    "data add-features": ("data",),
    "data encode": ("data",),
    "results write": ("results",),
    "report": ("runs/report.", "runs/cells."),
    "audit": ("paper/audit",),
}
CUT_SHORT = ("reproduce", "audit", "profile", "regress", "scaling", "data fetch", "data encode", "replay", "train")
"""What `cut_short` is for."""
WRITTEN_ANEW = ("report.", "cells.", "status.json", "log.txt", "study.log")
"""Names of what a study writes each time."""


PACKS = find_spec("rocrate") is not None  # which `nox -s properties` installs
COMMANDS = {" ".join(words): command for words, command in leaves(cli.bm3) if PACKS or words[0] != "pack"}
Files = dict[str, bytes]
States = dict[str, tuple[int, int, int]]
"""Type, size and time of each file and folder: files are made with time 0, so that what is written anew is seen."""


class Place(NamedTuple):
    folder: Path
    files: Files
    states: States

    def __repr__(self) -> str:  # without what the files hold, which would fill the message of a failure
        return f"{len(self.files)} files in {self.folder}"


class HangError(BaseException):
    """A command took longer than anything of this size should."""


def _hang(number: int, frame: Any) -> NoReturn:
    raise HangError


def run(*arguments: str, seconds: int = SECONDS) -> Outcome:
    """A command in this process, as `bm3` runs it. Raises what it lets through."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in "oe")
    argv, sys.argv = sys.argv, ["bm3", *arguments]
    before = signal.signal(signal.SIGALRM, _hang)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        with redirect_stdout(out), redirect_stderr(err):
            cli.main()
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else 0 if ending.code is None else 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        sys.argv = argv
    return Outcome(code, *(stream.buffer.getvalue().decode("utf-8", "replace") for stream in (out, err)))


def states_below(folder: Path) -> States:
    """Everything below a folder, but locks, which say nothing."""
    found = {}
    for root, folders, names in os.walk(folder):
        for name in (*names, *folders):
            if name != ".lock":
                path = f"{root}/{name}"
                state = os.lstat(path)
                size = (0, 0) if stat.S_ISDIR(state.st_mode) else (state.st_size, state.st_mtime_ns)
                found[path[len(str(folder)) + 1 :]] = (stat.S_IFMT(state.st_mode), *size)
    return found


def content(path: Path) -> bytes | None:
    """Of a file; None of anything else."""
    return path.read_bytes() if path.is_file() and not path.is_symlink() else None


class Encoder:
    """In place of a model that would be downloaded."""

    name, revision, library = "lengths", "r1", "none 1.0"

    def __init__(self, model: str, revision: str | None) -> None:
        pass

    def encode(self, batch: Sequence[Any]) -> Any:
        return np.array([[len(str(each)), 7.0] for each in batch])


@contextmanager
def cut_short() -> Iterator[None]:
    """Long trainings are interrupted; nothing is measured, asked of the network, drawn, or run in other processes."""
    from harness.paper import conformance
    from harness.runs import trial
    from harness.studies.local import InProcess

    def stop(*arguments: Any, **options: Any) -> NoReturn:
        raise KeyboardInterrupt

    def fit(model: Any, dataset: Any, training: Any, *more: Any, real: Any = trial.fit, **options: Any) -> Any:
        return real(model, dataset, training, *more, **options) if training.epochs <= 2 else stop()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial, "fit", fit)
        patch.setattr(conformance, "known_traces", lambda paper, device: conformance.conformance(Path("traces")))
        for module, name in (("local", "Processes"), ("ray", "RayCluster")):
            patch.setattr(
                f"harness.studies.{module}.{name}",
                lambda first, second, *more, **options: InProcess(first if isinstance(first, Path) else second),
            )
        for name in ("profile.profile", "scaling.measure.measure"):
            patch.setattr(f"harness.tools.{name}", stop)
        for name in ("measure", "check", "inputs"):
            patch.setattr(f"harness.tools.regress.measure.{name}", stop)
        patch.setattr("harness.ingest.fetch._ask", stop)
        for name in ("SentenceEncoder", "ImageEncoder"):
            patch.setattr(f"harness.ingest.encoders.{name}", Encoder)
        blank = lambda self, file, **_: file.write("<svg/>" if isinstance(file, io.TextIOBase) else b"<svg/>")  # noqa: E731
        patch.setattr(Figure, "savefig", blank)
        patch.setattr(import_module("harness.report.plots.style"), "in_256_colours", io.BytesIO.getvalue)
        patch.setenv("BM3_DATA", "data")
        yield


def build() -> None:
    """Everything that commands read, in the working folder."""
    import pandas

    from harness.runs.store import write_failure
    from harness.tools.regress.baseline import Baseline, Measurement, machine_class, write_baseline

    rows = [(f"u{u}", f"i{i}", 1 + (u + i) % 3, 100 * u + i) for u in range(9) for i in range(12) if (u * i) % 5 < 3]
    table = pandas.DataFrame(rows, columns=["user_id", "item_id", "rating", "timestamp"])
    table.to_csv("ratings.csv", index=False)
    table.to_parquet("ratings.parquet")
    table.to_json("ratings.jsonl", orient="records", lines=True)
    with zipfile.ZipFile("ratings.zip", "w") as archive:
        archive.write("ratings.csv")
    Path("atomic").mkdir()
    table.columns = [f"{name}:token" for name in table.columns]
    table.to_csv("atomic/atomic.inter", sep="\t", index=False)
    np.save("vectors.npy", np.random.default_rng(1).normal(size=(12, 3)).astype(np.float32))
    Path("ids.csv").write_text("id\n" + "".join(f"i{i}\n" for i in range(12)))
    Path("texts.csv").write_text("id,title\n" + "".join(f"i{i},word {i}\n" for i in range(12)))
    Path("users.txt").write_text("u1\nu2\n")
    Path("images").mkdir()
    for i in range(3):
        Path(f"images/i{i}.png").write_bytes(b"x")
    Path("small.toml").write_text(SUITE)
    Path("manifest.toml").write_text(MANIFEST)
    write_raw(Path("amazon"))
    Path("traces").mkdir()
    shutil.copy(Path(cli.__file__).parents[2] / "expected/bm3/traces/bpr.npz", "traces")
    done = [
        "data import ratings.csv --name shop --out data",
        "data add-features shop vectors.npy --modality visual --ids ids.csv",
        "reproduce small.toml --in-process --threads 1 --paper bm3",
        "train bpr shop --epochs 2 --set batch_size=8 --keep-model --seed 5",
        "train bm3 shop --epochs 2 --set batch_size=8 --seed 6",
        "runs gc runs",
        "paper new paper",
        *(["pack write runs --out evidence.zip"] if PACKS else ()),
    ]
    for arguments in done:
        outcome = run(*arguments.split(), seconds=0)
        assert outcome.code in (0, 1, 3), (arguments, outcome)
    for path in Path("paper").rglob("*.*"):
        path.write_text(path.read_text().replace("Baby", "Shop"))
    Path("paper/literature").mkdir()
    Path("paper/literature/sources.csv").write_text("source,group,title,address\nothers,them,A paper,https://x.org\n")
    head = "dataset,model,metric,value,source,where,standing,note"
    Path("paper/literature/figures.csv").write_text(f"{head}\nShop,BPR,R@20,0.6,others,Table 1,independent,none\n")
    assert run("paper", "check", "paper").code == 0
    (kept,) = Path("runs").rglob("model.safetensors")
    assert run("recommend", str(kept.parent), "--top", "20", "--out", "lists.csv").code == 0
    assert run("recommend", str(kept.parent), "--top", "20", "--out", "lists.parquet").code == 0
    assert run("train", "lightgcn", "shop", "--epochs", "7").code == 130  # is left unfinished
    failed = next(path for path in Path("runs/shop").glob("mostpop*"))
    (failed / RESULT).unlink()
    write_failure(failed, "error", "no room")
    shutil.copytree("runs/shop", "results/runs/shop")
    Path("results/page.md.j2").write_text('{% set best = row("shop", "bpr") %}It is {{ best.mean("R@20") }}.\n')
    run("results", "write", "results")
    machine = dict(machine_class(torch.device("cpu"), 1))
    measured = Measurement(time={"mini/bpr": [(1.0, 1.0)]}, memory={"mini/bpr": [100]}, traces={"bpr": "passed"})
    write_baseline(Path("baseline.json"), Baseline(machine, {"models": ["bpr"]}, {"revision": "abc"}, measured))
    data = read_folder(Path("data/shop"))
    counts = "".join(
        f"===={title}====\nThe number of users: {data.n_users}\nThe number of items: {data.n_items}\n"
        f"The number of inters: {len(data.part(part))}\n"
        for title, part in zip(("Training", "Validation", "Testing"), ("train", "valid", "test"), strict=True)
    )
    header = "Thu INFO\ndataset=shop\nmodel=MFBPR\nepochs=2\nstopping_step=20\ntrain_batch_size=8\n\n"
    point = "=========1/1: Parameters:['reg_weight', 'seed']=(0.1, 999)=======\nTrainable parameters: 7\n"
    Path("a.log").write_text(header + counts + point + EPOCH.format(0) + EPOCH.format(1))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The working folder, and what its files hold."""
    before, folder = Path.cwd(), tmp_path_factory.mktemp("hostile") / "work"
    folder.mkdir()
    threads, limit = torch.get_num_threads(), resource.getrlimit(resource.RLIMIT_AS)
    with cut_short():
        os.chdir(folder)
        build()
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, limit[1]))
        files = {str(path): path.read_bytes() for path in Path().rglob("*") if path.is_file() and path.name != ".lock"}
        for name in files:
            os.utime(name, ns=(0, 0))
        yield Place(folder, files, states_below(folder))
    resource.setrlimit(resource.RLIMIT_AS, limit)
    torch.set_num_threads(threads)
    os.chdir(before)


@dataclass(frozen=True)
class Case:
    """A command, and the file that is not as it was: its new content, or what stands in its place."""

    command: str
    arguments: tuple[str, ...]
    file: str = ""
    content: bytes | str = b""


def fitting(name: str, parameter: click.Parameter) -> Sequence[str]:
    """Values that a command takes."""
    if isinstance(parameter.type, click.Choice):
        return [*parameter.type.choices]
    return GOOD.get(f"{name} {parameter.name}", GOOD.get(str(parameter.name), ["x"]))


def spelled(parameter: click.Parameter, value: str) -> list[str]:
    """A value on the command line."""
    option = [parameter.opts[0]] if isinstance(parameter, click.Option) else []
    return option if getattr(parameter, "is_flag", False) else [*option, value]


@st.composite
def cases(draw: st.DrawFn, files: Files, of: Sequence[str]) -> Case:
    name = draw(st.sampled_from([name for name in of for _ in range(1 + len(COMMANDS[name].params) // 3)]))
    parameters = COMMANDS[name].params
    where = draw(st.sampled_from(["value", "file", "file", "both"]))
    odd = draw(st.sampled_from([None, *parameters])) if parameters and where != "file" else None
    arguments, either = name.split(), EITHER.get(name, [""])
    given = [*ALWAYS.get(name, []), draw(st.sampled_from(either))]
    for parameter in parameters:
        wanted = parameter is odd or parameter.required or parameter.name in given
        if not wanted and (parameter.name in either or draw(st.integers(0, 6))):
            continue
        value = draw(hostile.values(parameter) if parameter is odd else st.sampled_from(fitting(name, parameter)))
        arguments += spelled(parameter, value)
    if where == "value":
        return Case(name, tuple(arguments))
    words = [word for each in arguments for word in (each, f"data/{each}", f"runs/{each}")]
    folders = dict.fromkeys(GOOD["run"], "runs")
    roots = {Path(folders.get(word, word)) for word in words if len(word) < 100 and "\0" not in word}
    near = [
        path for path in files if any(root == Path(path) or root in Path(path).parents for root in roots - {Path()})
    ]
    file = draw(st.sampled_from(near or list(files)))
    if draw(st.integers(0, 4)) == 0:
        return Case(name, tuple(arguments), file, draw(st.sampled_from(hostile.STAND_INS)))
    return Case(name, tuple(arguments), file, draw(hostile.edited(file, files[file])))


def prepare(case: Case) -> None:
    Path("loop").symlink_to("loop")
    Path("dangling").symlink_to("nowhere")
    for name in ("pipe", "pipe.csv", "pipe.json", "pipe.npz"):
        os.mkfifo(name)
    Path("closed").mkdir(mode=0)
    Path("caf\udce9").symlink_to("runs")
    Path("data/caf\udce9").symlink_to("shop")
    if isinstance(case.content, str):
        hostile.stand_in(Path(case.file), case.content)
    elif case.file:
        Path(case.file).write_bytes(case.content)


def restore(folder: Path, files: Files, states: States) -> None:
    """The folder as it was."""
    os.chdir(folder)
    now = states_below(folder)
    for name in sorted(now.keys() | states.keys(), reverse=True):
        path, content = folder / name, files.get(name)
        if now.get(name) == states.get(name):
            continue
        if name in now and path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif name in now:
            path.unlink()
        if content is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            os.utime(path, ns=(0, 0))


def judge(case: Case, outcome: Outcome, files: Files, states: States) -> None:
    """An outcome as documented, and files as they were or as the command is for."""
    assert outcome.code in ENDS, outcome
    assert "Traceback" not in outcome.err
    lines = outcome.err.splitlines()
    if outcome.code == 2 and case.command != "paper check":
        told = [line for line in lines if line.startswith("bm3: ")]
        assert len(told) == 1 or "Usage" in outcome.err, outcome
        assert len(told[0]) < 1200, outcome
        assert len(told[0].split()) > 3, outcome
    here = states_below(Path.cwd())
    new = here.keys() - states.keys()
    for name in new:
        assert not name.endswith(".part"), name
        assert not any(part.startswith(".") for part in Path(name).parts), name
    for name in ("pipe", "pipe.csv", "pipe.json", "pipe.npz"):
        assert Path(name).is_fifo(), f"{name} was replaced"
    out = next((value for option, value in pairwise(case.arguments) if option == "--out"), None)
    for name, before in files.items():
        if here.get(name) == states[name] or name == out:
            continue
        wanted = before if name != case.file else case.content
        anew = Path(name).name.startswith(WRITTEN_ANEW) or name.startswith(CHANGING.get(case.command, ("\0",)))
        kept = isinstance(wanted, str) or wanted in map(content, map(Path, (name, *new)))
        assert anew or kept or may_go(case, name), f"{name} is lost"
    got_in(case, outcome, files)


def may_go(case: Case, name: str) -> bool:
    """Whether a command is for changing that file: an unfinished run that goes on, or what gc was asked to remove."""
    unfinished = not (Path(name).parent / RESULT).is_file() or name == case.file
    if case.command == "runs gc":
        return bool({"--superseded", "--unfinished", "--stale", "--models", "--compress"} & {*case.arguments})
    return name.startswith("runs/") and case.command in ("train", "reproduce", "audit", "conformance") and unfinished


def got_in(case: Case, outcome: Outcome, files: Files) -> None:
    """What is damaged in a finished run or in a package is found; what is read of a data set is what stands there."""
    if not isinstance(case.content, bytes) or not case.file or case.content == files[case.file]:
        return
    file, folder = Path(case.file), Path(case.file).parent
    if (
        str(folder / RESULT) in files
        and file.is_file()
        and file.name != "log.txt"
        and file.read_bytes() == case.content
    ):
        same = False
        with suppress(ValueError, RecursionError):
            same = file.name == RESULT and json.loads(case.content) == json.loads(files[case.file])
        found = verify(folder)
        untold = not found.problems and not any(
            "no digests" in note for note in found.notes
        )  # which went with the change
        assert same or not untold, f"{file} was changed, and nothing says so"
    taken = outcome.code == 0 and file.is_relative_to("data/shop") and "mini" not in case.arguments
    if case.command == "data verify" and taken:
        assert read_folder(folder).content_hash == json.loads(files["data/shop/dataset.json"])["content_hash"]
    if case.command == "pack verify" and outcome.code == 0 and "evidence.zip" in case.arguments:
        assert members(case.content) == members(files[case.file])
    if file.suffix == ".inter" and case.command in ("data stats", "data export") and taken:
        plain = [line.split("\t") for line in case.content.decode("utf-8-sig").splitlines() if line.strip()]
        at = [plain[0].index(column) for column in ("userID", "itemID", "x_label")]
        wanted = sorted(tuple(int(row[place]) for place in at) for row in plain[1:])
        data = read_folder(folder)
        parts = enumerate((data.train, data.valid, data.test))
        assert wanted == sorted((*pair, label) for label, pairs in parts for pair in pairs.tolist())


def members(content: bytes) -> Files:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def check(case: Case, place: Place, ran: Callable[..., Outcome] = run) -> None:
    folder, files, states = place
    prepare(case)
    try:
        judge(case, ran(*case.arguments), files, states)
    finally:
        restore(folder, files, states)


def whole(*arguments: str) -> Outcome:
    """A command in a process of its own."""
    done = subprocess.run([sys.executable, "-m", "harness", *arguments], capture_output=True, timeout=5 * SECONDS)
    return Outcome(done.returncode, *(said.decode("utf-8", "replace") for said in (done.stdout, done.stderr)))


@given(data=st.data())
@settings(FUZZED, max_examples=10_000 if THOROUGH else 30)
def test_every_command_ends_as_documented(place: Place, data: st.DataObject) -> None:
    check(data.draw(cases(place.files, list(COMMANDS))), place)


@given(data=st.data())
@settings(FUZZED, max_examples=200 if THOROUGH else 1)
def test_whole_commands_do_too(place: Place, data: st.DataObject) -> None:
    check(data.draw(cases(place.files, [name for name in COMMANDS if name not in CUT_SHORT])), place, whole)


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "reference"])  # which needs twenty seeds
def test_what_fits_is_taken(place: Place, name: str) -> None:
    """Otherwise the properties above would be about refusals alone."""
    arguments = name.split()
    for parameter in COMMANDS[name].params:
        if parameter.required or parameter.name in [*ALWAYS.get(name, []), EITHER.get(name, [""])[0]]:
            arguments += spelled(parameter, fitting(name, parameter)[0])
    outcome = run(*arguments)
    restore(*place)
    assert outcome.code != 2, outcome


SHOP = (
    "--ratings",
    "amazon/ratings_Shop.csv",
    "--metadata",
    "/proc/self/mem",
    "--images",
    "amazon/image_features_Shop.b",
)
FOUND = [
    Case("data prepare", ("data", "prepare", "new", *SHOP, "--k-core", "1")),  # whose first bytes cannot be read
    Case("data stats", ("data", "stats", "shop"), "data/shop/image_feat.npy", "loop"),
    Case("paper check", ("paper", "check", "paper"), "paper/paper.toml", "pipe"),
    Case("suite show", ("suite", "show", "small.toml"), "small.toml", b"seeds = " + b"[" * 3000),
    Case("watch", ("watch", "runs/small", "--once"), "runs/small/status.json", hostile.DEEP.encode()),
    Case("conformance", ("conformance", "traces"), "traces/bpr.npz", "device"),
    Case("audit", ("audit", "mini", "--model", "bpr", "--dry-run", "--seeds", "1000000000")),
    Case("train", ("train", "bpr", "shop", "--epochs", "1", "--seed", "9" * 100)),
    Case("recommend", ("recommend", "seed5", "--user", "u1", "--out", "pipe.csv")),
    Case("reproduce", ("reproduce", "small.toml", "--rerun", "none"), "runs/small/study.log", "pipe"),
    Case("report", ("report", "runs", "--paper", "paper"), "runs/small/report.md", "pipe"),
    Case("report", ("report", "caf\udce9", "--paper", "paper", "--format", "md,tex,csv,json")),
    Case("audit", ("audit", "caf\udce9", "--model", "bpr", "--seeds", "1", "--in-process", "--paper", "paper")),
]
"""What was found, one of each kind."""
EDITED = [  # a command, a file that it reads, what stands there, what is put in its place
    ("report runs --paper paper", "runs/shop/bpr*/run.json", rb'"cpu": "[^"]*",', b""),
    ("report runs --paper paper", "runs/shop/bpr*/run.json", rb'"cpu": "[^"]*"', b'"cpu": [1]'),
    ("report runs --paper paper", "runs/shop/bpr*/run.json", rb'"reg_weight": [^,]*', b'"reg_weight": [1]'),
    ("report runs --paper paper", "runs/shop/bpr*/result.json", rb"[+]00:00", b""),
    ("runs show seed5 --metrics all", "runs/shop/bpr*seed5/result.json", rb"@20", b"@x"),
    ("runs verify", "runs/shop/bpr*/run.json", rb'"started"', b'"more": ' + b"[" * 300 + b"]" * 300 + b', "started"'),
    ("runs list", "runs/shop/bpr*/epochs.jsonl", rb'"seconds": [^,]*', b'"seconds": 1e999'),
    ("runs list", "runs/shop/bpr*/epochs.jsonl", rb'"loss": [^,]*', b'"loss": ' + hostile.DEEP.encode()),
    ("watch runs/small --once", "runs/small/status.json", rb'"seconds_left": [^,]*', b'"seconds_left": 1e999'),
    ("conformance --log a.log", "a.log", rb"loss: 2.5", b"loss: 2.5.1"),
    ("conformance --log a.log", "a.log", rb"=[(]0.1, 999[)]", b"=(" + b"(" * 900 + b")"),
    ("conformance --log a.log", "a.log", rb"    ndcg@20: 0.2000", b""),
]


@pytest.mark.parametrize(("command", "file", "old", "new"), EDITED)
def test_files_that_were_edited_stay_read_or_refused(
    place: Place, command: str, file: str, old: bytes, new: bytes
) -> None:
    name = next(name for name in sorted(place.files) if Path(name).match(file))
    edited = re.sub(old, new, place.files[name], count=2)
    assert edited != place.files[name]
    words = tuple(command.split())
    known = next(each for each in COMMANDS if command.startswith(each))
    check(Case(known, words, name, edited), place)


@pytest.mark.parametrize("case", FOUND, ids=lambda case: case.command)
def test_what_was_found_stays_mended(place: Place, case: Case) -> None:
    check(case, place)
