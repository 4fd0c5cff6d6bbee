"""The commands `bm3 models` and `bm3 settings`: what can be trained, and what can be set."""

from pathlib import Path

import click

from harness.cli.options import PAPER

WIDTHS = (None, None, 24, 14, 56)


@click.command(name="models")
def models_command() -> None:
    """List the models, of the harness and of installed packages: what they need, what they are, where they are from.

    Features: whether it reads features of items. Negatives: whether it is trained on pairs with items drawn at random.

    \b
    bm3 models
    """
    from tabulate import tabulate

    from harness.models.registry import models
    from harness.runs.settings import about, settings

    table = []
    for name, entry in sorted(models().items()):
        needs = entry.model.reads_features, entry.model.uses_negatives
        number = sum(1 for _ in settings(entry.model.Config))
        shown = ["yes" if needed else "no" for needed in needs]
        table.append([name, *shown, number, "\n".join(filter(None, about(entry.model)))])
    head = ["model", "features", "negatives", "settings", "what it is"]
    click.echo(tabulate(table, head, disable_numparse=True, maxcolwidths=[None] * 4 + [80]))
    click.echo("\nbm3 settings MODEL: what can be set; bm3 variants MODEL: where text and published code disagree")


@click.command(name="metrics")
def metrics_command() -> None:
    """List the metrics, of the harness and of installed packages: formula and source.

    L is a user's list of K items, R the items relevant to the user. Those of hits alone can end a training
    (early_stopping.metric), and are known of stored runs for any group of users.

    \b
    bm3 metrics
    bm3 train bpr mini --metrics mrr,coverage@20
    """
    from tabulate import tabulate

    from harness.evaluation.metrics import known_metrics, metrics_of_hits

    rows = []
    for name, metric in known_metrics().items():
        rows.append([name, "yes" if name in metrics_of_hits() else "no", " ".join((metric.__doc__ or "").split())])
    head = ["metric", "of hits alone", "what it is"]
    click.echo(tabulate(rows, head, disable_numparse=True, maxcolwidths=[None, None, 88]))


@click.command(name="settings")
@click.argument("model", required=False)
@PAPER
def settings_command(model: str | None, paper: Path) -> None:
    """List what --set changes for MODEL, those of training last; without MODEL, these alone.

    Grid: the values that a suite tries where it searches the model's own grid.

    \b
    bm3 settings bm3
    bm3 settings
    bm3 train bm3 mini --set n_layers=2 --set early_stopping.patience=10
    """
    from tabulate import tabulate

    from harness.models.contract import check_class
    from harness.models.registry import find_model
    from harness.paper.load import load_paper
    from harness.runs.settings import search_grid, settings
    from harness.training import TrainingConfig

    listed = [("training, of every model", settings(TrainingConfig))]
    if model is not None:
        entry = find_model(model)
        check_class(entry)
        grid = search_grid(entry.name, load_paper(paper).grids)
        listed.insert(0, (entry.name, settings(entry.model.Config, grid=grid)))
    for of, some in listed:
        table = [[s.name, s.default, s.values, ", ".join(map(str, s.grid)), s.meaning] for s in some]
        head = ["setting", "default", "values", "grid", "meaning"]
        click.echo(f"Settings of {of}\n")
        click.echo(tabulate(table, head, disable_numparse=True, maxcolwidths=WIDTHS) + "\n")
