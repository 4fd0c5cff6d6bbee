"""Measured growth as files: `scaling.md`, `scaling.json` and pictures; `scaling-partial.*` where it is incomplete, and
`scaling-quick.*`.

What is measured is `harness.tools.scaling.measure`, what it means `harness.tools.scaling.fit`, the pictures
`plot`.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from tabulate import tabulate

from bm3 import ConfigError
from harness.common import write_json, write_whole, writing
from harness.report.plots.style import files
from harness.tools.scaling.fit import FORMAT, JSON_FILE, Cell, Complexity, Verdict, exit_code, judge
from harness.tools.scaling.measure import Plan, Point, complete_models
from harness.tools.scaling.plot import scaling_picture

COMPLETE, PARTIAL, QUICK = Path(JSON_FILE).stem, "scaling-partial", "scaling-quick"
"""Files without their endings. Reports on runs take exponents from the first alone, which has complete models alone."""
ANSWERS = {
    0: "Nothing that could be judged grows faster than published.",
    1: "Something grows faster than published.",
    3: "Nothing could be judged.",
}


@dataclass(frozen=True)
class Origin:
    """Where the points of a model come from."""

    command: str
    """What repeats it."""
    environment: Mapping[str, object]

    @property
    def machine(self) -> dict[str, object]:
        """The environment without the revision of the source."""
        return {key: value for key, value in self.environment.items() if not key.startswith("source_")}


@dataclass(frozen=True)
class Scaling:
    """Everything that the report says."""

    plan: Plan
    origins: Mapping[str, Origin]
    """Of each model with points."""
    points: tuple[Point, ...]
    complexity: Complexity
    cells: tuple[Cell, ...]

    @property
    def code(self) -> int:
        """The exit code that goes with it."""
        return exit_code(self.cells)

    @property
    def models(self) -> list[str]:
        return list(dict.fromkeys(cell.model for cell in self.cells))

    @property
    def complete(self) -> set[str]:
        """The models that were measured with all their sizes and parts, which a quick run has not."""
        return complete_models(self.plan, self.points)

    @property
    def incomplete(self) -> list[str]:
        """The other ones, in order."""
        complete = self.complete
        return [model for model in self.models if model not in complete]


def make_scaling(plan: Plan, origins: Mapping[str, Origin], points: Sequence[Point], complexity: Complexity) -> Scaling:
    """Judge the points, of one model after the other, sizes ascending. `origins` may name models without points."""
    series: dict[tuple[str, str, str], list[Point]] = {}
    for point in points:
        series.setdefault((point.model, point.part, point.factor), []).append(point)
    cells = [
        judge(complexity, *key, quantity, [p.size for p in of], [p.values(quantity) for p in of])
        for key, of in series.items()
        for quantity in of[0].quantities
    ]
    measured = {point.model: origins[point.model] for point in points}
    return Scaling(plan, measured, tuple(points), complexity, tuple(cells))


def write_scaling(scaling: Scaling, folder: Path, json_file: Path | None = None) -> list[str]:
    """The reports, the points and the pictures below `folder`, all points also in `json_file`; gives a line per file.

    Complete models go to `scaling.*`, beside the others that are there already if the same machine has measured these
    by the same plan; else what was there is kept under another name. Incomplete models go to `scaling-partial.*`, where
    the same happens to what was there, and those of a quick run to `scaling-quick.*`. Raises WriteError where something
    cannot be written.
    """
    lines = []
    if scaling.complete:
        complete, path = _of(scaling, scaling.complete), folder / JSON_FILE
        before = _stored(path, scaling.complexity)
        if before is not None and _comparable(before, complete):
            complete = _joined(before, complete)
        else:
            lines += _kept(path)
        lines += _written(complete, folder, COMPLETE)
    if scaling.plan.quick:
        lines += _written(scaling, folder, QUICK)
    elif scaling.incomplete:
        lines += _kept(folder / f"{PARTIAL}.json")
        lines += _written(_of(scaling, set(scaling.incomplete)), folder, PARTIAL)
    if json_file is not None:
        with writing(json_file, "name another one with --json"):
            write_json(json_file, values(scaling))
        lines.append(f"written: {json_file}")
    return lines


def _of(scaling: Scaling, models: set[str]) -> Scaling:
    points = [point for point in scaling.points if point.model in models]
    return make_scaling(scaling.plan, scaling.origins, points, scaling.complexity)


def _stored(path: Path, complexity: Complexity) -> Scaling | None:
    """What `values` gave, judged anew; None where there is no such file, it cannot be read or is incomplete."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            return None
        plan = TypeAdapter(Plan).validate_python(content["plan"])
        origins = TypeAdapter(dict[str, Origin]).validate_python(content["models"])
        points = TypeAdapter(list[Point]).validate_python(content["points"])
        found = make_scaling(plan, origins, points, complexity)
        return None if found.incomplete else found
    except (OSError, ValueError, KeyError, TypeError, ConfigError):
        return None


