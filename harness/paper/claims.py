"""What the paper claims in words, as data read from `expected/bm3/claims.toml`. Checking them is `claim_checks`."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter
from pydantic.dataclasses import dataclass as validated

from bm3.errors import DataError
from harness.paper.expected import STRICT, validated_toml
from harness.paper.verdict import Word

Text = Annotated[str, Field(min_length=1)]
Names = Annotated[tuple[Text, ...], Field(min_length=1)]
Figure = Annotated[float, Field(ge=0, strict=True)]
Decimals = Annotated[int, Field(ge=0, strict=True)]


@validated(frozen=True, kw_only=True, config=STRICT)
class _Claim:
    id: Text
    text: Text
    """In this project's words."""
    source: Text


@validated(frozen=True, kw_only=True, config=STRICT)
class Ordering(_Claim):
    """`model` is better than each of `others` in each of `metrics`."""

    kind: Literal["ordering"]
    model: Text
    others: Names
    datasets: Names
    metrics: Names
    left_out: dict[Text, Names] = Field(default_factory=dict)
    """Data set → models that the paper has no figure for."""


@validated(frozen=True, kw_only=True, config=STRICT)
class Improvement(_Claim):
    """`model` is so many percent better in `metric` than the best of `others`."""

    kind: Literal["improvement"]
    model: Text
    others: Names
    metric: Text
    percent: Annotated[dict[Text, Figure], Field(min_length=1)]
    """By data set."""
    decimals: Decimals
    left_out: dict[Text, Names] = Field(default_factory=dict)


@validated(frozen=True, kw_only=True, config=STRICT)
class Ratio(_Claim):
    """A cost of each numerator, divided by that of the denominator, is between `low` and `high` as printed."""

    kind: Literal["ratio"]
    numerators: Names
    denominator: Text
    datasets: Names
    metrics: Annotated[tuple[Literal["Time (s/epoch)", "Memory (GB)"], ...], Field(min_length=1)]
    low: Figure = 0.0
    high: Figure | None = None
    decimals: Decimals
    left_out: dict[Text, Names] = Field(default_factory=dict)


@validated(frozen=True, kw_only=True, config=STRICT)
class Share(_Claim):
    """Drawing negatives takes more than `above` of an epoch's seconds."""

    kind: Literal["share"]
    model: Text
    datasets: Names
    above: Annotated[float, Field(ge=0, lt=1, strict=True)]


@validated(frozen=True, kw_only=True, config=STRICT)
class Growth(_Claim):
    """The seconds of an epoch grow at most with these powers of the sizes."""

    kind: Literal["growth"]
    exponents: Annotated[dict[Text, dict[Text, Figure]], Field(min_length=1)]
    """Model → size (`E`, `I`, `d_m`, `B`) → exponent."""


Claim = Annotated[Ordering | Improvement | Ratio | Share | Growth, Field(discriminator="kind")]


@validated(frozen=True, config=STRICT)
class ClaimsFile:
    claims: Annotated[tuple[Claim, ...], Field(min_length=1)]


class ClaimOutcome(Word):
    """What became of a claim, or of one of its comparisons."""

    HOLDS = "holds", "✓", "good", "as claimed; of a claim: in all its comparisons", True
    FAILS = "fails", "✗", "bad", "shown to be otherwise; of a claim: in at least one comparison", False
    UNDECIDED = "undecided", "?", "doubt", "compatible with both; of a claim: also where a part was not measured", None
    NO_EVIDENCE = "no evidence", "○", "none", "not measured, too few seeds, or inputs that cannot be compared", None


@dataclass(frozen=True)
class ClaimResult:
    """What one place says about one claim."""

    claim: Claim
    where: str
    """`paper`, `toolbox`: published tables; `ours`: runs."""
    outcome: ClaimOutcome
    evidence: str
    """One sentence with the numbers."""
    details: tuple[tuple[str, str, ClaimOutcome], ...]
    """Each comparison: what, figure, outcome."""


def load_claims(path: Path) -> tuple[Claim, ...]:
    """A file such as `expected/bm3/claims.toml`; raises DataError naming the file and the field."""
    claims = validated_toml(path, TypeAdapter(ClaimsFile)).claims
    for name, count in Counter(claim.id for claim in claims).items():
        if count > 1:
            raise DataError(f"{path}: {count} claims have the id '{name}'; give each its own")
    return claims
