"""The commands of this project: tests, checks and the reproduction. tox, CI and CONTRIBUTING call or repeat these.

What follows `--` on nox's command line goes to the tool of the session, as each session's first line says.
"""

from pathlib import Path

import nox

nox.needs_version = ">=2024.4.15"
nox.options.sessions = ["tests", "lint", "types"]
nox.options.reuse_venv = "yes"

CI_FILES = {
    "vendor.github-workflows": sorted(str(path) for path in Path(".github/workflows").glob("*.yml")),
    "vendor.gitlab-ci": ["ci-examples/gitlab-ci.yml"],
    "vendor.citation-file-format": ["CITATION.cff"],
}
"""By schema, of those that come with check-jsonschema."""
CUDA = "13.0"
"""What the tested build of torch on PyPI, which constraints.txt names, is made for."""
VALIDATORS = ("roc-validator==0.13.0", "mlcroissant==1.1.1")
SIDE_BY_SIDE = ("-n", "2", "--dist", "worksteal")
ONE_THREAD = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
"""Of torch and compiled loops in each process: more would wait for one another."""
EXTRAS = nox.project.load_toml("pyproject.toml")["project"]["optional-dependencies"]


def install(session: nox.Session, *requirements: str) -> None:
    """Install in the tested versions."""
    session.install("-c", "constraints.txt", *requirements)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests in two processes; after `--`: pytest's arguments, such as a file, -k NAME or -n 0 (one process)."""
    install(session, "-e", ".[test]")
    session.run("pytest", *SIDE_BY_SIDE, *session.posargs, env=ONE_THREAD)


@nox.session
def lint(session: nox.Session) -> None:
    """Check format and style with ruff, which room imports which, CI files; takes nothing after `--`."""
    install(session, *EXTRAS["lint"])  # without the project: these tools need none of its dependencies
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    session.run("lint-imports")
    for schema, files in CI_FILES.items():
        session.run("check-jsonschema", "--builtin-schema", schema, *files)


@nox.session
def types(session: nox.Session) -> None:
    """Check types with mypy, strictly; after `--`: mypy's arguments."""
    install(session, "-e", ".[types]")
    session.run("mypy", *session.posargs)


@nox.session
def properties(session: nox.Session) -> None:
    """Run the property tests on many more examples than `tests` does; after `--`: pytest's arguments."""
    install(session, "-e", ".[test,pack]")
    session.run("pytest", "tests/properties", "--hypothesis-profile=thorough", *session.posargs)


@nox.session
def mutants(session: nox.Session) -> None:
    """Plant small faults and have the tests find them; after `--`: modules, --each N (docs/mutants.md)."""
    install(session, "-e", ".[test]")
    session.run("python", "tests/mutants/run.py", *session.posargs, env=ONE_THREAD)


@nox.session
def browser(session: nox.Session) -> None:
    """Open the HTML report in headless Chromium, which must be installed; after `--`: pytest's arguments."""
    install(session, "-e", ".[test,browser]")
    session.run("pytest", "tests/browser", *session.posargs)


@nox.session
def gpu(session: nox.Session) -> None:
    """Require a GPU and the tested build of torch, then run the tests that need it; after `--`: pytest's arguments.

    A test that is skipped fails.
    """
    install(session, "-e", ".[test]")
    session.run("bm3", "doctor", "--require", f"cuda={CUDA}")
    session.run("pytest", "-m", "gpu", "--no-skip", *session.posargs)


@nox.session
def cluster(session: nox.Session) -> None:
    """Run trials on a Ray cluster of this machine and compare them to the bit; after `--`: pytest's arguments."""
    install(session, "-e", ".[test,ray]")
    session.run("pytest", "tests/studies/test_execution.py", "-k", "ray or cluster", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into site/, check its links and run its commands; after `--`: pytest's arguments."""
    install(session, "-e", ".[test,docs]")
    session.run("mkdocs", "build", "--strict", env={"NO_MKDOCS_2_WARNING": "1"})
    session.run("pytest", "tests/test_documented_commands.py", "-m", "documentation", *session.posargs)


@nox.session
def notebook(session: nox.Session) -> None:
    """Execute the notebook, from installation to a picture of own data; takes nothing after `--`."""
    install(session, "-e", ".[notebook]", "nbclient", "ipykernel")
    copy = Path(session.create_tmp()) / "own_data.ipynb"
    copy.write_bytes(Path("examples/own_data.ipynb").read_bytes())  # it is executed where it lies
    session.run("jupyter", "execute", "--inplace", f"{copy}")


@nox.session
def crate(session: nox.Session) -> None:
    """Test packages of evidence and have other programs validate them, offline; after `--`: pytest's arguments.

    A test that is skipped fails.
    """
    install(session, "-e", ".[test,pack]")
    session.install(*VALIDATORS)  # an older rich and what else they ask for, so not by constraints.txt
    session.run("pytest", "tests/tools/test_pack.py", "--no-skip", *session.posargs)


@nox.session
def results(session: nox.Session) -> None:
    """Make every report and bound page in docs/results anew from the runs stored there; takes nothing after `--`."""
    install(session, "-e", ".")
    for runs in sorted(path for path in Path("docs/results/runs").iterdir() if path.is_dir()):
        # A report's exit code is its verdict, which may be "outside its band" (1) or "nothing judged" (3).
        formats, target = "md,html,tex,csv,json", Path("docs/results") / runs.name
        session.run("bm3", "report", f"{runs}", "--format", formats, "--out", f"{target}", success_codes=[0, 1, 3])
    session.run("bm3", "results", "write")


@nox.session
def bench(session: nox.Session) -> None:
    """Measure steps and evaluation against textbook ones, a quarter of an hour; after `--`: pytest's arguments."""
    install(session, "-e", ".[test]")
    session.run("pytest", "tests/benchmarks", "--benchmark-only", "-s", *session.posargs)


@nox.session
def regression(session: nox.Session) -> None:
    """Check for regressions against a baseline of this machine; after `--`: arguments of bm3 regress."""
    install(session, "-e", ".[fast]")
    session.run("bm3", "regress", *session.posargs)


@nox.session
def reproduce(session: nox.Session) -> None:
    """Write the report of what reproduces here; after `--`: arguments of bm3 reproduce, such as baby --data DIR.

    Fails unless everything asked for was measured and held: also when nothing could be measured (exit code 3).
    """
    install(session, "-e", ".")  # editable, so that runs know the source revision
    session.run("bm3", "reproduce", *session.posargs)
