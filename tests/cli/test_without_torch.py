"""What only reads stored data imports neither torch nor what only drawing and testing need."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "matplotlib", "scipy.stats")
BEGIN = "from pathlib import Path; store = Path('docs/results/runs/cost'); "
READERS = {
    "errors": "from bm3 import BM3Error, ConfigError, DataError",
    "list": "from harness.runs.inspect import entries; from harness.runs.text import list_text; "
    "list_text(list(entries(store)), 0)",
    "show and diff": "from harness.runs.store import stored_runs; from harness.runs.text import *; "
    "from harness.runs.difference import difference; one, other, *_ = stored_runs(store); "
    "run_text(one, 'x'); difference_text(difference(one, other), 'x', 'y')",
    "verify": "from harness.runs.store import run_folders; from harness.runs.verify import verify; "
    "assert not any(verify(path, 'x').problems for path in run_folders(store))",
    "gc": "from harness.runs.clean import unneeded; unneeded(store, ['unfinished'])",
    "expected": "from harness.paper.load import load_paper; load_paper().claims",
    "tables": "import harness.report.paper_tables, harness.report.latex",
    "watch": "import harness.cli.study_progress, harness.studies.status",
    "suites": "from harness.studies.suite import load_suite, outline; "
    "from harness.paper.load import load_paper; "
    "assert all(outline(load_suite(name, check=False), variants=False) for name in load_paper().suites)",
    "report": "from harness.paper.study import make_study; from harness.report.write import made; "
    "study = make_study(store, 'x'); [made(study, form) for form in ('md', 'csv', 'json', 'tex')]",
}


@pytest.mark.parametrize("name", READERS)
def test_what_only_reads_imports_nothing_heavy(name: str) -> None:
    # A report compares models over users, which is a test of scipy's.
    heavy = HEAVY[:2] if name == "report" else HEAVY
    code = f"{BEGIN}{READERS[name]}\nimport sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")
