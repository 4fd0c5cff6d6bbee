"""The page: whatever a verdict rests on is on it, nothing on it is fetched or executed, and the same study gives it."""

import json
import re
import shutil
from collections import Counter
from dataclasses import asdict, replace
from html.parser import HTMLParser
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import pytest

from harness.data import load_dataset
from harness.paper.claims import ClaimOutcome, ClaimResult, load_claims
from harness.paper.expected import Source, expected_dir
from harness.paper.significance import Difference
from harness.paper.study import Study, headline, make_study
from harness.paper.verdict import Outcome
from harness.report.html import MARKS, html
from harness.runs.store import write_failure
from harness.runs.trial import make_trial, resolve_device, run_trial
from harness.training import TrainingConfig

VOID = {"br", "meta"}
HOSTILE = '<script>alert("x")</script>'


class Page(HTMLParser):
    """Attributes of all elements, headings, and the text inside each element that has an id."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.inside: dict[str, str] = {}
        self._open: list[tuple[str, str | None]] = []
        self.feed(text)
        self.close()
        assert not self._open, "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.elements.append((tag, attributes))
        if tag not in VOID:
            self._open.append((tag, attributes.get("id")))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        for _, name in self._open:
            if name:
                self.inside[name] = self.inside.get(name, "") + data

    def values(self, attribute: str) -> list[str]:
        return [attributes[attribute] for _, attributes in self.elements if attribute in attributes]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny runs that say of themselves that they were made on Baby with the published training, so they are judged."""
    folder, mini = tmp_path_factory.mktemp("trained"), load_dataset("mini")
    for model in ("bpr", "lightgcn"):
        for seed in (1, 2):
            settings = {"epochs": 2, "batch_size": 512}
            run = run_trial(make_trial(model, mini, "mini", settings, seed, resolve_device("cpu")), folder / "runs")
            changed = {
                **run.run,
                "training": asdict(TrainingConfig()),
                "changed": [],
                "dataset": {**run.run["dataset"], "name": "baby"},
            }
            (run.path / "run.json").write_text(json.dumps(changed), encoding="utf-8")
    return folder / "runs"


@pytest.fixture(scope="module")
def study(folder: Path) -> Study:
    return make_study(folder, "a question")


def hostile(study: Study) -> Study:
    """A study in which every text that comes from outside is markup."""
    rows = []
    for row in study.rows:
        runs = tuple(
            replace(run, run={**run.run, "command": HOSTILE, "environment": {**run.run["environment"], "cpu": HOSTILE}})
            for run in row.result.runs
        )
        verdicts = {metric: replace(verdict, reason=HOSTILE) for metric, verdict in row.verdicts.items()}
        sources = {metric: tuple(replace(v, note=HOSTILE) for v in values) for metric, values in row.sources.items()}
        named = replace(row, label=f"{row.label} {HOSTILE}", dataset=HOSTILE, runs=runs)
        rows.append(replace(named, verdicts=verdicts, sources=sources))
    source = Source(title=HOSTILE, table=HOSTILE, date=HOSTILE, hardware=HOSTILE, citation=HOSTILE)
    return replace(
        study,
        asked=HOSTILE,
        rows=tuple(rows),
        unchecked=(HOSTILE,),
        failed=(HOSTILE,),
        paper=study.paper.model_copy(update={"sources": dict.fromkeys(study.sources, source)}),
    )


def some_claims() -> tuple[ClaimResult, ...]:
    claim = load_claims(expected_dir() / "claims.toml")[0]
    return tuple(
        ClaimResult(
            claim, where, outcome, f"evidence of {where}", ((f"what {where} says", "0.5 against 0.4", outcome),)
        )
        for where, outcome in zip(("paper", "toolbox", "ours", "elsewhere"), ClaimOutcome, strict=True)
    )


DIFFERENCES = {
    "baby": (
        Difference("recall@20", "bpr", "lightgcn", -0.01, (-0.02, -0.005), 0.001, 0.004, 2, 321, -0.5),
        Difference("ndcg@20", "bpr", "lightgcn", 0.0, (-0.02, 0.02), 0.7, 0.7, 2, 321, 0.0),
    )
}


