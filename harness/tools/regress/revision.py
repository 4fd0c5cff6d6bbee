"""Another revision of this checkout as a source tree that can be measured. Nothing is written into the repository."""

import io
import os
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from bm3 import ConfigError
from harness.tools.regress.alternation import MeasuringError, Tree


def revision_of(checkout: Path, name: str) -> str:
    """The commit that `name` stands for. Raises ConfigError when there is none, or no git checkout."""
    try:
        top = Path(_git(checkout, "rev-parse", "--show-toplevel").decode().strip())
        if top.resolve() != checkout.resolve():  # installed somewhere below the checkout of something else
            raise ConfigError(f"--against: {checkout} is no git checkout; install the project from one with pip -e")
        verified = _git(checkout, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
        return verified.decode().strip()
    except FileNotFoundError as error:
        raise ConfigError("--against: needs git, which is not installed") from error
    except subprocess.CalledProcessError as error:
        raise ConfigError(
            f"--against {name}: no such revision in {checkout.name or 'this folder'}, or it is no git checkout"
        ) from error


@contextmanager
def tree_of(checkout: Path, name: str, tell: Callable[[str], None] = lambda stage: None) -> Iterator[Tree]:
    """The files of a revision in a temporary folder, as `git archive` gives them.

    A worktree would be listed in the repository and left there when this process is killed. Where a revision has other
    dependencies than are named here, it gets an environment of its own, which takes minutes and the network. Raises
    ConfigError for an unknown revision, MeasuringError when the environment cannot be made.
    """
    commit = revision_of(checkout, name)
    with TemporaryDirectory(prefix="bm3-against-") as temporary:
        folder = Path(temporary) / "tree"
        with zipfile.ZipFile(io.BytesIO(_git(checkout, "archive", "--format=zip", commit))) as archive:
            archive.extractall(folder)
        if not (folder / "harness").is_dir():
            raise ConfigError(f"--against {name}: {commit[:12]} has no package harness")
        if same_dependencies(checkout, folder):
            yield Tree(name, folder)
        else:
            tell(f"installing the dependencies of {name}, which differ")
            yield Tree(name, folder, environment_of(folder, Path(temporary) / "environment"))


def same_dependencies(checkout: Path, folder: Path) -> bool:
    """Whether both ask for the same packages in the same versions; then the packages that are installed here serve."""
    return _dependencies(checkout) == _dependencies(folder)


def environment_of(folder: Path, target: Path) -> Path:
    """The Python of a new environment with the tree's dependencies. Raises MeasuringError."""
    python = target / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    constraints = ["-c", str(folder / "constraints.txt")] if (folder / "constraints.txt").is_file() else []
    for command in (
        [sys.executable, "-m", "venv", str(target)],
        [str(python), "-m", "pip", "install", "--quiet", *constraints, f"{folder}[fast]"],
        # Of the tree only its dependencies are wanted: the packages come from the folder itself.
        [str(python), "-m", "pip", "uninstall", "--quiet", "--yes", "bm3-harness"],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise MeasuringError(f"the dependencies of the other revision cannot be installed ({last[:200]})")
    return python


def _dependencies(folder: Path) -> tuple[list[str], list[str]]:
    """Those of the project with the extra that `environment_of` installs, and the constraints."""
    try:
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        asked = [*project.get("dependencies", ()), *project.get("optional-dependencies", {}).get("fast", ())]
        file = folder / "constraints.txt"
        constraints = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{folder}: its dependencies cannot be read ({error})") from error
    return sorted(asked), sorted(line for line in constraints if line and not line.startswith("#"))


def _git(checkout: Path, *arguments: str) -> bytes:
    misleading = {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"}  # as a git hook sets them
    environment = {name: value for name, value in os.environ.items() if name not in misleading}
    command = ["git", "--no-optional-locks", "-C", str(checkout), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, check=True).stdout
