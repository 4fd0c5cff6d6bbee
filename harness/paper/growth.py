"""Exponents of growth that `bm3 scaling` measured and left in a folder, as claims take them."""

from pathlib import Path
from typing import Any

from bm3.errors import DataError
from harness.common import read_json
from harness.paper.claims import Exponent

FORMAT = 3
RECORDS = "scaling-????????T??????.json"
"""One per call of `bm3 scaling`, named by its time."""
BEFORE = "scaling.json"
"""The one record of earlier releases, of format 2."""


def stored_exponents(folder: Path) -> dict[tuple[str, str], Exponent]:
    """(model, size) → fitted exponent of an epoch's seconds with its interval; of several records the latest counts.

    What follows no power is left out. Empty where there is no record. Raises DataError when one is damaged.
    """
    found: dict[tuple[str, str], Exponent] = {}
    for path in (*folder.glob(BEFORE), *sorted(folder.glob(RECORDS))):
        mend = "measure again with bm3 scaling, or remove it"
        try:
            content = read_json(path)
            if content["format"] not in (2, FORMAT):
                raise DataError(f"{path}: format {content['format']!r} is not known; {mend}")
            for cell in content["cells"]:
                if _counts(cell, content):
                    fit = cell["fit"]
                    found[cell["model"], cell["factor"]] = float(fit["exponent"]), float(fit["low"]), float(fit["high"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise DataError(f"{path}: cannot be read ({reason}); {mend}") from error
    return found


def _counts(cell: Any, content: Any) -> bool:
    """Whether a cell is of the epochs of a whole model, all of which was measured."""
    whole = not cell.get("part") and (content["format"] == FORMAT or cell["model"] in content["complete"])
    fitted = cell["fit"] is not None and "do not follow" not in cell["reason"]
    return whole and fitted and cell["quantity"] == "epoch"