def complete(study: Study) -> Study:
    return replace(study, differences=DIFFERENCES, claims=some_claims())


def test_the_answer_comes_first_with_what_was_asked_and_what_is_missing(study: Study) -> None:
    text = html(replace(study, unchecked=("Electronics",), failed=("bm3 train vbpr baby",), code=1))
    head = text.partition("<main>")[0]
    for said in (study.asked, *headline(study), "1 trial failed.", "Electronics", "bm3 train vbpr baby"):
        assert said in head
    assert all(f"{count} {outcome.value}" in head for outcome, count in study.outcomes.items())


def test_every_cell_unfolds_to_all_that_its_verdict_rests_on(study: Study, folder: Path) -> None:
    page = Page(html(study))
    panels = {name: text for name, text in page.inside.items() if name.count("/") == 2}
    assert len(panels) == 4 * len(study.rows)
    for row in study.rows:
        for metric, verdict in row.verdicts.items():
            short = metric.replace("recall", "R").replace("ndcg", "N")
            text = panels[f"baby/{row.label}/{short}"]
            assert verdict.mean is not None
            assert verdict.interval is not None
            assert verdict.band is not None
            figures = [verdict.mean, *verdict.interval, *verdict.band, *row.result.values(metric)]
            figures += [value.value for value in row.sources[metric] if value.value is not None]
            for figure in figures:
                assert f"{figure:.4f}".replace("-", "−") in text
            assert f"{verdict.outcome.value}: {verdict.reason}." in text
            for run in row.result.runs:
                result, environment = run.result or {}, run.run["environment"]
                assert run.path.relative_to(folder).as_posix() in text
                assert str(run.run["seed"]) in text
                assert f"{result['best_epoch']} of {result['epochs']}" in text
                assert result["finished"][:10] in text
                assert (environment["source_revision"] or run.run.get("code"))[:12] in text
                assert ("dirty" in text) == bool(environment["source_dirty"])
            for value in row.sources[metric]:
                source = study.sources[value.source]
                assert all(part in text for part in (value.source, value.status, value.note))
                assert all(part in text for part in (source.title, source.table, source.date))


def test_the_best_of_a_column_is_bold_and_the_second_underlined(study: Study) -> None:
    text = html(study)
    for metric in ("recall@10", "recall@20", "ndcg@10", "ndcg@20"):
        best, second = study.best_two("baby", metric)
        assert f'<span class="best">{best.mean(metric):.4f}</span>' in text
        assert f'<span class="second">{second.mean(metric):.4f}</span>' in text


def test_a_value_that_is_not_finite_is_said_and_is_nobodys_best(study: Study) -> None:
    row = study.rows[0]
    verdict = replace(row.verdicts["recall@10"], mean=None, interval=None, outcome=Outcome.DIVERGED)
    row = replace(row, verdicts={**row.verdicts, "recall@10": verdict})
    text = html(replace(study, rows=(row, *study.rows[1:])))
    assert '<td data-key="">' in text
    assert '<span class="">not finite</span>' in text


def test_every_command_can_be_repeated_from_the_page_alone(study: Study) -> None:
    text = html(study)
    commands = text.partition('<h2 id="commands">')[2]
    assert all(command in commands for row in study.rows for command in study.commands(row))


def test_an_unfinished_run_is_named(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "runs"))
    study = make_study(copy, "test")
    (study.runs[0].path / "result.json").unlink()
    head = html(make_study(copy, "test")).partition("<main>")[0]
    assert "Unfinished" in head
    assert study.runs[0].run["command"] in head


def test_why_a_run_failed_stands_beside_its_command(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "runs"))
    failed = make_study(copy, "test").runs[0]
    (failed.path / "result.json").unlink()
    write_failure(failed.path, "error", "the loss is <nan>")
    head = html(make_study(copy, "test")).partition("<main>")[0]
    assert f"{failed.run['command']}  # the loss is &lt;nan&gt;" in head


def test_a_folder_without_runs_is_a_page_too(tmp_path: Path) -> None:
    text = html(make_study(tmp_path, "nothing"))
    assert "No run has a result." in text
    assert "<table" not in text
    Page(text)