def _comparable(before: Scaling, scaling: Scaling) -> bool:
    """Whether both can be one file: measured by one plan on one machine."""
    origins = [*before.origins.values(), *scaling.origins.values()]
    return before.plan == scaling.plan and all(origin.machine == origins[0].machine for origin in origins)


def _joined(before: Scaling, scaling: Scaling) -> Scaling:
    """Every model, those of both as in the second, by name."""
    kept = [point for point in before.points if point.model not in scaling.origins]
    points = sorted([*kept, *scaling.points], key=lambda point: point.model)
    return make_scaling(scaling.plan, {**before.origins, **scaling.origins}, points, scaling.complexity)


def _kept(path: Path) -> list[str]:
    """Copy the file, if it is there, to a name by its content, which replaces nothing else; gives a line on that."""
    if not path.exists():
        return []
    with writing(path, "name another folder with --to"):
        content = path.read_bytes()
        copy = path.with_name(f"{path.stem}-{hashlib.sha256(content).hexdigest()[:12]}{path.suffix}")
        write_whole(copy, content)
    return [f"kept: {copy}, which {path.name} was before"]


def _written(scaling: Scaling, folder: Path, name: str) -> list[str]:
    pictures = [scaling_picture(model, scaling.cells, name) for model in scaling.models]
    contents = {f"{name}.md": markdown(scaling, name).encode(), **files(pictures)}
    paths = [folder / file for file in (*contents, f"{name}.json")]
    for path, content in zip(paths, contents.values(), strict=False):
        with writing(path, "name another folder with --to"):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, content)
    with writing(paths[-1], "name another folder with --to"):
        write_json(paths[-1], values(scaling))
    return [f"written: {path}" for path in paths]


def values(scaling: Scaling) -> dict[str, Any]:
    """All points with every repetition, and what follows from them, fit for JSON; seconds and bytes."""
    return {
        "format": FORMAT,
        "quick": scaling.plan.quick,
        "complete": sorted(scaling.complete),
        "plan": asdict(scaling.plan),
        "models": {model: asdict(origin) for model, origin in scaling.origins.items()},
        "points": [{**asdict(point), "size": point.size} for point in scaling.points],
        "cells": [asdict(cell) for cell in scaling.cells],
    }


def markdown(scaling: Scaling, name: str = COMPLETE) -> str:
    """The whole report, whose pictures are named `name`-MODEL; up to the first `## ` it is the summary."""
    commands = "\n".join(dict.fromkeys(origin.command for origin in scaling.origins.values()))
    sections = [
        "# How time and memory grow",
        summary(scaling),
        *(_of_model(scaling, model, name) for model in scaling.models),
        *_unmeasured(scaling.points),
        _published(scaling.complexity, scaling.models),
        _method(scaling),
        _environment(scaling.origins.values()),
        f"## Command that repeats it\n\n```\n{commands}\n```",
    ]
    return "\n\n".join(sections) + "\n"


def summary(scaling: Scaling) -> str:
    """The answer, how many cells have which verdict, which cost more than published, and what is incomplete."""
    counts = Counter(cell.verdict for cell in scaling.cells)
    lines = [f"**{ANSWERS[scaling.code]}**", ""]
    lines.append("- Exponents: " + (", ".join(f"{counts[v]} {v}" for v in Verdict if counts[v]) or "none"))
    for cell in scaling.cells:
        if cell.verdict is Verdict.ABOVE:
            what = f"{_label(cell)} in {cell.factor}: {_exponent(cell)}, published {_published_exponent(cell)}"
            lines.append(f"- Above: {what}")
    if scaling.incomplete:
        why = "a quick run" if scaling.plan.quick else "not all sizes and parts of it were measured"
        lines.append(f"- Incomplete, and no evidence in reports on runs: {', '.join(scaling.incomplete)} ({why})")
    return "\n".join(lines)


