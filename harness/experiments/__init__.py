"""Trials, suites of trials, and the store of runs. Verdicts on runs are made in `compare`."""
