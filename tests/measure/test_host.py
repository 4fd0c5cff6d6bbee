"""What control groups and the scheduler leave to a process."""

from pathlib import Path

import pytest

from harness.measure.host import Limits, container_limits, usable_cores


@pytest.mark.parametrize(
    ("membership", "files", "limits"),
    [
        ("0::/a/b\n", {"a/b/cpu.max": "150000 100000", "a/memory.max": "2000"}, Limits(1.5, 2000)),
        ("0::/a/b\n", {"a/b/cpu.max": "400000 100000", "a/cpu.max": "200000 100000"}, Limits(2.0, None)),
        ("0::/a\n", {"a/cpu.max": "max 100000", "a/memory.max": "max"}, Limits(None, None)),
        ("0::/of/the/host\n", {"cpu.max": "50000 100000"}, Limits(0.5, None)),
        ("nonsense\n", {}, Limits(None, None)),
    ],
)
def test_the_narrowest_limit_of_a_container_counts(
    membership: str, files: dict[str, str], limits: Limits, tmp_path: Path
) -> None:
    for name, content in files.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(content + "\n")
    (tmp_path / "membership").write_text(membership)
    assert container_limits(tmp_path / "groups", tmp_path / "membership") == limits
    assert container_limits(tmp_path / "groups", tmp_path / "nowhere") == Limits()


def test_usable_cores_are_those_allowed_and_at_least_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 2, 4, 6}, raising=False)
    assert usable_cores(Limits()) == 4
    assert usable_cores(Limits(cores=2.5)) == 3
    assert usable_cores(Limits(cores=0.2)) == 1
    assert usable_cores(Limits(cores=64)) == 4
