"""No gradient reaches a target: term by term, modality by modality, by autograd and by perturbing the targets."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import TERMS, Case, Reference, assert_same_gradients, cases, gradients, in_float64, seeds, tables
from torch import Tensor

from bm3 import Batch, BM3Config, Data
from bm3.losses import alignment_loss, masked_loss, reconstruction_loss


def untouched(tensor: Tensor) -> bool:
    return tensor.grad is None or not tensor.grad.any()


def leaves(n_tables: int, n: int, d: int, seed: int) -> list[Tensor]:
    drawn = torch.randn(n_tables, n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return [table.clone().requires_grad_() for table in drawn]


shapes = st.tuples(st.integers(1, 5), st.integers(2, 8), seeds)


@given(shapes)
def test_reconstruction_moves_the_online_views_alone(shape: tuple[int, int, int]) -> None:
    online_u, online_i, target_u, target_i = leaves(4, *shape)
    reconstruction_loss(online_u, online_i, target_u, target_i).sum().backward()
    assert untouched(target_u)
    assert untouched(target_i)
    assert online_u.grad.any()
    assert online_i.grad.any()


@given(shapes, st.integers(1, 3))
def test_alignment_moves_every_modality_and_not_the_item(shape: tuple[int, int, int], n_modalities: int) -> None:
    target_i, *online = leaves(1 + n_modalities, *shape)
    alignment_loss(online, target_i).sum().backward()
    assert untouched(target_i)
    assert all(view.grad.any() for view in online)


@given(shapes, st.integers(1, 3))
def test_masking_moves_every_modality_and_not_its_dropped_view(shape: tuple[int, int, int], n_modalities: int) -> None:
    views = leaves(2 * n_modalities, *shape)
    online, targets = views[:n_modalities], views[n_modalities:]
    masked_loss(online, targets).sum().backward()
    assert all(untouched(view) for view in targets)
    assert all(view.grad.any() for view in online)


def test_masking_needs_a_dropped_view_of_every_modality() -> None:
    view = torch.ones(2, 3)
    with pytest.raises(ValueError, match="zip"):
        masked_loss([view], [view, view])


@given(tables(n=3, d=4), tables(n=3, d=4))
def test_targets_of_any_length_stay_untouched(online: Tensor, target: Tensor) -> None:
    online.requires_grad_()
    target.requires_grad_()
    total = reconstruction_loss(online, online, target, target) + alignment_loss([online], target)
    (total + masked_loss([online], [target])).sum().backward()
    assert untouched(target)
    assert online.grad.isfinite().all()


@given(cases(min_d=2))
def test_each_term_has_the_gradient_of_fixed_targets(case: Case) -> None:
    model = case.model()
    with in_float64(model):
        reference = Reference(case, model)
        parts = model.loss(case.batch, case.keep).parts
        constant = reference.parts(reference.targets(case.keep))
        for term in TERMS:
            ours = gradients(parts[term], dict(model.named_parameters()))
            theirs = reference.gradients(constant[term])
            assert_same_gradients(ours, theirs)


# By perturbing: the loss does depend on the targets, and the gradient is that of the online path alone.

CASE = Case(
    data=Data(
        4,
        3,
        np.array([(0, 0), (0, 1), (1, 1), (2, 2), (3, 0), (3, 2)]),
        {name: np.random.default_rng(m).normal(size=(3, 3 + m)) for m, name in enumerate(["visual", "text", "audio"])},
    ),
    config=BM3Config(embedding_size=5, n_layers=2, dropout=0.3),
    seed=7,
    user_scale=1.0,
    item_scale=1.0,
    zero_user=False,
    zero_item=False,
    batch=Batch(torch.tensor([0, 3, 0, 1]), torch.tensor([1, 2, 0, 1])),
    keep={
        name: torch.rand(n, 5, generator=torch.Generator().manual_seed(n)) >= 0.3
        for name, n in {"user": 4, "item": 3, "visual": 3, "text": 3, "audio": 3}.items()
    },
)
DEPENDS_ON = [
    ("reconstruction", "user"),
    ("reconstruction", "item"),
    ("alignment", "item"),
    ("masked", "visual"),
    ("masked", "text"),
    ("masked", "audio"),
]


@pytest.mark.parametrize(("term", "target"), DEPENDS_ON)
def test_the_value_depends_on_the_target_that_gets_no_gradient(term: str, target: str) -> None:
    model = CASE.model()
    flipped = CASE.keep | {target: CASE.ones()[target] & (torch.arange(5) > 1)}
    before, after = (model.loss(CASE.batch, keep).parts[term] for keep in (CASE.keep, flipped))
    assert abs(float(before.detach() - after.detach())) > 1e-3


@pytest.mark.parametrize("objective", ["published", "paper"])
@pytest.mark.parametrize("term", ["reconstruction", "alignment", "masked"])
def test_the_gradient_is_the_slope_of_the_online_path_and_not_of_the_whole(term: str, objective: str) -> None:
    case = replace(CASE, config=replace(CASE.config, objective=objective))
    model, step = case.model(), 1e-5
    with in_float64(model):
        reference = Reference(case, model)
        fixed = reference.targets(case.keep)
        start = {name: p.detach().clone() for name, p in model.named_parameters()}
        along = {
            name: torch.randn(p.shape, generator=torch.Generator().manual_seed(1), dtype=p.dtype)
            for name, p in start.items()
        }

        def moved(by: float) -> None:
            with torch.no_grad():
                for parameters in (dict(model.named_parameters()), reference.parameters):
                    for name, parameter in parameters.items():
                        parameter.copy_(start[name] + by * along[name])

        online, whole = [], []
        for by in (step, -step):
            moved(by)
            online.append(float(reference.parts(fixed)[term].detach()))
            whole.append(float(model.loss(case.batch, case.keep).parts[term].detach()))
        moved(0)
        found = gradients(model.loss(case.batch, case.keep).parts[term], dict(model.named_parameters()))
        slope = sum(float((found[name] * along[name]).sum()) for name in found)
    assert slope == pytest.approx((online[0] - online[1]) / (2 * step), rel=1e-5)
    assert abs(slope - (whole[0] - whole[1]) / (2 * step)) > 1e-3 * abs(slope)
