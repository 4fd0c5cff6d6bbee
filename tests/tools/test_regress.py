"""Measuring for `bm3 regress`, and the command, on a workload of seconds: what is planted in a tree is found there."""

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
import torch
from command_line import Command, refused

import harness
from bm3 import ConfigError
from harness.cli import tools as cli_tools
from harness.data.dataset import Dataset
from harness.data.layouts import load_dataset
from harness.data.synthetic import of_size
from harness.measure.gpu import NvmlGpu
from harness.paper.folders import DEFAULT, paper_folder
from harness.tools.regress import measure as measuring
from harness.tools.regress import worker
from harness.tools.regress.baseline import Measurement, NothingToCompareError, read_baseline
from harness.tools.regress.judge import MEMORY, TIME, WALL, Comparison, compare, exit_code
from harness.tools.regress.judge import Outcome as Word
from harness.tools.regress.measure import Plan, Tree, check, faults, measure, plan_of, revision_of, tree_of
from harness.tools.regress.rules import Repetitions, Rules, load_rules

ROOT = Path(harness.__file__).parent.parent
PAPER = paper_folder(DEFAULT)
HERE = Tree("here", ROOT)
CPU = torch.device("cpu")
ONCE = Repetitions(passes=1, rounds=2, memory=1)
TELLS_PEAKS = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux' resident memory")
Inputs = tuple[Dataset, Dataset, Path]


def tiny_rules() -> Rules:
    """The rules that ship, of less work; blocks of a millisecond are too short for a judgement on time."""
    rules = load_rules(PAPER / "regression.toml")
    size = replace(
        rules.workload,
        models=("bpr", "lightgcn"),
        training={"epochs": 2, "batch_size": 256, "learning_rate": 0.01},
        training_of={},
        steps={device: {"bpr": 2, "lightgcn": 2} for device in ("cpu", "cuda")},
    )
    blind = {kind: replace(getattr(rules, kind), factor=1000.0) for kind in ("time", "wall")}
    often = Repetitions(passes=1, rounds=6, memory=1)
    presets = {**dict.fromkeys(rules.presets, often), "baseline": Repetitions(passes=2, rounds=3, memory=1)}
    return replace(rules, workload=size, presets=presets, **blind)


