"""`bm3` without the harness: its imports, its size, and the ten lines of the README."""

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from command_line import GIVE_UP_AFTER

import bm3

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
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_HARNESS], capture_output=True, text=True, timeout=GIVE_UP_AFTER
    )
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


def test_the_ten_lines_of_the_documentation_learn_the_checkerboard() -> None:
    page = (PACKAGE.parent / "docs" / "reference" / "bm3.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(import numpy.*?)```", page, re.DOTALL)
    lines = [line for line in example.splitlines() if not line.startswith(("import ", "from ", "users, items"))]
    assert len(lines) <= 10
    names: dict[str, Any] = {}
    exec(example, names)
    scores = (names["users"] @ names["items"].T).detach()
    n_users, n_items = scores.shape
    own = (torch.arange(n_users)[:, None] - torch.arange(n_items)[None, :]) % 2 == 0
    for user in range(n_users):
        assert scores[user][own[user]].mean() > scores[user][~own[user]].mean()
    assert scores[own].mean() > scores[~own].mean()


def test_it_stays_a_file_that_one_reads() -> None:
    assert sum(len(file.read_text(encoding="utf-8").splitlines()) for file in PACKAGE.rglob("*.py")) <= 400
