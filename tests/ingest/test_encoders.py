"""Features from texts and images: what is encoded, in which order it is stored, and what is said without a library."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from refusals import Parts, Write, refusal

from bm3 import ConfigError, DataError
from harness.data.layouts import load_dataset
from harness.ingest.encoders import ImageEncoder, SentenceEncoder
from harness.ingest.exporting import write_ids
from harness.ingest.features import add_features, encode_features, find_images, read_texts

ASINS = [f"B{i:03}" for i in range(8)]


class Lengths:
    """Stands in for a model: a text's or file name's length, and a constant; remembers the batches it was given."""

    name, revision, library = "lengths", "r1", "none 1.0"

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []

    def encode(self, batch: Sequence[Any]) -> NDArray[Any]:
        self.batches.append(list(batch))
        return np.array([[len(getattr(each, "name", each)), 7.0] for each in batch])


@pytest.fixture
def shop(tmp_path: Path, write_inter: Write, small_parts: Parts) -> Path:
    """A data set of eight items whose original ids are ASINS."""
    folder = write_inter(tmp_path / "shop", small_parts)
    write_ids(folder / "items.csv", ASINS)
    return folder


def test_texts_are_encoded_once_and_stored_in_the_order_of_the_items(shop: Path) -> None:
    encoder = Lengths()
    texts = {asin: "x" * (position + 1) for position, asin in enumerate(reversed(ASINS))} | {"other": "not in the set"}
    encoded = encode_features(shop, texts, encoder, "text", "texts.csv", batch_size=3)
    assert [len(batch) for batch in encoder.batches] == [3, 3, 2]
    assert all("not in the set" not in batch for batch in encoder.batches)
    assert (encoded.left_out, encoded.filled) == (1, 0)
    table = load_dataset(str(shop)).features["text"]
    assert table.dtype == np.float32
    np.testing.assert_array_equal(table, [[8 - i, 7] for i in range(8)])


def test_items_without_content_get_the_mean_and_the_model_is_recorded(shop: Path) -> None:
    encoded = encode_features(shop, {ASINS[1]: "ab", ASINS[4]: "abcd"}, Lengths(), "title", "texts.csv")
    assert (encoded.file.name, encoded.record.name) == ("title_feat.npy", "title_feat.encoder.json")
    np.testing.assert_array_equal(load_dataset(str(shop)).features["title"][:3], [[3, 7], [2, 7], [3, 7]])
    assert json.loads(encoded.record.read_text(encoding="utf-8")) == {
        "format": 1,
        "modality": "title",
        "model": "lengths",
        "revision": "r1",
        "library": "none 1.0",
        "width": 2,
        "items_filled_with_the_mean": 6,
    }
    add_features(shop, np.ones((8, 2)), "title", "here", surrogate=True, replace=True)
    assert not encoded.record.exists()  # other features have taken the place


def test_what_may_not_be_written_is_said_before_anything_is_encoded(shop: Path) -> None:
    add_features(shop, np.ones((8, 2)), "title", "here")
    encoder = Lengths()
    with pytest.raises(DataError, match="title features are there already: give --replace"):
        encode_features(shop, dict.fromkeys(ASINS, "a"), encoder, "title", "texts.csv")
    assert encoder.batches == []


class Odd(Lengths):
    """Gives what it is told to for every batch."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def encode(self, batch: Sequence[Any]) -> NDArray[Any]:
        found: NDArray[Any] = self.rows
        return found


@pytest.mark.parametrize(
    ("ids", "rows", "complaint"),
    [
        (("0", "1"), np.ones((2, 2)), "texts.csv: none of 2 ids is one of an item, the first item being 'B000'"),
        *[(ASINS, rows, "needed is one row each") for rows in (np.ones(8), np.ones((7, 4)), np.ones((8, 2, 2)))],
        (ASINS, np.full((8, 2), np.nan), "NaN"),
    ],
)
def test_what_makes_no_features_leaves_nothing(shop: Path, ids: Sequence[str], rows: Any, complaint: str) -> None:
    contents = dict.fromkeys(ids, "a")
    assert complaint in refusal(lambda: encode_features(shop, contents, Odd(rows), "text", "texts.csv"))
    assert not list(shop.glob("text*"))


# --- texts ---


