"""Models of other packages: found by entry point, and refused in one line, before they train, for a broken contract."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, make_dataclass, replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import Command, refused
from torch import nn

from bm3 import Batch, ConfigError, DataError, Loss, Recommender
from harness.data.dataset import Dataset
from harness.models import registry, vbpr
from harness.models.contract import check_class, check_model
from harness.models.registry import ModelEntry
from harness.paper.conformance import Status, known_traces, trace_statuses
from harness.paper.load import load_paper
from harness.runs.store import stored_runs


@dataclass(frozen=True)
class Settings:
    width: int = 4


class Good(Recommender):
    """Keeps the contract; those below break it in one thing each."""

    Config: Any = Settings
    uses_negatives: Any = True
    reads_features = False

    def __init__(self, data: Any, config: Any, generator: torch.Generator) -> None:
        super().__init__()
        torch.rand(1)  # which draws from the global generator
        self.users = nn.Parameter(torch.randn(data.n_users, config.width, generator=generator))
        self.items = nn.Parameter(torch.randn(data.n_items, config.width, generator=generator))

    def loss(self, batch: Batch) -> Any:
        assert batch.negatives is not None
        difference = self.items[batch.items] - self.items[batch.negatives]
        total = -nn.functional.logsigmoid((self.users[batch.users] * difference).sum(1)).mean()
        return Loss(total, {"pairwise": total})

    def embed(self) -> Any:
        return self.users, self.items


def broken(**members: Any) -> type[Good]:
    return type("Broken", (Good,), {"__module__": __name__, **members})


def returns(value: Callable[[Good], Any]) -> Callable[..., Any]:
    return lambda self, *_: value(self)


def no_generator(self: Any, data: Any, config: Any) -> None:
    nn.Module.__init__(self)


def untrained(self: Any, *arguments: Any) -> None:
    Good.__init__(self, *arguments)
    self.requires_grad_(False)


BROKEN = [
    (broken(Config={"width": 4}), "Config is dict .*must be a frozen dataclass"),
    (broken(Config=make_dataclass("Thawed", [("width", int, 4)])), "Config is type .*must be a frozen dataclass"),
    (broken(Config=make_dataclass("Undecided", [("width", int)], frozen=True)), "Config.width has no default"),
    (broken(numerics_version=0), "numerics_version is 0, it must be a whole number from 1"),
    (broken(uses_negatives=None), "uses_negatives is None, it must be True or False"),
    (broken(after_step=3), "after_step must be a method"),
    (broken(__init__=no_generator), r"Broken\(data, config, generator\) raised TypeError: [^/]*$"),
    (broken(__init__=untrained), r"parameters\(\) returned none that trains"),
    (broken(loss=returns(lambda m: m.users.sum())), r"loss\(batch\) returned tensor .*needed is bm3.Loss"),
    (broken(loss=returns(lambda m: Loss(m.users.sum(1), {}))), "returned tensor .*a total that is one finite number"),
    (broken(loss=returns(lambda m: Loss(m.users.sum().detach(), {}))), "without a gradient, needed is a total"),
    (broken(loss=returns(lambda m: Loss(m.users.sum() * float("nan"), {}))), "tensor nan, needed is a total"),
    (broken(loss=returns(lambda m: Loss(m.users.sum(), {"a": 1.0}))), "returned parts .*mapping of names to tensors"),
    (broken(loss=returns(lambda m: m.users[10**6])), r"loss\(batch\) raised IndexError: .*test_contract\.py, line"),
    (broken(uses_negatives=False), r"loss\(batch\) raised AssertionError"),
    (broken(embed=returns(lambda m: m.users)), r"embed\(\) returned tensor .*needed is two floating-point tensors"),
    (
        broken(embed=returns(lambda m: (m.items, m.users))),
        r"embed\(\) returned tuple .*users \[60, d\], items \[40, d\]",
    ),
    (broken(embed=returns(lambda m: (m.users, m.items[:, :2]))), "tensors of one width"),
    (
        broken(score=returns(lambda m: m.users)),
        r"score\(users\) returned tensor .*needed is a floating-point tensor \[8, 40\]",
    ),
    (broken(score=returns(lambda m: torch.ones(8, 40).int())), r"needed is a floating-point tensor \[8, 40\]"),
    (broken(embed=returns(lambda m: (m.users.int(), m.items.int()))), "two floating-point tensors of one width"),
    (broken(start_epoch=lambda self: None), "start_epoch raised TypeError"),
    (broken(parameter_groups=lambda self: 3), r"parameter_groups\(\) returned int 3, needed is a list"),
    (broken(learning_rate_factor=lambda self, epoch: "x"), r"learning_rate_factor\(epoch\) returned str 'x'"),
    (broken(embed=Recommender.embed), "neither embed"),
    (broken(after_step=lambda self: 1 / 0), r"after_step\(\) raised ZeroDivisionError: .*\.py, line \d+"),
]


def check(model: type[Any], data: Dataset) -> None:
    entry = ModelEntry("mine", model)
    check_class(entry)
    check_model(entry, data, model.Config())


@pytest.mark.parametrize(("model", "message"), BROKEN, ids=[message for _, message in BROKEN])
def test_what_is_broken_is_said_in_one_line(model: type[Any], message: str, clustered: Dataset) -> None:
    with pytest.raises(ConfigError, match=f"^model 'mine'.*{message}"):
        check(model, clustered)


def test_a_good_model_passes_and_random_numbers_are_as_if_it_had_not_been_tried(clustered: Dataset) -> None:
    before = torch.get_rng_state()
    check(Good, clustered)
    assert torch.equal(torch.get_rng_state(), before)


def test_needing_features_where_there_are_none_is_a_matter_of_the_data(clustered: Dataset) -> None:
    def of_features(self: Any, data: Any, config: Any, generator: torch.Generator) -> None:
        Good.__init__(self, data, config, generator)
        torch.cat([torch.tensor(table) for table in data.features.values()], dim=1)

    needy = broken(__init__=of_features, reads_features=True)
    check(needy, clustered)
    with pytest.raises(DataError, match=r"model 'mine'.* raised .*it is taken to need item features"):
        check(needy, replace(clustered, features={}))


# Found by their entry points ---


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """`installed(name, value)` makes this the only entry point there is."""

    def install(name: str, value: str) -> None:
        point = EntryPoint(name, value, registry.ENTRY_POINT_GROUP)
        monkeypatch.setattr(registry, "entry_points", lambda group: [point])

    registry.models.cache_clear()
    yield install
    registry.models.cache_clear()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("mine", "no.such.module:Model", "cannot be loaded"),
        ("mine", "json:JSONDecoder", "is no model"),
        ("BPR", "harness.models.vbpr:VBPR", "takes the name"),
    ],
)
def test_a_bad_entry_point_is_named(installed: Callable[..., None], name: str, value: str, message: str) -> None:
    installed(name, value)
    with pytest.raises(ConfigError, match=f"{name}.*{message}"):
        registry.models()


def test_a_missing_folder_of_traces_fails_that_model_alone(
    installed: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(vbpr, "TRACES", tmp_path / "absent", raising=False)
    installed("mine", "harness.models.vbpr:VBPR")
    statuses = trace_statuses(known_traces(load_paper()))
    assert (statuses["mine"], statuses["bpr"]) == (Status.FAILED, Status.PASSED)


def test_a_broken_model_is_refused_before_an_epoch(
    installed: Callable[..., None], command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "Broken", broken(embed=returns(lambda m: m.users)))
    installed("mine", f"{__name__}:Broken")
    assert "embed() returned" in refused(command("train", "mine", "mini", "--epochs", 1))
    (run,) = stored_runs(Path("runs"))
    assert run.failure is not None
    assert "embed() returned" in run.failure.message
    assert run.epochs() == []
