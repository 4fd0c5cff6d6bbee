"""From raw files to data sets, against an example computed by hand (see raw_files.py), and the command."""

import csv
import gzip
import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import refusals
from command_line import GIVE_UP_AFTER, Command, Outcome, refused
from raw_files import METADATA, Q2, R3, RATINGS, WIDTH, X1, csv_of, image_records, write_raw

from bm3 import BM3Error, DataError
from harness.data.dataset import PARTS, Dataset
from harness.data.layouts import load_dataset
from harness.ingest.amazon.prepare import Plan, prepare
from harness.ingest.tables import Table, k_core


@pytest.fixture
def raw(tmp_path: Path) -> dict[str, Path]:
    return write_raw(tmp_path / "raw")


@pytest.fixture
def plan(raw: dict[str, Path], tmp_path: Path) -> Plan:
    """Of the example, split by each user's time, so that nothing in it is random."""
    return Plan("shop", raw["ratings"], raw["metadata"], raw["images"], 2, "temporal_user", None, tmp_path / "out")


def made(plan: Plan) -> Dataset:
    prepare(plan, {})
    return load_dataset(str(plan.target))


def parts_of(dataset: Dataset) -> dict[str, list[list[int]]]:
    return {part: dataset.part(part).tolist() for part in PARTS}


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def refusal(plan: Plan) -> str:
    """The message with which a plan is refused; nothing may be left of what was begun."""
    message = refusals.refusal(lambda: prepare(plan, {}), BM3Error)
    assert not plan.out.exists()
    return message


# --- the example ---


def test_interactions_ids_texts_and_images_are_those_computed_by_hand_in_one_order(plan: Plan) -> None:
    dataset = made(plan)
    # NED, BEN, CARA are 0, 1, 2 and X1, Q2, R3 are 0, 1, 2; three interactions each, the latest to test.
    assert parts_of(dataset) == {
        "train": [[0, 0], [1, 0], [2, 1]],
        "valid": [[0, 2], [1, 2], [2, 2]],
        "test": [[0, 1], [1, 1], [2, 0]],
    }
    assert rows(plan.target / "users.csv") == [["index", "id"], ["0", "NED"], ["1", "BEN"], ["2", "CARA"]]
    assert rows(plan.target / "items.csv") == [["index", "id"], ["0", X1], ["1", Q2], ["2", R3]]
    expected = [["id", "text"], [X1, "Cup &amp; lid Acme Baby Feeding Two lines."], [Q2, "Soft"], [R3, ""]]
    assert rows(plan.target / "texts.csv") == expected
    visual, ones, ramp = dataset.features["visual"], np.ones(WIDTH, np.float32), np.arange(WIDTH, dtype=np.float32)
    np.testing.assert_array_equal(visual, np.stack([ones, (ones + ramp) / 2, ramp]))  # Q2 has no image of its own
    assert visual.dtype == np.float32


def test_the_record_says_what_was_read_left_out_and_filled_in(plan: Plan, raw: dict[str, Path]) -> None:
    made(plan)
    record = json.loads((plan.out / "shop" / "prepared.json").read_text(encoding="utf-8"))
    for kind, path in raw.items():
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert record["inputs"][kind] == {"file": path.name, "bytes": path.stat().st_size, "sha256": digest}
    assert record["options"] == {"core": 2, "split": "temporal_user", "split_seed": 0}
    core = {"ratings": 13, "duplicates": 1, "core_rounds": 2, "core_users": 3, "core_items": 3, "core_interactions": 9}
    assert record["counts"] == core | {"users": 3, "items": 3, "interactions": 9, "train": 3, "valid": 3, "test": 3}
    texts = record["metadata"]
    assert [texts[key] for key in ("lines", "of_other_items", "repeated", "cut", "broken")] == [7, 1, 1, 0, 3]
    assert [broken["line"] for broken in texts["first_broken"]] == [2, 5, 6]
    assert "no asin" in texts["first_broken"][2]["reason"]
    assert texts["items_without_text"] == [2]
    assert record["images"] == {"records": 3, "of_other_items": 1, "repeated": 0, "items_without_image": [1]}
    assert str(plan.out.parent) not in json.dumps(record)  # where files lay is nobody's business


