"""Random inputs for the properties, and BM3 written a second time to hold the model against.

The second writing shares nothing with `bm3` but the parameters' values: float64, a dense adjacency, every item
projected, views of whole tables, rows gathered with repetition, and targets handed in as constants.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any
from unittest import mock

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from bm3 import BM3, Batch, BM3Config, Data, Loss
from harness.models import bm3 as fast

TERMS = ("reconstruction", "alignment", "masked", "regulariser")
NAMES = ("visual", "text", "v1.5 audio", "keys", "items")
EXPONENTS = st.integers(-6, 6)
scales = EXPONENTS.map(lambda exponent: 10.0**exponent)
seeds = st.integers(0, 2**31 - 1)


# Rows of vectors --------------------------------------------------------------------------------------------------


def directions(n: int, d: int, seed: int) -> Tensor:
    """n rows of length one, [n, d], float64."""
    drawn = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn / drawn.norm(dim=1, keepdim=True)


@st.composite
def tables(draw: st.DrawFn, n: int | None = None, d: int | None = None, zero_rows: bool = True) -> Tensor:
    """[n, d] float32, every row with a length of its own in 1e-6…1e6, some rows zero."""
    n = n or draw(st.integers(1, 6))
    d = d or draw(st.integers(1, 16))
    lengths = draw(st.lists(scales | st.just(0.0) if zero_rows else scales, min_size=n, max_size=n))
    return (directions(n, d, draw(seeds)) * torch.tensor(lengths, dtype=torch.float64)[:, None]).float()


@st.composite
def pairs_of_tables(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    x = draw(tables())
    return x, draw(tables(*x.shape))


# Data sets and steps of BM3 ---------------------------------------------------------------------------------------


class _Given:
    """Dropout of a step may be given: boolean, True survives, of whole tables by view."""

    keep: Mapping[str, Tensor] | None = None

    def loss(self, batch: Batch, keep: Mapping[str, Tensor] | None = None) -> Loss:
        self.keep = keep
        return super().loss(batch)  # type: ignore[misc]

    def survivors(self, view: str, rows: Tensor) -> Tensor:
        return super().survivors(view, rows) if self.keep is None else self.keep[view][rows]  # type: ignore[misc]


class Reading(_Given, BM3):
    """The one to read."""


class Fast(_Given, fast.BM3):
    """The harness's."""


@dataclass(frozen=True)
class Case:
    """A data set, a configuration, parameter values, a batch, and the masks of one step."""

    data: Data
    config: BM3Config
    seed: int
    user_scale: float
    item_scale: float
    zero_user: bool
    zero_item: bool
    batch: Batch
    keep: Mapping[str, Tensor]
    kind: type[Any] = Reading

    def model(self, **changes: Any) -> BM3:
        """The model of this case in float32, with `changes` to its configuration."""
        config = self.kind.Config(**asdict(replace(self.config, **changes)))
        model: BM3 = self.kind(self.data, config, torch.Generator().manual_seed(self.seed))
        with torch.no_grad():
            model.user_embedding.mul_(self.user_scale)
            model.item_embedding.mul_(self.item_scale)
            if self.zero_user:
                model.user_embedding[0] = 0
            if self.zero_item:
                model.item_embedding[0] = 0
        return model

    def ones(self) -> dict[str, Tensor]:
        """Masks that drop nothing."""
        return {name: torch.ones_like(mask) for name, mask in self.keep.items()}


@st.composite
def cases(draw: st.DrawFn, min_d: int = 1) -> Case:
    """Isolated users and items, repeated interactions and items, single-item batches and zero rows all occur."""
    n_users, n_items = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    pair = st.tuples(st.integers(0, n_users - 1), st.integers(0, n_items - 1))
    edges = draw(st.lists(pair, min_size=1, max_size=8))
    picked = draw(st.lists(pair, min_size=1, max_size=6))
    random = np.random.default_rng(draw(seeds))
    features: dict[str, np.ndarray] = {}
    for name in draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True)):
        table = random.normal(size=(n_items, draw(st.integers(1, 5)))) * draw(scales)
        if draw(st.booleans()):
            table[0] = 0
        features[name] = table.astype(draw(st.sampled_from([np.float32, np.float64])))
    config = BM3Config(
        embedding_size=draw(st.integers(min_d, 6)),
        n_layers=draw(st.integers(0, 3)),
        dropout=draw(st.sampled_from([0.0, 0.3, 0.5, 0.9])),
        reg_weight=draw(st.sampled_from([0.0, 0.1])),
        cl_weight=draw(st.sampled_from([0.0, 0.5, 2.0])),
        objective=draw(st.sampled_from(["published", "paper"])),
        features=draw(st.sampled_from(["trained", "frozen"])),
    )
    sizes = {"user": n_users, "item": n_items, **dict.fromkeys(features, n_items)}
    keep = {
        name: torch.from_numpy(random.random((n, config.embedding_size)) >= config.dropout) for name, n in sizes.items()
    }
    return Case(
        data=Data(n_users, n_items, np.array(edges), features),
        config=config,
        seed=draw(seeds),
        user_scale=draw(scales),
        item_scale=draw(scales),
        zero_user=draw(st.booleans()),
        zero_item=draw(st.booleans()),
        batch=Batch(*torch.tensor(picked).T),
        keep=keep,
        kind=draw(st.sampled_from([Reading, Fast])),
    )


# The second writing -----------------------------------------------------------------------------------------------


