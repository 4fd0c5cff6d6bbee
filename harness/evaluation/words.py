"""Names of metrics, as code and as papers spell them, known before anything that computes is loaded."""

METRICS = ("recall", "ndcg", "precision", "map")
"""Those of every evaluation, and shown without being asked for."""
SHARES = (*METRICS, "hit", "mrr")
"""Those that are at most 1 for every list."""
ALL = "all"
_SHORT = {"R": "recall", "N": "ndcg", "P": "precision"}


def canonical_metric(name: str) -> str:
    """`R@10` → `recall@10`, `N@20` → `ndcg@20`; names without a cut-off are returned as they are."""
    metric, at, cutoff = name.partition("@")
    return _SHORT.get(metric.upper(), metric.lower()) + at + cutoff if at else name


def short_metric(name: str) -> str:
    """`recall@10` → `R@10`: the printed name, the inverse of `canonical_metric`."""
    metric, at, cutoff = canonical_metric(name).partition("@")
    short = {long: letter for letter, long in _SHORT.items()}
    return short.get(metric, metric) + at + cutoff
