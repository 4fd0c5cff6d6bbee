"""All checks of a data set in one list. They are in `verify`, `verify_features` and `verify_order`."""

from collections.abc import Iterable

from harness.data.dataset import Dataset
from harness.ingest.verify import Finding, check_hash, check_overlap, check_split, check_statistics, check_training
from harness.ingest.verify_features import check_features
from harness.ingest.verify_order import check_order
from harness.paper.expected import PublishedValue


def verify(dataset: Dataset, values: Iterable[PublishedValue], recorded: str | None) -> list[Finding]:
    """Every finding on `dataset`; `values` are the figures of `expected`, `recorded` the hash beside the data.

    The published split rule must hold of data sets with a published name, and is worth a note elsewhere.
    """
    values = list(values)
    published = {value.dataset.lower() for value in values if not value.model}
    findings = check_statistics(dataset, values)
    findings += check_split(dataset, as_published=dataset.name.lower() in published)
    findings += check_overlap(dataset) + check_training(dataset)
    for modality in dataset.features:
        content = check_features(dataset, modality)
        findings += content
        if all(finding.severity != "problem" for finding in content):  # order means nothing in a table without content
            findings += check_order(dataset, modality)
    return findings + check_hash(dataset, recorded)
