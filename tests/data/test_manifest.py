"""Manifests: the built-in one, and what is refused in one of a user."""

import shlex
from pathlib import Path

import pytest
from file_host import write_manifest
from refusals import refusal

from harness.cli_prepare import prepare_command
from harness.data.manifest import MANIFEST, load_manifest


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return tmp_path / "shop.toml"


def test_the_files_of_every_data_set_are_those_its_prepare_command_reads() -> None:
    manifest = load_manifest(MANIFEST)
    assert list(manifest) == ["baby", "sports", "electronics"]
    for name, source in manifest.items():
        words = shlex.split(source.prepare_command(Path("/a folder")))
        assert words[:3] == ["bm3", "data", "prepare"]
        asked = prepare_command.make_context("prepare", words[3:]).params
        assert asked["name"] == name
        read = {asked[kind] for kind in ("ratings", "metadata", "images")}
        assert read == {Path("/a folder") / file.name for file in source.files}
        assert all(source.url(file).startswith("https://") for file in source.files)


ELSEWHERE = ("../x", "a/../b", "/etc/passwd", "a//b", ".hidden", "a\\\\b", "a b", "x/", "a?b", "a%2e", "é")
OWN = ("fetched.json", "Fetched.JSON", "a.part", "a.part.json", "a.mismatch-1")


@pytest.mark.parametrize("path", [*ELSEWHERE, *OWN])
def test_a_manifest_leads_to_no_other_folder(manifest: Path, path: str) -> None:
    write_manifest(manifest, "https://h/x", files=f'[{{ path = "{path}" }}]')
    assert f"{manifest}: shop.files.0.path" in refusal(lambda: load_manifest(manifest))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("base", '"ftp://h/x"'),
        ("base", '"https:///x"'),
        ("base", '"https://h/x?a=b"'),
        ("base", '"https://me:secret@h/x"'),
        ("base", '"https://h/a b"'),
        ("base", '"https://[h"'),
        ("licence", '"\\u001b[2J"'),
        ("licence", '""'),
        ("licence", ""),
        ("title", "3"),
        ("files", "[]"),
        ("files", '[{ path = "a/x" }, { path = "b/X" }]'),
        ("files", '[{ path = "x", bytes = -1 }]'),
        ("files", '[{ path = "x", bytes = "7" }]'),
        ("files", '[{ path = "x", sha256 = "abc" }]'),
        ("files", '[{ path = "x", md5 = "abc" }]'),
        ("colour", '"red"'),
    ],
)
def test_a_manifest_with_an_error_is_refused_with_the_field(manifest: Path, field: str, value: str) -> None:
    write_manifest(manifest, "https://h/x", **{field: value})
    assert f"{manifest}: shop.{field}" in refusal(lambda: load_manifest(manifest))


@pytest.mark.parametrize("content", [b"", b"[shop", b"\xff", b"x = 1", b"['../x']\n"])
def test_what_is_no_manifest_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.toml").write_bytes(content)
    assert str(tmp_path / "m.toml") in refusal(lambda: load_manifest(tmp_path / "m.toml"))
