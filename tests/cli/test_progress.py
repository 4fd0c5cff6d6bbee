"""What the progress of a training says."""

import io
from contextlib import redirect_stderr

from harness.cli.progress import TrainingProgress
from harness.training import EpochRecord


def record(epoch: int, recall: float, *, improved: bool) -> EpochRecord:
    parts = {"reconstruction": 2.5, "regulariser": 0.25}
    return EpochRecord(epoch, 2.75, parts, 0.1, 0.1, {"recall@20": recall}, improved, 0.0)


def test_after_going_on_the_best_epoch_so_far_is_known_and_parts_have_their_names() -> None:
    with redirect_stderr(io.StringIO()) as said, TrainingProgress("bm3 on mini", 9) as progress:
        progress.earlier(
            [record(1, 0.3, improved=True), record(2, 0.475, improved=True), record(3, 0.4, improved=False)]
        )
        progress.epoch(record(4, 0.41, improved=False))
    assert said.getvalue().startswith(
        "bm3 on mini: epoch 4/9 R@20 0.4100, best 0.4750 in 2, loss 2.75 (reconstruction 2.5, regulariser 0.25)"
    )
