"""Features that lie off the device, read ahead: while a step computes, a thread gathers the rows of the next one."""

from collections.abc import Iterable, Iterator
from itertools import tee, zip_longest

import torch
from torch import nn

from bm3 import Batch
from harness.models.features import distinct, feature_tables, keeps_repeated


def with_next(model: nn.Module, batches: Iterable[Batch], device: torch.device) -> Iterator[tuple[Batch, Batch | None]]:
    """Each batch, and the one after it where its features are to be read ahead; the first one's are from here on."""
    if not reads_ahead(model):
        yield from ((batch, None) for batch in batches)
        return
    these, following = tee(batches)
    if (first := next(following, None)) is not None:
        fetch(model, first, device)
    yield from zip_longest(these, following)


def reads_ahead(model: nn.Module) -> bool:
    """Whether a step begins to read the features of the next batch."""
    return any(table.off_device for table in feature_tables(model))


def fetch(model: nn.Module, batch: Batch, device: torch.device) -> None:
    """Begin to read the features of the batch, in main memory, that the model's `loss` is given next on `device`."""
    read = batch.items if batch.negatives is None else torch.cat([batch.items, batch.negatives])
    items = read if keeps_repeated(device) else distinct(read)[0]
    for table in feature_tables(model):
        table.fetch(items, device)