def test_the_other_columns_are_joined_by_blanks_without_newlines(tmp_path: Path) -> None:
    (tmp_path / "texts.csv").write_text(
        'title,Item_ID,brand,text\nBib,B1,Acme,"soft\nand\r\n  dry"\n,B2,,\n', encoding="utf-8"
    )
    assert read_texts(tmp_path / "texts.csv") == {"B1": "Bib Acme soft and dry", "B2": ""}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "line 1: no column 'id' among nothing"),
        ("sku,title\nB1,Bib\n", "line 1: no column 'id' among sku, title"),
        ("id\nB1\n", "line 1: needed are columns of texts"),
        ("id,title\nB1\n", "line 2: 1 fields"),
        ("id,title\nB1,Bib\nB1,Bob\n", "line 3: id 'B1' stands there already"),
        ('id,title\nB1,"Bib\n', "line 2: a quote does not end"),
    ],
)
def test_a_bad_table_of_texts_is_named_by_its_line(tmp_path: Path, content: str, complaint: str) -> None:
    (tmp_path / "texts.csv").write_text(content, encoding="utf-8")
    message = refusal(lambda: read_texts(tmp_path / "texts.csv"))
    assert message.startswith(str(tmp_path / "texts.csv"))
    assert complaint in message


# --- images ---


def test_an_image_belongs_to_the_item_of_its_name_and_only_one_does(tmp_path: Path, shop: Path) -> None:
    folder = tmp_path / "covers"
    assert "no such folder" in refusal(lambda: find_images(folder))
    folder.mkdir()
    names = ("B000.jpg", "B003.PNG", "B005.jpeg", "zzz.webp")
    for name in (*names, "notes.txt"):
        (folder / name).touch()
    images = find_images(folder)
    assert images == {name.partition(".")[0]: folder / name for name in names}
    encoded = encode_features(shop, images, Lengths(), "visual", str(folder))
    assert (encoded.file.name, encoded.left_out, encoded.filled) == ("image_feat.npy", 1, 5)
    np.testing.assert_array_equal(load_dataset(str(shop)).features["visual"][[0, 3, 5], 0], [8, 8, 9])
    (folder / "B000.png").touch()
    assert "B000.jpg is an image of the same item" in refusal(lambda: find_images(folder))


# --- the libraries ---


@pytest.mark.parametrize(
    ("module", "make", "extra"),
    [("sentence_transformers", SentenceEncoder, "text"), ("timm", ImageEncoder, "images")],
)
def test_a_missing_library_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, module: str, make: Callable[[], object], extra: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    assert f"pip install 'bm3-harness[{extra}]'" in refusal(make, ConfigError)


def test_the_libraries_are_imported_only_when_an_encoder_is_made() -> None:
    import subprocess

    code = "import sys, harness.ingest.features; print({'timm', 'sentence_transformers', 'PIL'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_a_sentence_model_in_a_folder_is_loaded_offline_and_known_by_its_files_and_named_if_it_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: dict[str, Any] = {}

    def fail(*_: object, **__: object) -> None:
        raise OSError("no connection\nto the hub")

    class Model:
        def __init__(self, model: str, **options: Any) -> None:
            calls[model] = options

        def encode(self, batch: list[str], **options: Any) -> NDArray[Any]:
            return np.ones((len(batch), 3), np.float32)

    monkeypatch.setitem(sys.modules, "sentence_transformers", type("Library", (), {"SentenceTransformer": Model}))
    monkeypatch.setattr("importlib.metadata.version", lambda library: "9.9")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}", encoding="utf-8")
    encoder = SentenceEncoder(str(tmp_path / "model"))
    assert calls[encoder.name]["local_files_only"] is True
    assert calls[encoder.name]["model_kwargs"] == {"use_safetensors": True}
    assert encoder.library == "sentence-transformers 9.9"
    assert encoder.encode(["a", "b"]).shape == (2, 3)
    assert encoder.revision == SentenceEncoder(str(tmp_path / "model")).revision
    (tmp_path / "model" / "config.json").write_text("{ }", encoding="utf-8")
    assert encoder.revision != SentenceEncoder(str(tmp_path / "model")).revision
    monkeypatch.setattr(Model, "__init__", fail)
    assert "'who/knows' cannot be loaded (no connection)" in refusal(lambda: SentenceEncoder("who/knows"), ConfigError)
