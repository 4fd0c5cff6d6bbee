"""What describes a package to other programs: a Process Run Crate of its runs, and Croissant of their data sets.

Sources: https://w3id.org/ro/wfrun/process/0.5 (on RO-Crate 1.1) and http://mlcommons.org/croissant/1.0.
"""

import mimetypes
from collections.abc import Mapping
from typing import Any

from harness.runs.record import DatasetRecord, RunRecord

PROFILE, CROISSANT = "https://w3id.org/ro/wfrun/process/0.5", "http://mlcommons.org/croissant/1.0"
LICENCE = "https://spdx.org/licenses/Apache-2.0"
DATA_LICENCE = "not stated here; ask whoever publishes the data set"


def crate(
    runs: Mapping[str, RunRecord], digests: Mapping[str, str], data: Mapping[str, str], program: str, version: str
) -> dict[str, Any]:
    """The RO-Crate of a package: `runs` by folder, `digests` by file, files that describe `data` by content hash."""
    from rocrate.model.contextentity import ContextEntity
    from rocrate.rocrate import ROCrate

    made = ROCrate(version="1.1")
    made.metadata.extra_terms["sha256"] = "https://w3id.org/ro/terms/workflow-run#sha256"
    made.name, made.license = f"Evidence: {len(runs)} runs of {program}", LICENCE
    made.description = "Trained models with what decided their numbers, a report on them, and digests"
    made.root_dataset["datePublished"] = max(_ended(run) for run in runs.values())
    profile = {"@type": "CreativeWork", "name": "Process Run Crate", "version": PROFILE.rpartition("/")[2]}
    made.root_dataset["conformsTo"] = made.add(ContextEntity(made, PROFILE, properties=profile))
    about = {"@type": "SoftwareApplication", "name": program, "softwareVersion": version}
    instrument = made.add(ContextEntity(made, f"#{program}", properties=about))
    files = {}
    for path, digest in digests.items():
        kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
        files[path] = made.add_file(dest_path=path, properties={"encodingFormat": kind, "sha256": digest})
    for path, run in runs.items():
        title = f"{run.model} on {run.dataset.name}, seed {run.seed}"
        folder = made.add_dataset(dest_path=f"{path}/", properties={"name": title})
        folder["hasPart"] = [file for name, file in files.items() if name.startswith(f"{path}/")]
        status = {"@id": f"http://schema.org/{'Completed' if run.finished else 'Failed'}ActionStatus"}
        properties = {"name": title, "description": run.command, "endTime": _ended(run), "actionStatus": status}
        properties |= {"startTime": run.started} if run.started else {}
        properties |= {"error": run.failure.message} if run.failure else {}
        action = made.add_action(instrument, f"#{path}", [files[data[run.dataset_hash]]], [folder], properties)
        made.root_dataset.append_to("mentions", action)
    described: dict[str, Any] = made.metadata.generate()
    return described


def croissant(dataset: DatasetRecord, content_hash: str) -> dict[str, Any]:
    """A data set as runs on it recorded it: what it holds and its content hash, without its files."""
    parts = [{"name": name, "interactions": count} for name, count in dataset.interactions.items()]
    tables = [
        {"name": name, "dimensions": shape[1], "type": shape[2], "surrogate": name in dataset.surrogates}
        for name, shape in dataset.modalities.items()
    ]
    terms = {term: f"cr:{term}" for term in ("field", "recordSet", "isLiveDataset")}
    typed = {"data": {"@id": "cr:data", "@type": "@json"}, "dataType": {"@id": "cr:dataType", "@type": "@vocab"}}
    names = {"@vocab": "https://schema.org/", "sc": "https://schema.org/", "cr": "http://mlcommons.org/croissant/"}
    return {
        "@context": {"@language": "en", **names, "conformsTo": "http://purl.org/dc/terms/conformsTo", **terms, **typed},
        "@type": "sc:Dataset",
        "conformsTo": CROISSANT,
        "name": dataset.name,
        "description": f"Interactions of {dataset.users:,} users with {dataset.items:,} items.",
        "identifier": f"sha256:{content_hash}",
        "license": DATA_LICENCE,
        "recordSet": [_records(name, rows) for name, rows in (("parts", parts), ("modalities", tables)) if rows],
    }


def _records(name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    kinds = {str: "sc:Text", int: "sc:Integer", bool: "sc:Boolean"}
    fields = [
        {"@type": "cr:Field", "@id": f"{name}/{key}", "name": key, "dataType": kinds[type(value)]}
        for key, value in rows[0].items()
    ]
    data = [{f"{name}/{key}": value for key, value in row.items()} for row in rows]
    return {"@type": "cr:RecordSet", "@id": name, "name": name, "field": fields, "data": data}


def _ended(run: RunRecord) -> str:
    return run.result.finished if run.result else run.failure.when if run.failure else ""
