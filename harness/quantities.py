"""Times and sizes as people read them."""

from datetime import UTC, datetime

NOT_KNOWN = "–"


def duration(seconds: float | None) -> str:
    """`42 s`, `5 min`, `2 h 05 min` or `3 d 4 h`: two units at most, and a dash for what is not known."""
    if seconds is None:
        return NOT_KNOWN
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def size(n_bytes: int) -> str:
    """`512 bytes`, `1.2 kB`, `3.4 GB`, of powers of 1000."""
    from rich.filesize import decimal

    return decimal(n_bytes)


def clock_time(stored: str) -> str:
    """A stored time to the minute, in UTC; as it stands where it is none."""
    try:
        return datetime.fromisoformat(stored).astimezone(UTC).strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return stored
