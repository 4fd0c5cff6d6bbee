"""Where a paper's text and the code behind its published figures disagree: one field of a configuration each.

A configuration class lists such fields in `VARIANTS`; their default is what was published.
"""

from typing import NamedTuple


class Variant(NamedTuple):
    """What the two say about one field, and where it is made."""

    text: str
    """What the paper's text says, or its authors meant."""
    code: str
    """What the code behind the published figures does."""
    where: str
    """What implements the difference, as a dotted name."""
