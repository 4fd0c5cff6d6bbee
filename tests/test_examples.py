"""The example of a model of one's own, installed as a package, takes part in everything."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import GIVE_UP_AFTER

EXAMPLE = Path(__file__).parent.parent / "examples" / "contentbpr"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip installed the example, to be put on the path."""
    target = tmp_path_factory.mktemp("site")
    offline = ["--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", "--quiet", *offline, "--target", str(target), str(EXAMPLE)]
    subprocess.run(command, check=True, timeout=GIVE_UP_AFTER)
    return target


def bm3(*arguments: str, path: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "harness", *arguments]
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=GIVE_UP_AFTER, check=False
    )


def test_it_has_at_most_forty_lines() -> None:
    assert len((EXAMPLE / "contentbpr.py").read_text(encoding="utf-8").splitlines()) <= 40


def test_it_trains_by_name_and_its_settings_are_checked(installed: Path, tmp_path: Path) -> None:
    done = bm3("train", "contentbpr", "mini", "--epochs", "5", path=installed, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    (result,) = tmp_path.rglob("result.json")
    assert json.loads(result.read_text(encoding="utf-8"))["test"]["recall@20"] > 0
    wrong = bm3("train", "contentbpr", "mini", "--set", "embeding_size=8", path=installed, cwd=tmp_path)
    assert wrong.returncode == 2
    assert "embedding_size" in wrong.stderr


def test_a_suite_and_its_report_name_it(installed: Path, tmp_path: Path) -> None:
    suite = 'title = "x"\ndatasets = ["mini"]\nseeds = [1, 2]\ntraining = { epochs = 2 }\n'
    suite += '[[experiments]]\nmodel = "contentbpr"\ngrid = { embedding_size = [8, 16] }\n'
    (tmp_path / "own.toml").write_text(suite, encoding="utf-8")
    done = bm3("reproduce", "own.toml", path=installed, cwd=tmp_path)
    assert done.returncode == 0, done.stderr  # nothing is published for it, and it was measured
    report = (tmp_path / "runs" / "own" / "report.md").read_text(encoding="utf-8")
    assert "**contentbpr on mini: R@20 " in report


def test_conformance_replays_the_traces_it_brings(installed: Path, tmp_path: Path) -> None:
    """A recorded loss that is wrong on purpose: so the trace was found, replayed, and found wanting."""
    recording = """
import json, sys, numpy as np, torch
from contentbpr import ContentBPR
from bm3 import Batch, Data
draw = np.random.default_rng(0)
train = np.array([(u, i) for u in range(9) for i in range(8) if (u + i) % 3])
features = {"visual": draw.normal(size=(8, 4)).astype("float32")}
model = ContentBPR(Data(9, 8, train, features), ContentBPR.Config(), torch.Generator().manual_seed(0))
init = {f"init/{n}": p.detach().numpy().copy() for n, p in model.named_parameters()}
ids = torch.from_numpy(train[:12]).T
loss = model.loss(Batch(ids[0], ids[1], ids[1].flip(0))).total
loss.backward()
grad = {f"grad0/{n}": p.grad.numpy().copy() for n, p in model.named_parameters()}
torch.optim.Adam(model.parameters(), lr=1e-3).step()
final = {f"final/{n}": p.detach().numpy().copy() for n, p in model.named_parameters()}
users, items = model.embed()
meta = {"model": "ContentBPR", "n_users": 9, "n_items": 8, "learning_rate": 1e-3, "steps": 1}
batch = {"batch0/users": ids[0].numpy(), "batch0/items": ids[1].numpy(), "batch0/negatives": ids[1].flip(0).numpy()}
parts = {f"interactions/{part}": train[:5] if part != "train" else train for part in ("train", "valid", "test")}
np.savez(sys.argv[1], meta=json.dumps(meta), loss=np.array([loss.item() + float(sys.argv[2])]),
         scores=(users @ items.T).detach().numpy(), **init, **grad, **final, **batch, **parts,
         **{f"features/{n}": t for n, t in features.items()})
"""
    (tmp_path / "record.py").write_text(recording, encoding="utf-8")
    package = tmp_path / "site"
    package.mkdir()
    for path in installed.iterdir():
        (package / path.name).symlink_to(path)
    (package / "contentbpr.py").unlink()
    source = (EXAMPLE / "contentbpr.py").read_text(encoding="utf-8")
    brings = f"\nfrom pathlib import Path\nTRACES = Path({str(tmp_path / 'traces')!r})\n"
    (package / "contentbpr.py").write_text(source + brings, encoding="utf-8")
    (tmp_path / "traces").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(package)}
    for name, error in (("right", "0"), ("wrong", "0.1")):
        command = [sys.executable, "record.py", f"traces/{name}.npz", error]
        subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=GIVE_UP_AFTER)
    done = bm3("conformance", path=package, cwd=tmp_path)
    assert done.returncode == 1
    assert "12 passed, 1 failed, 0 unsupported" in done.stdout
