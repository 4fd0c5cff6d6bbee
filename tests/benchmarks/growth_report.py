"""Exponents of what was measured at the points of growth, and the report in Markdown. Nothing is measured here."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from growth_points import AXES, Figures, Point, Sizes, points_of
from tabulate import tabulate

SUPERLINEAR = 1.1  # exponents above it are marked


def exponent(factors: Iterable[float], values: Iterable[float]) -> float | None:
    """k of the least-squares line log y = k log x + c; None with fewer than two points or a value that has no log."""
    x, y = np.array(list(factors), dtype=float), np.array(list(values), dtype=float)
    if len(x) < 2 or (y <= 0).any():
        return None
    x, y = np.log(x) - np.log(x).mean(), np.log(y)
    return float(x @ y / (x @ x))


class Growth(NamedTuple):
    """Exponents of one quantity along one axis; None where points are missing."""

    fit: float | None
    last: float | None
    """Of the last doubling alone."""


def growth(series: Mapping[int, float], doublings: int) -> Growth:
    """Exponents of a quantity by factor."""
    last = {factor: series[factor] for factor in (2 ** (doublings - 1), 2**doublings) if factor in series}
    return Growth(exponent(series, series.values()), exponent(last, last.values()))


Quantity = Callable[[Figures], float]
QUANTITIES: dict[str, Quantity] = {
    "Time per step": lambda figures: figures.step_s,
    "Time per epoch": lambda figures: figures.epoch_s,
    "Peak memory, data included": lambda figures: figures.memory_bytes,
    "Peak memory of model and training": lambda figures: figures.model_bytes,
}


def series_of(content: Mapping[str, Any], name: str, axis: str, doublings: int, quantity: Quantity) -> dict[int, float]:
    """The quantity by factor, of the points that were measured."""
    points = [Point(name), *(Point(name, axis, 2**n) for n in range(1, doublings + 1))]
    kept = {point.factor: content["points"].get(point.key, {}) for point in points}
    return {factor: quantity(Figures(**entry["figures"])) for factor, entry in kept.items() if "figures" in entry}


def marked(value: float | None) -> str:
    """The exponent in Markdown, bold above SUPERLINEAR."""
    if value is None:
        return "–"
    text = f"{round(value, 2) + 0.0:.2f}"  # no −0.00
    return f"**{text}**" if value > SUPERLINEAR else text


def exponent_table(content: Mapping[str, Any], names: list[str], doublings: int, quantity: Quantity) -> str:
    rows = []
    for name in names:
        found = [growth(series_of(content, name, axis, doublings, quantity), doublings) for axis in AXES]
        rows.append((name, *(f"{marked(g.fit)} ({marked(g.last)})" for g in found)))
    return tabulated(("model", *AXES), rows)


def base_table(content: Mapping[str, Any], names: list[str]) -> str:
    rows = []
    for name in names:
        kept = content["points"].get(Point(name).key, {})
        if "figures" in kept:
            of = Figures(**kept["figures"])
            times = (f"{1e3 * of.step_s:.1f}", f"{1e3 * of.first_s:.1f}", f"{of.epoch_s:.2f}")
            rows.append((name, *times, f"{of.memory_bytes / 1e6:.0f}", f"{of.model_bytes / 1e6:.0f}"))
    headers = (
        "model",
        "ms per step",
        "ms, first step",
        "s per epoch",
        "peak MB, data included",
        "peak MB of the model",
    )
    return tabulated(headers, rows)


def tabulated(headers: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    right = ["right"] * (len(headers) - 1)
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True, colalign=("left", *right) if rows else ())


MATHEMATICS = """What the mathematics implies, with U users, N = U + I nodes and constant widths and numbers of layers:

- A step of bpr and vbpr touches the batch's rows, and Adam every row: B + N, for vbpr with d_m features per distinct
  item of the batch. No edge is read, so a step does not depend on E and an epoch of E/B steps is linear in E.
- The graph models, as published, propagate over the whole graph in every step: E + N. A step is linear in E; an epoch
  has E/B such steps and grows with E², and with 1/B as long as the batch itself is the smaller part.
- mmgcn, grcn and dualgnn project all I items in every step: I · d_m. Modalities other than visual enter mmgcn in their
  own width, with a weight of d_m × d_m: there up to 2 in d_m. bm3 projects the batch's distinct items, but trains its
  feature tables, which is I · d_m in every step.
- lattice searches the nearest of I items for each of I items: I² once per epoch, in its first step, and I · d_m there.
  Its other steps are linear in everything. Per epoch its exponent in I goes from 1 to 2 as the search takes over.
- Memory is linear: no model holds a row per edge or an array of I × I; the search keeps a block of fixed size. dualgnn
  counts the items that users share for 2,048 users at a time: up to 2 in E, until that block of 2,048 × U is full.
- What does not grow (U when I does, N when E does, the calls themselves) holds exponents below these, the fit's more
  than the last doubling's."""


def markdown(content: Mapping[str, Any], names: list[str], doublings: int) -> str:
    base = Sizes(**content["base"])
    sections = [
        "# Growth of time and memory",
        f"""Base: U = {base.users:,} users, I = {base.items:,} items, E = {base.interactions:,} training interactions,
random by power laws, random visual features of d_m = {base.width} and text features of a quarter of that, batches of
B = {base.batch}. One of E, I, d_m and B is multiplied by up to {2**doublings} while the others stay. Each point is a
process of its own.
Exponents are slopes of log y over log x by least squares; in brackets that of the last doubling alone. Those above
{SUPERLINEAR} are bold. An epoch is its batches' preparation, its first step, the plain ones and reading the state once,
without evaluation. Memory is above what the process held before it loaded the data, or before it built the model.""",
        MATHEMATICS,
    ]
    for title, quantity in QUANTITIES.items():
        sections += [f"## {title}", exponent_table(content, names, doublings, quantity)]
    sections += ["## At the base", base_table(content, names)]
    entries = [content["points"].get(point.key, {}) for point in points_of(names, doublings)]
    if failed := [
        f"- {Point(e['model'], e['axis'], e['factor']).key}: {e['failed']}" for e in entries if "failed" in e
    ]:
        sections += ["## Failed points, which no exponent includes", "\n".join(failed)]
    if missing := sum(not entry for entry in entries):
        sections.append(f"{missing} of {len(entries)} points are not measured yet.")
    sections.append("\n".join(f"- {described(where)}" for where in content["environments"]))
    return "\n\n".join(sections) + "\n"


def described(where: Mapping[str, Any]) -> str:
    changes = " with uncommitted changes" if where["source_dirty"] else ""
    return (
        f"{where['cpu']}, {where['logical_cores']} logical cores, {where['torch_threads']} torch threads; "
        f"torch {where['torch']}, Python {where['python']}; source {where['source_revision']}{changes}"
    )
