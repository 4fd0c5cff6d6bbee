"""Item vectors as a model reads them: as given, or in a form that keeps all but what they say about an item."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bm3 import DataError
from harness.training.config import Vectors
from harness.training.streams import Streams

Features = Mapping[str, NDArray[Any]]


def vectors_read(given: Features, vectors: Vectors, streams: Streams) -> Features:
    """The tables [I, d_m] by modality that `vectors` asks for, in the given precision; the given ones where it may.

    What is drawn depends on the seed of `streams`. Raises DataError for a modality that is not there.
    """
    if vectors.modality != "all":
        if vectors.modality not in given:
            has = ", ".join(map(repr, given)) or "none at all"
            raise DataError(f"vectors.modality is {vectors.modality!r}, no modality of the data set, which has {has}")
        given = {vectors.modality: given[vectors.modality]}
    if vectors == Vectors(modality=vectors.modality):
        return given
    return {name: _changed(table, vectors, streams, place) for place, (name, table) in enumerate(given.items())}


def _changed(table: NDArray[Any], vectors: Vectors, streams: Streams, place: int) -> NDArray[Any]:
    n_items, width = table.shape
    wanted = np.asarray(table, np.float32)
    norms = np.linalg.norm(wanted, axis=1, keepdims=True)
    if vectors.content == "permuted":
        order = streams.numpy("vectors").permutation(n_items)
        wanted, norms = wanted[order], norms[order]
    elif vectors.content == "noise":
        wanted = streams.numpy("vectors", place).standard_normal((n_items, width), np.float32)
    elif vectors.content == "ones":
        wanted = np.ones_like(wanted)
    lengths = np.linalg.norm(wanted, axis=1, keepdims=True)
    target = np.where(norms > 0, vectors.norm, 0) if vectors.norm else norms
    scale = np.divide(target, lengths, out=np.zeros_like(norms), where=lengths > 0)
    read: NDArray[Any] = (wanted * scale).astype(table.dtype)
    read.flags.writeable = False  # as those of a data set, so that models need no copy
    return read
