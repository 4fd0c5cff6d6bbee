"""Texts on stored runs: a list, one in full, two compared. What they are made from is `harness.experiments`."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

from harness.common import NOT_KNOWN, clock_time, duration, size
from harness.paper.measured import device_notes
from harness.runs.course import last_log_line
from harness.runs.difference import NOT_RECORDED, Change, Difference
from harness.runs.inspection import Entry, changed_settings, entry, seconds_of
from harness.runs.store import StoredRun, numerics_of
from harness.runs.words import STATES

LIST_HEAD = ("run", "state", "epoch", "of", "best", "valid R@20", "test R@20", "time", "finished (UTC)")
LIST_ALIGNMENT = ("left", "left", *["right"] * 6, "left")
HASH = 12  # characters of a hash that are shown
NO_SETTINGS = "all as by default"


def list_text(entries: Sequence[Entry], superseded: int) -> str:
    """The table, why runs are damaged or failed, and counts."""
    table = tabulate([_list_row(one) for one in entries], LIST_HEAD, disable_numparse=True, colalign=LIST_ALIGNMENT)
    reasons = [f"{one.state}: {one.key}: {one.reason}" for one in entries if one.state in ("damaged", "failed")]
    return "\n".join([table, "", *reasons, counts_text(entries, superseded)])


def counts_text(entries: Sequence[Entry], superseded: int) -> str:
    """How many runs there are of each state."""
    counts = Counter(one.state for one in entries)
    text = f"{_count(len(entries), 'run')}: " + ", ".join(
        f"{counts[state]} {state}" for state in STATES if counts[state]
    )
    return text + (f"; {superseded} superseded, which count nowhere" if superseded else "")


def run_text(run: StoredRun, key: str) -> str:
    """Everything that is known of a run, but its epochs one by one."""
    found, about = entry(run.path, key), run.run
    data = about["dataset"]
    lines: list[tuple[str, str]] = [("state", found.state), ("folder", str(run.path)), ("command", about["command"])]
    if found.reason:
        lines.append(("failure", _failure(run)))
    if found.state in ("failed", "unfinished") and (said := last_log_line(run.path)):
        lines.append(("last log line", said))
    changed = " ".join(f"{name}={value}" for name, value in sorted(changed_settings(run).items()))
    lines += [
        ("model", str(about["model"])),
        ("settings", changed or NO_SETTINGS),
        ("searched", ", ".join(about["searched"]) or "nothing"),
        ("data", _data(data)),
        ("data hash", str(about["dataset_hash"])),
        ("seed", str(about["seed"])),
        ("numerics", "version {model} of the model, {training} of training".format(**numerics_of(about))),
        ("started", clock_time(str(about.get("started", NOT_RECORDED)))),
        *(("went on", _went_on(once)) for once in about.get("resumed", ())),
        ("epochs", _epochs(found, run)),
    ]
    result = run.result or {}
    if run.finished:
        lines += [
            ("finished", clock_time(str(result["finished"]))),
            ("parameters", f"{result['parameters']:,}" if "parameters" in result else NOT_RECORDED),
            ("parameter hash", str(result.get("state_hash", NOT_RECORDED))),
        ]
    blocks = [f"{key}\n" + _indented(lines)]
    if run.finished:
        blocks.append("results\n" + _metrics(result))
        blocks.append("time\n" + _indented(_timing(result["timing"], run)))
        blocks.append("memory\n" + _indented([(name, _reading(one)) for name, one in result["memory"].items()]))
        if energy := result.get("energy"):
            blocks.append("energy\n" + _indented([(name, _energy(one, run)) for name, one in energy.items()]))
        if notes := device_notes(run):
            blocks.append("while it ran\n" + "\n".join(f"  {note}" for note in notes))
    environment = [(name, NOT_KNOWN if value is None else str(value)) for name, value in about["environment"].items()]
    blocks.append("environment\n" + _indented(environment))
    return "\n\n".join(blocks)


def difference_text(found: Difference, first: str, second: str) -> str:
    """What differs, and whether the results are the same bits. The runs are named as A and B."""
    blocks = [f"A  {first}\nB  {second}"]
    for title, changes in (("asked", found.asked), ("environment", found.environment), ("results", found.results)):
        if changes:
            blocks.append(f"{title}\n" + _changes(changes, relative=title == "results"))
    last = [] if found.asked or found.environment else ["Nothing but times differs."]
    if found.verdict == "unknown":
        names = " and ".join(f"{run.path.name} ({run.state})" for run in found.unfinished)
        last = [f"No result to compare: {names}."]
    elif found.verdict == "same":
        last = [*last, "The results are the same bits."] if found.asked or found.environment else last
    else:
        last = ["The results differ."]
    if found.first_epoch is not None:
        last.append(f"The trainings differ first in epoch {found.first_epoch}.")
    if found.users:
        last.append(f"{_count(found.users, 'user')} of the test part have other metrics.")
    same = {True: "the same bits", False: "other bits", None: "not recorded by both runs"}[found.same_parameters]
    if not found.unfinished:
        last.append(f"Parameters: {same}.")
    return "\n\n".join([*blocks, "\n".join(last)])


def _list_row(one: Entry) -> list[str]:
    return [
        one.key,
        one.state,
        str(one.epoch) if one.run else NOT_KNOWN,
        str(one.limit or NOT_KNOWN),
        str(one.best_epoch or NOT_KNOWN),
        _figure(one.valid),
        _figure(one.test),
        duration(one.seconds),
        NOT_KNOWN if one.finished is None else clock_time(one.finished),
    ]


def _failure(run: StoredRun) -> str:
    failure = run.failure or {}
    return f"{failure['message']} ({failure['kind']}, {clock_time(str(failure['when']))})"


def _data(data: Mapping[str, Any]) -> str:
    interactions = sum(data["interactions"].values())
    text = f"{data['name']}: {data['users']:,} users, {data['items']:,} items, {interactions:,} interactions"
    modalities = [
        f"{name} {' x '.join(map(str, shape))}{' (surrogate)' if name in data['surrogates'] else ''}"
        for name, shape in data["modalities"].items()
    ]
    return "; ".join([text, *modalities])


def _went_on(once: Mapping[str, Any]) -> str:
    changed = "; ".join(f"{name}: {then} -> {here}" for name, (then, here) in once["changed"].items())
    where = f"elsewhere ({changed})" if changed else "in the same environment"
    return f"after epoch {once['after_epoch']}, {clock_time(str(once['when']))}, {where}"


def _epochs(found: Entry, run: StoredRun) -> str:
    text = f"{found.epoch} of at most {found.limit}"
    if found.best_epoch:
        text += f", best {found.best_epoch} (validation R@20 {_figure(found.valid)})"
    return text + (f", stopped: {run.result.get('stopped', NOT_RECORDED)}" if run.result else "")


def _metrics(result: Mapping[str, Any]) -> str:
    valid, test = result["valid"], result["test"]
    table = [[name, _figure(valid.get(name)), _figure(test.get(name))] for name in {**valid, **test}]
    head, alignment = ("  metric", "valid", "test"), ("left", "right", "right")
    return tabulate([[f"  {row[0]}", *row[1:]] for row in table], head, disable_numparse=True, colalign=alignment)


def _timing(timing: Mapping[str, Any], run: StoredRun) -> list[tuple[str, str]]:
    def seconds(name: str) -> str:
        value = timing.get(name)
        return NOT_KNOWN if value is None else f"{value:.3g} s"

    lines = [
        ("per epoch", f"{seconds('median_s')} (quartiles {seconds('q1_s')} and {seconds('q3_s')})"),
        ("first epoch", seconds("warmup_s")),
        ("warm-up", _warm_up(timing)),
        ("per evaluation", seconds("evaluation_median_s")),
        ("in total", duration(seconds_of(run.epochs()))),
    ]
    return lines + ([("note", str(timing["note"]))] if timing.get("note") else [])


def _warm_up(timing: Mapping[str, Any]) -> str:
    if "warm_up_epochs" not in timing:
        return NOT_RECORDED
    text = f"{_count(timing['warm_up_epochs'], 'epoch')} left out of median and quartiles"
    return f"{text} ({timing['warm_up_note']})" if timing["warm_up_note"] else text


def _energy(energy: Mapping[str, Any], run: StoredRun) -> str:
    if energy["joules"] is None:
        return f"{NOT_KNOWN} ({energy['note']})"
    each = NOT_KNOWN if energy["per_epoch"] is None else f"{energy['per_epoch']:,.1f} J"
    about = energy["note"] or f"mean of {energy['epochs']}"
    resumed = run.run.get("resumed")  # counters begin anew in each process
    covered = f"since it went on after epoch {resumed[-1]['after_epoch']}" if resumed else "in total"
    return f"{each} per epoch ({about}), {energy['joules']:,.1f} J {covered}"


def _reading(reading: Mapping[str, Any]) -> str:
    return size(reading["bytes"]) if reading["bytes"] is not None else f"{NOT_KNOWN} ({reading['note']})"


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


def _figure(value: float | None) -> str:
    return NOT_KNOWN if value is None else f"{value:.4f}"


def _indented(lines: Sequence[tuple[str, str]]) -> str:
    return tabulate([[f"  {name}", value] for name, value in lines], tablefmt="plain", disable_numparse=True)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
