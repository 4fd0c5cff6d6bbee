"""Whether a paper's folder is consistent, told whole: every fault with its file and line or key path."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import TypeAdapter, ValidationError

from bm3.errors import BM3Error, ConfigError, DataError
from harness.common import nearest, read_toml
from harness.evaluation.metrics import known_metrics
from harness.models.registry import find_model, models
from harness.paper.claims import ClaimsFile
from harness.paper.conformance import read_trace
from harness.paper.folders import PAPER_FILE
from harness.paper.growth import COMPLEXITY, load_complexity
from harness.paper.literature import SOURCE_COLUMNS, ReportedValue, Standing, load_literature
from harness.paper.literature import SOURCES as SOURCE_FILE
from harness.paper.load import (
    CLAIMS,
    GRIDS,
    LITERATURE,
    SOURCES,
    TOLERANCES,
    Grids,
    PaperFile,
    Source,
    Tolerances,
    field_fault,
    load_paper,
)
from harness.paper.logs import NAMES, LogNames
from harness.paper.published import (
    COLUMNS,
    COSTS,
    STATISTICS,
    PublishedValue,
    Status,
    parse_value,
    read_rows,
    short_metric,
)
from harness.runs.settings import configure
from harness.studies.suite import load_suite

T = TypeVar("T")
OTHERS = ("regression.toml", "downloads.toml")
FILES = {PAPER_FILE, SOURCES, TOLERANCES, GRIDS, CLAIMS, COMPLEXITY, NAMES, *OTHERS}
FOLDERS = {"published", LITERATURE, "suites", "traces", "logs", "reference", "audit"}
NAMED_BY = {
    "model": ("models", "proposed", "model", "others", "numerators", "denominator", "ratios", "exponents"),
    "data set": ("datasets", "percent", "splits", "test_parts", "rows", "left_out"),
    "metric": ("metrics", "metric", "stopping"),
}
"""The keys under which a file names models, data sets and metrics."""


class _Printed(NamedTuple):
    """A row of figures."""

    of: tuple[str, str]
    """Data set and model."""
    where: str
    values: dict[str, float]
    """By canonical metric."""
    called: set[str]
    """Statuses or standings."""

    def same_digits(self, other: "_Printed") -> bool:
        """In all that both print, at least two."""
        shared = self.values.keys() & other.values.keys()
        return len(shared) > 1 and all(self.values[metric] == other.values[metric] for metric in shared)


class Check:
    """The faults of one folder, found file by file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.faults: list[str] = []
        self._known: dict[str, list[str]] = {}
        self._seen: dict[tuple[str, ...], str] = {}
        """Source and cell of each figure → where it stands."""
        self._rows: dict[tuple[str, ...], _Printed] = {}

    def run(self) -> list[str]:
        """All faults, none twice; where there is no paper.toml, that alone."""
        about = self._toml(PAPER_FILE, TypeAdapter(PaperFile))
        if not (self.folder / PAPER_FILE).is_file():
            return self.faults
        sources = self._toml(SOURCES, TypeAdapter(dict[str, Source])) or {}
        tolerances = self._toml(TOLERANCES, TypeAdapter(Tolerances))
        if about:
            self._known = {
                "model": [*about.models, *about.also],
                "data set": [*about.datasets, *about.also],
                "metric": [
                    *STATISTICS,
                    *COSTS,
                    *(short_metric(f"{kind}@{k}") for kind in known_metrics() for k in about.cutoffs),
                ],
            }
            self._paper(about, sources)
        if tolerances:
            self._names(tolerances.published.metrics, "metric", f"{TOLERANCES}: published.metrics")
        self._published(sources)
        self._literature()
        self._copied()
        self._grids()
        if claims := self._toml(CLAIMS, TypeAdapter(ClaimsFile), needed=False):
            self._twice((claim.id for claim in claims.claims), f"{CLAIMS}: claims: id")
        self._toml(NAMES, TypeAdapter(LogNames), needed=False)
        for name in OTHERS:
            self._toml(name, TypeAdapter(dict[str, Any]), needed=False)
        for name in (CLAIMS, COMPLEXITY):
            self._named_in(name)
        self._loads(self.folder.glob(COMPLEXITY), load_complexity)
        with suppress(BM3Error):  # told above
            paper = load_paper(self.folder)
            self._loads(paper.suites.values(), lambda path: load_suite(str(path), paper))
        self._loads((self.folder / "traces").glob("*.npz"), read_trace)
        for path in sorted(self.folder.iterdir()):
            if path.name not in (FOLDERS if path.is_dir() else FILES) and path.suffix != ".md":
                self._fault(path.name, "no file of a paper has this name; expected/README.md lists them")
        return list(dict.fromkeys(self.faults))

    def _fault(self, where: str, what: str) -> None:
        self.faults.append(f"{self.folder / where}: {what}")

    def _toml(self, name: str, form: TypeAdapter[T], *, needed: bool = True) -> T | None:
        """The file as a value; None where it is not there or has faults."""
        if not needed and not (self.folder / name).exists():
            return None
        try:
            return form.validate_python(read_toml(self.folder / name))
        except ValidationError as error:
            for problem in error.errors():
                self._fault(name, field_fault(problem))
        except FileNotFoundError:
            self._fault(name, "no such file; `bm3 paper new` makes a folder with one")
        except (OSError, ValueError) as error:  # ValueError: not TOML, not UTF-8
            self._fault(name, str(error))
        return None

    def _names(self, names: Iterable[str], kind: str, where: str) -> None:
        """Each has to be a model, data set or metric of the paper."""
        for name in names if self._known else ():
            try:
                nearest(short_metric(name) if kind == "metric" else name, self._known[kind], f"no {kind}")
            except ConfigError as error:
                self._fault(where, f"{error} of {PAPER_FILE}")

    def _twice(self, things: Iterable[Any], where: str) -> None:
        for thing, count in Counter(things).items():
            if count > 1:
                self._fault(where, f"{thing} stands there {count} times; keep one")

    def _paper(self, about: PaperFile, sources: Mapping[str, Source]) -> None:
        self._named_in(PAPER_FILE)
        for key in ("models", "datasets", "metrics", "cutoffs"):
            self._twice(getattr(about, key), f"{PAPER_FILE}: {key}")
        self._twice((table.number for table in about.tables), f"{PAPER_FILE}: tables: number")
        for place, table in enumerate(about.tables):
            where = f"{PAPER_FILE}: tables.{place}"
            if table.source not in sources:
                self._fault(where, f"source: '{table.source}' is not in {SOURCES}")
            if table.improvement and about.proposed is None:
                self._fault(where, "improvement: no model is proposed")
        self._settings(next(iter(models())), about.training, f"{PAPER_FILE}: training")
        for place, own in enumerate(about.settings):
            for model in own.models:
                self._settings(model, own.set, f"{PAPER_FILE}: settings.{place}.set")

    def _settings(self, model: str, settings: Mapping[str, Any], where: str) -> None:
        """Each setting has to be one of the model or of training, with a value that it can have."""
        if model.lower() not in models():
            return  # a model that is not here has settings that nobody knows
        for key, value in settings.items():
            try:
                configure(find_model(model).model, {key: value})
            except ConfigError as error:
                self._fault(where, str(error))

    def _named_in(self, name: str) -> None:
        """Every name of a model, data set or metric in a TOML file."""

        def walk(node: Any, path: str) -> None:
            children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
            for key, value in children:
                here = f"{path}.{key}" if path else str(key)
                kind = next((kind for kind, keys in NAMED_BY.items() if key in keys), None)
                if key == "exponents" and not (
                    isinstance(value, dict) and any(isinstance(p, dict) for p in value.values())
                ):
                    kind = None  # of one model, by size
                if isinstance(value, str | dict) or (isinstance(value, list) and set(map(type, value)) == {str}):
                    names = [value] if isinstance(value, str) else list(value)
                    self._names(names if kind else (), kind or "", f"{name}: {here}")
                if not kind or key == "left_out":
                    walk(value, here)

        with suppress(OSError, ValueError):  # told where the file was read as a value, or it may be missing
            walk(read_toml(self.folder / name), "")

    def _published(self, sources: Mapping[str, Source]) -> None:
        used = set()
        for path in sorted((self.folder / "published").glob("*.csv")):
            try:
                for where, row in read_rows(path, COLUMNS):
                    try:
                        value = parse_value(row, where)
                    except DataError as error:
                        self.faults.append(str(error))
                        continue
                    used.add(value.source)
                    if value.source not in sources:
                        self.faults.append(f"{where}: unknown source '{value.source}'; describe it in {SOURCES}")
                    self._figure(value, (value.source,), value.status, where)
            except DataError as error:  # what follows a row of another width is not read
                self.faults.append(str(error))
        for key in sources.keys() - used:
            self._fault(SOURCES, f"{key}: no figure in published/*.csv is from this source")

    def _literature(self) -> None:
        """What others report: each row of figures, then each source."""
        folder = self.folder / LITERATURE
        try:
            figures = load_literature(folder)
        except DataError as error:
            self.faults.append(str(error))
            return
        used = {figure.origin.key for figure in figures}
        for where, row in read_rows(folder / SOURCE_FILE, SOURCE_COLUMNS) if used else ():
            if row[0] not in used:
                self.faults.append(f"{where}: {row[0]}: no figure in {LITERATURE}/*.csv is from this source")
        for figure in figures:
            self._figure(figure, (figure.origin.key, figure.where), figure.standing, figure.at)

    def _figure(self, figure: PublishedValue | ReportedValue, source: tuple[str, ...], called: str, where: str) -> None:
        """It names what there is, is there once per source, and an accuracy is part of its row: one model on one data
        set in one table."""
        for kind, name in (("data set", figure.dataset), ("model", figure.model), ("metric", figure.metric)):
            self._names([name] if name else [], kind, where.removeprefix(f"{self.folder}/"))
        dataset, model, metric = figure.cell
        if (earlier := self._seen.setdefault((*source, *figure.cell), where)) != where:
            self.faults.append(f"{where}: the same cell and source as {earlier}; remove one")
        if figure.value is not None and "@" in metric:
            row = self._rows.setdefault((dataset, model, *source), _Printed((dataset, model), where, {}, set()))
            row.values[metric] = figure.value
            row.called.add(called)

    def _copied(self) -> None:
        """Rows with the digits of an earlier one, unless they are called so: a fault for all that have the same."""
        told = {Standing.COPIED, Standing.COPIED_CHAIN, Standing.COPYING_ERROR, Status.DISPUTED}
        groups: list[list[_Printed]] = []
        for row in (row for row in self._rows.values() if not row.called & told):
            alike = next((group for group in groups if any(map(row.same_digits, group))), [])
            groups += [] if alike else [alike]
            alike.append(row)
        for first, *others in groups:
            wrong = [row for row in others if row.of != first.of or Standing.INDEPENDENT in row.called]
            if wrong:
                row, also = wrong[0], "".join(f", and so does {one.where}" for one in wrong[1:])
                elsewhere = Status.DISPUTED if row.called & {*Status} else Standing.COPYING_ERROR
                right = Standing.COPIED if row.of == first.of else elsewhere
                digits = f"{' '.join(row.of)} has the digits of {' '.join(first.of)} ({first.where}){also}"
                self.faults.append(f"{row.where}: {digits}: mend one, or call it {right}")

    def _grids(self) -> None:
        for model, settings in (self._toml(GRIDS, Grids, needed=False) or {}).items():
            self._names([model], "model", GRIDS)
            for key, values in settings.items():
                for value in values:
                    self._settings(model, {key: value}, f"{GRIDS}: {model}.{key}")

    def _loads(self, paths: Iterable[Path], load: Callable[[Path], object]) -> None:
        for path in sorted(paths):
            try:
                load(path)
            except BM3Error as error:
                self.faults.append(str(error))
