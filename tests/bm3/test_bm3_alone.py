"""`bm3` without the harness: its imports, and the ten lines of its docstring."""

import ast
import doctest
import subprocess
import sys
from pathlib import Path

import torch

import bm3
import bm3.model

PACKAGE = Path(bm3.__file__).parent

WITHOUT_HARNESS = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "harness":
            raise ImportError("the harness is blocked")

sys.meta_path.insert(0, Block())
import numpy as np, torch
from bm3 import BM3, BM3Config, Batch, Data

data = Data(2, 3, np.array([(0, 0), (1, 2)]), {"visual": np.eye(3)})
model = BM3(data, BM3Config(embedding_size=4), torch.Generator().manual_seed(0))
model.loss(Batch(torch.tensor([0]), torch.tensor([0]))).total.backward()
assert not [name for name in sys.modules if name.partition(".")[0] == "harness"]
print(model.user_embedding.grad.shape)
"""


def test_the_package_works_where_the_harness_cannot_be_imported() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_HARNESS], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "torch.Size([2, 4])"


def test_the_package_imports_torch_numpy_and_scipy_and_nothing_else() -> None:
    imported = set()
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{file.name} imports relatively"
                imported.add(str(node.module).partition(".")[0])
    assert imported - set(sys.stdlib_module_names) == {"bm3", "torch", "numpy", "scipy"}


def test_every_exported_name_exists() -> None:
    assert all(hasattr(bm3, name) for name in bm3.__all__)


def test_the_docstrings_ten_lines_learn_the_checkerboard() -> None:
    (example,) = [found for found in doctest.DocTestFinder().find(bm3.model) if found.examples]
    assert example.name == "bm3.model.BM3"
    lines = [line for step in example.examples for line in step.source.splitlines()]
    assert len([line for line in lines if not line.startswith("users, items")]) <= 10
    results = doctest.DocTestRunner().run(example, clear_globs=False)
    assert results.attempted == len(example.examples)
    assert results.failed == 0
    scores = (example.globs["users"] @ example.globs["items"].T).detach()
    n_users, n_items = scores.shape
    own = (torch.arange(n_users)[:, None] - torch.arange(n_items)[None, :]) % 2 == 0
    for user in range(n_users):
        assert scores[user][own[user]].mean() > scores[user][~own[user]].mean()
    assert scores[own].mean() > scores[~own].mean()
