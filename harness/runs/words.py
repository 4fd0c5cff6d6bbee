"""What options of commands may say: known before anything that computes is loaded."""

from typing import Final, Literal

Policy = Literal["missing", "failed", "all", "none"]
"""Which stored trials are run: those without a result that did not fail; failed ones too; all, anew; none."""
EntryState = Literal["finished", "failed", "unfinished", "running", "damaged"]
STATES: Final[tuple[EntryState, ...]] = ("finished", "running", "unfinished", "failed", "damaged")

DEVICES = ("auto", "cpu", "cuda")


def device_fault(name: str) -> str:
    """Why a device cannot be named so; empty where it can."""
    if name in DEVICES:
        return ""
    kind, _, number = name.partition(":")
    one = f"; one GPU of several is chosen by CUDA_VISIBLE_DEVICES={number} and --device cuda" if kind == "cuda" else ""
    return f"{name!r} is not one of {', '.join(map(repr, DEVICES))}{one}"
