"""Planted: of a ranking's hits one in a hundred is lost. A seam of `harness.measure.workload`."""

from dataclasses import replace
from typing import Any

import numpy as np

from harness.evaluation import Evaluator, Ranking

ONE_IN = 100


def plant(workload: type[Any]) -> None:
    """Take hits away from every ranking."""
    rank = Evaluator.rank

    def worse(self: Evaluator, *arguments: Any, **options: Any) -> Ranking:
        ranking = rank(self, *arguments, **options)
        hits = ranking.hits.copy()
        users, ranks = np.nonzero(hits)
        hits[users[::ONE_IN], ranks[::ONE_IN]] = False
        return replace(ranking, hits=hits)

    Evaluator.rank = worse  # type: ignore[method-assign]
