"""What `import harness` gives: the functions behind the commands, with values that a notebook works with.

Nothing is computed here: data is read by `ingest` and `data`, training and models are `runs`, verdicts `paper`, tables
and pictures `report`. Errors are BM3Error, with the line that the command would say.
"""

from __future__ import annotations

import inspect
import operator
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, wraps
from importlib import import_module
from itertools import repeat
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal, ParamSpec, TypeVar

import numpy as np
from pydantic import BeforeValidator, ConfigDict, Field, FiniteFloat, ValidationError, validate_call

from bm3 import BM3Error, ConfigError, DataError
from harness.cli.options import DEFAULT_SEED, STORE
from harness.cli.train import trained
from harness.data.dataset import Dataset
from harness.data.files import listed
from harness.data.layouts import data_roots
from harness.evaluation.compiling import use_threads
from harness.ingest.exporting import called, own_ids
from harness.ingest.features import id_column
from harness.ingest.importing import Division, import_dataset
from harness.ingest.tables import Columns, InMemory, as_text
from harness.paper.folders import DEFAULT, paper_folder
from harness.paper.load import load_paper
from harness.paper.study import Study, make_study
from harness.report.flat import cells
from harness.report.study_tables import sections
from harness.report.write import write_report
from harness.runs.inspect import find
from harness.runs.recommend import Embeddings, KeptModel, Recommendation
from harness.runs.record import RunRecord
from harness.runs.settings import LARGEST
from harness.runs.store import stored_runs
from harness.runs.trial import dataset_for, make_trial, resolve_device

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OPTION = re.compile(r"--([a-z][a-z-]*[a-z])(?: [A-Z]+)?")
"""What a message calls an option of a command; here it is an argument."""
NOTHING: Mapping[str, Any] = MappingProxyType({})
Given = ParamSpec("Given")
Result = TypeVar("Result")


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise ValueError("needed is a whole number")
    return operator.index(value)


Whole = Annotated[int, BeforeValidator(_whole), Field(ge=0, lt=2**63)]
Count = Annotated[int, BeforeValidator(_whole), Field(ge=1, le=LARGEST)]
Threads = Annotated[int, BeforeValidator(_whole), Field(ge=1, le=1024)]
"""As the commands' options of these kinds; numpy's whole numbers are some too."""


