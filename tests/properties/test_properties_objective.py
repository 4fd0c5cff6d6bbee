"""BM3's step: both objectives, projection of the batch alone, dropout, and graphs without edges."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import TERMS, Case, Reference, assert_same, assert_same_gradients, cases, gradients, in_float64, seeds

from bm3 import Batch, BM3Config, Data, DataError
from bm3.model import BM3
from harness.models.lightgcn import LightGCN, LightGCNConfig

# Batch-only projection ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("features", ["trained", "frozen"])
@pytest.mark.parametrize("objective", ["published", "paper"])
@given(case=cases(min_d=2))  # at d = 1 a cosine is constant and its gradient rounding
def test_projecting_the_batch_alone_changes_neither_loss_nor_gradients(
    objective: str, features: str, case: Case
) -> None:
    model = case.model(objective=objective, features=features)
    with in_float64(model):
        reference = Reference(case, model)
        loss = model.loss(case.batch, case.keep)
        parts = reference.parts(reference.targets(case.keep))
        total = sum(parts.values())
        assert_same(loss.total, total, largest=1)  # the terms are of order one and may cancel
        for term in TERMS:
            assert_same(loss.parts[term], parts[term], largest=1)
        ours, theirs = gradients(loss.total, dict(model.named_parameters())), reference.gradients(total)
        assert_same_gradients(ours, theirs)


@given(cases())
def test_single_precision_gives_the_same_loss_as_projecting_all_items(case: Case) -> None:
    model = case.model()
    reference = Reference(case, model)
    total = sum(reference.parts(reference.targets(case.keep)).values())
    assert_same(model.loss(case.batch, case.keep).total, total, 1e-4, largest=1)


# Dropout -----------------------------------------------------------------------------------------------------------


@given(cases())
def test_without_dropout_both_views_come_from_the_same_vectors(case: Case) -> None:
    model = case.model(dropout=0.0)
    drawn, again = model.loss(case.batch), model.loss(case.batch)
    replayed = model.loss(case.batch, case.ones())
    for term in TERMS:
        assert drawn.parts[term] == again.parts[term] == replayed.parts[term]
    with in_float64(model):
        reference = Reference(case, model)
        undropped = {name: h.detach() for name, h in reference.latents().items()}
        assert_same(model.loss(case.batch).total, sum(reference.parts(undropped).values()), largest=1)


@given(cases(), seeds)
def test_dropout_follows_the_stream_it_was_given(case: Case, seed: int) -> None:
    model = case.model(dropout=0.5)
    totals = []
    for _ in range(2):
        model.start_epoch(torch.Generator().manual_seed(seed))
        totals.append(model.loss(case.batch).total)
    assert totals[0] == totals[1]


@given(cases(), seeds, st.integers(2, 4))
def test_a_repeated_item_has_one_dropped_view_a_step(case: Case, seed: int, times: int) -> None:
    model = case.model(dropout=0.5)
    losses = []
    for batch in (case.batch, Batch(case.batch.users.repeat(times), case.batch.items.repeat(times))):
        model.start_epoch(torch.Generator().manual_seed(seed))
        losses.append(model.loss(batch))
    for term in TERMS:
        assert_same(losses[1].parts[term], losses[0].parts[term], 1e-5, largest=1)


@given(st.sampled_from([0.1, 0.3, 0.5, 0.9]), seeds)
def test_views_drop_the_stated_share_and_scale_the_survivors(p: float, seed: int) -> None:
    data = Data(2, 3, np.array([(0, 0)]), {"m": np.ones((3, 1))})
    model = BM3(data, BM3Config(dropout=p, embedding_size=1024), torch.Generator().manual_seed(seed))
    h = torch.rand(3, 1024, requires_grad=True) + 1
    view = model._target("m", h, torch.arange(3))
    survivors = view != 0
    assert abs(float((~survivors).float().mean()) - p) < 0.05
    assert torch.allclose(view[survivors], (h / (1 - p))[survivors])
    assert not view.requires_grad


# Degenerate graphs ----------------------------------------------------------------------------------


@given(st.integers(1, 5), st.integers(1, 5), st.sampled_from([(0, 2), (0,)]))
def test_an_empty_graph_is_an_error(n_users: int, n_items: int, shape: tuple[int, ...]) -> None:
    data = Data(n_users, n_items, np.empty(shape, dtype=np.int64), {"visual": np.ones((n_items, 2))})
    with pytest.raises(DataError, match="no edges"):
        BM3(data, BM3Config(), torch.Generator())
    with pytest.raises(DataError, match="no edges"):
        LightGCN(data, LightGCNConfig(), torch.Generator())


@given(cases())
def test_isolated_users_and_items_keep_their_own_vector_and_stay_finite(case: Case) -> None:
    n_users, n_items = case.data.n_users, case.data.n_items
    features = {name: np.concatenate([table, table[:1]]) for name, table in case.data.features.items()}
    lonely = replace(
        case,
        data=Data(n_users + 1, n_items + 1, case.data.train, features),
        batch=Batch(torch.tensor([n_users, 0]), torch.tensor([n_items, n_items])),
        zero_user=False,
        zero_item=False,
    )
    model = lonely.model()
    h_users, h_items = model.encode()
    share = 1 / (case.config.n_layers + 1)
    assert_same(h_users[-1], model.user_embedding[-1] * share)
    assert_same(h_items[-1], model.item_embedding[-1] * (share + 1))
    loss = model.loss(lonely.batch)
    loss.total.backward()
    assert loss.total.isfinite()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    assert all(vectors.isfinite().all() for vectors in model.embed())
