"""Plants small faults, one at a time, in the functions that results rest on, and has their room's tests find them.

    python tests/mutants/run.py [--each N] [MODULE ...]

A fault ("mutant") is planted by giving a function the code of its changed source, in a process forked from one that has
collected the tests: so it costs what the tests take to find it. Commands that a test starts as processes of their own
have no fault; what is decided outside of functions (constants, defaults) gets none. `rooms.toml` says which tests hold
which module, `without` which functions, and which mutants are equivalent, and why. Exits with 1 when another survives.
"""

import argparse
import ast
import contextlib
import functools
import gc
import hashlib
import importlib
import multiprocessing
import os
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, NamedTuple

import pytest
from hypothesis import Phase, settings

HERE = Path(__file__).parent
FORK = multiprocessing.get_context("fork")
SEED = "1"
PATIENCE = 20.0, 10.0  # seconds, and times what the tests take without a fault
OPTIONS = ["--tb=no", "--assert=plain", "--hypothesis-profile=few", "-pno:cacheprovider"]
OPERATORS = {
    "Lt": "LtE GtE", "LtE": "Lt Gt", "Gt": "GtE LtE", "GtE": "Gt Lt", "Eq": "NotEq", "NotEq": "Eq",
    "Is": "IsNot", "IsNot": "Is", "In": "NotIn", "NotIn": "In", "And": "Or", "Or": "And",
    "Add": "Sub", "Sub": "Add", "Mult": "Div", "Div": "Mult", "FloorDiv": "Div", "Mod": "Mult", "Pow": "Mult",
    "BitAnd": "BitOr", "BitOr": "BitAnd",
}  # fmt: skip
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any", "sum": "mean", "mean": "sum", "argmax": "argmin"}
DROPPED = ("detach", "clone", "clamp", "copy", "contiguous")


class Mutant(NamedTuple):
    """What `function` has from byte `begin` to `end` of the file becomes `after`."""

    function: str
    line: int
    begin: int
    end: int
    after: str
    name: str
    """As rooms.toml names it: the lines before and after, without their number, which moves."""


def changes(node: ast.AST) -> Iterator[ast.AST | str]:
    """What may stand in place of a node."""

    def like(node: ast.AST, **fields: Any) -> ast.AST:
        return type(node)(**vars(node) | fields)

    match node:
        case ast.BinOp(left=ast.JoinedStr() | ast.Constant(value=str())) | ast.BinOp(right=ast.JoinedStr()):
            return  # of texts, another operator is only another error
        case ast.Compare(ops=[operator]) | ast.BinOp(op=operator) | ast.BoolOp(op=operator):
            for other in OPERATORS.get(type(operator).__name__, "").split():
                kind = getattr(ast, other)()
                yield like(node, **({"ops": [kind]} if isinstance(node, ast.Compare) else {"op": kind}))
        case ast.Constant(value=bool(value)):
            yield str(not value)
        case ast.Constant(value=int(value) | float(value)):
            yield from (f"{value + 1}", f"{value - 1}")
        case ast.UnaryOp(operand=operand) if not isinstance(operand, ast.Constant):
            yield operand
        case ast.IfExp(body=body, orelse=orelse):
            yield like(node, body=orelse, orelse=body)
        case ast.Name(id=name) if name in NAMES:
            yield NAMES[name]
        case ast.Attribute(attr=name) if name in NAMES:
            yield like(node, attr=NAMES[name])
        case ast.Call(func=ast.Attribute(value=value, attr=name)) if name in DROPPED:
            yield value
        case ast.Slice(lower=lower, upper=upper) if lower or upper:
            yield ":"
        case ast.Expr(value=ast.Call()) | ast.AugAssign() | ast.Raise() | ast.Continue() | ast.Break():
            yield "pass"
        case ast.Return(value=value) if value is not None and not isinstance(value, ast.Constant):
            yield "return None"


def mutants_of(source: bytes) -> list[Mutant]:
    """Of all functions and methods, in the order of the file; not within types, texts, asserts and defaults."""
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found: list[Mutant] = []

    def visit(node: Any, function: str) -> None:
        if isinstance(node, ast.JoinedStr | ast.Assert | ast.arguments):
            return
        for new in changes(node):
            begin, end = starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset
            after = new if isinstance(new, str) else f"({ast.unparse(new)})"
            lines = source[starts[node.lineno - 1] : begin], source[end : starts[node.end_lineno]]
            texts = (b.join(lines).decode().split() for b in (source[begin:end], after.encode()))
            name = f"{function}: {' → '.join(' '.join(words) for words in texts)}"
            found.append(Mutant(function, node.lineno, begin, end, after, name))
        for field, value in ast.iter_fields(node):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST) and field not in ("annotation", "returns"):
                    visit(child, function)

    def enter(node: ast.Module | ast.ClassDef, path: str) -> None:
        for child in node.body:
            if isinstance(child, ast.ClassDef):
                enter(child, f"{path}{child.name}.")
            elif isinstance(child, ast.FunctionDef):
                for statement in child.body:
                    visit(statement, path + child.name)

    enter(ast.parse(source), "")
    return found