def test_packed_files_and_reviews_give_the_same_data_set(plan: Plan, tmp_path: Path) -> None:
    expected = made(plan)
    packed = {}
    keys = ("reviewerID", "asin", "overall", "unixReviewTime")
    reviews = "\n".join(json.dumps(dict(zip(keys, row, strict=True)) | {"reviewText": "{,}"}) for row in RATINGS)
    contents = {"ratings": reviews.encode(), "metadata": "\n".join(METADATA).encode(), "images": image_records()}
    for kind, content in contents.items():
        packed[kind] = tmp_path / f"{kind}.gz"
        half = len(content) // 2
        packed[kind].write_bytes(gzip.compress(content[:half]) + gzip.compress(content[half:]))  # two members
    again = made(replace(plan, **packed, out=tmp_path / "again"))
    assert again.content_hash == expected.content_hash
    for name in ("users.csv", "items.csv", "texts.csv"):
        assert (tmp_path / "again/shop" / name).read_bytes() == (plan.out / "shop" / name).read_bytes()
    only = replace(plan, metadata=None, images=None, out=tmp_path / "only")
    assert made(only).features == {}
    files = {path.name for path in only.target.iterdir()}
    assert files == {"interactions.npz", "users.csv", "items.csv", "prepared.json"}


# --- the k-core ---


def ratings_of(pairs: list[tuple[int, int]]) -> Table:
    users, items = np.array(pairs, np.int32).reshape(-1, 2).T
    names = [str(n) for n in range(max(100, len(pairs)))]
    return Table(where="x", users=users, items=items, times=None, labels=None, user_ids=names, item_ids=names)


def core_by_sets(pairs: list[tuple[int, int]], k: int) -> set[tuple[int, int]]:
    """Remove one user or item at a time, whichever comes first, until none has too few."""
    left = set(pairs)
    while True:
        ends = [(column, pair[column]) for pair in left for column in (0, 1)]
        few = next((end for end in ends if ends.count(end) < k), None)
        if few is None:
            return left
        left = {pair for pair in left if pair[few[0]] != few[1]}


@pytest.mark.parametrize("seed", range(30))
def test_the_core_is_the_same_however_it_is_reached(seed: int) -> None:
    draw = np.random.default_rng(seed)
    pairs = list(map(tuple, draw.integers(0, 14, size=(90, 2)).tolist()))
    expected = core_by_sets(pairs, 4)
    if not expected:
        with pytest.raises(DataError, match="choose a lower --k-core"):
            k_core(ratings_of(pairs), 4)
        return
    left, _ = k_core(ratings_of(pairs), 4)
    users = [int(left.user_ids[user]) for user in left.users.tolist()]
    items = [int(left.item_ids[item]) for item in left.items.tolist()]
    first = [pair for pair in dict.fromkeys(pairs) if pair in expected]
    assert list(zip(users, items, strict=True)) == first  # each once, in the order of the file
    assert list(dict.fromkeys(left.users.tolist())) == list(range(len(left.user_ids)))
    assert list(dict.fromkeys(left.items.tolist())) == list(range(len(left.item_ids)))


# --- splits ---


@pytest.fixture
def many(plan: Plan) -> Plan:
    """Ratings of forty users, so that seeds matter; no two are at the same time."""
    draw = np.random.default_rng(3)
    ratings = [(f"U{u}", f"B00000{i:04}", 5.0, int(draw.integers(10**9))) for u in range(40) for i in range(25)]
    plan.ratings.write_text(csv_of(ratings), encoding="utf-8")
    return replace(plan, metadata=None, images=None, core=5)


def test_a_seed_makes_its_split_and_the_old_name_of_the_rule_the_same(many: Plan, tmp_path: Path) -> None:
    drawn = replace(many, split="random_user", split_seed=7)
    expected = made(drawn)
    assert json.loads((many.target / "prepared.json").read_text())["options"]["split_seed"] == 7
    again = made(replace(drawn, split="published", out=tmp_path / "again"))
    assert again.content_hash == expected.content_hash
    assert parts_of(made(replace(drawn, split_seed=4, out=tmp_path / "other"))) != parts_of(expected)


