"""What a user gets wrong ends in one line that says what, where and how to mend it, and nothing is begun."""

import shlex
from pathlib import Path

import pytest
from command_line import Command, refused

SUITE = """title = "a small study"
datasets = ["mini"]
seeds = [1]
[[experiments]]
model = "bpr"
"""

BAD: dict[str, list[str]] = {
    "trian bpr mini": ["trian"],
    "train bpr mini --set early_stopping.patence=1": ["nearest: early_stopping.patience"],
    "train bpr mini --set early_stopping=1": ["'early_stopping'", "nearest: early_stopping."],
    "train bpr mini --set step=captured": ["'step' is there no more", "leave it out"],
    "train bpr mini --set n_layers=2": ["bpr has no setting 'n_layers'"],
    "train lightgcn mini --set n_layers=1.5": ["n_layers", "'1.5'", "integer"],
    "train lightgcn mini --set n_layers=-1": ["n_layers is -1", "at least 0"],
    "train bpr mini --set reg_weight=nan": ["reg_weight is nan"],
    "train bpr mini --set learning_rate=0": ["learning_rate is 0.0", "above 0"],
    "train bm3 mini --set dropout=1": ["dropout is 1.0", "below 1"],
    "train bm3 mini --set objective=secret": ["objective", "published", "paper"],
    "train bpr mini --set early_stopping.rounding=3": ["early_stopping.rounding", "4", "none"],
    "train bpr mini --set epochs": ["'epochs'", "key=value"],
    "train bpr mini --set =3": ["'=3'", "key=value"],
    "train bpr mini --epochs 3 --set epochs=5": ["'epochs' is given twice", "5 and as 3"],
    "train bpr mini --set epochs=3 --set epochs=5": ["'epochs' is given twice", "3 and as 5"],
    "train bpr ''": ["an argument is empty"],
    "train bpr mini --epochs 0": ["--epochs", "0"],
    "train bpr mini --seed -1": ["--seed", "-1"],
    "train bpr mini --device cuda:1": ["--device", "CUDA_VISIBLE_DEVICES=1", "--device cuda"],
    "train bpr mini --threads 0": ["--threads"],
    "train bpr mini --epoch 3": ["--epoch", "--epochs"],
    "train bpr": ["DATASET"],
    "train bpr mini --data nowhere extra": ["extra"],
    "train bpr shop --data nowhere": ["nowhere: no such folder"],
    "train bpr ./nowhere": ["nowhere: no such folder"],
    "variants mmgnc": ["nearest: mmgcn"],
    "suite show mini --data nowhere": ["nowhere", "--data"],
    "reproduce nosuch": ["no suite 'nosuch'"],
    "reproduce small.toml --in-process --workers 2": ["--in-process", "--workers"],
    "reproduce small.toml --workers 0": ["--workers"],
    "reproduce table4 --dataset mini --workers 2": ["measures time", "--workers"],
    "reproduce table4 --dataset mini --ray local": ["measures time and memory", "--ray"],
    "reproduce small.toml --out small.toml/runs": ["small.toml", "--out"],
    "reproduce small.toml --dataset minni": ["'minni'", "mini"],
    "tables 5": ["no table 5", "2, 3, 4"],
    "tables 3 nowhere": ["nowhere: no such folder"],
    "tables 3 --data .": ["--data", "tables of data sets"],
    "tables 2 --data nowhere": ["nowhere: no such folder"],
    "expected show paper-table9": ["nearest: paper-table"],
    "expected show table3 --model lightgnc": ["paper-table3 has no model 'lightgnc'", "LightGCN"],
    "expected show table3 --dataset tiktok": ["no data set 'tiktok'", "Baby"],
    "expected show table3 --metric R@50": ["no metric 'recall@50'", "recall@20"],
    "expected show claims --model bm3": ["claims", "leave out"],
    "train bpr mini --out small.toml": ["small.toml", "--out"],
    "train bpr mini --key mini/bpr-0": ["code, data or compiled loops are others", "instead of mini/bpr-0"],
    "audit minni": ["no data set 'minni'", "nearest: mini"],
    "audit mini --seeds 3-1": ["--seeds", "3-1"],
    "audit mini --model bpr --out small.toml/runs": ["small.toml", "--out"],
    "profile bpr mini --out small.toml/bpr.json": ["small.toml/bpr.json", "cannot be written", "--out"],
    "profile bpr mini --out .": ["--out"],
    "profile bpr mini --steps 0": ["--steps", "0"],
    "scaling bm4": ["no model 'bm4'", "bm3"],
    "scaling --vary E,K": ["'K'", "d_m"],
    "scaling --sizes 1,2,x,8": ["--sizes", "'1,2,x,8'"],
    "scaling --sizes 1,2,4,4": ["--sizes", "four"],
    "scaling --sizes 1,2,4,1000": ["E times 1000 is 32,768,000"],
    "scaling --vary B --sizes 1,2,4,256": ["B times 256 is 65,536"],
    "scaling --repetitions 4": ["--repetitions", "4"],
    "scaling --device cpu --out small.toml/out": ["small.toml", "--out"],
    "doctor --data nowhere": ["nowhere: no such folder"],
    "replay nosuch": ["nosuch"],
    "runs list small.toml": ["small.toml: is a file"],
    "runs gc small.toml": ["small.toml: is a file"],
    "runs verify small.toml": ["small.toml: is a file"],
    "watch nowhere": ["bm3 reproduce SUITE --out"],
}
"""Commands, and parts of what they say; more, word for word, are in `tests/golden`."""


@pytest.mark.parametrize("arguments", BAD)
def test_bad_input_ends_in_one_line_and_exit_code_2(command: Command, arguments: str) -> None:
    Path("small.toml").write_text(SUITE, encoding="utf-8")
    line = refused(command(*shlex.split(arguments)))
    assert [part for part in BAD[arguments] if part not in line] == []
    assert list(Path.cwd().iterdir()) == [Path.cwd() / "small.toml"]  # nothing was begun
