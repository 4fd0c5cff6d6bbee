"""What options of commands may say: known before anything that computes is loaded."""

from typing import Final, Literal

Policy = Literal["missing", "failed", "all", "none"]
"""Which stored trials are run: those without a result that did not fail; failed ones too; all, anew; none."""
EntryState = Literal["finished", "failed", "unfinished", "running", "damaged"]
STATES: Final[tuple[EntryState, ...]] = ("finished", "running", "unfinished", "failed", "damaged")
