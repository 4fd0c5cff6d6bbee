"""The page in a real browser: sorting, unfolding, narrow and wide windows, light and dark, and no request at all."""

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.paper.study import Study, make_study
from harness.report.html import html

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
STORE = Path(__file__).parent.parent / "golden" / "store"
PHONE, DESKTOP = (390, 844), (1280, 900)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="needs playwright: pip install it"),
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium, chromium-browser or google-chrome on PATH"),
]


@pytest.fixture(scope="module")
def study() -> Study:
    return make_study(STORE, "a report for a browser")


@pytest.fixture(scope="module")
def file(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(html(study), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Any, file: Path) -> Iterator[Any]:
    """The open page; the test fails if it writes to the console, throws, or asks for anything but itself."""
    page, heard = chromium.new_page(viewport={"width": DESKTOP[0], "height": DESKTOP[1]}), []
    page.on("console", lambda message: heard.append(message.text))
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on("request", lambda request: heard.append(request.url))
    page.goto(file.as_uri())
    yield page
    page.close()
    assert heard == [file.as_uri()]


def column(page: Any, place: int) -> list[str]:
    return [
        str(text)
        for text in page.locator(f"table.accuracy > tbody > tr:first-child > :nth-child({place})").evaluate_all(
            "cells => cells.map(cell => (cell.querySelector('.value') ?? cell).textContent.trim())"
        )
    ]


def all_open(page: Any) -> bool:
    panels = page.locator(".panel")
    return all(panels.nth(place).is_visible() for place in range(panels.count()))


def overflows(page: Any) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"))


@pytest.mark.parametrize("place", [2, 3, 4, 5])
def test_a_heading_sorts_by_its_column_both_ways(page: Any, place: int) -> None:
    header = page.locator(f"table.accuracy > thead th:nth-child({place})")
    values = [float(text) for text in column(page, place)]
    for order in ("descending", "ascending"):
        header.get_by_role("button").click()
        assert header.get_attribute("aria-sort") == order
        assert [float(text) for text in column(page, place)] == sorted(values, reverse=order == "descending")
    assert page.locator("table.accuracy th[aria-sort=none]").count() == 6


def test_sorting_is_numeric_and_leaves_what_has_no_value_last(page: Any) -> None:
    cells = page.locator("table.accuracy > tbody > tr:first-child > :nth-child(2)")
    for place, key in enumerate(("9.5", "10.25", "", "1")):
        cells.nth(place).evaluate("(cell, key) => { cell.textContent = key }", key)
    header = page.locator("table.accuracy > thead th:nth-child(2) button")
    header.click()
    assert column(page, 2) == ["10.25", "9.5", "1", ""]
    header.click()
    assert column(page, 2) == ["1", "9.5", "10.25", ""]


def test_plain_tables_sort_by_their_figures_too(page: Any) -> None:
    table = page.locator("table", has=page.locator("caption", has_text="Differences between models"))

    def figures() -> list[float]:
        texts = table.locator("tbody td:nth-child(5)").evaluate_all("cells => cells.map(cell => cell.textContent)")
        return [float(text.replace("−", "-")) for text in texts]

    assert min(figures()) < 0 < max(figures())
    for reverse in (True, False):
        table.get_by_role("button", name="effect %").click()
        assert figures() == sorted(figures(), reverse=reverse)


def test_models_sort_by_name_with_the_keyboard(page: Any) -> None:
    names = column(page, 1)
    page.locator("table.accuracy > thead th:first-child button").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Space")
    assert column(page, 1) == sorted(names, reverse=True)


def test_a_cell_unfolds_to_its_seeds_and_command_and_folds_again(page: Any, study: Study) -> None:
    row = study.rows[0]
    cell = page.locator("table.accuracy > tbody:first-of-type .cell").nth(1)
    panel = page.locator(f'[id="{cell.get_attribute("aria-controls")}"]')
    assert not panel.is_visible()
    cell.click()
    assert cell.get_attribute("aria-expanded") == "true"
    text = panel.inner_text()
    assert all(command in text for command in study.commands(row))
    for run, value in zip(row.runs, row.values("recall@20"), strict=True):
        assert f"{run.seed}\t{value:.4f}" in text
    cell.click()
    assert not panel.is_visible()


def test_an_unfolded_cell_stays_with_its_model_when_the_table_is_sorted(page: Any) -> None:
    cell = page.locator("table.accuracy .cell").first
    name = cell.get_attribute("aria-controls")
    cell.click()
    for _ in range(2):
        page.locator("table.accuracy > thead th:first-child button").click()
        above = page.locator(f'.accuracy > tbody:has([id="{name}"]) > tr:first-child th').text_content()
        assert f"/{above}/".replace(" ", "+") in str(name)
        assert page.locator(f'[id="{name}"]').is_visible()


def test_all_cells_unfold_at_once(page: Any) -> None:
    page.locator("button.all").first.click()
    assert all_open(page)
    page.locator("button.all").first.click()
    assert not page.locator(".panel").first.is_visible()


def test_a_link_to_a_cell_opens_it(page: Any) -> None:
    name = page.locator("table.accuracy .cell").last.get_attribute("aria-controls")
    panel = page.locator(f'[id="{name}"]')
    assert not panel.is_visible()
    page.evaluate("name => { location.hash = name }", name)
    panel.wait_for(state="visible")
    assert panel.is_visible()


def test_commands_are_copied(page: Any, study: Study) -> None:
    commands = [command for row in study.rows for command in study.commands(row)]
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator("#commands + p + .commands button").click()
    page.get_by_text("Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()").splitlines() == commands


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESKTOP])
def test_nothing_is_wider_than_the_window(page: Any, size: tuple[int, int], scheme: str, tmp_path: Path) -> None:
    page.set_viewport_size({"width": size[0], "height": size[1]})
    page.emulate_media(color_scheme=scheme)
    page.screenshot(path=tmp_path / f"{scheme}-{size[0]}.png", full_page=True)
    assert not overflows(page)
    page.locator("button.all").first.click()
    page.screenshot(path=tmp_path / f"{scheme}-{size[0]}-unfolded.png", full_page=True)
    assert not overflows(page)
    assert page.locator(".panel").first.bounding_box()["width"] <= size[0]


def test_a_wide_table_scrolls_by_itself_with_its_first_column_in_place(page: Any) -> None:
    page.set_viewport_size({"width": 300, "height": 600})
    first = page.locator("table.accuracy > tbody > tr > th").first
    before = first.bounding_box()["x"]
    page.locator(".scroll").first.evaluate("part => { part.scrollLeft = 80 }")
    assert page.locator(".scroll").first.evaluate("part => part.scrollLeft") > 0
    assert first.bounding_box()["x"] == pytest.approx(before, abs=9)
    assert not overflows(page)


def test_the_dark_scheme_is_dark(page: Any) -> None:
    def brightness() -> int:
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(","))

    page.emulate_media(color_scheme="light")
    light = brightness()
    page.emulate_media(color_scheme="dark")
    assert brightness() < 150 < 600 < light


def test_without_a_script_everything_is_open(chromium: Any, file: Path) -> None:
    page = chromium.new_page(java_script_enabled=False)
    page.goto(file.as_uri())
    assert all_open(page)
    assert not page.locator("button.all").first.is_visible()
    page.close()


def test_on_paper_everything_is_open_and_buttons_are_gone(page: Any) -> None:
    page.emulate_media(media="print")
    assert all_open(page)
    assert not page.locator("button.plain").first.is_visible()
