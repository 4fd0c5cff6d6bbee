"""Item and user graphs against brute force, and without any array of items by items."""

import numpy as np
import pytest
import torch
from one_device import Watched

from bm3 import Batch, Data
from bm3.graph import bipartite_adjacency
from harness.models import dualgnn, item_graph
from harness.models.dualgnn import CoOccurrence, co_occurring_users, dropped_items
from harness.models.item_graph import nearest_items
from harness.models.lattice import LATTICE, LATTICEConfig


@pytest.mark.parametrize("block_values", [1, 100, 10**6])
def test_nearest_items_are_those_of_the_full_matrix(block_values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_graph, "BLOCK_VALUES", block_values)
    unit = torch.nn.functional.normalize(torch.randn(40, 6, generator=torch.Generator().manual_seed(1)))
    expected = (unit @ unit.T).sort(dim=1, descending=True, stable=True).indices[:, :7]
    assert torch.equal(nearest_items(unit, 7), expected)


def test_equal_items_are_ordered_by_id_and_k_may_exceed_their_number() -> None:
    unit = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    assert nearest_items(unit, 9).tolist() == [[0, 2, 1], [1, 0, 2], [0, 2, 1]]


def test_lattice_never_holds_items_by_items(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither building, nor the gradient, nor scoring makes a tensor of I² entries; a dense graph would."""
    monkeypatch.setattr(item_graph, "BLOCK_VALUES", 4000)
    n_items = 300
    draw = np.random.default_rng(2)
    train = np.array([(u, i) for u in range(30) for i in draw.integers(n_items, size=6)])
    features = {"visual": draw.normal(size=(n_items, 5)), "text": draw.normal(size=(n_items, 4))}
    sizes: list[int] = []
    with Watched(lambda _, given, made: sizes.extend(one.numel() for one in made if one.layout is torch.strided)):
        model = LATTICE(Data(30, n_items, train, features), LATTICEConfig(), torch.Generator().manual_seed(0))
        users, items = torch.from_numpy(train[:50]).T
        model.loss(Batch(users, items, items.flip(0))).total.backward()
        with torch.no_grad():
            model.embed()
    assert model.projections[0].weight.grad is not None
    assert 0 < max(sizes) < n_items**2 / 2


@pytest.mark.parametrize("block", [3, 1000])
def test_co_occurring_users_are_those_of_the_double_loop(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dualgnn, "USERS_AT_A_TIME", block)
    draw = np.random.default_rng(6)
    liked = draw.random((12, 9)) < 0.25
    liked[7] = False  # shares nothing with anyone
    train = np.argwhere(liked)
    found = co_occurring_users(bipartite_adjacency(train, 12, 9), 12, k=4)
    for user in range(12):
        shared = [(-int((liked[user] & liked[other]).sum()), other) for other in range(12) if other != user]
        best = sorted(pair for pair in shared if pair[0] < 0)[:4]
        there = slice(found.found[user])
        assert [*zip(-found.counts[user, there], found.users[user, there], strict=True)] == best


def test_missing_neighbours_repeat_the_users_own_and_the_softmax_covers_all_slots() -> None:
    graph = CoOccurrence(
        users=np.array([[5, 3, 0], [1, 2, 4], [0, 0, 0]]),
        counts=np.array([[2.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]),
        found=np.array([2, 3, 0]),
    )
    users, weights = graph.padded(np.array([[0, 0, 0.9], [0, 0, 0], [0, 0, 0]]))
    assert users[:2].tolist() == [[5, 3, 3], [1, 2, 4]]
    e = np.exp([2.0, 1.0, 1.0])
    np.testing.assert_allclose(weights, [e / e.sum(), [1 / 3] * 3, [0, 0, 0]])


@pytest.mark.parametrize(
    ("n_items", "n_modalities", "expected"),
    [
        (36, 1, [[0]]),
        (36, 2, [[0], [2]]),
        (36, 3, [[0], [1], [2]]),
        (29, 2, [[], [1]]),
        (40, 2, [[0], [2, 3]]),
        (59, 3, [[0], [1, 2], [3, 4]]),
    ],
)
def test_a_tenth_of_the_items_in_thirds_is_dropped(n_items: int, n_modalities: int, expected: list[list[int]]) -> None:
    assert [part.tolist() for part in dropped_items(np.arange(n_items), n_modalities)] == expected
