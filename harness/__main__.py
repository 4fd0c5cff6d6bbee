"""`python -m harness` is the `bm3` command. Its signal handlers come first: loading the rest can be interrupted too."""

from harness.ending import heeding_signals


def main() -> None:
    """Run the command and leave with its exit code."""
    with heeding_signals():
        from harness import cli

        cli.main()


if __name__ == "__main__":
    main()
