"""`python -m harness` is the `bm3` command."""

import os

# Before torch is imported: threads that wait for each other busily take many times as long beside another process.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from harness.cli import main

if __name__ == "__main__":
    main()
