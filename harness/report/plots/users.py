"""Which users gain by one model over another, and how much."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from harness.paper.published import canonical_metric
from harness.paper.rows import ranked, representative, representatives
from harness.paper.significance import paired
from harness.paper.study import Study
from harness.report.plots.style import BLUE, INK, WIDTH, Picture, picture, signed, wrapped
from harness.runs.record import RunRecord

EDGE = 1.1  # beyond the largest gain, so that steps at ±1 are seen


def users(study: Study, dataset: str) -> Picture | None:
    """How much users gain by the proposed model over the best other one; without one of them, by the best row over the
    second."""
    rows, metric = study.of(dataset), canonical_metric(study.paper.stopping)
    own = representative(rows, study.paper.proposed or "")
    others = ranked([row for row in representatives(rows) if row is not own], metric)
    first, second, *_ = [own, *others] if own and others else [*ranked(rows, metric), None, None]
    if first is None or second is None:
        return None
    # as many runs of both, of the same seeds where there are any
    runs = paired(first.repeated, second.repeated)
    gain = _gain(runs, metric)
    if gain is None:
        return None
    changed = gain[gain != 0]
    figure = Figure((WIDTH / 2, 2.7), layout="constrained")
    axes = figure.add_subplot()
    if len(changed):
        axes.ecdf(changed, color=BLUE, linewidth=1.2)
    axes.axvline(0, color=INK, linewidth=1)
    axes.set(xlim=(-EDGE, EDGE), ylim=(0, 1), xticks=(-1, -0.5, 0, 0.5, 1))
    axes.grid(visible=True)
    name, (one, other) = study.paper.stopping, (first.label, second.label)
    axes.set(xlabel=f"gain in {name} (share of held-out items)")
    axes.set(ylabel="users who are not equal,\nup to this gain (share)")
    win, lose = int((gain > 0).sum()), int((gain < 0).sum())
    axes.set_title(wrapped(f"{one} over {other}: {win} gain, {lose} lose", 40))
    return picture(
        f"{dataset}-users",
        f"Per-user gain of {one} over {other}, {dataset}",
        figure,
        f"Of {len(gain)} test users, {win} gain in {name} by {one} over {other}, {lose} lose and "
        f"{len(gain) - win - lose} are equal (they are not in the curve); the mean gain is "
        f"{signed(float(gain.mean()), 4)}.",
        f"A user's gain is the mean over {len(runs)} pair{'s' * (len(runs) > 1)} of runs.",
    )


def _gain(runs: Sequence[tuple[RunRecord, RunRecord]], metric: str) -> NDArray[np.float64] | None:
    """The mean gain of each test user; None where a run stored no hits or has other users."""
    stored = [[run.per_user(metric) for run in pair] for pair in runs]
    values = [found for pair in stored for found in pair if found is not None]
    if not values or len(values) < 2 * len(stored) or not all(np.array_equal(v[0], values[0][0]) for v in values):
        return None
    gain = np.mean([ours[1] - theirs[1] for ours, theirs in zip(values[::2], values[1::2], strict=True)], axis=0)
    return np.asarray(np.round(gain, 9))  # what is 0 but for rounding is 0
