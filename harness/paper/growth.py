"""Growth of costs: what a paper publishes, and the exponents that `bm3 scaling` measured and left in a folder."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter
from pydantic.dataclasses import dataclass

from bm3.errors import DataError
from harness.common import read_json
from harness.paper.costs import Exponent
from harness.paper.load import STRICT, Text, validated_file

Factor = Literal["E", "I", "d_m", "d", "B", "L"]
Figure = Annotated[float, Field(strict=True)]

COMPLEXITY = "complexity.toml"

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


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Cost:
    """What is published of one quantity of a model."""

    model: Text
    quantity: Literal["epoch", "step", "evaluation", "memory"]
    expression: Text
    exponents: Annotated[dict[Factor, Figure], Field(min_length=1)]
    logarithms: tuple[Factor, ...] = ()
    open: dict[Factor, Text] = Field(default_factory=dict)
    """Size → why the sources do not say how the cost grows with it."""
    source: Text
    note: str = ""


@dataclass(frozen=True, config=STRICT)
class Complexity:
    """The file `complexity.toml` of a paper."""

    confidence: Annotated[float, Field(gt=0, lt=1, strict=True)]
    tolerance: Annotated[float, Field(ge=0, strict=True)]
    """What an exponent may exceed the published one by."""
    widest: Annotated[float, Field(gt=0, strict=True)]
    """Wider intervals decide nothing unless they lie on one side."""
    misfit: Annotated[float, Field(gt=0, strict=True)]
    """A fit that misses a median by more than this share decides nothing."""
    costs: Annotated[tuple[Cost, ...], Field(min_length=1)]

    def cost(self, model: str, quantity: str) -> Cost | None:
        """The entry of a model (any case) and a quantity."""
        asked = model.lower(), quantity
        return next((cost for cost in self.costs if (cost.model.lower(), cost.quantity) == asked), None)


def load_complexity(path: Path) -> Complexity:
    """A file such as `expected/bm3/complexity.toml`; raises DataError naming the file and the field."""
    complexity = validated_file(path, TypeAdapter(Complexity))
    for cost in complexity.costs:
        where = f"{path}: costs: {cost.model} {cost.quantity}"
        if complexity.cost(cost.model, cost.quantity) is not cost:
            raise DataError(f"{where} is there twice; keep one")
        if both := set(cost.open).intersection(cost.exponents):
            raise DataError(f"{where}: {', '.join(both)} is given and open")
        if bare := set(cost.logarithms).difference(cost.exponents):
            raise DataError(f"{where}: {', '.join(bare)} has no exponent")
    return complexity
