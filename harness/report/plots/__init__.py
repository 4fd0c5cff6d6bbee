"""The pictures of a study as matplotlib figures, a module per question.

Each of their functions returns None where the study has nothing for it to show.
"""

from harness.paper.study import Study
from harness.report.plots.accuracy import cost, difference, scatter, users
from harness.report.plots.style import Picture, style
from harness.report.plots.training import budget, grid, learning


def draw(study: Study) -> tuple[Picture, ...]:
    """The pictures that the study has data for: by data set, then those over all data sets.

    Raises DataError when a file of a run is damaged.
    """
    with style():
        by_dataset = [
            make(study, name) for name in study.datasets for make in (difference, learning, cost, grid, budget, users)
        ]
        return tuple(picture for picture in (*by_dataset, scatter(study)) if picture is not None)
