"""Models of other packages: one clear line for a bad one, and never in the place of a model that is here."""

import importlib.metadata
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from bm3 import ConfigError
from harness.models import registry, vbpr
from harness.paper.conformance import Status, known_traces, trace_statuses
from harness.paper.load import load_paper


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[EntryPoint]]:
    """Entry points that take the place of the installed ones."""
    points: list[EntryPoint] = []
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    registry.models.cache_clear()
    yield points
    registry.models.cache_clear()


def point(name: str, value: str) -> EntryPoint:
    return importlib.metadata.EntryPoint(name=name, value=value, group=registry.ENTRY_POINT_GROUP)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("mine", "no.such.module:Model", "cannot be loaded"),
        ("mine", "json:JSONDecoder", "is no model"),
        ("BPR", "harness.models.vbpr:VBPR", "takes the name"),
    ],
)
def test_a_bad_entry_point_is_named(installed: list[EntryPoint], name: str, value: str, message: str) -> None:
    installed.append(point(name, value))
    with pytest.raises(ConfigError, match=f"{name}.*{message}"):
        registry.models()


def test_a_missing_folder_of_traces_fails_that_model_alone(
    installed: list[EntryPoint], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(vbpr, "TRACES", tmp_path / "absent", raising=False)
    installed.append(point("mine", "harness.models.vbpr:VBPR"))
    statuses = trace_statuses(known_traces(load_paper()))
    assert statuses["mine"] is Status.FAILED
    assert statuses["bpr"] is Status.PASSED
