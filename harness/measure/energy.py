"""Counters of energy: the GPU's in NVML, the processor's in Linux's powercap folder. When they are read is `power`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
NO_RAPL = "no energy counters of the processor (RAPL) here; virtual machines and many containers have none"
UNREADABLE = "only an administrator may read the processor's energy counters (RAPL) here"
NO_COUNTER = "the GPU has no energy counter, or its driver does not give it"
FELL = "the energy counter fell, as when a driver is loaded anew"
UNMOVED = "not known: the counter did not move"


@dataclass(frozen=True)
class Energy:
    """What a counter says about a block: all that the device took, for whomever, in one process."""

    joules: float | None
    per_epoch: float | None
    """Joules, mean over the epochs after the first: training and evaluation. None without a second epoch, too."""
    epochs: int
    """How many `per_epoch` is the mean of."""
    note: str | None = None
    """Why `joules`, or `per_epoch` alone, is None."""


class EnergyUnavailableError(RuntimeError):
    """There is no counter; the message is fit for a note."""


@dataclass
class EnergyCounter:
    """Joules taken since it was made, by a counter that may start again at 0 after `wraps_at` joules."""

    read: Callable[[], float | None]
    wraps_at: float | None = None
    absent: str = NO_COUNTER
    joules: float = 0.0
    note: str | None = None
    _last: float | None = None
    _marks: list[float] = field(default_factory=list)

    def sample(self) -> None:
        """Read it once more, more often than it can wrap; the first failure ends it, with a note."""
        if self.note is not None:
            return
        try:
            now = self.read()
        except Exception as error:
            self.note = f"reading failed: {type(error).__name__}: {error}"
            return
        if now is None:
            self.note = self.absent
            return
        step = 0.0 if self._last is None else now - self._last
        if step < 0 and self.wraps_at is not None:
            step += self.wraps_at
        if step < 0:
            self.note = FELL
            return
        self.joules, self._last = self.joules + step, now

    def mark(self) -> None:
        """An epoch has ended."""
        self.sample()
        self._marks.append(self.joules)

    def energy(self) -> Energy:
        """Of everything up to the latest reading."""
        if self.note is not None:
            return Energy(None, None, 0, self.note)
        if self.joules == 0:
            return Energy(None, None, 0, UNMOVED)
        # The first epoch is a warm-up, and what came before it is no epoch. Counters move every 100 ms or so, and most
        # short epochs see no step: only all of them together say what one takes.
        epochs = len(self._marks) - 1
        if epochs < 1:
            return Energy(self.joules, None, 0)
        rise = self._marks[-1] - self._marks[0]
        return Energy(self.joules, rise / epochs, epochs) if rise else Energy(self.joules, None, 0, UNMOVED)


def rapl_counters(folder: Path = POWERCAP) -> list[EnergyCounter]:
    """One counter per processor package, and per memory controller that has one of its own.

    Raises EnergyUnavailableError where there is none or none may be read.
    """
    counters = [_zone_counter(zone) for zone in _zones(folder)]
    if not counters:
        raise EnergyUnavailableError(NO_RAPL)
    return counters


def _zones(folder: Path) -> Iterator[Path]:
    # Zones are named intel-rapl:N, also on AMD, and what they contain intel-rapl:N:M. Cores are part of their package,
    # and psys, where there is one, holds the packages; memory (dram) stands beside them.
    try:
        zones = sorted(path for path in folder.glob("intel-rapl:*") if (path / "energy_uj").is_file())
        for zone in zones:
            name = (zone / "name").read_text(encoding="ascii").strip()
            if name.startswith("package") or name == "dram":
                yield zone
    except OSError as error:
        raise EnergyUnavailableError(UNREADABLE) from error


def _zone_counter(zone: Path) -> EnergyCounter:
    file = zone / "energy_uj"

    def joules() -> float:
        return int(file.read_text(encoding="ascii")) / 1e6

    try:
        joules()
        wraps_at = int((zone / "max_energy_range_uj").read_text(encoding="ascii")) / 1e6
    except PermissionError as error:
        raise EnergyUnavailableError(UNREADABLE) from error
    except (OSError, ValueError) as error:
        raise EnergyUnavailableError(f"{zone.name}: {error}") from error
    return EnergyCounter(joules, wraps_at)


def together(parts: list[Energy]) -> Energy:
    """Several counters of the same epochs as one; what one of them does not know is not known, with its note."""
    failed = [part for part in parts if part.joules is None]
    if failed:
        return failed[0]
    steps = [part.per_epoch for part in parts if part.per_epoch is not None]
    return Energy(
        joules=sum(part.joules or 0.0 for part in parts),
        per_epoch=sum(steps) if len(steps) == len(parts) else None,
        epochs=min(part.epochs for part in parts),
        note=next((part.note for part in parts if part.note is not None), None),
    )
