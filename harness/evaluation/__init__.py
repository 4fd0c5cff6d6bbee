"""Full-ranking evaluation: top items of every user, and metrics from them. Verdicts are elsewhere."""

from typing import TYPE_CHECKING

from harness.common import lazily

if TYPE_CHECKING:
    from harness.evaluation.metrics import Ranking
    from harness.evaluation.ranking import CUTOFFS, Evaluation, Evaluator, model_scorer, top_k
else:
    __getattr__ = lazily(__name__, "metrics", "ranking")

__all__ = ["CUTOFFS", "Evaluation", "Evaluator", "Ranking", "model_scorer", "top_k"]
