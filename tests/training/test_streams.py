"""Named random streams depend on seed, name and index, and on nothing else."""

import pytest
import torch

from harness.training.streams import Streams

ADDRESSES = [
    (seed, name, *index)
    for seed in (1, 2)
    for name in ("shuffle", "negatives", "initialisation")
    for index in ((), (1,), (2,), (1, 2))
]


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_each_seed_name_and_index_has_its_own_numbers_whatever_was_drawn_before(kind: str) -> None:
    def drawn(streams: Streams, name: str, *index: int) -> tuple[float, ...]:
        if kind == "numpy":
            return tuple(streams.numpy(name, *index).random(6))
        return tuple(torch.rand(6, generator=streams.torch(name, *index)).tolist())

    torch.manual_seed(0)
    before, shared = torch.get_rng_state(), {seed: Streams(seed) for seed in (1, 2)}
    first = [drawn(shared[seed], *rest) for seed, *rest in ADDRESSES]  # type: ignore[arg-type]
    assert len({*first}) == 24
    assert [drawn(Streams(seed), *rest) for seed, *rest in reversed(ADDRESSES)] == first[::-1]  # type: ignore[arg-type]
    assert torch.equal(torch.get_rng_state(), before)
