"""The page: whatever a verdict rests on is on it, nothing on it is fetched or executed, and the same study gives it."""

import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from itertools import pairwise

import pytest
from rows_by_hand import difference

from harness.paper.claims import ClaimOutcome
from harness.paper.load import Source
from harness.paper.study import Study
from harness.paper.verdict import Outcome
from harness.report.html import html

VOID = {"br", "img", "meta"}
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


def hostile(study: Study) -> Study:
    """A study in which every text that comes from outside is markup."""
    rows = []
    for row in study.rows:
        runs = tuple(
            run.model_copy(update={"command": HOSTILE, "environment": {**run.environment, "cpu": HOSTILE}})
            for run in row.runs
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
        paper=study.paper.model_copy(update={"sources": dict.fromkeys(study.paper.sources, source)}),
    )


DIFFERENCES = difference("bpr", "lightgcn", -0.01), replace(difference("bpr", "lightgcn", 0.0), metric="ndcg@20")


def complete(study: Study) -> Study:
    return replace(study, differences={"baby": DIFFERENCES})


def test_nothing_from_outside_becomes_markup(study: Study) -> None:
    text = html(hostile(study), [(HOSTILE, HOSTILE, b"<svg></svg>")])
    assert text.count("<script") == 1
    assert HOSTILE not in text
    page = Page(text)
    assert text.count("&lt;script&gt;") > 50
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]


def test_the_page_asks_for_nothing_else(study: Study) -> None:
    text = html(complete(study), [("a title", "a caption", b"<svg>")])
    page = Page(text)
    assert page.values("src") == ["data:image/svg+xml;base64,PHN2Zz4="]
    assert all(value.startswith("#") for value in page.values("href"))
    assert not re.search(r"url\(|@import|https?://|fetch\(|XMLHttp", text)
    assert not {tag for tag, _ in page.elements} & {"link", "iframe", "object", "base"}
    assert any("default-src 'none'" in value for value in page.values("content"))


def test_ids_are_unique_and_what_is_referred_to_exists(study: Study) -> None:
    page = Page(html(complete(study)))
    counts = Counter(page.values("id"))
    assert max(counts.values()) == 1
    referred = [*page.values("aria-controls"), *(value[1:] for value in page.values("href"))]
    assert set(referred) <= set(counts)
    unfolding = sum(len(row.verdicts) for row in study.rows) + len(study.claims)
    assert len(set(page.values("aria-controls"))) == unfolding + 2  # and a button for each of the two tables


def test_headings_are_in_order(study: Study) -> None:
    page = Page(html(complete(study)))
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_contrasts_with_its_ground(scheme: str) -> None:
    css = files("harness.report").joinpath("templates/report.css").read_text(encoding="utf-8")
    light, _, dark = css.partition("prefers-color-scheme: dark")
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", light if scheme == "light" else dark))
    inks = ["ink", "muted", "accent", *{word.tone for word in (*Outcome, *ClaimOutcome)}]
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


def test_the_power_of_the_rule_stands_with_the_rules(study: Study) -> None:
    # As in docs/verdicts.md.
    words = Page(html(study)).inside["powers"].split()
    assert words[-12:] == ["3", "0.64", "0.17", "0.06", "5", "1.00", "0.51", "0.15", "10", "1.00", "0.97", "0.61"]
