"""The paper's Table 4: memory and seconds per epoch, ours beneath the published ones, and what both cost beside
LightGCN and BPR. Absolute figures do not carry over to other hardware, so the ratios are what to compare.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from harness.paper.measured import GB, SHARED, SHARED_NOTE
from harness.paper.study import Study, StudyRow
from harness.report.lines import APART, Figures, Line, Note, apart, dashes, floats, number_text, our_rows
from harness.runs.store import StoredRun

RATIOS_TO = ("LightGCN", "BPR")
MEMORY = {
    "ours": "gpu_process_peak",
    "ours, torch": "allocator_reserved_peak",
    "ours, RAM": "process_rss_peak",
}


def efficiency_lines(published: Sequence[Line], head: tuple[str, ...], study: Study | None) -> list[Line]:
    """The absolute figures of a data set and metric (`head`), then per model of RATIOS_TO the published and our ratios.

    `published` are the table's own line and those of other sources.
    """
    own = _our_lines(head, study, list(published[0].cells))
    figures = [(published[0], floats(published[0].cells), {}), *own]
    ratios = [line for model in RATIOS_TO for one in figures for line in _ratio(model, *one)]
    return [*published, *(line for line, _, _ in own), *ratios]


def efficiency_remarks(study: Study | None, datasets: Sequence[str], columns: Sequence[str]) -> Iterator[str]:
    """What is to be known about our figures, and the machines that they are from."""
    yield (
        "Lines with a slash: the figures over those of that model. Absolute figures depend on the machine, ratios less "
        "so."
    )
    machines: dict[str, list[str]] = defaultdict(list)
    warm_ups: dict[str, list[str]] = defaultdict(list)
    for dataset in datasets:
        for column, row in our_rows(study, dataset, columns).items():
            machines[_machine(row.result.runs[0])].append(f"{dataset} {column}")
            if (note := (row.result.runs[0].result or {})["timing"].get("warm_up_note")) is not None:
                warm_ups[str(note)].append(f"{dataset} {column}")
    if machines:
        yield (
            "Ours: the first seed's run; the time is the median over epochs after the warm-up (the first epoch at "
            "least), evaluation excluded. Our ratios stand beneath the published ones."
        )
        yield (
            "Memory of ours: the peak of the process on the GPU; what torch reserved there, where the driver gives no "
            "figure per process; main memory (RAM), where no GPU was used. 1 GB is 2^30 bytes."
        )
    for note, cells in warm_ups.items():
        yield f"Warm-up of ours: {note}: {', '.join(cells)}."
    for machine, cells in machines.items():
        yield f"Ours on {machine}: {', '.join(cells)}."


Machines = Mapping[str, str]
"""Column → the machine that its figure is from; empty where all are from the same."""


def _our_lines(
    head: tuple[str, ...], study: Study | None, columns: Sequence[str]
) -> list[tuple[Line, Figures, Machines]]:
    """A line for each way of reading, with its figures that ratios may be formed of and their machines."""
    dataset, metric = head
    rows, starved = our_rows(study, dataset, columns), dashes(study, dataset, columns)
    timed = metric.startswith("Time")
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for column, row in rows.items():
        result = row.result.runs[0].result
        for whose, value in _seconds(result) if timed else _memory(result):
            found[whose][column] = value
    lines: list[tuple[Line, Figures, Machines]] = []
    for whose, figures in found.items():
        reading = None if timed else MEMORY[whose]
        shared = {column for column in figures if timed and study and study.time_mark(rows[column])}
        notes = {column: note for column in figures if (note := _note(rows[column], reading, column in shared))}
        cells = {column: number_text(metric, value) for column, value in figures.items()} | starved
        machines = {column: _machine(rows[column].result.runs[0]) for column in figures}
        alone = {column: value for column, value in figures.items() if column not in shared}
        lines.append((Line((*head, whose), cells, notes), alone, machines))
    return lines


def _ratio(model: str, line: Line, figures: Figures, machines: Machines = MappingProxyType({})) -> Iterator[Line]:
    """The figures over those of `model`, of the same machine; nothing where it has none."""
    base = figures.get(model)
    if base:
        cells = {
            column: f"{value / base:.2f}"
            for column, value in figures.items()
            if value is not None and machines.get(column) == machines.get(model)
        }
        yield Line((*line.head[:-1], f"{line.head[-1]} / {model}"), cells)


def _note(row: StudyRow, reading: str | None, shared: bool) -> Note | None:
    """In what our cell differs from the published one, how its memory was found if it was not simply read, and whether
    its time is one of a `shared` machine."""
    note = apart(row)
    result: Any = row.result.runs[0].result
    how = result["memory"][reading].get("how") if reading else None
    reasons = [*([note.reason] if note else []), *([str(how)] if how else []), *([SHARED_NOTE] if shared else [])]
    return Note(SHARED if shared else APART, "; ".join(reasons)) if reasons else None


def _seconds(result: Any) -> Iterator[tuple[str, float]]:
    if result["timing"]["median_s"] is not None:
        yield "ours", float(result["timing"]["median_s"])


def _memory(result: Any) -> Iterator[tuple[str, float]]:
    """The first reading there is: the one that is nearest to what was published."""
    for whose, key in MEMORY.items():
        if result["memory"][key]["bytes"] is not None:
            yield whose, result["memory"][key]["bytes"] / GB
            return


def _machine(run: StoredRun) -> str:
    where = run.run["environment"]
    if where.get("device") == "cuda":
        return f"cuda, {where.get('gpu') or 'a GPU without a name'}"
    cpu, cores = where.get("cpu") or "a processor without a name", where.get("logical_cores")
    return f"{where.get('device')}, {cpu}, {cores} cores, torch threads: {where.get('torch_threads')}"
