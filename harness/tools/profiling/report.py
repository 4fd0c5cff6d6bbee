"""Texts and JSON of profiles. What is measured, and what a floor is, is `harness.tools.profiling.profile`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tabulate import tabulate

from bm3 import DataError
from harness import common as files
from harness.common import write_json
from harness.tools.profiling.operations import Operation
from harness.tools.profiling.profile import BlockProfile, ModelProfile
from harness.tools.profiling.roofline import MachineRates

ROWS = 12  # operations shown by name
HEADER = ("operation", "calls", "ms", "share", "MB moved", "MFLOP", "ms at the rates")


def profile_text(profile: ModelProfile) -> str:
    """The machine's rates and, for step and evaluation, summary and table. MB are 10^6 bytes, as in rates."""
    rates = profile.rates
    first = (
        f"an epoch's first step: {_ms(profile.first_step_seconds)} ms with shuffling, sampling and the model's "
        f"start_epoch; {profile.steps_per_epoch} steps per epoch"
    )
    machine = (
        f"rates: copy {rates.bytes_per_second / 1e9:.1f} GB/s, float32 products {rates.flops_per_second / 1e9:.1f} "
        f"GFLOP/s, {rates.threads} CPU thread{'s' if rates.threads > 1 else ''}"
    )
    step, evaluation = (
        block_text("training step", profile.step, rates),
        block_text("evaluation (validation part)", profile.evaluation, rates),
    )
    return "\n\n".join([machine, f"{step}\n{first}", evaluation])


def block_text(title: str, block: BlockProfile, rates: MachineRates, *, rows: int = ROWS) -> str:
    """Summary and table of one block: its `rows` slowest operations, the rest summed, and the time outside of them.

    Shares are of the operations' time and the time outside together. MB are 10^6 bytes, as in rates.
    """
    floor, floor_seconds = block.floor, block.floor_seconds(rates)
    summary = [
        f"{title}: {_ms(block.seconds)} ms measured, {_ms(floor_seconds)} ms floor, "
        + (f"{block.seconds / floor_seconds:.1f} times the floor" if floor_seconds else "no floor"),
        f"  must move {_mega(floor.bytes)} MB ({_mega(floor.read_bytes)} read, {_mega(floor.written_bytes)} written), "
        f"products {_mega(floor.flops)} MFLOP; operations moved {_mega(block.bytes)} MB",
        f"  with operations timed: {_ms(block.timed_seconds)} ms, {_ms(block.operation_seconds)} of them in these",
    ]
    shown, rest = block.operations[:rows], block.operations[rows:]
    lines = [(operation.name, [operation]) for operation in shown]
    if rest:
        lines.append((f"{len(rest)} others", list(rest)))
    whole = block.operation_seconds + block.outside_seconds
    table = [_row(name, operations, rates, whole) for name, operations in lines]
    outside = block.outside_seconds
    table.append(["outside torch operations", "", _ms(outside), _share(outside, whole), "", "", ""])
    alignment = ("left", *["right"] * (len(HEADER) - 1))
    return "\n".join([*summary, "", tabulate(table, HEADER, disable_numparse=True, colalign=alignment)])


def profile_values(profile: ModelProfile) -> dict[str, Any]:
    """Everything in a profile and what follows from it, fit for JSON; seconds, bytes, FLOPs."""
    return {
        "rates": asdict(profile.rates),
        "step": block_values(profile.step, profile.rates),
        "first_step_seconds": profile.first_step_seconds,
        "steps_per_epoch": profile.steps_per_epoch,
        "evaluation": block_values(profile.evaluation, profile.rates),
    }


def block_values(block: BlockProfile, rates: MachineRates) -> dict[str, Any]:
    """The same of one block."""
    floor_seconds = block.floor_seconds(rates)
    return {
        "seconds": block.seconds,
        "timed_seconds": block.timed_seconds,
        "operation_seconds": block.operation_seconds,
        "outside_seconds": block.outside_seconds,
        "bytes": block.bytes,
        "floor": {**asdict(block.floor), "bytes": block.floor.bytes, "seconds": floor_seconds},
        "times_floor": block.seconds / floor_seconds if floor_seconds else None,
        "operations": [
            {**asdict(operation), "seconds_at_rates": rates.shortest_seconds(operation.bytes, operation.flops)}
            for operation in block.operations
        ],
    }


def check_writable(path: Path) -> None:
    """Raises DataError unless a file can be written at `path`; what is there stays as it is."""
    try:
        files.check_writable(path)
    except OSError as error:
        raise _unwritable(path, error) from error


def write_values(path: Path, values: Mapping[str, Any]) -> None:
    """Write JSON to `path`, all of it or nothing. Raises DataError where that is not possible."""
    try:
        write_json(path, values)
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> DataError:
    return DataError(f"{path}: cannot be written ({error.strerror}); name another file with --json")


def _row(name: str, operations: Sequence[Operation], rates: MachineRates, whole: float) -> list[str]:
    seconds = sum(operation.seconds for operation in operations)
    flops = sum(operation.flops for operation in operations)
    return [
        name,
        _calls(sum(operation.calls for operation in operations)),
        _ms(seconds),
        _share(seconds, whole),
        _mega(sum(operation.bytes for operation in operations)),
        _mega(flops) if flops else "",
        _ms(sum(rates.shortest_seconds(operation.bytes, operation.flops) for operation in operations)),
    ]


def _calls(number: float) -> str:
    return f"{number:.0f}" if abs(number - round(number)) < 0.05 else f"{number:.1f}"


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.3f}"


def _mega(amount: float) -> str:
    return f"{amount / 1e6:.2f}"


def _share(seconds: float, whole: float) -> str:
    return f"{seconds / whole:.1%}" if whole else ""
