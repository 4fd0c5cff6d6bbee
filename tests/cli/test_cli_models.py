"""The commands `bm3 models` and `bm3 settings`: everything that is there, as its classes say it."""

import importlib.metadata
import re
from dataclasses import fields, make_dataclass
from typing import Any

import pytest
from command_line import Command, cells

from harness.models import registry
from harness.models.registry import find_model, models
from harness.runs.settings import about, configure, meanings, settings
from harness.training.config import TrainingConfig


def test_models_lists_those_of_other_packages(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = importlib.metadata.EntryPoint("mine", "harness.models.vbpr:VBPR", registry.ENTRY_POINT_GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [mine])
    registry.models.cache_clear()
    try:
        assert cells(command("models").out, "mine")[:4] == ["mine", "yes", "yes", "2"]
    finally:
        registry.models.cache_clear()


def test_metrics_are_listed_with_formula_and_source(command: Command) -> None:
    out = command("metrics").out
    assert re.search(r"^mrr +yes +1 / rank of the first hit .*Voorhees", out, re.MULTILINE)
    assert re.search(r"^coverage +no +Share of all items", out, re.MULTILINE)


def test_a_model_is_introduced_by_its_module_with_the_source_if_it_names_one(monkeypatch: pytest.MonkeyPatch) -> None:
    model, module = find_model("bpr").model, "harness.models.bpr.__doc__"
    assert about(model)[1].endswith('Implicit Feedback", UAI 2009.')
    monkeypatch.setattr(module, "One line.\n\nNo source, but a remark. Another one.\n")
    assert about(model) == ("One line.", "")
    monkeypatch.setattr(module, None)
    assert about(model)[0].startswith("L = ")


@pytest.mark.parametrize("name", sorted(models()))
def test_every_setting_is_listed_with_its_default_and_its_meaning(command: Command, name: str) -> None:
    entry = find_model(name)
    code, out, _ = command("settings", name)
    assert code == 0
    found = [*settings(entry.model.Config), *settings(TrainingConfig)]
    assert configure(entry.model, {one.name: one.default for one in found}) == configure(entry.model, {})
    assert {one.name for one in found} >= {field.name for field in fields(entry.model.Config)}
    for one in found:
        assert one.meaning, one.name
        assert cells(out, one.name)[:2] == [one.name, str(one.default)]


def test_a_class_without_source_lists_its_settings_without_meanings() -> None:
    config: Any = make_dataclass("Config", [("width", int, 3), ("name", str | None, None)])
    assert meanings(config) == {}
    assert [(one.name, one.default, one.values, one.meaning) for one in settings(config)] == [
        ("width", 3, "whole number", ""),
        ("name", None, "str | None", ""),
    ]


def test_settings_that_are_inherited_keep_their_meaning() -> None:
    base = type(TrainingConfig().early_stopping)
    assert meanings(type("Mine", (base,), {})) == meanings(base) != {}
