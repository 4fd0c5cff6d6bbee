"""Which users gain by one model over another, and how much."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from harness.paper.expected import short_metric
from harness.paper.results import METRICS
from harness.paper.rows import ranked, representative, representatives
from harness.paper.significance import paired
from harness.paper.study import Study, StudyRow
from harness.report.plots.style import BLUE, INK, ORANGE, WIDTH, Picture, picture, sampled, signed
from harness.runs.store import StoredRun
from harness.training.config import STOPPING_METRIC

Gain = NDArray[np.float64]
EDGE = 1.1  # beyond the largest gain, so that steps at ±1 are seen
LOSE: dict[str, Any] = {"facecolor": ORANGE, "hatch": "////"}
GAIN: dict[str, Any] = {"facecolor": BLUE}


def users(study: Study, dataset: str) -> Picture | None:
    """Shares of users who lose and gain by metric, and how much R@20 they lose and gain."""
    pair = _pair(study, dataset)
    if pair is None:
        return None
    runs = _runs(*pair)
    gains = {metric: gain for metric in METRICS if (gain := _gain(runs, metric)) is not None}
    gain = gains.get(STOPPING_METRIC)
    if gain is None:
        return None
    first, second = (row.label for row in pair)
    figure = Figure((WIDTH, 2.7), layout="constrained")
    shares, amounts = figure.subplots(1, 2)
    _shares(shares, gains)
    _amounts(amounts, gain[gain != 0])
    win, lose = int((gain > 0).sum()), int((gain < 0).sum())
    return picture(
        f"{dataset}-users",
        f"Per-user gain of {first} over {second}, {dataset}",
        figure,
        f"Of {len(gain)} test users, {win} gain in recall@20 by {first} over {second}, {lose} lose and "
        f"{len(gain) - win - lose} are equal (they are in no bar and not in the curve); the mean gain is "
        f"{signed(float(gain.mean()), 4)}.",
        f"A user's gain is the mean over {len(runs)} pair{'s' * (len(runs) > 1)} of runs.",
    )


def _pair(study: Study, dataset: str) -> tuple[StudyRow, StudyRow] | None:
    """The row of the proposed model and the best of the other models' rows; without one of them the best two rows."""
    rows = study.of(dataset)
    own = representative(rows, study.paper.proposed or "")
    others = ranked([row for row in representatives(rows) if row is not own], STOPPING_METRIC)
    if own is not None and others:
        return own, others[0]
    best = ranked(rows, STOPPING_METRIC)
    return (best[0], best[1]) if len(best) > 1 else None


def _runs(first: StudyRow, second: StudyRow) -> list[tuple[StoredRun, StoredRun]]:
    """As many runs of both, of the same seeds where there are any."""
    rows = (first.result, second.result)
    return paired(*(dict(zip(row.seeds, row.runs, strict=True)) for row in rows))


def _gain(runs: Sequence[tuple[StoredRun, StoredRun]], metric: str) -> Gain | None:
    """The mean gain of each test user; None where a run stored no hits or has other users."""
    stored = [(ours.per_user(metric), theirs.per_user(metric)) for ours, theirs in runs]
    pairs = [(ours, theirs) for ours, theirs in stored if ours is not None and theirs is not None]
    users = [found[0] for pair in pairs for found in pair]
    if len(pairs) < len(stored) or not all(np.array_equal(one, users[0]) for one in users) or not len(users[0]):
        return None
    gain = np.mean([ours[1] - theirs[1] for ours, theirs in pairs], axis=0)
    return np.asarray(np.round(gain, 9))  # what is 0 but for rounding is 0


def _shares(axes: Axes, gains: dict[str, Gain]) -> None:
    for place, gain in enumerate(gains.values()):
        lose, win = (100 * float(np.mean(side)) for side in (gain < 0, gain > 0))
        for end, style in ((-lose, LOSE), (win, GAIN)):
            axes.barh(place, end, 0.7, edgecolor=INK, **style)
            beside, align = (3, "left") if style is GAIN else (-3, "right")
            text = f"{abs(end):.1f} %"
            axes.annotate(text, (end, place), (beside, 0), textcoords="offset points", ha=align, va="center")
    axes.axvline(0, color=INK, linewidth=1)
    axes.set_yticks(range(len(gains)), [short_metric(metric) for metric in gains])
    axes.invert_yaxis()
    axes.margins(x=0.3)
    axes.xaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    axes.set(xlabel="test users who lose, and who gain (%)", ylabel="test metric")
    handles = [Patch(label="lose", edgecolor=INK, **LOSE), Patch(label="gain", edgecolor=INK, **GAIN)]
    axes.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)


def _amounts(axes: Axes, changed: Gain) -> None:
    """The cumulative distribution of the gains that are not 0."""
    if len(changed):
        values, counts = np.unique(changed, return_counts=True)
        kept, below = sampled(len(values)), 100 * np.cumsum(counts) / len(changed)
        axes.step([-EDGE, *values[kept], EDGE], [0, *below[kept], 100], where="post", color=BLUE, linewidth=1.2)
    axes.axvline(0, color=INK, linewidth=1)
    axes.set(xlim=(-EDGE, EDGE), ylim=(0, 100), xticks=(-1, -0.5, 0, 0.5, 1))
    axes.grid(visible=True)
    axes.set(
        xlabel="gain in recall@20 (share of held-out items)", ylabel="users who are not equal,\nup to this gain (%)"
    )