def test_nothing_from_outside_becomes_markup(study: Study) -> None:
    text = html(hostile(study), [(HOSTILE, HOSTILE, "<svg></svg>")])
    assert text.count("<script") == 1
    assert HOSTILE not in text
    page = Page(text)
    assert text.count("&lt;script&gt;") > 50
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]


def test_the_page_asks_for_nothing_else(study: Study) -> None:
    text = html(complete(study))
    page = Page(text)
    assert not page.values("src")
    assert all(value.startswith("#") for value in page.values("href"))
    assert not re.search(r"url\(|@import|https?://|fetch\(|XMLHttp", text)
    assert not {tag for tag, _ in page.elements} & {"link", "img", "iframe", "object", "base"}
    assert any("default-src 'none'" in value for value in page.values("content"))


def test_ids_are_unique_and_what_is_referred_to_exists(study: Study) -> None:
    page = Page(html(complete(study)))
    counts = Counter(page.values("id"))
    assert max(counts.values()) == 1
    referred = [*page.values("aria-controls"), *(value[1:] for value in page.values("href"))]
    assert set(referred) <= set(counts)
    assert len(set(page.values("aria-controls"))) == 4 * len(study.rows) + len(study.datasets)


def test_headings_are_in_order(study: Study) -> None:
    page = Page(html(complete(study)))
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_the_same_study_gives_the_same_text(study: Study, folder: Path) -> None:
    assert html(study) == html(make_study(folder, "a question"))


def test_every_outcome_has_a_mark_of_its_own_kind() -> None:
    for outcomes in (Outcome, ClaimOutcome):
        assert len({MARKS[outcome.value] for outcome in outcomes}) == len(outcomes)


def test_differences_name_the_better_model_or_none(study: Study) -> None:
    text = html(replace(study, differences=DIFFERENCES))
    assert "One model is better in 1 of 2 comparisons" in text
    for figure in ("−0.0100", "−0.0200 to −0.0050", "0.001", "0.004", "321", "−0.50"):
        assert f">{figure}</td>" in text
    assert "<td>R@20</td><td>lightgcn</td>" in text
    assert "<td>N@20</td><td>–</td>" in text


def test_a_claim_shows_what_each_place_says_and_its_comparisons(study: Study) -> None:
    results = some_claims()
    text = html(replace(study, claims=results))
    assert text.count(results[0].claim.text) == 1
    for result in results:
        assert f"</span> {result.outcome.value}</span>, {result.where}: {result.evidence}</summary>" in text
        assert f"<td>{result.details[0][0]}</td><td>0.5 against 0.4</td>" in text


def test_pictures_are_placed_as_they_are_with_title_and_caption(study: Study) -> None:
    svg = '<svg viewBox="0 0 1 1"><path d="M0 0"/></svg>'
    text = html(study, [("A & B", "what it shows", svg)])
    assert f"<h3>A &amp; B</h3>\n{svg}\n<figcaption>what it shows</figcaption>" in text


def test_ten_models_with_three_seeds_stay_below_300_kilobytes(study: Study) -> None:
    row = study.rows[0]
    row = replace(row, runs=(*row.runs, row.runs[0]))
    rows = tuple(replace(row, label=f"model{number}") for number in range(10))
    pairs = 4 * 10 * 9 // 2
    assert study.claims
    assert (
        len(html(replace(study, rows=rows, differences={"baby": DIFFERENCES["baby"][:1] * pairs})).encode()) < 300_000
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_contrasts_with_its_ground(scheme: str) -> None:
    css = files("harness.report").joinpath("templates/report.css").read_text(encoding="utf-8")
    light, _, dark = css.partition("prefers-color-scheme: dark")
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", light if scheme == "light" else dark))
    inks = ["ink", "muted", "accent", *{tone for _, tone in MARKS.values()}]
    for ground in ("paper", "panel"):
        for ink in inks:
            assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)


def contrast(first: str, second: str) -> float:
    """WCAG 2.2, contrast ratio."""

    def luminance(colour: str) -> float:
        shares = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)
