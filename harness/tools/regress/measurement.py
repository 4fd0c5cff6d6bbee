"""What was measured of one source tree by the workload of `bm3 regress`, as a value. Judging it is in `compare`."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter
from pydantic.dataclasses import dataclass

FINITE = ConfigDict(extra="forbid", allow_inf_nan=False)
Seconds = Annotated[float, Field(ge=0)]


@dataclass(frozen=True, config=FINITE)
class Timing:
    """Seconds of one repetition of a subject, and of the calibration around it (see `workload.Calibration`)."""

    cpu: Seconds
    """Of all threads of the process."""
    wall: Seconds
    calibration_cpu: Annotated[float, Field(gt=0)]
    calibration_wall: Annotated[float, Field(gt=0)]

    @property
    def cpu_share(self) -> float:
        """CPU seconds in units of the calibration's."""
        return self.cpu / self.calibration_cpu

    @property
    def wall_share(self) -> float:
        """Wall seconds in units of the calibration's."""
        return self.wall / self.calibration_wall


@dataclass(frozen=True, config=FINITE)
class Result:
    """Accuracy of one training."""

    metrics: Mapping[str, float]
    bits: str
    """Hash of the parameters, or of the ranking, that the metrics come from."""


@dataclass(frozen=True, config=FINITE)
class Trace:
    """What conformance says of a recorded trace."""

    status: str
    largest: Annotated[float, Field(ge=0, allow_inf_nan=True)]
    """Largest difference, as a share of its tolerance."""
    note: str


@dataclass(frozen=True, config=FINITE)
class Measurement:
    """Everything by subject, such as `mini/bm3`, in the order of measuring."""

    timings: Mapping[str, Sequence[Timing]]
    memory: Mapping[str, Sequence[int]]
    """Peak bytes above the start, one figure per process."""
    accuracy: Mapping[str, Sequence[Sequence[Result]]]
    """Per seed all results, which should be the same."""
    traces: Mapping[str, Trace]
    errors: Mapping[str, str]
    """By `subject: quantity`, why there is no figure though there should be."""
    notes: Mapping[str, str]
    """By quantity, why this system gives no such figure."""


MEASUREMENT: TypeAdapter[Measurement] = TypeAdapter(Measurement)


def as_json(measurement: Measurement) -> Any:
    """Fit for JSON; `MEASUREMENT.validate_python` is the way back."""
    return MEASUREMENT.dump_python(measurement, mode="json")
