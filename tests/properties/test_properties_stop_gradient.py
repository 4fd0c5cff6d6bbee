"""No gradient reaches a target: loss by loss, and term by term of the model against targets that are constants."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import TERMS, Case, Reference, assert_same_gradients, cases, gradients, in_float64, seeds, tables
from torch import Tensor

from bm3.losses import alignment_loss, masked_loss, reconstruction_loss


def untouched(tensor: Tensor) -> bool:
    return tensor.grad is None or not tensor.grad.any()


@given(st.integers(1, 5), st.integers(2, 8), seeds, st.integers(1, 3))
def test_every_loss_moves_its_online_views_and_no_target(n: int, d: int, seed: int, n_modalities: int) -> None:
    drawn = torch.randn(4 + 2 * n_modalities, n, d, generator=torch.Generator().manual_seed(seed))
    (online_u, online_i, target_u, target_i), online, targets = (
        [table.clone().requires_grad_() for table in some] for some in drawn.split([4, n_modalities, n_modalities])
    )
    reconstruction_loss(online_u, online_i, target_u, target_i).sum().backward()
    assert online_u.grad.any()
    assert online_i.grad.any()
    for loss in (alignment_loss(online, target_i), masked_loss(online, targets)):
        loss.sum().backward()
        assert all(view.grad.any() for view in online)
        for view in online:
            view.grad = None
    assert all(untouched(target) for target in (target_u, target_i, *targets))


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
