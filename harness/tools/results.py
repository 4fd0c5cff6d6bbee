"""A folder of results held against the runs below it: reports made anew, and pages whose figures are expressions.

A page `NAME.md` that was written by hand has a template `NAME.md.j2` beside it, in which each figure is an expression
over the runs in `runs`, over what is published, or over verdicts. `docs/results/README.md` says how one is written.
"""

import math
import re
import traceback
from base64 import b64decode
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from difflib import SequenceMatcher
from functools import cached_property
from html import unescape
from os.path import normpath
from pathlib import Path
from statistics import fmean
from typing import Any

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from bm3.errors import BM3Error, ConfigError, DataError
from harness.common import nearest, number, read_text
from harness.data.files import reading
from harness.paper.claims import ClaimResult, claims_about, claims_of_paper
from harness.paper.literature import Consensus, consensus
from harness.paper.load import Paper
from harness.paper.rows import Row, judged, named, representative, rows_of
from harness.paper.significance import SeedDifference, relative_over_seeds
from harness.paper.study import Study, make_study
from harness.report import study_tables, tables
from harness.report.html import html as html_page
from harness.report.write import FORMATS, made
from harness.runs.settings import flatten
from harness.training.config import TrainingConfig

RUNS, TEMPLATES = "runs", "*.md.j2"
START, END = "\x02", "\x03"
"""Around each line that an expression gave, until it is compared or written."""
BOUND = re.compile(f"{START}(.*?){END}")
QUOTED = re.compile(r"(<!-- the first lines of (\S+) -->\n).*?(?=<!-- end -->)", re.DOTALL)
PICTURE = re.compile(r'<h3>([^<]*)</h3>\n<img alt="[^"]*" src="[^,]*,([^"]*)">\n<figcaption>([^<]*)</figcaption>')
LONG_FRACTION = re.compile(r"-?\d+\.\d{9,}(?:e[+-]?\d+)?")

# `bm3 results verify --help` has the rule in words.
FIGURE = re.compile(r"(?<![\w.@#])[+−-]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[+-]?\d+)?(?!\w|[.,:]\d|-[A-Za-z])")
NO_FIGURES = (
    re.compile(r"^(?:#+ |\s*)\d+(?:\.\d+)*\.? "),
    re.compile(r"`[^`]*`|\]\([^)]*\)|<[^>]*>|https?://\S+"),
    re.compile(r"\b(?:19|20)\d\d(?:-\d\d){0,2}\b(?![.,%]\d|,\d| %)|\b\d+\.\d+\.\d+\S*"),
    re.compile(
        r"(?i)\b(?:table|section|equation|eq\.|figure|python|version|seeds?) \(?\d[\d.]*(?:(?:,| to| and) \d+)*"
    ),
)
COMMAND = re.compile(r"\s*(?:\$|#|[A-Z0-9_]+=|bm3|python|pip|nox|pytest|tox|git|cd|source)\b|\s*[$#]")
FENCE = "```"


@dataclass(frozen=True)
class Lead:
    """What one row has more than another, in percent."""

    percent: float
    """Over the seeds that both have; of the means where these are fewer than two."""
    paired: SeedDifference | None

    def __str__(self) -> str:
        if self.paired is None:
            return f"{number(self.percent, '+.1f')} %"
        low, high = (number(end, "+.1f") for end in self.paired.interval)
        return f"{number(self.percent, '+.1f')} % [{low}, {high}] over {self.paired.seeds} seeds"


