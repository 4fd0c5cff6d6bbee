"""The baseline of the benchmark is not a straw man: it computes what BM3 computes."""

import pytest
import torch
from textbook import TextbookBM3

from bm3 import BM3, Batch, BM3Config
from harness.data.synthetic import mini


@pytest.mark.parametrize("n_layers", [1, 2])
def test_textbook_has_the_loss_and_gradients_of_bm3(n_layers: int) -> None:
    data = mini()
    ours = BM3(data, BM3Config(dropout=0, n_layers=n_layers), torch.Generator().manual_seed(0))
    textbook = TextbookBM3(data.n_users, data.n_items, data.train, data.features, dropout=0, n_layers=n_layers)
    pairs = _same_parameters(ours, textbook)
    assert len(pairs) == len(list(ours.parameters())) == len(list(textbook.parameters()))
    with torch.no_grad():
        for theirs, parameter in pairs:
            theirs.copy_(parameter)
    users, items = torch.from_numpy(data.train[::5].astype("int64")).T

    loss, expected = textbook.loss(Batch(users, items)), ours.loss(Batch(users, items)).total
    loss.backward()
    expected.backward()

    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    for theirs, parameter in pairs:
        torch.testing.assert_close(theirs.grad, parameter.grad, rtol=1e-3, atol=1e-6)


def _same_parameters(ours: BM3, textbook: TextbookBM3) -> list[tuple[torch.Tensor, torch.Tensor]]:
    named = dict(ours.named_parameters())
    pairs = [
        (textbook.user_embedding.weight, named["user_embedding"]),
        (textbook.item_embedding.weight, named["item_embedding"]),
        (textbook.predictor.weight, named["predictor.weight"]),
        (textbook.predictor.bias, named["predictor.bias"]),
    ]
    for m, (table, projection) in enumerate(zip(textbook.features, textbook.projections, strict=True)):
        pairs.append((table.weight, named[f"features.{m}.table"]))
        pairs.append((projection.weight, named[f"projections.{m}.weight"]))
        pairs.append((projection.bias, named[f"projections.{m}.bias"]))
    return pairs