@pytest.mark.parametrize("layout", ["folder", "npz", "inter"])
def test_a_given_split_is_taken_as_it_is(plan: Plan, tmp_path: Path, write_inter: object, layout: str) -> None:
    parts = {  # interactions of the example, divided as no rule would
        "train": np.array([(0, 0), (0, 1), (1, 2), (2, 0), (2, 1), (1, 1)]),
        "valid": np.array([(0, 2)]),
        "test": np.array([(2, 2), (1, 0)]),
    }
    if layout == "inter":
        path = write_inter(tmp_path / "theirs", parts) / "theirs.inter"  # type: ignore[operator]
    else:
        (tmp_path / "theirs").mkdir()
        path = tmp_path / "theirs" / "interactions.npz"
        np.savez(path, **parts)  # type: ignore[arg-type]
    dataset = made(replace(plan, split=str(path.parent if layout == "folder" else path)))
    assert parts_of(dataset) == {part: sorted(pairs.tolist()) for part, pairs in parts.items()}
    record = json.loads((plan.out / "shop" / "prepared.json").read_text(encoding="utf-8"))
    assert record["options"]["split"] == path.name
    assert record["options"]["split_seed"] is None
    assert record["inputs"]["split"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("train", "complaint"),
    [
        ([(0, 0), (0, 1), (1, 1), (2, 0), (2, 1)], "1 interactions of the ratings are not in it (first: user 1, item"),
        ([(0, 0), (0, 1), (1, 1), (1, 2), (2, 0), (2, 1), (2, 0)], "1 interactions stand more than once"),
        ([(0, 0), (0, 1), (1, 1), (1, 2), (2, 0), (2, 3)], "1 interactions are not in the ratings (first: user 2"),
        ([(0, 0), (0, 1), (1, 1), (1, 2), (2, 0), (-1, 0)], "has a negative id"),
        ([(0, 0), (0, 1), (1, 1), (2, 1), (2, 0), (1, 2), (1, 3)], "1 interactions are not in the ratings"),
        ([(0.5, 0)], "ids in part train are float64"),
    ],
)
def test_a_split_of_other_interactions_is_refused(
    plan: Plan, tmp_path: Path, train: list[tuple[float, int]], complaint: str
) -> None:
    path = tmp_path / "theirs.npz"
    np.savez(path, train=np.array(train), valid=np.array([(0, 2)]), test=np.array([(2, 2), (1, 0)]))
    message = refusal(replace(plan, split=str(path)))
    assert str(path) in message
    assert complaint in message


def test_users_whom_a_point_in_time_leaves_without_training_leave_no_gap(plan: Plan) -> None:
    # 40 interactions before any of LATE's, whose only other item is of nobody else: both vanish, and ids close up.
    early = [(f"U{u}", f"B00000000{i}", 5.0, 10 * u + i) for u in range(8) for i in range(5)]
    late = [("LATE", "B000000009", 5.0, 1000), ("LATE", "B000000000", 5.0, 1001), ("U0", "B000000007", 5.0, 1002)]
    plan.ratings.write_text(csv_of([*late[:1], *early, *late[1:]]), encoding="utf-8")
    dataset = made(replace(plan, metadata=None, images=None, core=1, split="temporal_global"))
    # 43 times: validation begins with the 35th, test with the 39th of them (positions 34 and 38).
    assert [len(dataset.part(part)) for part in PARTS] == [34, 1, 1]
    record = json.loads((plan.out / "shop" / "prepared.json").read_text(encoding="utf-8"))
    counts = record["counts"]
    assert (counts["core_users"], counts["users"]) == (9, 8 - 1)  # LATE, and U7, whose five are all held out
    assert counts["core_interactions"] - counts["interactions"] == 2 + 5
    assert [row[1] for row in rows(plan.out / "shop" / "users.csv")[1:]] == [f"U{u}" for u in range(7)]
    assert "B000000009" not in (plan.out / "shop" / "items.csv").read_text()
    assert record["options"]["split_seed"] is None


# --- what is refused ---


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"name": "../shop"}, "needed is a plain name"),
        ({"name": "mini"}, "means the synthetic data set"),
        ({"core": 4}, "ratings_Shop.csv: no users and items with at least 4 interactions among themselves are left of"),
        ({"split": "temporal_globe"}, "nearest: temporal_global"),
        ({"split": "temporal_global", "split_seed": 1}, "leave --split-seed out"),
    ],
    ids=str,
)
def test_plans_that_cannot_be_carried_out_are_refused(plan: Plan, change: dict[str, Any], complaint: str) -> None:
    assert complaint in refusal(replace(plan, **change))


NONSENSE = b"nothing of use\n"
FEW = csv_of([("A", X1, 1.0, 5), ("A", Q2, 1.0, 5), ("B", X1, 1.0, 5)]).encode()


@pytest.mark.parametrize(
    ("contents", "core", "complaint"),
    [
        *[({kind: None}, 2, f"{kind}_Shop") for kind in ("ratings", "image_features")],
        ({"ratings": NONSENSE}, 2, "which column holds the items? name it with --item"),
        ({"metadata": b"{'asin': 'B999999999'}\n"}, 2, "none of 1 lines belongs to an item of the ratings"),
        ({"images": image_records()[16394 : 2 * 16394]}, 2, "none of 1 records belongs to an item of the ratings"),
        # Known without reading: before ratings are read, and before features are.
        ({"ratings": NONSENSE, "images": image_records()[:-7]}, 2, f"cut off in the record at byte {2 * 16394}"),
        ({"ratings": FEW, "metadata": NONSENSE}, 1, "part valid is empty"),
    ],
)
def test_files_that_make_no_data_set_are_named_and_nothing_is_left(
    plan: Plan, raw: dict[str, Path], contents: dict[str, bytes | None], core: int, complaint: str
) -> None:
    for kind, content in contents.items():
        path = raw.get(kind, raw["images"])
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)
    assert complaint in refusal(replace(plan, core=core))
    plan.out.mkdir()  # a folder that was there before stays
    with pytest.raises(BM3Error):
        prepare(replace(plan, core=core), {})
    assert list(plan.out.iterdir()) == []


