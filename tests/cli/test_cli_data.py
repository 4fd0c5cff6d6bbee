"""`bm3 data import`, `export`, `verify`, `add-features` and `encode`: what they print, write and refuse."""

import csv
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Command, Outcome, refused
from numpy.typing import NDArray

from harness.data.layouts import load_dataset
from harness.data.synthetic import mini


def hash_in(outcome: Outcome) -> str:
    (found,) = re.findall(r"^content hash: ([0-9a-f]{64})$", outcome.out, re.MULTILINE)
    return str(found)


@pytest.fixture
def real_data() -> Path:
    """The folder of the real data, asked for before `command` forgets it."""
    return Path(os.environ.get("BM3_DATA", "")).absolute()


@pytest.fixture
def ratings(tmp_path: Path) -> Path:
    """Twenty users with five items each, as a table with ids that are text."""
    path = tmp_path / "ratings.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["item", "user", "when"])
        rows.writerows((f"i{(u + step) % 20}", f"u{u}", 100 * step + u) for u in range(20) for step in range(5))
    return path


def test_what_was_exported_and_imported_has_the_same_hash(command: Command, tmp_path: Path) -> None:
    exported = command("data", "export", "mini", "--out", tmp_path / "x")
    imported = command("data", "import", tmp_path / "x", "--name", "again", "--out", tmp_path / "y")
    assert exported.code == imported.code == 0
    assert hash_in(exported) == hash_in(imported) == mini().content_hash
    assert f"written: {tmp_path / 'y' / 'again'}" in imported.out
    assert "again" in command("data", "stats", "again", "--data", tmp_path / "y").out


def test_without_out_a_data_set_is_put_where_it_will_be_found(
    command: Command, tmp_path: Path, ratings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("data", "import", ratings, "--user", "user", "--item", "item", "--name")
    assert command(*arguments, "here").code == 0
    monkeypatch.setenv("BM3_DATA", str(tmp_path / "root"))
    assert command(*arguments, "there").code == 0
    assert (tmp_path / "work" / "data" / "here").is_dir()
    assert (tmp_path / "root" / "there").is_dir()
    assert command("data", "stats", "here").code == command("data", "stats", "there").code == 0


def test_a_table_is_imported_with_its_columns_and_rule(command: Command, tmp_path: Path, ratings: Path) -> None:
    columns = ("--user", "user", "--item", "item", "--time", "when", "--split", "leave_one_out", "--split-seed", 3)
    outcome = command("data", "import", ratings, "--name", "shop", "--out", tmp_path, *columns)
    assert outcome.code == 0
    assert "note: ids are numbered by first appearance" in outcome.out
    assert "20 users, 20 items; train 60, valid 20, test 20" in outcome.out
    (rule,) = re.findall("split rule +ok .*", command("data", "verify", tmp_path / "shop").out)
    assert "all 20 users" in rule


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--user", "user", "--rating", "when"), "--min-rating"),
        (("--user", "user", "--item", "item", "--name", "mini"), "mini"),
    ],
)
def test_an_import_that_cannot_be_made_is_one_line_and_leaves_nothing(
    command: Command, tmp_path: Path, ratings: Path, arguments: tuple[str, ...], complaint: str
) -> None:
    assert complaint in refused(command("data", "import", ratings, "--name", "s", "--out", tmp_path / "y", *arguments))
    assert not (tmp_path / "y").exists()


def test_a_place_that_may_not_be_read_or_cannot_be_written_is_named(
    command: Command, tmp_path: Path, ratings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("data", "import", ratings, "--name", "s", "--user", "user", "--item", "item", "--out", ratings)
    assert refused(command(*asked)).endswith("s: cannot be written (File exists); choose another folder with --out")

    def locked(folder: Path) -> Any:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(Path, "iterdir", locked)
    assert f"bm3: {tmp_path}: Permission denied" in refused(command("data", "import", tmp_path, "--name", "s"))


@pytest.mark.parametrize("words", ["data stats shop", "data verify shop", "train bpr shop --dry-run"])
def test_files_that_nothing_reads_are_named(command: Command, ratings: Path, words: str) -> None:
    command("data", "import", ratings, "--name", "shop")
    assert "not read in" not in "".join(map(str, command(*words.split())))
    Path("data/shop/visual.npz").touch()
    outcome = command(*words.split())
    assert outcome.code == 0
    assert "not read in data/shop: visual.npz" in " ".join((outcome.out + outcome.err).split())


def test_ratings_with_the_item_first_are_refused_until_columns_are_named(command: Command, tmp_path: Path) -> None:
    rows = [f"B{i % 9:09},A{u:013},5.0,1400000000" for u in range(9) for i in range(u, u + 7)]
    (tmp_path / "r.csv").write_text("\n".join(rows), encoding="utf-8")
    words = ("data", "prepare", "shop", "--ratings", tmp_path / "r.csv")
    assert "--user 2 --item 1" in refused(command(*words))
    outcome = command(*words, "--user", 2, "--item", 1, "--core=3")
    assert outcome.code == 0, outcome
    assert "--core is now --k-core" in outcome.err
    assert "0,A0000000000000" in (Path("data") / "shop" / "users.csv").read_text(encoding="utf-8")


# --- verify ---


def test_a_wrong_order_of_rows_is_a_problem_of_exit_code_1(command: Command, tmp_path: Path) -> None:
    command("data", "export", "mini", "--out", tmp_path / "x")
    table = np.load(tmp_path / "x" / "image_feat.npy")
    np.save(tmp_path / "x" / "image_feat.npy", np.random.default_rng(0).permutation(table))
    outcome = command("data", "verify", tmp_path / "x")
    assert outcome.code == 1
    assert re.search(r"^row order visual +problem ", outcome.out, re.MULTILINE)
    assert re.search(r"^content hash +problem ", outcome.out, re.MULTILINE)
    assert "x: 2 problems" in outcome.out


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["baby", "sports", "tiktok"])
def test_the_real_data_sets_are_verified(real_data: Path, command: Command, name: str) -> None:
    outcome = command("data", "verify", name, "--data", real_data)
    assert outcome.code == 0, outcome.out
    assert ("as in paper-table2: users" in outcome.out) == (name != "tiktok")


