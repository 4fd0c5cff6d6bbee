"""`python -m harness` is the `bm3` command."""

from harness.cli import main

if __name__ == "__main__":
    main()