@pytest.fixture(scope="session")
def inputs(clustered: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """Twice the same data set, and one recorded trace."""
    traces = tmp_path_factory.mktemp("traces")
    shutil.copy(PAPER / "traces" / "bpr.npz", traces)
    return replace(clustered, name="small"), replace(clustered, name="large"), traces


@pytest.fixture(scope="session")
def plan(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return plan_of(tiny_rules().workload, *inputs, tmp_path_factory.mktemp("plan"), CPU, 1)


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """A copy of this tree, in which a step of BPR takes more memory, and one of LightGCN waits."""
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")  # compiling for a new folder would take most of the time
    for name in ("bm3", "harness"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "harness" / "training" / "steps.py").open("a") as module:
        module.write(PLANTED)
    return Tree("planted", tmp_path)


PLANTED = """
_step = TrainingSteps.step
def _worse(self):
    import numpy, time
    if type(self.model).__name__ == "BPR":
        self.kept = numpy.ones(2**26, dtype=numpy.uint8)
    else:
        time.sleep(0.2)
        print("spoils no answer")
    return _step(self)
TrainingSteps.step = _worse
"""


@TELLS_PEAKS
def test_planted_waiting_and_memory_are_found_and_named(plan: Plan, planted: Tree) -> None:
    rules = tiny_rules()
    rules = replace(rules, wall=replace(rules.wall, factor=10.0))
    only = {"time": ["large/bpr", "large/lightgcn"], "memory": ["large/bpr"]}
    now, before = measure([planted, HERE], plan, rules.presets["quick"], only=only)
    worse = {(one.subject, one.quantity): one for one in compare(before, now, rules) if one.outcome is Word.REGRESSED}
    assert list(worse) == [("large/lightgcn", WALL), ("large/bpr", MEMORY)]
    grown = worse["large/bpr", MEMORY]
    assert (grown.now or 0) - (grown.before or 0) > 0.9 * 2**26
    assert not now.accuracy
    assert not now.traces


SCRIPT = """import json, os, sys, time
def say(**answer): print(json.dumps(answer), flush=True)
say(answer={root!r})
for kind, subject, *others in json.load(sys.stdin)["questions"]:"""


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Replaces the worker by a script that says where it is, and then runs the lines given for each question."""

    def script(*lines: str) -> None:
        path = tmp_path / "worker.py"
        path.write_text("\n    ".join([SCRIPT.format(root=str(ROOT.resolve())), *lines]))
        monkeypatch.setattr(measuring.worker, "__file__", str(path))

    return script


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("print('{half', end='', flush=True); os._exit(7)", "exit code 7"),
        ("time.sleep(100)", "no answer in 4 s"),
        ("say(error='no such layer'); continue", "no such layer"),
    ],
)
def test_what_fails_dies_or_waits_for_ever_is_an_error_of_its_subject_alone_and_no_baseline(
    fault: str, error: str, plan: Plan, scripted: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "PER_QUESTION_S", 0.5 if "sleep" in fault else 60.0)
    scripted(f"if subject == 'large/bpr': {fault}", "say(answer=[1.0, 2.0])")
    others = ("large/evaluation", "large/lightgcn")
    found = measure([HERE], plan, replace(ONCE, rounds=1), only={"time": [others[0], "large/bpr", others[1]]})[0]
    assert found.time == {name: [(1.0, 2.0)] for name in others}
    assert error in found.errors["large/bpr: time"]
    failed, _ = faults(found, tiny_rules(), "cpu")
    assert [line.partition(" (")[0] for line in failed] == ["large/bpr time", "large/bpr wall time"]


def test_trees_take_turns_and_another_begins_each_time(
    plan: Plan, scripted: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    process = measuring._process

    def noted(tree: Tree, *arguments: Any) -> Any:
        asked.append(tree.name)
        return process(tree, *arguments)

    monkeypatch.setattr(measuring, "_process", noted)
    scripted("say(answer=[1.0, 2.0])")
    measure([HERE, Tree("other", ROOT)], plan, replace(ONCE, passes=3), only={"time": ["large/bpr"]})
    assert asked == ["here", "other", "other", "here", "here", "other"]


def test_packages_of_elsewhere_are_not_measured(plan: Plan, scripted: Callable[..., None], tmp_path: Path) -> None:
    scripted("say(answer=[1.0, 2.0])")
    with pytest.raises(NothingToCompareError, match="would be measured instead"):
        measure([Tree("elsewhere", tmp_path)], plan, ONCE)


def test_data_sets_are_laid_out_as_they_are_and_other_work_is_other_work(
    inputs: Inputs, plan: Plan, tmp_path: Path
) -> None:
    assert load_dataset(str(plan.folder / "large")).content_hash == inputs[1].content_hash
    size = replace(tiny_rules().workload, seeds=(3, 4))
    assert plan_of(size, *inputs, tmp_path, CPU, 1).work != plan.work
    assert json.loads(json.dumps(plan.work)) == plan.work
    made, again, other = (of_size(300, 80, 2500, seed) for seed in (1, 1, 2))
    assert (made.n_users, made.n_items, made.n_interactions) == (300, 80, 2500)
    assert made.content_hash == again.content_hash != other.content_hash


# A whole check, with measuring replaced: what looks like a regression is measured again, and only it.


def usual(slower: float = 1.0, noise: float = 0.001) -> Measurement:
    """Two subjects; the first one slower."""
    factors = {"small/bpr": slower, "large/bpr": 1.0}
    return Measurement(time={name: [(f * (1 + noise * n), 1.0) for n in range(6)] for name, f in factors.items()})


@pytest.mark.parametrize(
    ("gives", "outcome", "reason"),
    [
        ([usual()], Word.HELD, "not significant"),
        ([usual(1.3), usual(1.25)], Word.REGRESSED, "measured again: +25.0 %"),
        ([usual(1.3), usual()], Word.HELD, "measured again: +0.0 %"),
        ([usual(1.3), usual(0.6, noise=0.4)], Word.UNMEASURED, "spread"),
        ([usual(1.3), NothingToCompareError("no memory left")], Word.REGRESSED, "+30.0 %"),
    ],
)
def test_a_slowdown_counts_if_it_is_there_again(
    gives: list[Any], outcome: Word, reason: str, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def measured(trees: Any, plan: Any, often: Any, *, only: Any, tell: Any) -> list[Measurement]:
        asked.append(only)
        given = gives[len(asked) - 1]
        if isinstance(given, Exception):
            raise given
        return [given]

    monkeypatch.setattr(measuring, "measure", measured)
    found: tuple[Comparison, ...] = check(HERE, plan, ONCE, load_rules(PAPER / "regression.toml"), usual())
    assert asked == [None, {"time": ["small/bpr"]}][: len(gives)]
    (one,) = (one for one in found if (one.subject, one.quantity) == ("small/bpr", TIME))
    assert one.outcome is outcome
    assert reason in one.reason
    assert exit_code(found) == (1 if outcome is Word.REGRESSED else 0)


# The command.


def shrink(patch: pytest.MonkeyPatch, inputs: Inputs) -> None:
    """Let the command measure for seconds only."""
    patch.setattr("harness.tools.regress.rules.load_rules", lambda path: tiny_rules())
    patch.setattr(measuring, "inputs", lambda paper: inputs)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, inputs: Inputs) -> None:
    shrink(monkeypatch, inputs)


@pytest.fixture(scope="session")
def stored_baseline(tmp_path_factory: pytest.TempPathFactory, inputs: Inputs) -> Path:
    """A folder with a baseline."""
    folder = tmp_path_factory.mktemp("baseline")
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch, inputs)
        how = ["--update-baseline", "--out", str(folder), "--device", "cpu"]
        cli_tools.regress.main(how, standalone_mode=False)
    return folder


@pytest.fixture
def baseline(stored_baseline: Path, tmp_path: Path) -> Path:
    """A copy of the baseline, for one test to change."""
    (path,) = Path(shutil.copytree(stored_baseline, tmp_path / "regression")).glob("baseline-*.json")
    return path


def test_all_that_is_asked_for_is_measured_as_often_as_asked(baseline: Path, plan: Plan) -> None:
    measured = read_baseline(baseline).measurement
    assert measured.errors == {} or not Path("/proc/self/clear_refs").exists()
    assert list(measured.time) == plan.heavy == ["large/bpr", "large/lightgcn", "large/evaluation"]
    assert {len(times) for times in measured.time.values()} == {6}
    assert all(cpu > 0 and wall > 0 for times in measured.time.values() for cpu, wall in times)
    assert all(peak >= 0 for peaks in measured.memory.values() for peak in peaks)
    assert measured.traces == {"bpr": "passed"}
    assert list(measured.accuracy) == ["small/bpr", "small/lightgcn"]
    for seeds in measured.accuracy.values():
        first, second = ({result.bits for result in results} for results in seeds)
        assert (len(seeds[0]), len(first), len(second)) == (2, 1, 1)  # repeated in another process
        assert first != second


def edited(path: Path, change: Callable[[Any], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_a_baseline_that_is_not_there_ends_in_3_at_once_and_says_how_to_make_one(command: Command) -> None:
    for named in ((), ("--baseline", "none.json"), ("--dry-run",)):
        outcome = command("regress", "--device", "cpu", *named)
        assert outcome.code == 3
        assert len(outcome.err.splitlines()) == 1
        assert "--update-baseline" in outcome.err
    assert not list(Path.cwd().iterdir())


@pytest.mark.usefixtures("tiny")
def test_what_did_not_change_keeps_its_bits_and_a_loss_of_accuracy_is_exit_code_1(
    command: Command, baseline: Path
) -> None:
    def better_before(content: Any) -> None:
        for results in content["measurement"]["accuracy"]["small/bpr"]:
            for result in results:
                result["metrics"]["recall@20"] *= 1.01

    edited(baseline, better_before)
    outcome = command("regress", "--quick", "--out", baseline.parent, "--device", "cpu")
    assert outcome.code == 1
    (line,) = (line for line in outcome.out.splitlines() if "✗ regressed" in line)
    assert [cell.strip() for cell in line.split("|")[1:3]] == ["small/bpr", "recall@20"]
    report = (baseline.parent / "report.md").read_text()
    assert sum("✓ held" in line and "the same bits" in line for line in report.splitlines()) == 2 * 4 - 1
    assert (baseline.parent / "junit.xml").read_text().startswith("<?xml")


@pytest.mark.usefixtures("tiny")
def test_a_baseline_of_another_machine_or_other_work_is_refused_with_what_differs(
    command: Command, baseline: Path
) -> None:
    edited(baseline, lambda content: content["workload"].update(seeds=[7, 8]))
    outcome = command("regress", "--baseline", baseline, "--device", "cpu")
    assert (outcome.code, "seeds: [7, 8], here [1, 2]" in outcome.err) == (3, True)
    edited(baseline, lambda content: content["machine"].update(cpu="another CPU", torch="1.0"))
    outcome = command("regress", "--baseline", baseline, "--device", "cpu")
    assert (outcome.code, len(outcome.err.splitlines())) == (3, 1)
    assert "another CPU" in outcome.err
    assert "torch: 1.0" in outcome.err


@pytest.mark.parametrize("text", ["", "[]", '{"format": 2}', '{"format": 1}', '{"format": 2, "machine": 3}', "{"])
def test_a_file_that_is_no_baseline_is_refused_in_one_line(command: Command, text: str) -> None:
    Path("broken.json").write_text(text)
    line = refused(command("regress", "--baseline", "broken.json"))
    assert "broken.json" in line
    assert "--update-baseline" in line


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--against", "main", "--update-baseline"), "--against"),
        (("--against", "main", "--baseline", "one.json"), "--against"),
        (("--quick", "--update-baseline"), "--quick"),
        (("--update-baseline", "--device", "cpu", "--out", "taken/below"), "taken"),
    ],
)
def test_what_does_not_go_together_is_refused_before_measuring(
    arguments: tuple[str, ...], named: str, command: Command
) -> None:
    Path("taken").write_text("")
    assert named in refused(command("regress", *arguments))


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, "-C", str(folder), *arguments], check=True, capture_output=True)


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two revisions: `before` the files had moved, and `first`, with the files as they are now."""
    folder = tmp_path_factory.mktemp("repository") / "checkout"
    (folder / "harness").mkdir(parents=True)
    (folder / "harness" / "cli.py").write_text("")
    git(folder, "init", "--quiet")
    for tag in ("before", "first"):
        if tag == "first":
            for name in ("bm3", "harness", "expected"):
                shutil.copytree(
                    ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True
                )
        git(folder, "add", ".")
        git(folder, "commit", "--quiet", "-m", tag)
        git(folder, "tag", tag)
    return folder


@pytest.mark.usefixtures("tiny")
def test_a_revision_is_measured_in_turn_and_the_repository_is_left_as_it_was(
    command: Command, repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cli_tools, "CHECKOUT", repository)
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    before = sorted((repository / ".git").rglob("*"))
    (repository / "untracked").write_text("")
    outcome = command("regress", "--against", "first", "--quick", "--device", "cpu", "--out", tmp_path / "out")
    assert outcome.code == 0, outcome
    assert "revision first (" in outcome.out
    assert (tmp_path / "out" / "report.md").read_text().count("the same bits") == 2 * 4
    assert sorted((repository / ".git").rglob("*")) == before


def test_the_tree_has_the_files_of_the_revision_and_is_gone_afterwards(repository: Path) -> None:
    with tree_of(repository, "first") as tree:
        assert (tree.folder / "harness" / "tools").is_dir()
        assert not (tree.folder / "untracked").exists()
        assert not (tree.folder / ".git").exists()
    assert not tree.folder.exists()


def test_what_is_no_revision_or_of_before_the_move_is_refused(
    command: Command, repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("nothing", "--help", "", "first:harness"):
        with pytest.raises(ConfigError, match="--against"):
            revision_of(repository, name)
    for folder in (repository / "harness", tmp_path):
        with pytest.raises(ConfigError, match="no git checkout"):
            revision_of(folder, "HEAD")
    monkeypatch.setattr(cli_tools, "CHECKOUT", repository)
    assert "--against nothing" in refused(command("regress", "--dry-run", "--against", "nothing"))
    outcome = command("regress", "--against", "before", "--device", "cpu")
    assert outcome.code == 3
    assert "do not reach behind" in outcome.err.splitlines()[-1]


def test_a_dry_run_measures_and_writes_nothing(
    command: Command, baseline: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli_tools, "CHECKOUT", repository)
    against = command("regress", "--dry-run", "--against", "first", "--out", "out")
    stored = command("regress", "--dry-run", "--quick", "--out", baseline.parent, "--device", "cpu")
    made = command("regress", "--dry-run", "--update-baseline", "--out", "out")
    assert [one.code for one in (against, stored, made)] == [0, 0, 0]
    assert "preset quick (3 processes with 2 rounds each" in stored.out
    assert str(baseline) in stored.out
    assert "stored as" in made.out
    assert not Path("out").exists()


# On a GPU: by fakes --------------------------------------------------------------------------------------------------


class FakeCuda:
    """torch.cuda's allocator: `fixed` bytes once, for the first block, and garbage until it is collected."""

    def __init__(self, fixed: int) -> None:
        self.fixed, self.held, self.peak, self.garbage = fixed, 0, 0, 0

    def block(self, n_bytes: int) -> None:
        self.held, self.fixed = self.held + self.fixed, 0
        self.peak = max(self.peak, self.held + self.garbage + n_bytes)
        self.garbage = n_bytes // 2

    def collect(self) -> None:
        self.garbage = 0

    def reset_peak_memory_stats(self, device: Any) -> None:
        self.peak = self.held + self.garbage

    def memory_allocated(self, device: Any) -> int:
        return self.held + self.garbage

    def max_memory_allocated(self, device: Any) -> int:
        return self.peak


@pytest.fixture
def on_cuda(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> tuple[worker.Worker, FakeCuda]:
    """A worker that believes itself on a GPU, whose blocks on the large data set take as many bytes as their name."""
    asked, cuda = worker.Worker(plan.work, plan.folder), FakeCuda(fixed=1000)
    asked._device = torch.device("cuda")
    monkeypatch.setattr(
        asked, "_block", lambda data, name: lambda: cuda.block(int(name) if data is asked._large else 9)
    )
    monkeypatch.setattr(worker.gc, "collect", cuda.collect)
    for name in ("reset_peak_memory_stats", "memory_allocated", "max_memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, getattr(cuda, name))
    return asked, cuda


@pytest.mark.parametrize("before", [[], ["300"], ["500", "200"]])
def test_what_was_asked_before_does_not_change_the_bytes(
    before: list[str], on_cuda: tuple[worker.Worker, FakeCuda]
) -> None:
    asked, _ = on_cuda
    for other in before:
        assert asked.memory(other) == int(other)
    assert asked.memory("400") == 400


@pytest.mark.parametrize(("device", "warm_s"), [("cpu", 0.0), ("cuda", 1.0)])
@pytest.mark.parametrize(("call_ms", "calls"), [(4, 13), (50, 1), (200, 1)])
def test_a_calibration_lasts_50_ms_and_clocks_have_risen(
    call_ms: int, calls: int, device: str, warm_s: float, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, clocked = worker.Worker(plan.work, plan.folder), list[Any]()
    asked._device = torch.device(device)

    def seconds(block: Any) -> tuple[float, float]:
        clocked.append(block)
        times = asked._calls if block == asked._calibrated else 1
        return times * call_ms / 1000, times * call_ms / 1000

    monkeypatch.setattr(asked, "_clocked", seconds)
    monkeypatch.setattr(worker, "Calibration", lambda device: lambda: None)
    monkeypatch.setattr(asked, "_block", lambda data, name: lambda: None)
    assert asked.time("bpr") == pytest.approx((1, 1))  # a block that takes as long as one calibration
    assert asked._calls == (calls if device == "cuda" else 1)
    warmed = [block for block in clocked if block == asked._calibrate]
    assert len(warmed) * call_ms / 1000 >= warm_s
    assert clocked[-3:] == [asked._calibrated, asked._blocks["bpr"], asked._calibrated]


@pytest.mark.parametrize("held", [True, False])
def test_where_clocks_are_held_times_are_seconds_and_other_work_to_compare_with(
    held: bool, inputs: Inputs, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "clocks_held", lambda device: held)
    other = plan_of(tiny_rules().workload, *inputs, tmp_path, CPU, 1)
    assert (other.work != plan.work) == held
    asked = worker.Worker(other.work, other.folder)
    monkeypatch.setattr(asked, "_clocked", lambda block: (2.0, 3.0))
    monkeypatch.setattr(asked, "_calls_needed", lambda calibrate: 1)
    assert asked.time("bpr") == ((2.0, 3.0) if held else (1.0, 1.0))


@pytest.mark.parametrize(("reasons", "held"), [(0, False), (1, False), (2, True), (3, True), (None, False)])
def test_held_clocks_are_known_from_nvml(reasons: int | None, held: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def told(handle: str) -> int:
        if reasons is None:
            raise pynvml.NVMLError_NotSupported
        return reasons

    gpu = object.__new__(NvmlGpu)
    gpu._nvml = SimpleNamespace(nvmlDeviceGetCurrentClocksThrottleReasons=told, nvmlShutdown=lambda: None)
    gpu._whole = "0"
    monkeypatch.setattr(NvmlGpu, "of_torch_device", lambda device: gpu)
    assert measuring.clocks_held(torch.device("cuda")) == held
    assert not measuring.clocks_held(CPU)
