"""Adam is torch's fused one to the bit, without what torch's brings in; a training reads no features for nothing."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from bm3 import ConfigError
from harness.data.dataset import in_memory
from harness.models.bpr import BPR, BPRConfig
from harness.models.vbpr import VBPR, VBPRConfig
from harness.runs.trial import dataset_for
from harness.training.fit import build
from harness.training.optimiser import BETAS, EPSILON, Adam
from harness.training.streams import Streams

CPU = torch.device("cpu")


def test_adam_is_that_of_torch_to_the_bit_also_without_a_gradient_and_with_weight_decay() -> None:
    draw = torch.Generator().manual_seed(1)
    ours = [torch.nn.Parameter(torch.randn(5, 7, generator=draw)) for _ in range(3)]
    ours.append(torch.nn.Parameter(torch.randn(4, generator=draw).double()))
    theirs = [torch.nn.Parameter(parameter.detach().clone()) for parameter in ours]
    optimisers = [
        kind([{"params": iter(p[:2])}, {"params": p[2:], "weight_decay": 0.1}], 1e-3, **more)
        for kind, p, more in (
            (Adam, ours, {}),
            (torch.optim.Adam, theirs, {"betas": BETAS, "eps": EPSILON, "fused": True}),
        )
    ]
    for step in range(5):
        for number, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
            gradient = None if (step, number) == (2, 1) else torch.randn(mine.shape, generator=draw).to(mine)
            mine.grad, other.grad = gradient, None if gradient is None else gradient.clone()
        for optimiser in optimisers:
            optimiser.step()
    assert all(torch.equal(mine, other) for mine, other in zip(ours, theirs, strict=True))


def test_adam_refuses_options_that_it_would_ignore() -> None:
    with pytest.raises(ConfigError, match="no amsgrad"):
        Adam([{"params": [torch.nn.Parameter(torch.ones(1))], "amsgrad": True}], 1e-3)


@pytest.mark.parametrize("model", ["bm3", "lattice", "vbpr"])
def test_a_training_loads_no_compiler(tmp_path: Path, model: str) -> None:
    """Neither torch's nor numba, whose loops move large trained tables of which rows are read: `mini` has none. Nor
    sympy, by which torch knows shapes that are no numbers."""
    arguments = ["train", model, "mini", "--epochs", "1", "--device", "cpu", "--out", str(tmp_path)]
    code = "import atexit, sys; from harness.cli.main import main; "
    code += "heavy = {'torch._dynamo', 'torch._inductor', 'numba', 'sympy'}; "
    code += "atexit.register(lambda: print(sorted(heavy & {*sys.modules})))"
    ran = subprocess.run([sys.executable, "-c", f"{code}; main()", *arguments], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == "[]"


def test_features_stay_in_their_file_until_a_model_reads_them(tmp_path: Path) -> None:
    pairs = {part: np.array([[u, (u + k) % 3] for u in range(3)]) for k, part in enumerate(("train", "valid", "test"))}
    np.savez(tmp_path / "interactions.npz", **pairs)
    given = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.save(tmp_path / "visual_feat.npy", given)
    np.save(tmp_path / "text_feat.npy", given.astype(np.float64))
    dataset = dataset_for({}, str(tmp_path), None)
    assert isinstance(dataset.features["visual"], np.memmap)
    assert not isinstance(dataset.features["text"], np.memmap)  # doubles are read and converted
    np.testing.assert_array_equal(in_memory(dataset.features["visual"]), given)
    build(BPR, dataset, BPRConfig(), Streams(1), CPU)
    (tmp_path / "visual_feat.npy").unlink()
    model = build(VBPR, dataset, VBPRConfig(), Streams(1), CPU)
    assert all(not table.off_device for table in model.modules() if hasattr(table, "off_device"))
