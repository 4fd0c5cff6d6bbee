"""Another revision's files come without a trace in the repository, and with its own packages only where they differ."""

import subprocess
import sys
from pathlib import Path

import pytest

from bm3 import ConfigError
from harness.tools.regress import revision
from harness.tools.regress.alternation import MeasuringError
from harness.tools.regress.revision import environment_of, revision_of, tree_of


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two revisions: `old`, and the present one, whose harness has another text."""
    folder = tmp_path / "checkout"
    (folder / "harness").mkdir(parents=True)
    (folder / "pyproject.toml").write_text("[project]\n")
    (folder / "constraints.txt").write_text("numpy==2.0\n")
    git(folder, "init", "--quiet")
    for text in ("old", "new"):
        (folder / "harness" / "__init__.py").write_text(f'"""{text}"""\n')
        git(folder, "add", ".")
        git(folder, "commit", "--quiet", "-m", text)
        git(folder, "tag", text)
    return folder


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, "-C", str(folder), *arguments], check=True, capture_output=True)


def test_the_tree_has_the_files_of_the_revision_and_is_gone_afterwards(repository: Path) -> None:
    (repository / "harness" / "__init__.py").write_text("uncommitted\n")
    with tree_of(repository, "old") as tree:
        assert (tree.folder / "harness" / "__init__.py").read_text() == '"""old"""\n'
        assert not (tree.folder / ".git").exists()
        assert tree.python == Path(sys.executable)
    assert not tree.folder.exists()


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("pyproject.toml", "[project]\ndependencies = ['numpy==1.26']\n"),
        ("pyproject.toml", "[project.optional-dependencies]\nfast = ['numba']\n"),
        ("constraints.txt", "numpy==1.26\n"),
    ],
)
def test_other_dependencies_get_an_environment_of_their_own(
    repository: Path, file: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revision, "environment_of", lambda folder, target: target / "python")
    (repository / file).write_text(text)
    said: list[str] = []
    with tree_of(repository, "old", said.append) as tree:
        assert tree.python.name == "python"
        assert tree.python != Path(sys.executable)
    assert said


def test_what_is_no_dependency_changes_no_environment(repository: Path) -> None:
    (repository / "pyproject.toml").write_text("[project]\nversion = '2'\n[tool.ruff]\nline-length = 100\n")
    (repository / "constraints.txt").write_text("# a remark\nnumpy==2.0\n")
    with tree_of(repository, "old") as tree:
        assert tree.python == Path(sys.executable)


def test_a_folder_below_the_checkout_of_something_else_is_refused(repository: Path) -> None:
    with pytest.raises(ConfigError, match="no git checkout"):
        revision_of(repository / "harness", "old")


def test_dependencies_that_cannot_be_installed_are_said_in_one_line(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(MeasuringError, match="cannot be installed") as refusal:
        environment_of(repository, tmp_path / "environment")
    assert len(str(refusal.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["nothing", "--help", "", "old:harness"])
def test_what_is_no_commit_is_refused(repository: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="--against"):
        revision_of(repository, name)


def test_a_folder_that_is_no_checkout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no git checkout"):
        revision_of(tmp_path, "HEAD")


def test_a_revision_without_the_packages_is_refused(repository: Path) -> None:
    git(repository, "rm", "--quiet", "-r", "harness")
    git(repository, "commit", "--quiet", "-m", "none")
    with pytest.raises(ConfigError, match="no package harness"), tree_of(repository, "HEAD"):
        pass