# --- adding features ---


@pytest.fixture
def shop(command: Command, tmp_path: Path, ratings: Path) -> Path:
    """The data set of `ratings`, without features, with original ids."""
    command("data", "import", ratings, "--name", "shop", "--out", tmp_path, "--user", "user", "--item", "item")
    return tmp_path / "shop"


def saved(path: Path, table: NDArray[Any]) -> Path:
    np.save(path, table)
    return path


def test_features_are_added_by_order_or_by_original_id(command: Command, tmp_path: Path, shop: Path) -> None:
    file = saved(tmp_path / "v.npy", np.arange(40.0).reshape(20, 2))
    outcome = command("data", "add-features", "shop", file, "--modality", "audio", "--data", tmp_path, "--surrogate")
    assert outcome.code == 0
    assert "modality audio: 20 x 2 float32 (surrogate vectors)" in outcome.out
    assert f"written: {shop / 'audio_surrogate.npy'}" in outcome.out
    np.testing.assert_array_equal(load_dataset(str(shop)).features["audio"], np.arange(40).reshape(20, 2))
    with (shop / "items.csv").open(newline="", encoding="utf-8") as rows:
        number = {row["id"]: int(row["index"]) for row in csv.DictReader(rows)}
    (tmp_path / "ids.txt").write_text("\n".join([*(f"i{i}" for i in reversed(range(20))), "unknown"]), encoding="utf-8")
    file = saved(tmp_path / "v.npy", np.array([[19 - row, 1.0] for row in range(21)]))
    by_id = ("--modality", "audio", "--ids", tmp_path / "ids.txt", "--replace")
    assert "note: rows of other items, left out: 1" in command("data", "add-features", shop, file, *by_id).out
    table = load_dataset(str(shop)).features["audio"]
    assert all(table[number[f"i{i}"], 0] == i for i in range(20))


def test_items_without_a_row_are_filled_and_own_ids_survive_an_export(
    command: Command, tmp_path: Path, shop: Path
) -> None:
    command("data", "export", shop, "--out", tmp_path / "x")
    for name in ("users.csv", "items.csv"):
        assert (tmp_path / "x" / name).read_bytes() == (shop / name).read_bytes()
    file = saved(tmp_path / "v.npy", np.ones((2, 3), np.float32))
    (tmp_path / "ids.csv").write_text("asin,title\ni0,x\nother,y\n", encoding="utf-8")
    words = ("data", "add-features", shop, file, "--modality", "image", "--ids", tmp_path / "ids.csv")
    assert "19 of 20 items have no row" in refused(command(*words))
    outcome = command(*words, "--fill", "zero")
    assert "note: rows of other items, left out: 1\nnote: items without a row, filled with zeros: 19" in outcome.out
    assert load_dataset(str(shop)).features["visual"].sum() == 3
    assert "--ids" in refused(command("data", "add-features", shop, file, "--modality", "y", "--fill", "mean"))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("shop", "none.npy", "--modality", "audio"), "No such file"),
        (("shop", "v.npy", "--modality", "audio", "--ids", "none.txt"), "none.txt"),
        (("mini", "v.npy", "--modality", "audio"), "made in memory"),
        (("shopp", "v.npy", "--modality", "audio"), "nearest: shop"),
    ],
)
def test_features_that_cannot_be_added_are_one_line_and_leave_nothing(
    command: Command, tmp_path: Path, shop: Path, arguments: tuple[str, ...], complaint: str
) -> None:
    saved(tmp_path / "work" / "v.npy", np.ones((20, 2)))
    before = sorted(shop.iterdir())
    assert complaint in refused(command("data", "add-features", *arguments, "--data", tmp_path))
    assert sorted(shop.iterdir()) == before


# --- encoding ---


class Stand:
    """Stands in for a sentence model."""

    revision, library = "r1", "none 1.0"

    def __init__(self, model: str, revision: str | None) -> None:
        self.name = model

    def encode(self, batch: list[str]) -> NDArray[Any]:
        return np.array([[len(text), 1.0] for text in batch])


def test_texts_are_encoded_by_the_model_that_is_named(
    command: Command, tmp_path: Path, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.ingest.encoders.SentenceEncoder", Stand)
    (tmp_path / "t.csv").write_text("id,title\ni0,abc\ni1,abcde\nother,x\n", encoding="utf-8")
    outcome = command("data", "encode", shop, "--text", tmp_path / "t.csv", "--model", "mine")
    assert outcome.code == 0
    assert "note: ids of other items, left out: 1" in outcome.out
    assert "note: items with nothing to encode, given the mean of the others: 18" in outcome.out
    assert '"model": "mine"' in (shop / "text_feat.encoder.json").read_text(encoding="utf-8")
    assert sorted(set(load_dataset(str(shop)).features["text"][:, 0])) == [3, 4, 5]


def test_texts_and_images_are_encoded_one_after_the_other(command: Command, tmp_path: Path, shop: Path) -> None:
    assert "either --text FILE or --images DIR" in refused(command("data", "encode", shop))
    both = command("data", "encode", shop, "--text", tmp_path, "--images", tmp_path)
    assert "either --text FILE or --images DIR" in refused(both)
