"""What a study would run, from its store and its policy, before anything runs. Running it is `execution`, which settles
the same trials without running them.
"""

from dataclasses import dataclass
from pathlib import Path

from bm3 import DataError
from harness.runs.store import RESULT, RUN, StoredRun, in_use
from harness.runs.trial import Trial, folder_of
from harness.runs.words import Policy
from harness.studies.execution import Outcomes, Wanted


@dataclass(frozen=True)
class Pending:
    """The trials known to be needed, and what of them is settled."""

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


def pending(wanted: Wanted, store: Path, policy: Policy = "missing") -> Pending:
    """What is left of the trials that are wanted, those included that follow from a selection the store has made."""
    outcomes: dict[str, StoredRun | None] = {}
    while True:
        trials, before = tuple(wanted(outcomes)), len(outcomes)
        for trial in trials:
            if trial.key not in outcomes:
                outcomes |= _settled(trial, store, policy)
        if len(outcomes) == before:  # an outcome may decide what else is needed
            return Pending(trials, outcomes)


def _settled(trial: Trial, store: Path, policy: Policy) -> dict[str, StoredRun | None]:
    """The outcome of a trial that would not be run, by its key; empty for another."""
    if policy == "all":
        return {}
    path = folder_of(trial, store)
    try:
        run = StoredRun.read(path) if (path / RUN).is_file() else None
    except DataError:
        # Damaged: a result is kept until reruns are asked for, what was never finished is begun anew.
        left_alone = not in_use(path) and (path / RESULT).is_file() and policy == "missing"
        return {trial.key: None} if left_alone or policy == "none" else {}
    if run is not None and run.finished:
        return {trial.key: run}
    failed = run is not None and run.failure is not None
    return {trial.key: None} if policy == "none" or (failed and policy == "missing") else {}
