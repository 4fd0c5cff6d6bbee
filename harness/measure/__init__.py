"""What a run costs and where it ran: seconds, bytes, environment. Judging a cost is not done here."""

from harness.measure.memory import MemorySampler, Reading
from harness.measure.timing import EpochClock, TimingSummary

# The function `environment` is not lifted up here, since it would hide the module of the same name.
__all__ = ["EpochClock", "MemorySampler", "Reading", "TimingSummary"]
