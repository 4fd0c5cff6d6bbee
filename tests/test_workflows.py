"""What CI may do: no stranger's program on a machine of ours, pinned actions, few permissions; no test left out."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
FROM_OUTSIDE = {"pull_request", "pull_request_target", "issue_comment", "issues", "workflow_run", "fork", "watch"}
"""Events that somebody without write access can make happen."""
HOSTED = re.compile(r"ubuntu-(latest|\d\d\.\d\d)")

pytest_plugins = ["pytester"]


def own_machines(workflow: dict[Any, Any]) -> list[dict[str, Any]]:
    """The jobs that do not run on a hosted runner, however they name another."""
    return [job for job in workflow["jobs"].values() if not HOSTED.fullmatch(str(job.get("runs-on")))]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_gives_strangers_nothing(path: Path) -> None:
    text = path.read_text()
    workflow = yaml.safe_load(text)
    events = workflow[True]  # YAML 1.1 reads the key `on` as true
    assert workflow["permissions"] == {"contents": "read"}
    assert all("permissions" not in job for job in workflow["jobs"].values())
    assert "secrets." not in text
    assert not own_machines(workflow) or not FROM_OUTSIDE & set(events)
    for job in own_machines(workflow):
        assert "gpu" in job["environment"]  # whose reviewers and branches the owner sets
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    for step in (step for step in steps if "uses" in step):
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", step["uses"]), step["uses"]
        assert step["with"].get("persist-credentials") is False or "checkout" not in step["uses"]
        assert "retention-days" in step["with"] or "upload-artifact" not in step["uses"]


def test_the_gpu_runner_asks_for_its_gpu_first_and_keeps_what_it_ran() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/gpu.yml").read_text())["jobs"]
    runs = [
        step["run"] for step in jobs["guard"]["steps"] if "nox " in step.get("run", "") and "pip" not in step["run"]
    ]
    assert runs[0].endswith("-s gpu")
    assert all("--envdir" in line for run in runs for line in run.splitlines() if line.startswith("nox"))
    kept = {step["with"]["path"] for step in jobs["table4"]["steps"] if "upload" in step.get("uses", "")}
    assert kept == {"runs"}


def test_gitlab_runs_nothing_of_a_merge_request_on_the_gpu() -> None:
    jobs = yaml.safe_load((ROOT / "ci-examples/gitlab-ci.yml").read_text())
    on_gpu = [job for job in jobs.values() if isinstance(job, dict) and job.get("extends") == ".gpu"]
    assert sum("tags" in job for job in jobs.values() if isinstance(job, dict)) == 1  # .gpu, which the jobs extend
    assert len(on_gpu) == 2
    for rule in (rule["if"] for job in on_gpu for rule in job["rules"]):
        assert re.fullmatch(
            r'\$CI_PIPELINE_SOURCE == "(push|schedule)" && \$CI_COMMIT_BRANCH == \$CI_DEFAULT_BRANCH', rule
        )


@pytest.mark.parametrize(("options", "outcome"), [((), {"skipped": 1}), (("--no-skip",), {"failed": 1})])
def test_a_skipped_test_fails_where_nothing_may_be_left_out(
    pytester: pytest.Pytester, options: tuple[str, ...], outcome: dict[str, int]
) -> None:
    pytester.makeconftest((ROOT / "tests/conftest.py").read_text())
    pytester.makepyfile("import pytest\n\ndef test_x():\n    pytest.skip('no card')")
    pytester.runpytest(*options).assert_outcomes(**outcome)
