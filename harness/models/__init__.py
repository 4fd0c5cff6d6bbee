"""The recommenders, one file each, and what the harness asks of one. Finding them by name is `registry`."""
