"""`python -m harness` is the `bm3` command. Its signal handlers come first: loading the rest can be interrupted too."""

import os

from harness.ending import heeding_signals

# Before torch is imported: threads that wait for each other busily take many times as long beside another process.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def main() -> None:
    """Run the command and leave with its exit code."""
    with heeding_signals():
        from harness.cli import main as cli

        cli.main()


if __name__ == "__main__":
    main()
