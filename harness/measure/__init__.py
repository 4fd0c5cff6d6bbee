"""What a run costs and where it ran: seconds, bytes, joules, environment. Judging a cost is not done here."""

from typing import TYPE_CHECKING

from harness.common import lazily

if TYPE_CHECKING:
    from harness.measure.energy import Energy, EnergyMeter
    from harness.measure.memory import MemorySampler, Reading
    from harness.measure.timing import EpochClock, TimingSummary
else:
    __getattr__ = lazily(__name__, "energy", "timing", "memory")

# The function `environment` is not lifted up here, since it would hide the module of the same name.
__all__ = ["Energy", "EnergyMeter", "EpochClock", "MemorySampler", "Reading", "TimingSummary"]
