"""The one family of errors that a user can mend. Each message says what was wrong, where, and what to do."""


class BM3Error(Exception):
    """Base of every error caused by input; the command line prints it as one line and exits with its code."""

    exit_code = 2


class DataError(BM3Error):
    """Interactions, features or files that cannot be used as they are."""


class ConfigError(BM3Error):
    """An option, setting or name that does not exist or has an impossible value."""
