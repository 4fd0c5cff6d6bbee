"""Files that claim too much or lead elsewhere are refused in one line; ordinary archives and links are not."""

import io
import os
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refusals import NAMED, Parts, Write, import_refused, refusal, write_table

from harness.data.files import MAX_EXPANSION
from harness.data.layouts import load_dataset
from harness.data.synthetic import mini
from harness.ingest.exporting import export
from harness.ingest.importing import import_dataset

# --- archives, and files that mean harm ---


def packed(folder: Path, archive: Path) -> Path:
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
            for path in sorted(folder.iterdir()):
                file.write(path, f"{folder.name}/{path.name}")
    else:
        mode: Any = {".tar": "w", ".gz": "w:gz", ".tgz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz"}[archive.suffix]
        with tarfile.open(archive, mode) as file:
            file.add(folder, arcname="." if archive.suffix == ".tgz" else folder.name)
    return archive


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz", "x.tgz", "x.tar.bz2", "x.tar.xz"])
def test_an_archive_is_imported_as_the_folder_in_it(tmp_path: Path, name: str) -> None:
    export(mini(), tmp_path / "x")
    found = import_dataset(packed(tmp_path / "x", tmp_path / name), "shop", tmp_path / "out")
    assert found.dataset.content_hash == mini().content_hash


def test_errors_in_an_archive_name_the_archive(tmp_path: Path) -> None:
    write_table(tmp_path / "x" / "ratings.csv", [("", "i")], ("who", "what"))
    archive = packed(tmp_path / "x", tmp_path / "x.zip")
    assert import_refused(archive, tmp_path / "out", NAMED) == (
        f"{archive}/x/ratings.csv, line 2: no user: fill it in or remove the row"
    )


def archive_of(path: Path, **attributes: Any) -> Path:
    """An archive of one member of four bytes, with these attributes of a TarInfo or ZipInfo."""
    packs = path.suffix == ".zip"
    member: Any = zipfile.ZipInfo("shop.inter") if packs else tarfile.TarInfo("shop.inter")
    for name, value in (attributes if packs else {"size": 4} | attributes).items():
        setattr(member, name, value)
    if packs:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr(member, b"text")
    else:
        with tarfile.open(path, "w") as packed:
            packed.addfile(member, io.BytesIO(b"text"))
    return path


OUTSIDE = ("../shop.inter", "/elsewhere/shop.inter", "a/../../shop.inter", "a\\..\\shop.inter")


@pytest.mark.parametrize(
    ("kind", "attributes", "complaint"),
    [
        *[
            (kind, {attribute: name}, "would lie outside")
            for kind, attribute in (("zip", "filename"), ("tar", "name"))
            for name in OUTSIDE
        ],
        *[
            ("tar", {"type": kind, "linkname": "/etc/passwd", "size": 0}, "a link or device")
            for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE)
        ],
        ("zip", {"external_attr": 0o120777 << 16}, "a link or device"),
        ("zip", {"filename": "shop.inter/"}, "a folder that holds 4 bytes itself"),
    ],
)
def test_members_that_lead_outside_or_are_no_plain_files_and_folders_are_refused(
    tmp_path: Path, kind: str, attributes: dict[str, Any], complaint: str
) -> None:
    message = import_refused(archive_of(tmp_path / f"x.{kind}", **attributes), tmp_path / "out")
    assert message.startswith(f"{tmp_path / 'x.'}{kind}")
    assert complaint in message


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_an_archive_that_expands_without_bounds_is_refused_before_it_is_unpacked(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.data.files.FREE_OF_LIMITS", 2**16)
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "shop.inter").write_bytes(bytes(2**20))
    archive = packed(tmp_path / "x", tmp_path / f"x.{kind}")
    monkeypatch.setattr("harness.ingest.archives.shutil.copyfileobj", lambda *_: pytest.fail("unpacked"))
    assert f"more than {MAX_EXPANSION} times" in import_refused(archive, tmp_path / "out")


@pytest.mark.parametrize(
    ("kind", "size", "complaint"),
    [
        (tarfile.GNUTYPE_LONGNAME, 8 * 2**30 - 1, "a header claims"),  # long names are read into memory whole
        *[(kind, -1024, "x.tar") for kind in (tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE)],
    ],
)
def test_a_size_that_cannot_be_is_not_taken(tmp_path: Path, kind: bytes, size: int, complaint: str) -> None:
    member = tarfile.TarInfo("shop.inter")
    member.type, member.size = kind, size
    (tmp_path / "x.tar").write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    assert complaint in import_refused(tmp_path / "x.tar", tmp_path / "out")


