"""What a kept model is for: lists for users of its data set, and vectors, in files that others read.

Ids are the data set's own, as text; where it has none, its numbers. Lists are those of the evaluation: the same masks,
the same order of equal scores. How weights are stored is `weights`.
"""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray

from bm3 import ConfigError, DataError, Recommender
from harness.common import check_writable, write_whole, writing
from harness.data.files import listed
from harness.evaluation.ranking import Evaluator, model_scorer
from harness.ingest.exporting import called, own_ids
from harness.ingest.tables import as_text
from harness.runs.record import RunRecord
from harness.runs.trial import Trial, trial_of
from harness.runs.weights import again, check_names, read_weights
from harness.training.fit import build
from harness.training.steps import make_deterministic
from harness.training.streams import Streams

MEND = "name another file with --out"


class Recommendation(NamedTuple):
    """A line of a user's list; its best item has rank 1."""

    user: str
    item: str
    rank: int
    score: float


class Embeddings(NamedTuple):
    """Vectors whose dot products are the scores, each in the order of its ids."""

    user_ids: list[str]
    users: NDArray[np.floating]
    """[U, d]"""
    item_ids: list[str]
    items: NDArray[np.floating]
    """[I, d]"""


@dataclass(frozen=True)
class KeptModel:
    """A run's model as it was in its best epoch, with the data set it is of."""

    trial: Trial
    model: Recommender
    users: list[str]
    """What the data set calls each user."""
    items: list[str]

    @classmethod
    def load(cls, run: RunRecord, data: Path | None = None) -> Self:
        """The model that a run kept, on the run's kind of device where there is one.

        Raises DataError where none was kept, its file is damaged or the data set found is another one or calls users
        or items otherwise, ConfigError where this version cannot make the model or computes it otherwise.
        """
        make_deterministic()
        state, ids = read_weights(run)
        trial = trial_of(run, data, "auto" if run.device == "cuda" else "cpu")
        check_names(run, ids, own_ids(trial.dataset_name, data, trial.dataset), trial.dataset)
        version = trial.entry.model.numerics_version
        if run.numerics.model != version:
            what = f"numerics version {run.numerics.model} of {run.model}, and this is version {version}"
            raise ConfigError(
                f"{run.path}: its model is of {what}, whose scores are others; {again(run)} trains it anew"
            )
        streams = Streams(trial.seed)
        model = build(trial.entry.model, trial.dataset, trial.config, streams, trial.device, trial.training)
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            raise ConfigError(f"{run.path}: its model does not fit this version's {run.model}: {error}") from error
        return cls(trial, model.to(trial.device), *called(ids, trial.dataset))

    @cached_property
    def _evaluator(self) -> Evaluator:
        masked = self.trial.training.evaluation.mask_validation
        return Evaluator(self.trial.dataset, "test", mask_validation=masked)

    def recommend(self, users: Iterable[object] | None = None, k: int = 10) -> list[Recommendation]:
        """The `k` ≥ 1 best items of each of the users, by id, or of all; without those of training, as in evaluation.

        Raises DataError for a user that the data set does not have, or that has nothing in training, ConfigError for
        users that are no list.
        """
        if users is not None and (isinstance(users, str) or not np.iterable(users)):
            raise ConfigError(f"users is {users!r}: give a list of ids, such as [{users!r}]")
        trained = np.unique(self.trial.dataset.train[:, 0]).astype(np.int64)
        asked = trained if users is None else self._numbers([as_text(user, "users") for user in users])
        if not len(asked):
            raise DataError("no user is asked for; name at least one")
        if len(untrained := np.setdiff1d(asked, trained)):
            raise DataError(
                f"user {self.users[untrained[0]]!r} has no training interaction, so there is no list for it"
            )
        evaluator, lists = self._evaluator, dict[int, tuple[list[int], list[float]]]()
        score, block = model_scorer(self.model), self.trial.training.evaluation.block_users
        block = block or evaluator.block(self.trial.device)
        tested = np.isin(asked, evaluator.users)
        # In the evaluation's own blocks where all of its users are asked for: rounding depends on who is beside whom.
        for some in (np.unique(asked[tested]), np.unique(asked[~tested])):
            for start in range(0, len(some), block):
                of = some[start : start + block]
                with torch.no_grad():
                    items, scores = evaluator.top(score, of, min(k, len(self.items)), self.trial.device)
                lists |= zip(of.tolist(), zip(items.tolist(), scores.tolist(), strict=True), strict=True)
        return [
            Recommendation(self.users[user], self.items[item], rank, value)
            for user in dict.fromkeys(asked.tolist())
            for rank, (item, value) in enumerate(zip(*lists[user], strict=True), start=1)
            if item >= 0
        ]

    def embeddings(self) -> Embeddings:
        """Vectors of all users and items. Raises ConfigError for a model whose scores are no dot products."""
        if type(self.model).score is not Recommender.score:
            name = self.trial.entry.name
            raise ConfigError(f"{name} has no vectors: its scores are no dot products; bm3 recommend gives its lists")
        with torch.no_grad():
            users, items = (vectors.float().cpu().numpy() for vectors in self.model.embed())
        return Embeddings(self.users, users, self.items, items)

    def _numbers(self, names: Sequence[str]) -> NDArray[np.int64]:
        numbers = {name: number for number, name in enumerate(self.users)}
        if unknown := [name for name in dict.fromkeys(names) if name not in numbers]:
            of = f"{len(unknown):,} of {len(names):,} users are none of {self.trial.dataset.name}'s"
            raise DataError(f"{of} ({listed(unknown[:3])}); it has {len(self.users):,}, such as {self.users[0]!r}")
        return np.array([numbers[name] for name in names], np.int64)