def test_a_full_disk_is_one_line_and_leaves_nothing(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    assert f"{plan.target}: cannot be written (No space left on device)" in refusal(plan)


# --- the command ---


@pytest.fixture
def prepare_data(command: Command, raw: dict[str, Path]) -> Command:
    """`bm3 data prepare shop` on the example, and more arguments."""
    options = [word for kind, path in raw.items() for word in (f"--{kind}", path)]

    def run(*arguments: object, name: str = "shop") -> Outcome:
        return command("data", "prepare", name, *options, "--k-core", 2, *arguments)

    return run


def test_the_command_says_what_was_left_out_and_writes_where_data_sets_are_looked_up(
    prepare_data: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    outcome = prepare_data("--split", "temporal_user")
    assert outcome.code == 0
    for part in (
        "counts: ratings 13, duplicates 1, core_rounds 2, core_users 3",
        "train 3, valid 3, test 3",
        "broken 3, first_broken 3, items_without_text 1",
        "line 2: neither JSON nor a Python literal",
        "images: records 3, of_other_items 1, repeated 0, items_without_image 1",
        f"written: {Path('data') / 'shop'}",
    ):
        assert part in outcome.out
    assert load_dataset("shop").n_interactions == 9
    monkeypatch.setenv("BM3_DATA", str(tmp_path / "variable"))
    assert prepare_data().code == 0
    assert (tmp_path / "variable" / "shop").is_dir()


def test_sizes_are_compared_with_every_source_that_prints_them(prepare_data: Command) -> None:
    out = prepare_data(name="electronics").out
    assert "problem: users 3, but paper-table2 prints 192,403" in out
    assert "note: interactions 9, but paper-table2 prints 1,689,133 (disputed: 1689188 elsewhere" in out
    assert "paper-table2" not in prepare_data(name="shop").out


def test_a_dry_run_and_bad_input_read_and_write_nothing(prepare_data: Command, raw: dict[str, Path]) -> None:
    raw["ratings"].write_text(f"NED,{X1},5.0,100\nNED,{Q2},5.0,five\n")
    outcome = prepare_data("--dry-run")
    assert outcome.code == 0
    assert all(str(path) in outcome.out for path in raw.values())
    assert f"writes {Path('data') / 'shop'}" in outcome.out
    assert "temporal_user" in refused(prepare_data("--split", "temporal_usr"))
    assert "--k-core" in refused(prepare_data("--k-core", 0))
    assert f"{raw['ratings']}, line 2: 4 is 'five'" in refused(prepare_data())
    assert list(Path.cwd().iterdir()) == []
    (Path("data") / "shop").mkdir(parents=True)
    (Path("data") / "shop" / "mine").touch()
    for arguments in ((), ("--dry-run",)):  # said before the ratings are read
        assert "shop: exists already" in refused(prepare_data(*arguments))
    assert [path.name for path in Path("data").rglob("*")] == ["shop", "mine"]


def test_ctrl_c_leaves_nothing_behind(raw: dict[str, Path], tmp_path: Path) -> None:
    # Sent from inside, when images have been read: the folder has been begun and lacks its last files.
    program = f"""
import os, pathlib, signal
from harness.__main__ import main
from harness.ingest.amazon import prepare as module
from harness.ingest.amazon.raw import read_images
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background would ignore it
def interrupted(file, items, table):
    read_images(file, items, table)
    (begun,) = pathlib.Path({str(tmp_path / "out")!r}).iterdir()
    print(sorted(path.name for path in begun.iterdir()), flush=True)
    os.kill(os.getpid(), signal.SIGINT)
module.read_images = interrupted
main()
"""
    arguments = ["data", "prepare", "shop", "--k-core", "2", "--out", str(tmp_path / "out")]
    arguments += [word for kind, path in raw.items() for word in (f"--{kind}", str(path))]
    ended = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=GIVE_UP_AFTER, check=False
    )
    assert ended.returncode == 130, ended.stderr
    assert ended.stdout.strip() == "['items.csv', 'texts.csv', 'users.csv']"
    assert ended.stderr.splitlines()[-1].startswith("bm3: interrupted: no data set was left unfinished")
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "out").exists()
