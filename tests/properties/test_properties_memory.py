"""Memory is judged by differences: what is in every reading alike, such as a CUDA context, decides nothing."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows_by_hand import PAPER, row_of, run

from harness.paper.claims import ClaimOutcome, Measured, claims_of_rows
from harness.paper.costs import memory_verdicts
from harness.paper.rows import Row
from harness.paper.verdict import Outcome

GB, MODELS = 2**30, ("bpr", "bm3", "lattice")
KINDS = ("gpu_process_peak", "allocator_reserved_peak", "allocator_peak")
(HALF,) = (claim for claim in PAPER.claims if claim.id == "half the cost of LATTICE")
MIB = st.integers(0, 8 * 1024).map(lambda mib: mib * 2**20)
NEEDS = st.fixed_dictionaries({model: st.lists(MIB, min_size=3, max_size=3) for model in MODELS})


def rows(needs: Mapping[str, list[int]], constant: int, kinds: tuple[str, ...] = KINDS) -> list[Row]:
    """On Baby, as needed by seed, with the constant in all readings."""
    return [
        row_of(
            *(run(model, seed, dataset="Baby", memory=dict.fromkeys(kinds, need + constant)) for seed, need in seeds)
        )
        for model, of_seeds in needs.items()
        for seeds in [list(enumerate(of_seeds))]
    ]


def judged(of: list[Row]) -> tuple[dict[str, Outcome], list[ClaimOutcome]]:
    (result,) = claims_of_rows([HALF], Measured(PAPER.values, PAPER.tolerances.memory, PAPER.tolerances, of))
    verdicts = memory_verdicts(of, PAPER)
    return {model: verdict.outcome for model, verdict in verdicts.items()}, [one[2] for one in result.details]


@given(NEEDS, st.integers(1, 4 * 1024), st.sampled_from([KINDS, KINDS[:1], KINDS[1:]]))
def test_a_constant_in_all_readings_changes_no_verdict(
    needs: Mapping[str, list[int]], mib: int, kinds: tuple[str, ...]
) -> None:
    needs = {model: [1 + need for need in seeds] for model, seeds in needs.items()}  # 0 is no reading
    assert judged(rows(needs, 0, kinds)) == judged(rows(needs, mib * 2**20, kinds))


@pytest.mark.parametrize(
    ("beyond", "outcome"),
    [
        ([0.52] * 3, Outcome.REPRODUCED),
        ([0.4] * 3, Outcome.REPRODUCED),
        ([0.8] * 3, Outcome.ABOVE),
        ([0.3] * 3, Outcome.BELOW),
    ],
)
@pytest.mark.parametrize("context", [0.3, 1.1])
def test_what_bm3_needs_beyond_bpr_is_compared_and_not_their_ratio(
    beyond: list[float], outcome: Outcome, context: float
) -> None:
    """Printed are 2.11 and 1.59 GB on Baby, a ratio of 1.33; with a context of 0.3 GB the same tensors have 1.7."""
    needs = {"bpr": [int(0.44 * GB)] * 3, "bm3": [int((0.44 + need) * GB) for need in beyond]}
    verdict = memory_verdicts(rows(needs, int(context * GB)), PAPER)["bm3"]
    assert (verdict.outcome, verdict.published and verdict.published.value) == (outcome, 0.52)


def test_without_evidence_the_reason_is_told() -> None:
    needs = dict.fromkeys(MODELS, [GB] * 3)
    assert memory_verdicts(rows(needs, 0)[1:], PAPER)["bm3"].reason == "BPR was not run"
    main = memory_verdicts(rows(needs, 0, ("process_rss_peak",)), PAPER)["bm3"]
    assert (main.outcome, main.reason) == (Outcome.NO_EVIDENCE, "main memory, and no GPU's")
    elsewhere = row_of(run("bm3", dataset="Baby", memory=dict.fromkeys(KINDS, GB), host="another GPU"))
    assert "other machines" in memory_verdicts([rows(needs, 0)[0], elsewhere], PAPER)["bm3"].reason