@dataclass(frozen=True)
class Bound:
    """What an expression may name."""

    runs: Path
    paper: Paper
    studies: dict[str, Study] = field(default_factory=dict)

    @cached_property
    def of_paper(self) -> tuple[ClaimResult, ...]:
        """Claims, judged without runs."""
        return claims_of_paper(self.paper)

    @cached_property
    def names(self) -> dict[str, Any]:
        """For templates."""
        functions = (self.study, self.row, self.published, self.consensus, self.reported, self.claim, self.lead)
        return {one.__name__: one for one in (*functions, self.comparisons, self.literature)} | {"paper": self.paper}

    def study(self, folder: str = "") -> Study:
        """The runs below `runs/FOLDER`, judged as by `bm3 report`; all that are stored without a folder."""
        if folder not in self.studies:
            found = make_study(self.runs / folder, f"a report on the runs in {folder}", paper=self.paper)
            if found.unread:
                raise DataError(found.unread[0])
            self.studies[folder] = found
        return self.studies[folder]

    def row(self, where: str, model: str, *settings: str) -> Row:
        """The row that stands for a model in `FOLDER` or `FOLDER/DATASET`, of the runs with these settings alone, such
        as `batch_size=256`."""
        folder, _, dataset = where.partition("/")
        study = self.study(folder)
        own = [run for run in study.runs if (run.model, run.dataset.name) == (model.lower(), dataset or folder)]
        keys, defaults = [text.partition("=")[0] for text in settings], flatten(asdict(TrainingConfig()))
        known = [{key: run.settings.get(key, defaults.get(key)) for key in keys} for run in own]  # older than a setting
        found: Iterable[Row] = study.of(dataset or folder)
        if settings:
            kept = [run for run, of_run in zip(own, known, strict=True) if named(of_run) == " ".join(settings)]
            found = [judged(row, self.paper) for row in rows_of(kept, self.paper)[0]]
        row = representative(found, model)
        if row is None:
            there = {key: sorted({named({key: of_run[key]}) for of_run in known}) for key in keys}
            told = "".join(f"; there is {', '.join(values)}" for values in there.values())
            raise DataError(f"{self.runs / where}: no finished run of {' '.join((model, *settings))}{told}")
        return row

    def published(self, dataset: str, model: str, metric: str) -> float:
        """The figure that runs are compared with."""
        found = self.consensus(dataset, model, metric).published
        if found is None or found.value is None:
            raise DataError(f"nothing is published of {model}, {dataset}, {metric}")
        return found.value

    def consensus(self, dataset: str, model: str, metric: str) -> Consensus:
        """What independent groups say of a cell."""
        return consensus(self.paper, dataset, model, metric)

    def reported(self, dataset: str, model: str) -> list[Consensus]:
        """The cells of a model that somebody else reports."""
        return [cell for cell in study_tables.reported_cells(self.paper, dataset) if cell.model == model]

    def claim(self, name: str, place: str, folder: str = "") -> ClaimResult | None:
        """A claim by its id, judged on the tables of `paper` or another source, on `independents`, or on `ours`, the
        runs in a folder; None where nothing printed is about it."""
        name = nearest(name, [claim.id for claim in self.paper.claims], "no claim")
        results = self.study(folder).claims if place == "ours" else self.of_paper
        return next((one for one in results if (one.claim.id, one.where) == (name, place)), None)

    def comparisons(self, result: ClaimResult, about: str = "", outcome: str = "") -> int:
        """How many of a claim's comparisons name this, such as `Baby`, and have this outcome."""
        return sum(about in what and outcome in ("", found) for what, _, found in result.details)

    def lead(self, first: Row, second: Row, metric: str) -> Lead:
        """By how much the first row is above the second."""
        values, others = first.by_seed(metric), second.by_seed(metric)
        paired = relative_over_seeds(values, others, self.paper.tolerances.confidence)
        return Lead(paired.mean if paired else 100 * (fmean(values.values()) / fmean(others.values()) - 1), paired)

    def literature(self, model: str, claims: bool = False) -> str:
        """The table of what others report of a model, or of the claims, as `bm3 literature` has it."""
        if claims:
            found = study_tables.claims(claims_about(self.study().claims, model))
        else:
            there = dict.fromkeys(figure.dataset for figure in self.paper.literature)
            cells = [cell for dataset in there for cell in self.reported(dataset, model)]
            found = study_tables.literature(cells, self.study().rows, "")
        return tables.markdown(found, 0).rstrip()


@dataclass(frozen=True)
class Page:
    """A page as it is stored, and as it would be made."""

    path: Path
    bound: int
    """How many figures come from expressions; of a report: 0."""
    faults: tuple[str, ...]
    """A line each of what is not as the runs give it."""
    unbound: tuple[tuple[int, str], ...] = ()
    """Line and figure of those that nothing holds."""


def pages_of(folder: Path, bound: Bound) -> list[Page]:
    """Each page of the folder, and the README two folders above where it quotes one, held against the runs.

    Raises ConfigError for a template that cannot be rendered.
    """
    wanted = rendered(folder, bound)
    made_by_tool = {folder / name / "report.md" for name in _reports(folder)}
    paths = [*wanted, *(path for path in sorted(folder.rglob("*.md")) if path not in {*wanted, *made_by_tool})]
    return [page(path, wanted.get(path)) for path in paths if folder / RUNS not in path.parents]


def reports_of(folder: Path, bound: Bound) -> Iterator[Page]:
    """Each report that stands beside the runs it is of, made anew: long fractions to nine digits, pictures as they are
    stored."""
    for name in _reports(folder):
        study, place = bound.study(name), folder / name
        now = {file: str(text) for form in FORMATS if form != "html" for file, text in made(study, form).items()}
        if (place / "report.html").is_file():
            found = PICTURE.findall(_text(place / "report.html"))
            pictures = [(unescape(name), unescape(caption), b64decode(svg)) for name, svg, caption in found]
            now["report.html"] = html_page(study, pictures)
        for path in (place / file for file in now if (place / file).is_file()):
            lines = [f"{START}{line}{END}" for line in nine_digits(now[path.name]).split("\n")]
            yield Page(path, 0, tuple(_faults(path, lines, nine_digits(_text(path)).split("\n"))))