def _checked(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """The function, which raises ConfigError for an argument that is not of the type it names."""

    @cache
    def call() -> Callable[..., Result]:  # when the types of this module are there
        return validate_call(config=ConfigDict(arbitrary_types_allowed=True, strict=True))(function)

    @wraps(function)
    def checked(*given: Given.args, **named: Given.kwargs) -> Result:
        try:
            bound = inspect.signature(function).bind(*given, **named)
            bound.apply_defaults()  # which pydantic would copy
            return call()(**bound.arguments)
        except ValidationError as error:
            first = error.errors()[0]
            value, fault = " ".join(repr(first["input"]).split())[:40], first["msg"].removeprefix("Value error, ")
            raise ConfigError(f"{first['loc'][0]} is {value}: {fault[0].lower()}{fault[1:]}") from None

    return checked


@dataclass(frozen=True)
class LoadedData:
    """A data set that can be trained on, as commands name it too."""

    name: str
    """Its name, or the path of its folder."""
    folder: Path | None
    """Where data sets are looked up by name; None: as commands do without --data."""
    content: Dataset = field(repr=False)
    """Interactions `train`, `valid`, `test` [n, 2] of numbered users and items, and `features` by modality."""
    users: Sequence[str] = field(repr=False)
    """The data's own id of each user, as text; its number where it has none."""
    items: Sequence[str] = field(repr=False)
    notes: Sequence[str] = ()
    """What to know of how it was read, a sentence each."""


@_checked
def load_data(name: str | Path, folder: str | Path | None = None) -> LoadedData:
    """The data set called `name` in `folder` (default: $BM3_DATA, ./data), or the one in the folder `name`.

    `mini` is made in memory. Raises DataError with the nearest names, or with file and line.
    """
    return _loaded(name, folder, NOTHING)


@_checked
def import_data(
    source: Any,
    name: str,
    *,
    features: Mapping[str, Any] = NOTHING,
    folder: str | Path | None = None,
    user: str | None = None,
    item: str | None = None,
    time: str | None = None,
    part: str | None = None,
    rating: str | None = None,
    split: str | None = None,
    split_seed: Whole | None = None,
    min_rating: FiniteFloat | None = None,
    k_core: Count | None = None,
    fill: Literal["mean", "zero"] | None = None,
) -> LoadedData:
    """Bring `source` in as the data set `name`, a folder below `folder` (default: $BM3_DATA, ./data), as `bm3 data
    import` does.

    `source` is the path of anything that command reads, a DataFrame (pandas or polars), an array of pairs (user,
    item) [n, 2], or the parts as a mapping from train, valid and test to such tables. `user` to `rating` name
    columns that have no usual name; `split` is the rule that divides what comes in no parts. `features` maps a
    modality to a vector for each item: a mapping from item ids to vectors, a DataFrame with ids as index or in a column
    called as ids of items usually are, a pair (ids, vectors [n, d]), or vectors [n, d] of the items 0 to n-1; items
    without one get what `fill` says. The same once more is the data set that is there. Raises DataError or ConfigError,
    and writes nothing then.
    """
    root = data_roots()[0] if folder is None else Path(folder)
    columns, division = Columns(user, item, time, part, rating), Division(split, split_seed, min_rating, k_core)
    rows = {modality: _rows(table, f"features {modality!r}") for modality, table in features.items()}
    try:
        given = _given(source, name)
        found = import_dataset(given, name, root, columns, division, None, rows, fill=fill, again=True)
    except BM3Error as error:
        said = OPTION.sub(lambda found: f"{found[1].replace('-', '_')}=", str(error))
        raise type(error)(said) from None
    read = _loaded(f"{root}/{name}", None, NOTHING)
    return LoadedData(read.name, read.folder, read.content, read.users, read.items, found.notes)


@_checked
def train(
    model: str,
    data: LoadedData | str | Path,
    *,
    settings: Mapping[str, Any] = NOTHING,
    seed: Whole = DEFAULT_SEED,
    epochs: Count | None = None,
    device: str = "auto",
    threads: Threads | None = None,
    out: str | Path = STORE,
    keep_model: bool = True,
    rerun: bool = False,
) -> Run:
    """Train the model of that name, evaluate its best epoch and store the run below `out`, as `bm3 train` does.

    `settings` are those of `bm3 settings MODEL`, with dotted keys, such as {"n_layers": 1, "early_stopping.patience":
    5}. A run that is stored and finished is returned, not repeated; `rerun` moves it aside and trains again. An
    interrupted one goes on, to the same bits. Raises ConfigError, DataError, or BM3Error where training fails.
    """
    if epochs is not None and "epochs" in settings:
        raise ConfigError("epochs is given twice: by itself and in settings; leave one out")
    asked = {**settings, **({} if epochs is None else {"epochs": epochs})}
    data = data if isinstance(data, LoadedData) else _loaded(data, None, asked)
    if threads is not None:
        use_threads(threads)
    trial = make_trial(model, data.content, data.name, asked, seed, resolve_device(device))
    if keep_model:
        trial = replace(trial, keep=own_ids(data.name, data.folder, data.content))
    return _run(trained(trial, Path(out), rerun=rerun), data.folder)


@_checked
def load_run(name: str | Path, out: str | Path = STORE, folder: str | Path | None = None) -> Run:
    """A stored run: the path of its folder, or among those in `out` its key or a part of it.

    `folder` is where its data set is, for `Run.recommend`. Raises DataError.
    """
    return _run(find(str(name), Path(out)), folder)


@_checked
def load_runs(out: str | Path = STORE, folder: str | Path | None = None) -> list[Run]:
    """All finished runs below `out`, by path. Raises DataError where there is no such folder."""
    return [_run(record, folder) for record in stored_runs(Path(out)) if record.finished]


@dataclass(frozen=True)
class Run:
    """A run as it is stored."""

    record: RunRecord = field(repr=False)
    """Everything that is stored of it."""
    path: Path
    """Its folder."""
    folder: Path | None = None
    """Where its data set is looked up by name."""

    @property
    def metrics(self) -> dict[str, float]:
        """Test metrics of the best epoch, such as `recall@20`. Raises DataError for a run that is not finished."""
        if self.record.result is None:
            raise DataError(f"{self.path}: is {self.record.state}, so it has no metrics")
        return dict(self.record.result.test)

    @property
    def epochs(self) -> list[dict[str, Any]]:
        """A row for each epoch: `epoch`, `loss`, its parts as `loss.NAME`, metrics as `valid.NAME`, times in seconds.

        `pandas.DataFrame(run.epochs)` is a table of them.
        """
        rows = []
        for epoch in self.record.epochs():
            parts = {f"loss.{name}": value for name, value in epoch.parts.items()}
            valid = {f"valid.{name}": value for name, value in epoch.valid.items()}
            times = {"seconds": epoch.seconds, "evaluation_seconds": epoch.evaluation_seconds}
            rows.append({"epoch": epoch.epoch, "loss": epoch.loss, **parts, **valid, **times})
        return rows

    @_checked
    def recommend(self, users: Any = None, k: Count = 10) -> list[Recommendation]:
        """The `k` best items of each of these users, by their own ids, or of all; those of training are left out.

        Users are anything that gives ids one by one: a list, an array, a column of a DataFrame.

        Each is (user, item, rank, score), so that pandas makes a table of them. Raises DataError for an unknown user,
        where no model was kept or its file is damaged, and where the data set is another one.
        """
        return self._model.recommend(users, k)

    def embeddings(self) -> Embeddings:
        """Vectors of users and items with their ids. Raises as `recommend`, and ConfigError where a model has none."""
        return self._model.embeddings()

    @cached_property
    def _model(self) -> KeptModel:
        return KeptModel.load(self.record, self.folder)


@dataclass(frozen=True)
class Judgement:
    """Runs held against a paper, as in a report."""

    study: Study = field(repr=False)

    @property
    def headline(self) -> list[str]:
        """What became of it, a sentence each."""
        return self.study.headline

    @property
    def cells(self) -> list[dict[str, Any]]:
        """A record for each row and metric, as in cells.json: our mean and interval, published value, outcome."""
        return cells(self.study)

    def tables(self) -> dict[str, Any]:
        """The report's tables as DataFrames of texts, by title. Raises ConfigError without pandas."""
        try:
            pandas = import_module("pandas")
        except ImportError:
            raise ConfigError("tables as DataFrames need pandas: pip install 'bm3-harness[notebook]'") from None
        return {
            table.title: pandas.DataFrame([[cell.marked for cell in row] for row in table.rows], columns=table.head)
            for section in sections(self.study)
            for table in section.tables
        }

    def figures(self) -> dict[str, Figure]:
        """The report's pictures by name, such as `shop-learning`. Raises DataError where a run's file is damaged."""
        from harness.report.plots import draw

        return {picture.name: picture.figure for picture in draw(self.study)}

    @_checked
    def write(self, folder: str | Path, formats: Sequence[str] = ("md",)) -> list[Path]:
        """Write the report into a folder as md, html, tex, csv or json; its files. Raises WriteError."""
        return write_report(self.study, Path(folder), formats)


@_checked
def judge(
    runs: Annotated[str | Path | Run | Iterable[Run], Field(union_mode="left_to_right")], paper: str | Path = DEFAULT
) -> Judgement:
    """Hold runs, or all that are stored below a folder, against a paper: its name or its folder. Raises DataError."""
    about = load_paper(paper_folder(paper))
    if isinstance(runs, str | Path):
        return Judgement(make_study(Path(runs), f"a report on the runs in {Path(runs).name or runs}", paper=about))
    records = [run.record for run in ([runs] if isinstance(runs, Run) else runs)]
    if not records:
        raise DataError("no run to judge: give at least one")
    store = Path(os.path.commonpath([record.path.parent.parent for record in records]))
    return Judgement(make_study(store, f"a report on {len(records)} runs", paper=about, of=records))


def _loaded(name: str | Path, folder: str | Path | None, settings: Mapping[str, Any]) -> LoadedData:
    name, root = str(name), None if folder is None else Path(folder)
    content = dataset_for(settings, name, root)
    return LoadedData(name, root, content, *called(own_ids(name, root, content), content))


def _run(record: RunRecord, folder: str | Path | None) -> Run:
    path = record.path.absolute()
    return Run(record.model_copy(update={"path": path}), path, None if folder is None else Path(folder))


def _given(source: Any, name: str) -> Path | InMemory:
    """What is to be imported as `name`: a path, or the columns of what is in memory."""
    if isinstance(source, str | Path):
        return Path(source)
    if not isinstance(source, Mapping):
        return InMemory(name, [_columns(source, f"{name}: source")])
    parts = {str(part): _columns(given, f"{name}: {part}") for part, given in source.items()}
    return InMemory(name, [{**columns, "x_label": repeat(part)} for part, columns in parts.items()])


def _columns(table: Any, where: str) -> dict[str, Iterable[Any]]:
    """The columns of a DataFrame (pandas or polars), or of pairs."""
    if hasattr(table, "columns"):
        if len({*map(str, table.columns)}) < len(table.columns):
            raise DataError(f"{where} has two columns of one name: {listed(map(str, table.columns))}")
        return {str(column): _with_gaps(table[column]) for column in table.columns}
    pairs = np.asarray(table, dtype=None if hasattr(table, "dtype") else object)  # as they are, not all as text
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        raise DataError(f"{where} has shape {list(pairs.shape)}, needed are pairs (user, item), [n, 2]")
    return {"user_id": pairs[:, 0], "item_id": pairs[:, 1]}


def _with_gaps(column: Any) -> Iterable[Any]:
    """The values of a column, None where pandas says that there is none."""
    missing = column.isna() if hasattr(column, "isna") else repeat(False)
    return (None if gone else value for value, gone in zip(column, missing, strict=False))


def _rows(table: Any, where: str) -> tuple[list[str], Any]:
    """Ids and vectors [n, d] of features in one of the forms that `import_data` takes."""
    ids: Iterable[Any] | None = None
    try:
        if isinstance(table, Mapping):
            ids, rows = [*table], [*table.values()]
        elif hasattr(table, "columns"):
            names = [*map(str, table.columns)]
            own = [names.index(name) for name in (id_column(names), "index") if name in names][:1]
            ids = table[table.columns[own[0]]] if own else getattr(table, "index", None)
            rows = table[[name for at, name in enumerate(table.columns) if at not in own]].to_numpy()
        elif isinstance(table, tuple):
            ids, rows = table
        else:
            rows = table
        found = np.asarray(rows)
        if np.iscomplexobj(found):
            raise TypeError("complex numbers")
        with np.errstate(over="ignore"):  # what overflows is infinite, and refused where rows are joined
            vectors = found.astype(np.float32, copy=False)
        return [as_text(each, f"{where}, ids") for each in (range(len(vectors)) if ids is None else ids)], vectors
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: no vectors of one length ({error}); needed are [n, d] numbers") from error
