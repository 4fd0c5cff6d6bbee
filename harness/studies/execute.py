"""Which trials of a study are left to run, and running them through one function, whatever runs them.

The store is what counts: a trial is done when its result is there, whoever put it there. So a study can be stopped and
started again, and two studies can share a store at the same time. The ways of running a trial are `local` and `ray`.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from bm3 import DataError
from harness.common import write_whole, writing
from harness.evaluation.words import short_metric
from harness.runs.record import CARD, FAILURE, MODEL, OUT_OF_MEMORY, RESULT, RUN, FailureKind, RunRecord, cost_key
from harness.runs.store import in_use, supersede, write_failure
from harness.runs.trial import Trial, folder_of, relabelled
from harness.runs.words import Policy
from harness.studies.estimate import Estimates
from harness.studies.status import Running
from harness.studies.suite import KeepModel, Outcomes, Row

MADE = "models.txt"
"""In a study's folder: of each model that it has kept and not chosen between, when it was written, and its run."""
LOGGER = logging.getLogger("harness.study")
RETRIES = 1
SECONDS_BETWEEN_LOOKS = 0.5
CROWDED = "out of memory, which others had part of; try again with --rerun failed"

Wanted = Callable[[Outcomes], Sequence[Trial]]
"""The trials known to be needed once these have ended, in order, these included."""


class Stored(NamedTuple):
    """What the store has of a trial, and what the policy makes of it."""

    to_run: bool
    run: RunRecord | None = None
    """Finished, where it is not to be run and has a result."""
    set_aside: bool = False
    """A result is there that a run takes the place of."""
    problem: str = ""
    """Why it is not run though it has no result."""


def stored(trial: Trial, store: Path, policy: Policy, costs: Mapping[str, Any] | None = None) -> Stored:
    """Whether the trial is to be run.

    Where costs are asked for, `costs` is what decides them here: a run of another machine does not count.

    A result that cannot be read, or is of vectors that are said to be others now, is kept until reruns are asked for.
    What was never finished is begun anew.
    """
    path = folder_of(trial, store)
    try:
        run = RunRecord.read(path) if (path / RUN).is_file() else None
    except DataError as error:
        damaged = not in_use(path) and (path / RESULT).is_file()
        if damaged and policy in ("failed", "all"):
            return Stored(True, set_aside=True, problem=str(error))
        return Stored(policy != "none" and not damaged, problem=str(error))
    if run is not None and run.finished:
        if why := relabelled(trial, run):
            anew = policy in ("failed", "all")
            return Stored(anew, set_aside=anew, problem=f"{why}; --rerun failed moves it aside and trains it again")
        there = cost_key(run.environment)
        other = [f"{key} {there[key]}, here {here}" for key, here in (costs or {}).items() if there[key] != here]
        if (other and policy != "none") or policy == "all":
            return Stored(True, set_aside=True, problem=f"measured elsewhere: {'; '.join(other)}" if other else "")
        return Stored(False, None if other else run)
    if run is not None and run.failure is not None and policy in ("missing", "none"):
        return Stored(False, problem=run.failure.message)
    return Stored(policy != "none")


@dataclass(frozen=True)
class Pending:
    """The trials known to be needed, and what of them is not run."""

    trials: tuple[Trial, ...]
    """In order, whether or not they are run."""
    outcomes: Outcomes
    """Those that are not run: by key the finished run, or None for one that has no result and is left alone."""

    @property
    def to_run(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.key not in self.outcomes]

    @property
    def without_result(self) -> list[Trial]:
        """Those that are not run though they have no result."""
        return [trial for trial in self.trials if self.outcomes.get(trial.key, trial) is None]


def pending(wanted: Wanted, store: Path, policy: Policy = "missing", costs: Mapping[str, Any] | None = None) -> Pending:
    """What a study would run, those trials included that follow from a selection the store has made."""
    outcomes: dict[str, RunRecord | None] = {}
    while True:
        trials, before = tuple(wanted(outcomes)), len(outcomes)
        for trial in trials:
            if trial.key not in outcomes:
                found = stored(trial, store, policy, costs=costs)
                outcomes |= {} if found.to_run else {trial.key: found.run}
        if len(outcomes) == before:  # an outcome may decide what else is needed
            return Pending(trials, outcomes)


@dataclass(frozen=True)
class Ending:
    """A trial that is no longer running. Whether it has a result stands in the store."""

    trial: Trial
    message: str
    """What is known of it, such as `exit code 1`; only of interest without a result."""
    vanished: bool = False
    """Its process or machine went without a word, so that another attempt may succeed."""
    misused: bool = False
    """Wrong settings, data or a full disk: not the run's own failure, which is not stored as one."""
    elsewhere: bool = False
    """It was not run, since another process runs it."""
    out_of_memory: bool = False
    """The system ended its process because memory ran out."""
    beside: bool = False
    """Others had part of its memory: a trial, at some time, or somebody's process on its GPU when it ended."""