@contextmanager
def in_float64(model: BM3) -> Iterator[None]:
    """Run the model's own code in double precision, so that rounding hides no difference and makes none.

    The model makes its features float32 on reading; only that cast has to be lifted.
    """
    model.double()
    with mock.patch.object(Tensor, "float", Tensor.double):
        yield


def dense_graph(data: Data) -> Tensor:
    """Â, [U+I, U+I], float64."""
    A = torch.zeros(data.n_users + data.n_items, data.n_users + data.n_items, dtype=torch.float64)
    for user, item in data.train:
        A[user, data.n_users + item] = A[data.n_users + item, user] = 1
    scale = (A.sum(dim=1) + 1e-7) ** -0.5
    return scale[:, None] * A * scale[None, :]


def cosine(x: Tensor, y: Tensor) -> Tensor:
    """cos of each row; lengths are at least 1e-8."""
    length_x, length_y = ((t**2).sum(dim=1).clamp(min=1e-16).sqrt() for t in (x, y))
    return (x * y).sum(dim=1) / (length_x * length_y)


class Reference:
    """BM3's parameters as float64 leaves and its objective in plain torch."""

    def __init__(self, case: Case, model: BM3) -> None:
        self.case, self.config = case, model.config
        # The model keeps Â in float32. Once it is known to be right, take its rounding over: near-parallel vectors
        # turn one unit in the last place into more than the 1e-6 that is to be shown of everything else.
        exact = dense_graph(case.data)
        self.graph = model.propagate(torch.eye(len(exact), dtype=torch.float64))
        torch.testing.assert_close(self.graph, exact, rtol=1e-6, atol=0)
        self.parameters = {
            name: parameter.detach().double().clone().requires_grad_() for name, parameter in model.named_parameters()
        }

    def latents(self) -> dict[str, Tensor]:
        """h of all users, all items, and all items in each modality."""
        p, U = self.parameters, self.case.data.n_users
        layers = [torch.cat([p["user_embedding"], p["item_embedding"]])]
        for _ in range(self.config.n_layers):
            layers.append(self.graph @ layers[-1])
        H = torch.stack(layers).mean(dim=0)
        h = {"user": H[:U], "item": H[U:] + p["item_embedding"]}
        for m, (name, table) in enumerate(self.case.data.features.items()):
            e = p.get(f"features.{m}.table", torch.from_numpy(table.astype(np.float32)).double())
            if self.config.features == "frozen":
                e = torch.from_numpy(table).double()
            h[name] = e @ p[f"projections.{m}.weight"].T + p[f"projections.{m}.bias"]
        return h

    def targets(self, keep: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The dropped views at the present parameters, as constants."""
        return {
            name: h.detach() * keep[name].double() / (1 - self.config.dropout) for name, h in self.latents().items()
        }

    def parts(self, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The four terms with `targets` held fixed."""
        config, data, (users, items, _) = self.config, self.case.data, self.case.batch
        h = self.latents()
        W, b = self.parameters["predictor.weight"], self.parameters["predictor.bias"]
        online = {name: latent @ W.T + b for name, latent in h.items()}
        B = len(users)
        rec = align = masked = torch.zeros((), dtype=torch.float64)
        rec = rec - cosine(online["user"][users], targets["item"][items]).sum() / B
        rec = rec - cosine(online["item"][items], targets["user"][users]).sum() / B
        for name in data.features:
            align = align - cosine(online[name][items], targets["item"][items]).sum() / B
            masked = masked - cosine(online[name][items], targets[name][items]).sum() / B
        if config.objective == "paper":
            reg = ((h["user"][users] ** 2).sum() + (h["item"][items] ** 2).sum()) / B
        else:
            M = len(data.features)
            rec, align, masked = rec + 2, config.cl_weight * (align + M), config.cl_weight * (masked + M)
            reg = (torch.linalg.norm(h["user"]) + torch.linalg.norm(h["item"])) / data.n_items
        return dict(zip(TERMS, (rec, align, masked, config.reg_weight * reg), strict=True))

    def gradients(self, value: Tensor) -> dict[str, Tensor]:
        return gradients(value, self.parameters)


def gradients(value: Tensor, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Gradient of a scalar by name, zero where it does not depend on the tensor."""
    if not value.requires_grad:
        return {name: torch.zeros_like(p) for name, p in parameters.items()}
    found = torch.autograd.grad(value, list(parameters.values()), retain_graph=True, allow_unused=True)
    return {
        name: torch.zeros_like(p) if g is None else g for (name, p), g in zip(parameters.items(), found, strict=True)
    }


def assert_same(ours: Tensor, theirs: Tensor, tolerance: float = 1e-6, largest: float = 0.0) -> None:
    """Equal within `tolerance` of the largest magnitude, of `theirs` or as given."""
    ours, theirs = ours.detach(), theirs.detach()
    largest = max(float(theirs.abs().max()), largest, 1e-12)
    difference = float((ours - theirs).abs().max())
    assert difference <= tolerance * largest, f"off by {difference:.3g} where the largest magnitude is {largest:.3g}"


def assert_same_gradients(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    """Every tensor within 1e-6 of its own largest gradient.

    The floor, 1e-15 of the largest gradient of all, is the rounding of float64 where a gradient cancels to nothing.
    """
    assert ours.keys() == theirs.keys()
    largest = max(float(gradient.abs().max()) for gradient in theirs.values())
    for name, gradient in theirs.items():
        assert_same(ours[name], gradient, largest=1e-9 * largest)
