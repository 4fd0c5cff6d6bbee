"""What runs measured beside accuracy, as reports show it."""

from harness.paper.rows import GB, SHARED_NOTE
from harness.paper.study import SHARED, shared_machine
from harness.runs.record import RunRecord

__all__ = ["GB", "SHARED", "SHARED_NOTE", "device_notes", "joules_per_epoch", "shared_machine"]

UNMOVED = "not known: the counter did not move"
"""What runs note of such a counter: `harness.measure.energy`, which imports torch, writes it."""


def joules_per_epoch(run: RunRecord) -> float | None:
    """What GPU and processor took together, or the one of them that has a counter; None without any, or if one did not
    move, whose share is not known."""
    found = run.outcome.energy.values() if run.finished else ()
    known = [energy.per_epoch for energy in found if energy.per_epoch is not None]
    return sum(known) if known and all(energy.note != UNMOVED for energy in found) else None


def device_notes(run: RunRecord) -> list[str]:
    """Clocks, slowdowns and other processes while it ran, a sentence each; runs of earlier versions have none."""
    return run.outcome.device_notes if run.finished else []