class Backend(Protocol):
    """A way of running trials."""

    def start(self, trial: Trial, alone: bool = False) -> str | None:
        """Begin to run it and say where; None while there is no room for this one, `alone` none beside another."""

    def wait(self, seconds: float) -> list[Ending]:
        """What has ended since, as soon as something has, at the latest after so many seconds."""

    def stop(self) -> None:
        """Stop what is running, which can go on later."""


class Progress(NamedTuple):
    """How far a study is: the trials known so far by what became of them."""

    trials: Sequence[Trial]
    outcomes: Outcomes
    reused: frozenset[str]
    """Keys of trials that had a result already."""
    running: tuple[Running, ...]


@dataclass(frozen=True)
class Study:
    """How trials are run, and where what comes of them is kept."""

    name: str
    store: Path
    """The folder of runs, which studies share."""
    estimates: Estimates
    policy: Policy = "missing"
    side_by_side: int = 1
    """Trials that may run at a time, for the time left."""
    alone: bool = False
    """No two of its trials may run at a time, in whichever process."""
    costs: Mapping[str, Any] | None = None
    """What decides costs here, where they are asked for, as in `stored`."""

    @property
    def folder(self) -> Path:
        """The study's own: its log and status, and what the caller writes of it."""
        return self.store / self.name


def keep_models(rows: Sequence[Row], outcomes: Outcomes, which: KeepModel, study: Study) -> list[str]:
    """After a study: remove weights of points that are not chosen, where only the `best` stay.

    Removed are those alone that the study made itself, also before it was interrupted. What is otherwise than asked for
    is said, a line each. Raises WriteError.
    """
    passed = set[str]()
    if which == "best":
        over = [row.passed_over(outcomes) for row in rows]
        passed = set[str]().union(*over)  # a trial may be of two rows
        passed -= {t.key for row, its in zip(rows, over, strict=True) for t in row.wanted(outcomes) if t.key not in its}
    runs = {trial.key: run for row in rows for trial in row.wanted(outcomes) if (run := outcomes.get(trial.key))}
    with_model = {key: str(time) for key, run in runs.items() if (time := _written(run.path / MODEL))}
    path = study.folder / MADE
    with writing(path):
        lines = path.read_text(errors="replace").splitlines() if path.is_file() else []
        ours = {key for key in passed & with_model.keys() if f"{with_model[key]} {key}" in lines}
        for key in ours:
            for name in (MODEL, CARD):
                (runs[key].path / name).unlink(missing_ok=True)
        # Of other trials, such as those of models that were left out, nothing is decided yet.
        left = [f"{line}\n" for line in lines if line.partition(" ")[2] not in runs]
        if left:
            write_whole(path, "".join(left))
        else:
            path.unlink(missing_ok=True)
    stay, bare = len((passed & with_model.keys()) - ours), len(runs.keys() - with_model.keys() - passed)
    said = [f"models of {stay} runs from before stay, whose points are not chosen; bm3 runs gc --models removes all"]
    made = [f"{bare} runs were finished before and kept no model; --rerun all trains them again and keeps it"]
    return [*said * bool(stay), *made * bool(bare)]


def _written(file: Path) -> int | None:
    """When it was, in nanoseconds; None where it is not there."""
    return file.stat().st_mtime_ns if file.is_file() else None


def execute(
    study: Study, wanted: Wanted, backend: Backend, observe: Callable[[Progress], None] = lambda progress: None
) -> Outcomes:
    """Run all trials that are wanted, those of a selection as soon as it is made, and give what became of each.

    A trial whose process vanishes is tried once more, going on from its checkpoint. One that another process is running
    is left to it. Nothing that is stored and finished is run again, except with the policy `all`, which moves what was
    there before aside.

    Raises WriteError when the store cannot be written; on this, and on Ctrl-C, what runs is stopped.
    """
    execution = _Execution(study, wanted, backend)
    try:
        while execution.advance():
            observe(execution.progress())
        observe(execution.progress())
    finally:
        backend.stop()
    return execution.outcomes