def plant(module: Any, source: bytes, mutant: Mutant) -> None:
    """Give the function, wherever it was imported to, its changed code."""

    def codes(code: CodeType) -> Iterator[CodeType]:
        yield code
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                yield from codes(constant)

    changed = source[: mutant.begin] + mutant.after.encode() + source[mutant.end :]
    made = {code.co_qualname: code for code in codes(compile(changed, module.__file__, "exec"))}
    *path, name = mutant.function.split(".")
    found: Any = vars(functools.reduce(getattr, path, module))[name]
    while inner := [getattr(found, way) for way in ("__wrapped__", "fget", "__func__", "func") if hasattr(found, way)]:
        found = inner[0]  # of properties, class methods, cached and wrapped functions
    assert isinstance(found, FunctionType), mutant.function
    found.__code__ = made[mutant.function]


class Room:
    """A pytest plugin that runs the collected tests once per mutant, each time in a fork, up to the first failure."""

    def __init__(self, name: str, each: int, without: list[str]) -> None:
        self.module = importlib.import_module(name)
        self.source = Path(str(self.module.__file__)).read_bytes()
        every = [mutant for mutant in mutants_of(self.source) if mutant.function not in without]
        drawn = sorted(every, key=lambda mutant: hashlib.sha256((SEED + mutant.name).encode()).digest())
        self.mutants = sorted(drawn[:each], key=every.index)  # those of unchanged lines stay, whatever else changes
        self.ends: dict[Mutant, str] = {}

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        gc.freeze()  # so that forks share more of it
        began = time.monotonic()
        if session.testsfailed or self.end(session, None, 3600) != "survives":
            raise SystemExit(f"{self.module.__name__}: its tests fail without a fault")
        limit = PATIENCE[0] + PATIENCE[1] * (time.monotonic() - began)
        for mutant in self.mutants:
            end = self.end(session, mutant, limit)
            print(f"{end:9} {mutant.line:4} {mutant.name}", file=sys.stderr, flush=True)
            self.ends |= {mutant: end} if end != "no code" else {}
        return True

    def end(self, session: pytest.Session, mutant: Mutant | None, limit: float) -> str:
        """What becomes of a mutant: one that takes longer than `limit`, in seconds, is killed too."""
        child = FORK.Process(target=self.tested, args=(session, mutant))
        child.start()
        child.join(limit)
        child.kill()
        child.join()
        return {0: "survives", 2: "no code"}.get(child.exitcode, "killed")

    def tested(self, session: pytest.Session, mutant: Mutant | None) -> None:
        try:
            if mutant is not None:
                plant(self.module, self.source, mutant)
        except Exception:  # what cannot be planted is no mutant
            raise SystemExit(2) from None
        for item, then in zip(session.items, [*session.items[1:], None], strict=True):
            item.ihook.pytest_runtest_protocol(item=item, nextitem=then)
            if session.testsfailed:
                raise SystemExit(1)


def run(name: str, tests: list[str], each: int, without: list[str]) -> dict[Mutant, str]:
    """What became of each mutant of a module, none of them in the functions `without`."""
    room = Room(name, each, without)
    with Path(os.devnull).open("w") as silent, contextlib.redirect_stdout(silent):
        pytest.main([*OPTIONS, *(str(HERE.parents[1] / test) for test in tests)], plugins=[room])
    return room.ends


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", metavar="MODULE", nargs="*", help="such as bm3.losses; default: all of rooms.toml")
    parser.add_argument("--each", metavar="N", type=int, help="mutants of each module; default: as rooms.toml says")
    options = parser.parse_args()
    found_is_enough = [Phase.explicit, Phase.generate]  # not the smallest example
    settings.register_profile("few", deadline=None, max_examples=10, derandomize=True, phases=found_is_enough)
    importlib.import_module("torch").set_num_threads(1)
    table, notes, total = [], [], Counter[str]()
    for name, room in tomllib.loads((HERE / "rooms.toml").read_text(encoding="utf-8")).items():
        if name not in (options.modules or [name]):
            continue
        with ProcessPoolExecutor(1, FORK) as apart:  # so that the tests of one do not meet those of another
            each = options.each or room["mutants"]
            ends = apart.submit(run, name, room["tests"], each, room.get("without", [])).result()
        for mutant in [mutant for mutant, end in ends.items() if end == "survives"]:
            equivalent = room.get("equivalent", {})
            reason = equivalent.get(mutant.name) or equivalent.get(mutant.function)
            ends[mutant] = "equivalent" if reason else "survives"
            notes.append(f"- `{name}`, `{mutant.name}`: {reason or '**survives**'}")
        table.append((name, count := Counter(ends.values())))
        total += count
    print("| module | mutants | killed | equivalent | survive |\n| --- | ---: | ---: | ---: | ---: |")
    for name, count in [*table, ("all", total)]:
        print(f"| {name} | {count.total()} | {count['killed']} | {count['equivalent']} | {count['survives']} |")
    print("", *notes, sep="\n")
    raise SystemExit(total["survives"] > 0)


if __name__ == "__main__":
    main()
