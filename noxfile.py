"""The commands of this project: tests, checks and the reproduction. tox, CI and CONTRIBUTING call or repeat these.

What follows `--` on nox's command line goes to the tool of the session, as each session's first line says.
"""

import nox

nox.needs_version = ">=2024.4.15"
nox.options.sessions = ["tests", "lint", "types"]
nox.options.reuse_venv = "yes"

EXTRAS = nox.project.load_toml("pyproject.toml")["project"]["optional-dependencies"]


def install(session: nox.Session, *requirements: str) -> None:
    """Install in the tested versions."""
    session.install("-c", "constraints.txt", *requirements)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests; after `--`: pytest's arguments, such as a file or -k NAME."""
    install(session, "-e", ".[test]")
    session.run("pytest", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check format and style with ruff; takes nothing after `--`."""
    install(session, *EXTRAS["lint"])  # without the project: ruff needs none of its dependencies
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check types with mypy, strictly; after `--`: mypy's arguments."""
    install(session, "-e", ".[types]")
    session.run("mypy", *session.posargs)


@nox.session
def properties(session: nox.Session) -> None:
    """Run the property tests on many more examples than `tests` does; after `--`: pytest's arguments."""
    install(session, "-e", ".[test]")
    session.run("pytest", "tests/properties", "--hypothesis-profile=thorough", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure steps and evaluation against textbook ones, a quarter of an hour; after `--`: pytest's arguments."""
    install(session, "-e", ".[test]")
    session.run("pytest", "tests/benchmarks", "--benchmark-only", "-s", *session.posargs)


@nox.session
def reproduce(session: nox.Session) -> None:
    """Write the report of what reproduces here; after `--`: arguments of bm3 reproduce, such as baby --data DIR.

    Fails unless everything asked for was measured and held: also when nothing could be measured (exit code 3).
    """
    install(session, "-e", ".")  # editable, so that runs know the source revision
    session.run("bm3", "reproduce", *session.posargs)