@dataclass
class _Execution:
    """The state of `execute`."""

    study: Study
    wanted: Wanted
    backend: Backend
    trials: Sequence[Trial] = ()
    outcomes: dict[str, RunRecord | None] = field(default_factory=dict)
    reused: set[str] = field(default_factory=set)
    running: dict[str, Running] = field(default_factory=dict)
    elsewhere: dict[str, Running] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)
    crowded: set[str] = field(default_factory=set)
    """What ran out of memory beside others, which need not be its own doing: it is tried once more, alone."""

    def advance(self) -> bool:
        """Note what the store has, start what there is room for, and wait a little; False when all has ended."""
        self.trials = self.wanted(self.outcomes)
        while self._look():
            self.trials = self.wanted(self.outcomes)  # an outcome may decide what else is needed
        todo = [trial for trial in self.trials if trial.key not in self.outcomes]
        if not todo:
            return False
        for trial in [one for one in todo if one.key not in self.running and not self._runs_elsewhere(one)]:
            if self.study.alone and (self.running or self.elsewhere):
                break
            self._begin(trial)
        for ending in self.backend.wait(SECONDS_BETWEEN_LOOKS):
            self._end(ending)
        return True

    def progress(self) -> Progress:
        running = (*self.running.values(), *self.elsewhere.values())
        return Progress(tuple(self.trials), dict(self.outcomes), frozenset(self.reused), running)

    def _look(self) -> bool:
        """Note which trials need not be run; whether there were any."""
        before = len(self.outcomes)
        for trial in self.trials:
            key = trial.key
            if key in self.outcomes or key in self.running:
                continue
            mine = key in self.attempts
            once = self.study.policy == "all" and (mine or key in self.elsewhere)
            policy: Policy = "missing" if once else self.study.policy
            found = stored(trial, self.study.store, policy, None if mine else self.study.costs)
            if found.set_aside:
                aside = supersede(self.study.store, folder_of(trial, self.study.store))
                LOGGER.info("set aside: %s%s", aside, f": {found.problem}".rstrip(": "))
            elif not found.to_run:
                if found.problem:
                    LOGGER.warning("failed earlier: %s: %s", key, found.problem)
                if found.run is not None and not mine and key not in self.elsewhere:
                    self.reused.add(key)
                self.elsewhere.pop(key, None)
                self.outcomes[key] = found.run
        return len(self.outcomes) > before

    def _runs_elsewhere(self, trial: Trial) -> bool:
        """Whether another process runs the trial."""
        if not in_use(self.study.store / trial.key):
            self.elsewhere.pop(trial.key, None)
            return False
        if trial.key not in self.elsewhere:
            LOGGER.info("another process runs: %s", trial.key)
            self.elsewhere[trial.key] = _running(trial, "another process", 1)
        return True

    def _begin(self, trial: Trial) -> None:
        place = self.backend.start(trial, trial.key in self.crowded)
        if place is not None:
            attempt = self.attempts[trial.key] = self.attempts.get(trial.key, 0) + 1
            self.running[trial.key] = _running(trial, place, attempt)
            LOGGER.info("started: %s (%s%s)", trial.command, place, f", attempt {attempt}" if attempt > 1 else "")

    def _end(self, ending: Ending) -> None:
        key = ending.trial.key
        seconds = time.time() - self.running.pop(key).since
        if ending.elsewhere:  # begun at nearly the same moment
            self.attempts.pop(key)
            LOGGER.info("left to another process: %s", key)
            return
        try:
            path = folder_of(ending.trial, self.study.store)
            run = RunRecord.read(path) if (path / RUN).is_file() else None
        except DataError as error:
            LOGGER.error("failed: %s: %s", key, error)
            self.outcomes[key] = None
            return
        if run is not None and run.finished:
            self.outcomes[key] = run
            if ending.trial.keep is not None and (written := _written(path / MODEL)):
                with writing(self.study.folder), (self.study.folder / MADE).open("a", encoding="utf-8") as made:
                    made.write(f"{written} {key}\n")
            value = run.outcome.test[run.stopping]
            LOGGER.info("finished: %s: test %s %.4f, %.0f s", key, short_metric(run.stopping), value, seconds)
            return
        crowded = ending.beside and (ending.out_of_memory or (run is not None and run.out_of_memory))
        if crowded and key not in self.crowded:  # not its own doing, so no dash
            LOGGER.warning("out of memory beside others: %s; trying again alone", key)
            self.crowded.add(key)
            (path / FAILURE).unlink(missing_ok=True)
            return
        if run is not None and run.failure is not None and not crowded:
            message = run.failure.message
        elif ending.vanished and not ending.out_of_memory and self.attempts[key] <= RETRIES:
            LOGGER.warning("vanished: %s: %s; trying again", key, ending.message)
            return
        else:
            message = CROWDED if crowded else ending.message
            kind: FailureKind = OUT_OF_MEMORY if ending.out_of_memory else "killed" if ending.vanished else "error"
            if run is not None and not ending.misused:
                write_failure(path, "error" if crowded else kind, message)
        LOGGER.error("failed: %s: %s", key, message)
        self.outcomes[key] = None


def _running(trial: Trial, place: str, attempt: int) -> Running:
    return Running(trial.key, trial.command, time.time(), attempt, trial.epochs, place)