def test_too_many_members_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        for member in range(10_001):
            file.writestr(f"{member}", "")
    assert "more than 10,000 files" in import_refused(tmp_path / "x.zip", tmp_path / "out")


def header_of(shape: tuple[int, ...], descr: str = "<f4") -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
    return file.getvalue()


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("shape", [(10**12, 4), (2**62, 4), (8, 2**61), (-8, -4), (-8, 4)])
def test_a_table_that_claims_more_than_its_file_has_is_refused(
    shop: Path, shape: tuple[int, int], mapped: bool
) -> None:
    (shop / "visual.npy").write_bytes(header_of(shape) + bytes(128))
    message = refusal(lambda: load_dataset(str(shop), mapped=mapped))
    assert f"visual.npy: the header claims {list(shape)}" in message


def test_an_array_in_an_archive_that_claims_too_much_is_refused(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(shop / "interactions.npz", "w", compression) as file:
            file.writestr("train.npy", header_of((10**13, 2), "<i4") + bytes(64))
        assert "interactions.npz, train.npy: the header claims" in refusal(lambda: load_dataset(str(shop)))
    monkeypatch.setattr("harness.data.files.FREE_OF_LIMITS", 2**16)
    np.savez_compressed(shop / "interactions.npz", train=np.zeros((2**17, 2), np.int64))
    assert "interactions.npz, train.npy: claims" in refusal(lambda: load_dataset(str(shop)))


def test_a_dense_data_set_compressed_is_within_the_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pair of 200 users and 300 items in 64 bits: the most regular parts that there can be."""
    monkeypatch.setattr("harness.data.files.FREE_OF_LIMITS", 0)
    pairs = np.stack(np.meshgrid(np.arange(200), np.arange(300), indexing="ij"), axis=-1).reshape(-1, 2)
    parts: Any = {"train": pairs[pairs[:, 1] < 280]}
    parts["valid"], parts["test"] = (pairs[(pairs[:, 1] >= 280) & (pairs[:, 1] % 2 == odd)] for odd in (0, 1))
    (tmp_path / "shop").mkdir()
    np.savez_compressed(tmp_path / "shop" / "interactions.npz", **parts)
    assert load_dataset(str(tmp_path / "shop")).n_interactions == 60_000


@pytest.mark.parametrize(
    ("place", "followed"), [("kept/table.bin", True), ("../pool/table.bin", True), ("../../elsewhere/table.bin", False)]
)
def test_links_are_followed_within_the_data_root_and_elsewhere_only_if_allowed(
    tmp_path: Path, write_npz: Write, small_parts: Parts, monkeypatch: pytest.MonkeyPatch, place: str, followed: bool
) -> None:
    folder = write_npz(tmp_path / "data" / "shop", small_parts)
    target = (folder / place).resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        np.save(file, np.ones((8, 2), np.float32))
    (folder / "visual.npy").symlink_to(target)
    if not followed:
        message = refusal(lambda: load_dataset(str(folder)))
        assert f"{folder / 'visual.npy'}: a link to " in message
        assert "BM3_FOLLOW_LINKS=1" in message
        monkeypatch.setenv("BM3_FOLLOW_LINKS", "1")
    assert set(load_dataset(str(folder)).features) == {"visual"}
    if place.startswith("kept"):  # a data folder may itself be a link
        (tmp_path / "links").mkdir()
        (tmp_path / "links" / "shop").symlink_to(folder)
        assert set(load_dataset("shop", tmp_path / "links").features) == {"visual"}


def test_a_link_to_interactions_elsewhere_is_refused(tmp_path: Path, write_inter: Write, small_parts: Parts) -> None:
    folder = write_inter(tmp_path / "data" / "shop", small_parts)
    (folder / "shop.inter").rename(tmp_path / "elsewhere")
    (folder / "shop.inter").symlink_to(tmp_path / "elsewhere")
    assert "a link to" in refusal(lambda: load_dataset(str(folder)))
    assert "a link to" in import_refused(folder, tmp_path / "out")


@pytest.mark.parametrize("name", ["shop.inter", "visual.npy", "interactions.npz"])
def test_a_pipe_in_place_of_a_file_is_refused_and_not_waited_for(tmp_path: Path, shop: Path, name: str) -> None:
    if name != "visual.npy":
        (shop / "interactions.npz").unlink()
    os.mkfifo(shop / name)
    refusal(lambda: load_dataset(str(shop)))
    import_refused(shop, tmp_path / "out")
    import_refused(shop / name, tmp_path / "out", NAMED)
