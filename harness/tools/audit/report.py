"""What the variants change, as text: the report of an audit, its files, and lines for `bm3 variants`.

The figures come from `harness.tools.audit.audit` and `harness.tools.audit.effects`.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from tabulate import tabulate

from bm3 import DataError
from harness.common import write_whole
from harness.paper.expected import short_metric

# The same table of the environment as in the reports on runs.
from harness.report.markdown import environment_table as environment_section
from harness.runs.variants import ALL_MODELS, VariantRow
from harness.tools.audit.audit import AUDIT_METRICS, Audit, Comparison
from harness.tools.audit.effects import AUDIT, Change, Effect, effects_csv, known_effects, merged


def audit_markdown(audit: Audit) -> str:
    """The whole report; its first part, up to the first `## `, is the summary."""
    sections = [
        f"# What the variants change on {audit.dataset.name}",
        _summary(audit),
        "## Text, code, and what it changes",
        _variants(audit),
        "## Figures",
        _legend(audit),
        _figures(audit),
        *environment_section(list(audit.runs.values())),
        "## Commands that repeat each row",
        _commands(audit),
    ]
    return "\n\n".join(sections) + "\n"


def write_audit(audit: Audit, folder: Path) -> list[Path]:
    """Write `report.md` and `audit.csv` into the folder, each whole or not at all. Raises DataError if that fails."""
    return [
        _write(folder / "report.md", audit_markdown(audit)),
        _write(folder / "audit.csv", effects_csv(audit.effects)),
    ]


def write_known_effects(audit: Audit, expected: Path) -> Path:
    """Take the effects as the known ones, `audit/<data set>.csv`; those of models that were not audited stay.

    Raises DataError when the file cannot be read or written, and ValueError unless everything was measured.
    """
    if audit.code != 0:
        raise ValueError("not everything was measured")
    path = expected / AUDIT / f"{audit.dataset.name}.csv"
    return _write(path, effects_csv(merged(known_effects(expected), audit.effects)))


def effect_lines(variant: VariantRow, effects: Iterable[Effect], model: str | None = None) -> list[str]:
    """A line per data set and other value: what it changes, with `model` or over all that it was measured with."""
    wanted = variant.model if variant.model != ALL_MODELS else model
    groups: dict[tuple[str, str], list[Effect]] = {}
    for effect in effects:
        of_variant = effect.setting == variant.setting and effect.value in map(str, variant.values[1:])
        if of_variant and wanted in (None, effect.model):
            groups.setdefault((effect.dataset, effect.value), []).append(effect)
    return [f"{dataset}, {value}: {_changes(group)}" for (dataset, value), group in groups.items()]


def _summary(audit: Audit) -> str:
    effects = audit.effects
    counts = Counter(effect.difference.change for effect in effects).most_common()
    training = ", ".join(f"{key}={value}" for key, value in audit.training.items()) or "as published"
    lines = [
        "Every setting in which text and published code disagree, with its other value beside the published one, "
        "all else equal.",
        "",
        f"- Data set: {audit.dataset.name}, content hash {audit.dataset.content_hash[:10]}",
        f"- Seeds: {', '.join(map(str, audit.seeds))}",
        f"- Training: {training}; models with their default settings",
        "- Effects: " + ", ".join(f"{n} {change.value}" for change, n in counts),
    ]
    unchanged: dict[str, list[str]] = {}
    for comparison in audit.comparisons:
        if all(effect.difference.change is Change.NONE for effect in audit.effects_of(comparison)):
            unchanged.setdefault(_assignment(comparison), []).append(comparison.model)
    lines += [
        f"- Changes nothing here, to the last bit: {assignment} of {', '.join(of)}"
        for assignment, of in unchanged.items()
    ]
    surrogates = {run.run["model"] for run in audit.runs.values() if run.run["reads_features"]}
    if audit.dataset.surrogates and surrogates:
        lines.append(f"- Trained on surrogate features, not on the original vectors: {', '.join(sorted(surrogates))}")
    lines += [f"- Failed: `{command}`" for command in audit.failed]
    return "\n".join(lines)


def _variants(audit: Audit) -> str:
    """One row per variant and other value; those of training sum up the models."""
    groups: dict[tuple[str, str, str], list[Comparison]] = {}
    for comparison in audit.comparisons:
        variant = comparison.variant
        groups.setdefault((variant.model, variant.setting, str(comparison.value)), []).append(comparison)
    table = []
    for (model, setting, value), group in sorted(groups.items(), key=lambda item: item[0][0] == ALL_MODELS):
        variant = group[0].variant
        changes = _changes([effect for comparison in group for effect in audit.effects_of(comparison)])
        table.append([model, setting, f"{variant.values[0]} → {value}", variant.text, variant.code, changes])
    head = ["model", "setting", "published → other value", "text says", "code does", "what it changes"]
    return _table(table, head)


def _legend(audit: Audit) -> str:
    return (
        "Published and other value: mean over seeds. The difference is taken seed by seed, in percent of the "
        f"published value's mean; its interval is a t-interval over seeds, {100 * audit.tolerances.confidence:g} %. "
        "*none*: all runs are the same to the last bit; *within noise*: the interval contains 0; *no evidence*: fewer "
        f"than {audit.tolerances.min_seeds} seeds finished with both values. Each interval stands alone: of many, some "
        "miss 0 by chance."
    )


def _figures(audit: Audit) -> str:
    table = []
    for comparison in audit.comparisons:
        effects = audit.effects_of(comparison)
        cells = [cell for effect in effects for cell in _cells(effect)]
        words = list(dict.fromkeys(effect.difference.change.value for effect in effects))
        word = words[0] if len(words) == 1 else ", ".join(_of(effect) for effect in effects)
        variant = comparison.variant
        values = f"{variant.values[0]} → {comparison.value}"
        seeds = effects[0].difference.seeds
        table.append([comparison.model, variant.setting, values, seeds, *cells, word])
    names = [short_metric(metric) for metric in AUDIT_METRICS]
    of_metrics = [text for name in names for text in (name, f"{name} other", "diff. %", "interval")]
    return _table(table, ["model", "setting", "published → other value", "seeds", *of_metrics, "effect"])


def _cells(effect: Effect) -> list[str]:
    d = effect.difference
    means = ["" if mean is None else f"{mean:.4f}" for mean in (d.base, d.variant)]
    ends = [] if d.low_percent is None or d.high_percent is None else [d.low_percent, d.high_percent]
    return [*means, "" if d.percent is None else _signed(d.percent, 2), " to ".join(_signed(end, 2) for end in ends)]


def _of(effect: Effect) -> str:
    return f"{short_metric(effect.metric)} {effect.difference.change.value}"


def _changes(effects: Sequence[Effect]) -> str:
    """`R@20 -0.4 % (lower), N@20 …`; of several models the range and how many there are of each word."""
    by_metric: dict[str, list[Effect]] = {}
    for effect in effects:
        by_metric.setdefault(effect.metric, []).append(effect)
    return ", ".join(_change(metric, group) for metric, group in by_metric.items())


def _change(metric: str, effects: Sequence[Effect]) -> str:
    percents = [effect.difference.percent for effect in effects if effect.difference.percent is not None]
    figures = " to ".join(dict.fromkeys(_signed(end) for end in (min(percents), max(percents)))) if percents else ""
    counts = Counter(effect.difference.change.value for effect in effects).most_common()
    words = ", ".join(word if len(effects) == 1 else f"{word} with {n}" for word, n in counts)
    return f"{short_metric(metric)} {figures + ' % ' if figures else ''}({words})"


def _commands(audit: Audit) -> str:
    blocks: dict[str, Sequence[str]] = {}
    for comparison in audit.comparisons:
        blocks[f"{comparison.model} as published"] = [trial.command for trial in comparison.base]
        blocks[f"{comparison.model} {_assignment(comparison)}"] = [trial.command for trial in comparison.trials]
    return "```\n" + "\n\n".join("\n".join([f"# {name}", *commands]) for name, commands in blocks.items()) + "\n```"


def _assignment(comparison: Comparison) -> str:
    return f"{comparison.variant.setting}={comparison.value}"


def _signed(percent: float, digits: int = 1) -> str:
    return f"{round(percent, digits) + 0.0:+.{digits}f}"  # + 0.0: no minus before zero


def _table(rows: Sequence[Sequence[object]], head: Sequence[str]) -> str:
    return tabulate(rows, head, tablefmt="github", disable_numparse=True)


def _write(path: Path, text: str) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text.encode())
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror})") from error
    return path
