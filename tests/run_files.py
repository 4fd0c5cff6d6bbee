"""The least that the files of a run hold, for tests that write them by hand."""

from typing import Any

from harness.runs.records import METRICS

DATA = {"name": "mini", "users": 9, "items": 699, "interactions": {}, "modalities": {}, "surrogates": []}
DESCRIPTION: dict[str, Any] = {
    "model": "bpr",
    "config": {},
    "training": {"epochs": 1},
    "dataset": DATA,
    "dataset_hash": "abc",
    "seed": 1,
    "searched": [],
    "reads_features": False,
    "command": "bm3 train bpr mini",
    "environment": {},
}
READINGS = ("gpu_process_peak", "gpu_device_peak", "allocator_peak", "allocator_reserved_peak", "process_rss_peak")
RESULT: dict[str, Any] = {
    "finished": "2026-01-01T00:00:00+00:00",
    "best_epoch": 1,
    "epochs": 1,
    "valid": dict.fromkeys(METRICS, 0.5),
    "test": dict.fromkeys(METRICS, 0.5),
    "timing": dict.fromkeys(("median_s", "q1_s", "q3_s", "warmup_s", "evaluation_median_s", "note")),
    "memory": {name: {"bytes": None, "note": "not measured"} for name in READINGS},
}
EPOCH: dict[str, Any] = {
    "epoch": 1,
    "loss": 1.0,
    "parts": {},
    "seconds": 1.0,
    "evaluation_seconds": 1.0,
    "valid": dict.fromkeys(METRICS, 0.5),
    "improved": True,
}
