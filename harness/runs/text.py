"""Texts on stored runs: a list, one in full, two compared. What they are made from is beside this file."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from harness.common import NOT_KNOWN, clock_time, duration, number, size
from harness.evaluation.words import METRICS, short_metric
from harness.runs.difference import NOT_RECORDED, Change, Difference
from harness.runs.inspect import Entry, course, entry, last_log_line
from harness.runs.record import MODEL, DatasetRecord, Reading, Resumed, RunRecord
from harness.runs.words import STATES
from harness.training.config import STOPPING_METRIC

LIST_FIGURES = tuple(f"{part} {short_metric(STOPPING_METRIC)}" for part in ("valid", "test"))
LIST_HEAD = ("run", "state", "epoch", "of", "best", *LIST_FIGURES, "time", "finished (UTC)")
LIST_ALIGNMENT = ("left", "left", *["right"] * 6, "left")
HASH = 12  # characters of a hash that are shown


def list_text(entries: Sequence[Entry]) -> str:
    """The table, why runs are damaged or failed, and counts."""
    table = tabulate([_list_row(one) for one in entries], LIST_HEAD, disable_numparse=True, colalign=LIST_ALIGNMENT)
    reasons = [f"{one.state}: {one.key}: {one.reason}" for one in entries if one.state in ("damaged", "failed")]
    counts = Counter(one.state for one in entries)
    each = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    return "\n".join([table, "", *reasons, f"{_count(len(entries), 'run')}: {each}"])


def run_text(run: RunRecord, key: str, metrics: Sequence[str] = (), users: NDArray[np.integer] | None = None) -> str:
    """Everything that is known of a run, but its epochs one by one; these test metrics, or the usual ones, of all its
    users or of these."""
    found, result = entry(run.path, key), run.result
    lines: list[tuple[str, str]] = [("state", found.state), ("folder", str(run.path)), ("command", run.command)]
    if (failure := run.failure) is not None:
        lines.append(("failure", f"{failure.message} ({failure.kind}, {clock_time(failure.when)})"))
    if found.state in ("failed", "unfinished") and (said := last_log_line(run.path)):
        lines.append(("last log line", said))
    changed = " ".join(f"{name}={value}" for name, value in sorted(run.changed_settings.items()))
    lines += [
        ("model", run.model),
        ("settings", changed or "all as by default"),
        ("data", _data(run.dataset)),
        ("data hash", run.dataset_hash),
        ("seed", str(run.seed)),
        ("numerics", f"version {run.numerics.model} of the model, {run.numerics.training} of training"),
        ("started", clock_time(run.started) if run.started else NOT_RECORDED),
        *(("went on", _went_on(once)) for once in run.resumed),
        ("epochs", _epochs(found, run)),
    ]
    if result is not None:
        kept = run.path / MODEL
        lines += [
            ("finished", clock_time(result.finished)),
            ("parameters", NOT_RECORDED if result.parameters is None else f"{result.parameters:,}"),
            ("parameter hash", result.state_hash or NOT_RECORDED),
            ("weights", f"{MODEL}, {size(kept.stat().st_size)}" if kept.is_file() else "not kept"),
        ]
    blocks = [f"{key}\n" + _indented(lines)]
    if result is not None:
        names = metrics or [name for name in result.test if name.partition("@")[0] in METRICS]
        among = "" if users is None else f" of {_count(len(users), 'user')}"
        blocks.append(f"results{among}\n" + _metrics(run, names, users))
        times = {**result.timing.written(), "all epochs": duration(run.seconds)}
        blocks.append("time, in seconds\n" + _recorded(times))
        held = result.memory.context
        context = [] if held is None else [("context", size(held))]
        readings = [(name, _reading(one)) for name, one in result.memory.readings.items()]
        blocks.append("memory\n" + _indented([*readings, *context]))
        blocks += [
            f"energy of the {name}, in joules\n" + _recorded(one.written()) for name, one in result.energy.items()
        ]
        if result.device_notes:
            blocks.append("while it ran\n" + "\n".join(f"  {note}" for note in result.device_notes))
    blocks.append("environment\n" + _recorded(run.environment))
    return "\n\n".join(blocks)


def difference_text(found: Difference, first: str, second: str) -> str:
    """What differs, and whether the results are the same bits. The runs are named as A and B."""
    blocks = [f"A  {first}\nB  {second}"]
    for title, changes in (("asked", found.asked), ("environment", found.environment), ("results", found.results)):
        if changes:
            blocks.append(f"{title}\n" + _changes(changes, relative=title == "results"))
    if found.verdict == "unknown":
        names = " and ".join(f"{run.path.name} ({run.state})" for run in found.unfinished)
        last = [f"No result to compare: {names}."]
    elif found.verdict == "other":
        last = ["The results differ."]
    else:
        elsewhere = found.asked or found.environment
        last = ["The results are the same bits." if elsewhere else "Nothing but times differs."]
    if found.first_epoch is not None:
        last.append(f"The trainings differ first in epoch {found.first_epoch}.")
    same = {True: "the same bits", False: "other bits", None: "not recorded by both runs"}[found.same_parameters]
    if not found.unfinished:
        last.append(f"Parameters: {same}.")
    return "\n\n".join([*blocks, "\n".join(last)])


def _list_row(one: Entry) -> list[str]:
    return [
        one.key,
        one.state,
        NOT_KNOWN if one.limit is None else str(one.epoch),
        str(one.limit or NOT_KNOWN),
        str(one.best_epoch or NOT_KNOWN),
        number(one.valid),
        number(one.test),
        duration(one.seconds),
        NOT_KNOWN if one.finished is None else clock_time(one.finished),
    ]


def _data(data: DatasetRecord) -> str:
    interactions = sum(data.interactions.values())
    parts = [f"{data.name}: {data.users:,} users, {data.items:,} items, {interactions:,} interactions"]
    for name, shape in data.modalities.items():
        parts.append(f"{name} {' x '.join(map(str, shape))}{' (surrogate)' if name in data.surrogates else ''}")
    return "; ".join(parts)


def _went_on(once: Resumed) -> str:
    changed = "; ".join(f"{name}: {then} -> {here}" for name, (then, here) in once.changed.items())
    where = f"elsewhere ({changed})" if changed else "in the same environment"
    return f"after epoch {once.after_epoch}, {clock_time(once.when)}, {where}"


def _epochs(found: Entry, run: RunRecord) -> str:
    if not run.validated:
        return f"{found.epoch}, of which the last is tested: there is no validation part"
    text = f"{found.epoch} of at most {found.limit}"
    if found.best_epoch:
        value = run.result.valid[run.stopping] if run.result else course(run.path, run.stopping).best
        text += f", best {found.best_epoch} (validation {short_metric(run.stopping)} {number(value)})"
    return text + (f", stopped: {run.result.stopped or NOT_RECORDED}" if run.result else "")


def _metrics(run: RunRecord, names: Sequence[str], users: NDArray[np.integer] | None) -> str:
    valid = {} if users is not None else run.outcome.valid  # of whose users nothing is stored
    table = [[name, number(valid.get(name)), number(run.value(name, users))] for name in names]
    head, alignment = ("  metric", "valid", "test"), ("left", "right", "right")
    return tabulate([[f"  {row[0]}", *row[1:]] for row in table], head, disable_numparse=True, colalign=alignment)


def _reading(reading: Reading) -> str:
    return f"{NOT_KNOWN} ({reading.note})" if reading.bytes is None else size(reading.bytes)


def _changes(changes: Sequence[Change], *, relative: bool) -> str:
    rows = []
    for change in changes:
        share = change.relative
        rows.append([f"  {change.what}", *_pair(change)])
        if relative:
            rows[-1].append("" if share is None else f"{100 * share:+.2g} %")
    return tabulate(rows, ["", "A", "B", *(["B over A"] if relative else [])], disable_numparse=True)


def _pair(change: Change) -> tuple[str, str]:
    """Both values, as short as they can be told apart."""
    pair = change.first, change.second
    if all(isinstance(value, float) for value in pair):
        first, second = (f"{value:.6g}" for value in pair)
        if first != second:
            return first, second
    return _short(pair[0]), _short(pair[1])


def _short(value: Any) -> str:
    text = NOT_KNOWN if value is None else str(value)
    return text if len(text) < 64 or " " in text else f"{text[:HASH]}..."


def _recorded(values: Mapping[str, Any]) -> str:
    """Values as they were stored, under their names there."""
    texts = {name: f"{value:.4g}" if isinstance(value, float) else _short(value) for name, value in values.items()}
    return _indented([*texts.items()])


def _indented(lines: Sequence[tuple[str, str]]) -> str:
    return tabulate([[f"  {name}", value] for name, value in lines], tablefmt="plain", disable_numparse=True)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