LISTS, EMBEDDINGS = (".csv", ".tsv", ".json", ".parquet"), (".npz", ".parquet")
"""Endings of files of lists, which `bm3 evaluate` reads (.json has an object a line), and of vectors."""


def check_file(path: Path, endings: Sequence[str]) -> None:
    """Before anything is computed: raises ConfigError for an ending that is none of these, WriteError."""
    if path.suffix.lower() not in endings:
        raise ConfigError(f"{path}: of no kind that can be written; choose an ending of {', '.join(endings)}")
    check_writable(path, MEND)


def write_lists(path: Path, lists: Sequence[Recommendation]) -> None:
    """Write them as the ending says, all of it or nothing. Raises WriteError."""
    ending, file = path.suffix.lower(), io.StringIO()
    if ending == ".parquet":
        _write(path, _parquet({name: [getattr(line, name) for line in lists] for name in Recommendation._fields}))
        return
    if ending == ".json":
        file.writelines(json.dumps(line._asdict()) + "\n" for line in lists)
    else:
        rows = csv.writer(file, delimiter="\t" if ending == ".tsv" else ",", lineterminator="\n")
        rows.writerows([Recommendation._fields, *lists])
    _write(path, file.getvalue())


def write_embeddings(path: Path, found: Embeddings) -> None:
    """Write them as the ending says, all of it or nothing. Raises WriteError."""
    if path.suffix.lower() == ".parquet":
        kinds = ["user"] * len(found.user_ids) + ["item"] * len(found.item_ids)
        ids, vectors = [*found.user_ids, *found.item_ids], [*found.users, *found.items]
        _write(path, _parquet({"kind": kinds, "id": ids, "vector": vectors}))
        return
    file, arrays = io.BytesIO(), {name: np.asarray(value) for name, value in found._asdict().items()}
    np.savez(file, allow_pickle=False, **arrays)
    _write(path, file.getvalue())


def _parquet(columns: Mapping[str, Sequence[Any]]) -> bytes:
    try:
        arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        raise ConfigError("writing parquet needs pyarrow: pip install 'bm3-harness[tables]'") from None
    file = io.BytesIO()
    parquet.write_table(arrow.table(columns), file)
    return file.getvalue()


def _write(path: Path, content: bytes | str) -> None:
    with writing(path, MEND):
        write_whole(path, content)