def rendered(folder: Path, bound: Bound) -> dict[Path, str]:
    """Page → its text with what expressions gave between START and END."""
    found = {path.with_suffix(""): _render(path, bound) for path in sorted(folder.rglob(TEMPLATES))}
    pages, above = {path.resolve(): text for path, text in found.items()}, Path(normpath(folder / ".." / ".."))

    def quoted(match: re.Match[str]) -> str:
        """What stands between the title of a page and its first section."""
        path = above / match[2]
        if path.resolve() not in pages:
            raise ConfigError(f"{path} is quoted, and has no template")
        return match[1] + pages[path.resolve()].split("\n## ")[0].partition("\n")[2].strip("\n") + "\n"

    if (readme := above / "README.md").is_file() and QUOTED.search(text := _text(readme)):
        found[readme] = QUOTED.sub(quoted, text)
    return found


def plain(text: str) -> str:
    """A rendered page as it is written."""
    return text.replace(START, "").replace(END, "")


def page(path: Path, wanted: str | None, stored: str | None = None) -> Page:
    """A page, as stored or as given, against what its template gives, if it has one."""
    if stored is None:
        if not path.is_file():
            return Page(path, 0, (f"{path}: not there; bm3 results write makes it",))
        stored = _text(path)
    if wanted is None:
        return Page(path, 0, (), tuple(_figures(stored)))
    count = sum(len(FIGURE.findall(value)) for value in BOUND.findall(wanted))
    faults = _faults(path, wanted.split("\n"), stored.split("\n"))
    return Page(path, count, tuple(faults), tuple(_figures(BOUND.sub("…", wanted))))


def _faults(path: Path, wanted: list[str], stored: list[str]) -> Iterator[str]:
    """A line for each figure that differs, or for each line whose words do."""
    texts = [plain(line) for line in wanted]
    matcher = SequenceMatcher(None, texts, stored, autojunk=False)
    for tag, a, b, c, d in () if texts == stored else matcher.get_opcodes():
        if tag == "replace" and b - a == d - c:
            for place in range(b - a):
                yield from (f"{path}:{c + place + 1}: {told}" for told in _told(wanted[a + place], stored[c + place]))
        elif tag != "equal":
            yield f"{path}:{c + 1}: {d - c} lines stand where the runs give {b - a}"


def _told(wanted: str, stored: str) -> Iterator[str]:
    """In what a line differs from what was wanted."""
    parts = BOUND.split(wanted)
    # A group is what was wanted if it can be: else the first figure that differs could take the next ones with it.
    groups = (f"({re.escape(part)}|.*?)" if place % 2 else re.escape(part) for place, part in enumerate(parts))
    match = re.fullmatch("".join(groups), stored)
    if match is None:
        yield f"says {_short(stored)}, its template {_short(plain(wanted))}"
        return
    for says, gives in zip(match.groups(), parts[1::2], strict=True):
        if says != gives:
            pairs = [*zip(says.split(), gives.split(), strict=False)]
            differing = [pair for pair in pairs if pair[0] != pair[1]]
            if len(says.split()) == len(gives.split()) and differing:
                says, gives = (" ".join(words) for words in zip(*differing, strict=True))
            yield f"says {_short(says)}, the runs give {_short(gives)}"


def _figures(text: str) -> Iterator[tuple[int, str]]:
    """Line and figure."""
    block = False
    for place, line in enumerate(text.split("\n"), 1):
        if line.startswith(FENCE):
            block = not block
        elif not (block and COMMAND.match(line)):
            for pattern in () if block else NO_FIGURES:
                line = pattern.sub(" ", line)
            yield from ((place, figure) for figure in FIGURE.findall(line))


def _render(path: Path, bound: Bound) -> str:
    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, finalize=_marked, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters["percent"] = lambda share: f"{number(100 * share, '+.1f')} %"
    environment.filters["apart"] = lambda share: (
        f"{number(abs(100 * share), '.1f')} % {'below' if share < 0 else 'above'}"
    )
    try:
        return environment.from_string(_text(path)).render(bound.names)
    except (TemplateError, BM3Error, ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as error:
        frames = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "<template>"]
        line = getattr(error, "lineno", None) or (frames[-1] if frames else 1)
        raise ConfigError(f"{path}:{line}: {error or type(error).__name__}") from error


def _marked(value: object) -> str:
    """What an expression gave, as printed: figures of metrics with four decimals, ranges with both ends."""
    if isinstance(value, float) and not math.isfinite(value):
        raise DataError("an expression gives no finite figure: is the name of the metric right?")
    if isinstance(value, tuple):
        text = (" to " if isinstance(value[0], float) else ", ").join(map(_printed, value))
    else:
        text = _printed(value)
    return text if START in text else "\n".join(f"{START}{line}{END}" for line in text.split("\n"))


def _printed(value: object) -> str:
    return number(value) if value is None or isinstance(value, float) else str(value)


def _reports(folder: Path) -> list[str]:
    """Folders of runs beside which there is one of the same name with a report."""
    return [path.name for path in sorted((folder / RUNS).glob("*")) if any((folder / path.name).glob("report.*"))]


def _short(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}…"


def nine_digits(text: str) -> str:
    """The text with long fractions cut: their last digits are the processor's."""
    return LONG_FRACTION.sub(lambda found: f"{float(found[0]):.9g}", text)


def _text(path: Path) -> str:
    with reading(path):
        return read_text(path)
