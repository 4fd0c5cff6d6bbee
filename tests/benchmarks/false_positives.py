"""How often each rule calls one of two models better that are the same model with other seeds: no difference is true.

    python tests/benchmarks/false_positives.py STORE

STORE has runs of several seeds per model and data set, with their hits. Rows of k seeds each are drawn from them, two
at a time and without a seed in common, and compared on one metric as if they were two models. Rates are of single
comparisons at 5 %, before any correction for many.
"""

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from processes import markdown
from scipy import stats

from harness.paper.load import load_paper
from harness.paper.published import short_metric
from harness.paper.significance import UserValues, compare_all, over_seeds
from harness.runs.store import stored_runs

METRICS, DRAWS, LEVEL = ("recall@20", "ndcg@20"), 300, 0.05
HEAD = (
    "model",
    "data set",
    "metric",
    "runs",
    "spread %",
    "seeds each",
    "signed ranks",
    "t",
    "seeds",
    "ranks and seeds",
    "rule",
)


def main(store: Path) -> None:
    """Print the table."""
    runs = defaultdict(dict)
    for run in stored_runs(store):
        for metric in METRICS if run.finished else ():
            values = run.per_user(metric)
            if values is not None:
                runs[run.model, run.dataset.name, metric][run.seed] = values
    body = []
    for (model, dataset, metric), by_seed in sorted(runs.items()):
        means = np.array([values.mean() for _, values in by_seed.values()])
        spread = 100 * means.std(ddof=1) / means.mean()
        for k in (k for k in (1, 2, 3, 5) if 2 * k <= len(by_seed)):
            rates = [f"{100 * rate:.0f}" for rate in errors(by_seed, metric, k)]
            body.append([model, dataset, short_metric(metric), len(by_seed), f"{spread:.1f}", k, *rates])
    print(markdown(HEAD, body, "lll"))


def errors(by_seed: dict[int, UserValues], metric: str, k: int) -> np.ndarray:
    """The rates of five rules [5]: the signed-rank test over users (Pratt), the t-test over users, the interval over
    seeds, the signed-rank test and that interval together, and the rule of `compare_all`."""
    draw, tolerances = np.random.default_rng(2023), load_paper().tolerances
    said = np.zeros(5)
    for _ in range(DRAWS):
        seeds = draw.permutation(list(by_seed))
        sides = [{place: by_seed[seed] for place, seed in enumerate(part)} for part in (seeds[:k], seeds[k : 2 * k])]
        gains = np.round(
            np.mean([a[1] - b[1] for a, b in zip(*(side.values() for side in sides), strict=True)], axis=0), 12
        )
        ranks = gains.any() and stats.wilcoxon(gains, zero_method="pratt").pvalue < LEVEL
        per_seed = ({place: float(values.mean()) for place, (_, values) in side.items()} for side in sides)
        found = over_seeds(*per_seed, 1 - LEVEL)
        apart = found is not None and min(found.mean * end for end in found.interval) > 0
        rows = dict(zip("ab", sides, strict=True))
        (judged,) = compare_all({metric: rows}, confidence=1 - LEVEL, margin=tolerances.margin)
        said += [ranks, judged.p_value < LEVEL, apart, ranks and apart, judged.better is not None]
    return said / DRAWS


if __name__ == "__main__":
    main(Path(sys.argv[1]))
