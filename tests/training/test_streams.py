"""Named random streams depend on seed, name and index, and on nothing else."""

import numpy as np
import pytest
import torch

from harness.training import Streams


def drawn(generator: np.random.Generator) -> list[int]:
    return list(generator.integers(2**62, size=8))


def test_equal_seed_name_and_index_give_the_same_numbers() -> None:
    assert drawn(Streams(7).numpy("shuffle", 3)) == drawn(Streams(7).numpy("shuffle", 3))
    torch.testing.assert_close(
        torch.rand(8, generator=Streams(7).torch("model", 3)),
        torch.rand(8, generator=Streams(7).torch("model", 3)),
        rtol=0,
        atol=0,
    )


def test_seed_name_and_index_each_make_another_stream() -> None:
    streams = [
        Streams(seed).numpy(name, *index)
        for seed in (1, 2)
        for name in ("shuffle", "negatives", "initialisation")
        for index in ((), (1,), (2,), (1, 2))
    ]
    numbers = [tuple(drawn(stream)) for stream in streams]
    assert len(set(numbers)) == len(numbers) == 24


def test_a_new_consumer_leaves_the_other_streams_alone() -> None:
    alone, shared = Streams(3), Streams(3)
    expected = drawn(alone.numpy("negatives", 1))
    drawn(shared.numpy("something new", 1))
    drawn(shared.numpy("shuffle", 1))
    torch.rand(5, generator=shared.torch("negatives"))
    assert drawn(shared.numpy("negatives", 1)) == expected


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_an_epochs_stream_does_not_depend_on_the_epochs_before(kind: str) -> None:
    def numbers(streams: Streams, epoch: int) -> list[float]:
        if kind == "numpy":
            return list(streams.numpy("model", epoch).random(6))
        return torch.rand(6, generator=streams.torch("model", epoch)).tolist()

    whole_run = Streams(5)
    epochs = [numbers(whole_run, epoch) for epoch in range(1, 8)]
    assert numbers(Streams(5), 7) == epochs[6]
    assert len({tuple(epoch) for epoch in epochs}) == 7


def test_streams_leave_the_global_generators_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    torch.rand(3, generator=Streams(1).torch("model", 1))
    assert torch.equal(torch.get_rng_state(), before)