def _of_model(scaling: Scaling, model: str, name: str) -> str:
    cells = [cell for cell in scaling.cells if cell.model == model]
    rows = [
        [
            f"{cell.part or 'model'}, {cell.quantity}",
            cell.factor,
            f"{cell.sizes[0]:,} to {cell.sizes[-1]:,}" if cell.sizes else "",
            " to ".join(_amount(cell.quantity, value) for value in (cell.medians[0], cell.medians[-1]))
            if cell.medians
            else "",
            _exponent(cell),
            f"{cell.fit.slope:.2f}" if cell.fit else "",
            f"{cell.fit.constant:.0%}" if cell.fit else "",
            _published_exponent(cell),
            cell.verdict.value,
            cell.reason.replace("|", "\\|"),
        ]
        for cell in cells
    ]
    head = ["what", "size", "from, to", "medians", "exponent", "slope", "constant", "published", "verdict", "why"]
    picture = f"![Growth of {model}](pictures/{name}-{model}.png)"
    return f"## {model}\n\n{_table(rows, head)}\n\n{picture}"


def _exponent(cell: Cell) -> str:
    return f"{cell.fit.exponent:.2f} [{cell.fit.low:.2f}, {cell.fit.high:.2f}]" if cell.fit else ""


def _published_exponent(cell: Cell) -> str:
    return "" if cell.published is None else f"{cell.published:g}"


def _label(cell: Cell) -> str:
    return f"{cell.model} {cell.part}".strip() + f", {cell.quantity}"


def _amount(quantity: str, value: float) -> str:
    return f"{value / 1e6:.3g} MB" if quantity == "memory" else f"{1e3 * value:.3g} ms"


def _unmeasured(points: Iterable[Point]) -> list[str]:
    lines = [f"- {p.model} {p.part} {p.factor} = {p.size:,}: {p.note}" for p in points if p.note]
    return ["## Not measured", "\n".join(lines)] if lines else []


def _published(complexity: Complexity, models: Sequence[str]) -> str:
    rows = []
    for cost in complexity.costs:
        if cost.model.lower() in models:
            open_sizes = "; ".join(f"{size}: {reason}" for size, reason in cost.open.items())
            what = f"{cost.model}{f' {cost.part}' if cost.part else ''}, {cost.quantity}"
            row = [what, f"O({cost.expression})", cost.source, " ".join(filter(None, (cost.note, open_sizes)))]
            rows.append([text.replace("|", "\\|") for text in row])
    text = _table(rows, ["what", "published", "source", "note, and what is left open"]) if rows else "Nothing is."
    return f"## What is published\n\n{text}"


def _method(scaling: Scaling) -> str:
    plan, base, complexity = scaling.plan, scaling.plan.base, scaling.complexity
    multipliers = ", ".join(map(str, plan.multipliers))
    return f"""## How it was measured

Base: {base.users:,} users, I = {base.items:,} items, E = {base.interactions:,} training interactions (random, by power
laws), random visual features of d_m = {base.width} and text features of a quarter of that, d = {base.embedding},
B = {base.batch}, L = {base.layers}, other settings as published. One size at a time is multiplied by {multipliers}; all
else stays.

Times: {plan.repetitions} repetitions after a warm-up, all sizes in turn and in a new order each time. A repetition is
the first step of an epoch, with shuffling, sampling and what the model renews then, and some plain steps; an epoch is
put together from these. A part is called alone, with its gradient where training has one. Memory is the peak of loading
the data, building the model and steps of some epochs, above what was held before: of {plan.memory_repetitions}
processes on the CPU, of the allocator on CUDA.

`exponent` is k of y = a + b x^k with a, b ≥ 0, fitted to the medians by least relative squares, with its bootstrap
interval over repetitions at {complexity.confidence:.0%}. `constant` is the share of a at the largest size. `slope` is
that of log y over log x from the middle size on, the constant included. `consistent`: the published exponent is inside
the interval or above it. `above`: the interval begins more than {complexity.tolerance:g} above the published exponent,
a logarithm included. `no evidence`: not measured, an interval wider than {complexity.widest:g} around the published
exponent, or a median further than {complexity.misfit:.0%} from the fit. `open`: no source says."""


def _environment(origins: Iterable[Origin]) -> str:
    found: dict[str, dict[str, None]] = {}  # key → the values that models were measured with, each once
    for key, value in (item for origin in origins for item in origin.environment.items()):
        if value is not None:
            found.setdefault(key, {})[str(value)] = None
    rows = [[key, ", ".join(different)] for key, different in found.items()]
    return f"## Environment\n\n{_table(rows, ['what', 'value'])}"


def _table(rows: Sequence[Sequence[object]], head: Sequence[str]) -> str:
    return tabulate(rows, head, tablefmt="github", disable_numparse=True)
