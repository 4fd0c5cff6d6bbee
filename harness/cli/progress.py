"""Progress of a training: a bar on a terminal, plain lines elsewhere. Both go to standard error."""

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from tqdm import tqdm

if TYPE_CHECKING:
    from harness.training import EpochRecord

SECONDS_BETWEEN_LINES = 10.0  # where there is no terminal


class TrainingProgress:
    """Context manager whose `epoch` is called after every epoch of at most `epochs`."""

    def __init__(self, title: str, epochs: int) -> None:
        self._title, self._epochs = title, epochs
        self._terminal = sys.stderr.isatty()
        self._bar: Any = None
        self._started = self._last_line = time.monotonic()
        self._first = 0  # epoch shown first
        self._best = (0, 0.0)

    def __enter__(self) -> Self:
        if self._terminal:
            self._bar = tqdm(total=self._epochs, desc=self._title, unit="epoch", dynamic_ncols=True, leave=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def earlier(self, records: "Sequence[EpochRecord]") -> None:
        """Take note of the epochs before a training that goes on."""
        for record in records:
            self._note(record)

    def epoch(self, record: "EpochRecord") -> None:
        """Show the epoch: validation R@20 and the best so far, loss and its parts, and the time left at most."""
        self._note(record)
        parts = ", ".join(f"{name} {value:.4g}" for name, value in record.parts.items())
        figures = f"R@20 {record.valid['recall@20']:.4f}, best {self._best[1]:.4f} in {self._best[0]}, "
        figures += f"loss {record.loss:.4g} ({parts})"  # last, since a narrow terminal cuts it
        if self._bar is not None:
            self._bar.set_postfix_str(figures, refresh=False)
            self._bar.update(record.epoch - self._bar.n)  # a resumed training begins later
            return
        now = time.monotonic()
        self._first = self._first or record.epoch
        if record.epoch in (self._first, self._epochs) or now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            left = (now - self._started) / (record.epoch - self._first + 1) * (self._epochs - record.epoch)
            line = f"{self._title}: epoch {record.epoch}/{self._epochs} {figures}, at most {left:.0f} s left"
            print(line, file=sys.stderr, flush=True)

    def _note(self, record: "EpochRecord") -> None:
        if record.improved:
            self._best = record.epoch, record.valid["recall@20"]
