"""What mkdocs does not do by itself for this site: a reference of commands out of the commands, a page of stored runs,
pages that lie outside of docs/, and links to files there. `mkdocs.yml` names it as a hook."""

import inspect
import posixpath
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import click
from mkdocs.structure.files import File, Files

import harness
from harness.cli.main import bm3
from harness.runs.index import entries

ROOT = Path(__file__).parents[1]
STORE, RUNS = ROOT / "docs" / "results" / "runs", "results/runs.md"
WHOLE = "whole.html"
"""A report as one page, beside its Markdown."""
OUTSIDE = "repository"
"""Folder of the site for what lies outside of docs/."""
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)(?=[)#])")
CODE = re.compile(r"`([^`\n]*\\\|[^`\n]*)`")
FENCES = re.compile(r"^(```.*?^```)", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: Any) -> Files:
    """Add the reference of commands, and what pages link to outside of docs/, with what that links to."""
    files.append(File.generated(config, "reference/commands.md", content=commands()))
    files.append(File.generated(config, RUNS, content=stored_runs()))
    files.append(File.generated(config, "reference/python.md", content=names()))
    for page in sorted(ROOT.glob("docs/results/*/report.html")):
        files.append(File.generated(config, f"results/{page.parent.name}/{WHOLE}", content=page.read_bytes()))
    waiting = [ROOT / "docs" / file.src_uri for file in files.documentation_pages() if not file.generated_by]
    waiting += [ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md")]
    seen = {*waiting}
    while waiting:
        path = waiting.pop()
        if not path.is_relative_to(ROOT / "docs"):
            files.append(File.generated(config, outside(path), content=path.read_bytes()))
        if path.suffix == ".md":
            new = {target for _, target in links(path) if target.is_file()} - seen
            seen |= new
            waiting += sorted(target for target in new if not target.is_relative_to(ROOT / "docs"))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Let links lead to where their files are on the site."""
    uri = page.file.src_uri
    origin = ROOT / uri.removeprefix(f"{OUTSIDE}/") if uri.startswith(f"{OUTSIDE}/") else ROOT / "docs" / uri
    where = posixpath.dirname(uri)

    def moved(match: re.Match[str]) -> str:
        target = (origin.parent / match[1]).resolve()
        if target == STORE or target.parent == STORE:
            return posixpath.relpath(RUNS, where or ".") + (f"#{target.name}" if target != STORE else "")
        inside = target.is_relative_to(ROOT / "docs")
        path = target.relative_to(ROOT / "docs").as_posix() if inside else outside(target)
        return posixpath.relpath(path, where or ".")

    if uri == "index.md":
        first = (
            (ROOT / "docs" / "results" / "answer.md").read_text(encoding="utf-8").split("\n## ")[0].partition("\n")[2]
        )
        markdown = markdown.replace("<!-- the answer -->", first.strip())
    if (ROOT / "docs" / where / "report.html").is_file() and uri.endswith("/report.md"):
        title, _, rest = markdown.partition("\n")
        markdown = f"{title}\n\n[With pictures, and each cell's runs and sources]({WHOLE})\n{rest}"
    parts = FENCES.split(markdown)
    return "".join(part if part.startswith("```") else CODE.sub(piped, LINK.sub(moved, part)) for part in parts)


def piped(match: re.Match[str]) -> str:
    """Code in a table with a bar, whose backslash Python's Markdown would show."""
    return f"<code>{escape(match[1]).replace(chr(92) + '|', '&#124;')}</code>"


def outside(path: Path) -> str:
    """Where on the site a file is that lies outside of docs/; mkdocs leaves hidden folders out."""
    return f"{OUTSIDE}/{path.relative_to(ROOT).as_posix().lstrip('.')}"


def links(path: Path) -> Iterator[tuple[str, Path]]:
    """The links of a page to files, as they stand there and as paths."""
    for part in FENCES.split(path.read_text(encoding="utf-8")):
        if not part.startswith("```"):
            yield from ((name, (path.parent / name).resolve()) for name in LINK.findall(part))


def names() -> str:
    """The reference of what `import harness` gives."""
    lines = ["# import harness", "", "What each does stands here; [From Python](../python.md) shows the way.", ""]
    for name in harness.__all__:
        found = getattr(harness, name)
        lines += [f"::: {found.__module__}.{found.__qualname__}", "    options:", f"      heading: {name}", ""]
    return "\n".join(lines)


def stored_runs() -> str:
    """What is stored in docs/results/runs, a table for each folder."""
    lines = [
        "# Stored runs",
        "",
        "Everything in `docs/results/runs`, by folder, with R@20. `bm3 replay` makes one again.",
        "",
    ]
    for folder in sorted(path for path in STORE.iterdir() if path.is_dir()):
        lines += [f"## {folder.name}", "", "| run | state | best epoch | test R@20 |", "| --- | --- | --- | --- |"]
        for one in entries(folder):
            test = "" if one.test is None else f"{one.test:.4f}"
            lines.append(f"| `{one.key}` | {one.state} | {one.best_epoch} of {one.epoch} | {test} |")
        lines.append("")
    return "\n".join(lines)


def commands() -> str:
    """The reference of all commands, from what they say of themselves."""
    context = click.Context(bm3, info_name="bm3", **bm3.context_settings)
    lines = ["# Commands", "", *text(bm3.help or ""), ""]
    lines += ["Each command says the same with `--help`.", ""]
    for name in sorted(bm3.list_commands(context)):
        lines += command(bm3.get_command(context, name), context, name)
    return "\n".join(lines)


def command(about: click.Command | None, parent: click.Context, name: str) -> list[str]:
    """A section for a command, and one for each command below it."""
    if about is None or about.hidden:
        return []
    context = click.Context(about, info_name=name, parent=parent)
    usage = " ".join([context.command_path, *about.collect_usage_pieces(context)])
    lines = ["#" * (context.command_path.count(" ") + 1) + f" {context.command_path}", "", "```text", usage, "```", ""]
    lines += [*text(about.help or ""), ""]
    rows = [found for one in about.get_params(context) if (found := one.get_help_record(context))]
    if rows:
        lines += ["| option | what |", "| --- | --- |"]
        lines += [f"| `{cell(option)}` | {cell(what)} |" for option, what in rows if what]
    lines.append("")
    if isinstance(about, click.Group):
        for below in sorted(about.list_commands(context)):
            lines += command(about.get_command(context, below), context, below)
    return lines


def text(said: str) -> Iterator[str]:
    """Help as Markdown: paragraphs, and blocks that keep their lines."""
    for block in re.split(r"\n\s*\n", inspect.cleandoc(said)):
        kept, _, rest = block.partition("\b\n")
        pairs = [re.split(r" {2,}", line.strip(), maxsplit=1) for line in rest.splitlines()]
        if pairs and all(len(pair) == 2 for pair in pairs):
            yield from ["| command | what |", "| --- | --- |", *(f"| `{one}` | {cell(what)} |" for one, what in pairs)]
        else:
            yield from (["```", rest, "```"] if rest and not kept.strip() else [block.replace("\f", "")])
        yield ""


def cell(said: str) -> str:
    return " ".join(said.split()).replace("|", "\\|")
