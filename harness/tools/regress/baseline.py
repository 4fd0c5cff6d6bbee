"""The stored baseline of a machine class: one JSON file, refused where nothing can be compared with it.

Judging is `regression`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bm3 import BM3Error, DataError
from harness.common import write_json, writing
from harness.tools.regress.machine_class import MachineClass, differences
from harness.tools.regress.measurement import MEASUREMENT, Measurement, as_json

FORMAT = 1


class NothingToCompareError(BM3Error):
    """There is no measurement that the present one could be compared with."""


@dataclass(frozen=True)
class Baseline:
    """A measurement, and what it was made with."""

    machine: MachineClass
    workload: Mapping[str, Any]
    """What was measured; see `harness.tools.regress.guarding.workload_identity`."""
    source: Mapping[str, Any]
    """Revision, whether it was dirty, and when."""
    measurement: Measurement

    def check(self, machine: MachineClass, workload: Mapping[str, Any], path: Path) -> None:
        """Raises NothingToCompareError, which says what differs, unless both are the baseline's own."""
        other = differences(self.machine, machine)
        if other:
            raise NothingToCompareError(
                f"{path}: of another machine class ({'; '.join(other)}); name a baseline of this one, or make one with "
                f"--update-baseline"
            )
        if self.workload != workload:
            changed = [
                key for key in dict.fromkeys([*self.workload, *workload]) if self.workload.get(key) != workload.get(key)
            ]
            raise NothingToCompareError(
                f"{path}: made with another workload ({', '.join(changed)} differ); make one with --update-baseline"
            )


def read_baseline(path: Path) -> Baseline:
    """Raises NothingToCompareError when there is no such file, DataError when it is none of ours."""
    if not path.exists():
        raise NothingToCompareError(f"{path}: no such baseline; make one on this machine with --update-baseline")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise DataError(f"{path}: a baseline of format {content['format']}; make a new one with --update-baseline")
        machine, workload, source = (dict(content[key]) for key in ("machine", "workload", "source"))
        return Baseline(machine, workload, source, MEASUREMENT.validate_python(content["measurement"]))
    except ValidationError as error:
        field = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise DataError(
            f"{path}: {field}: {error.errors()[0]['msg']}; make a new one with --update-baseline"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        note = f"{type(error).__name__}: {str(error)[:100]}"
        raise DataError(f"{path}: not a baseline ({note}); make a new one with --update-baseline") from error


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Write the file, all of it or nothing. Raises WriteError."""
    with writing(path, "name another file with --baseline"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(
            path,
            {
                "format": FORMAT,
                "machine": dict(baseline.machine),
                "workload": dict(baseline.workload),
                "source": dict(baseline.source),
                "measurement": as_json(baseline.measurement),
            },
        )
