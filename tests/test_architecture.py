"""The rooms of the package and who may import whom, read off the syntax trees: no circle, no arrow upwards.

Every import counts, wherever it stands: at the top of a file, inside a function, under ``TYPE_CHECKING``, and by
``import_module`` with a name that is written out or put together.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

KIT = "yolo_attn"

# From the top down. A file imports from its own floor and from those below it; most rooms have a floor of their own.
FLOORS = [
    ["__main__", "cli", "commands", "kit"],
    ["study"],
    ["training"],
    ["inside"],
    ["export"],
    ["evaluation"],
    ["detectors"],
    ["weights"],
    ["model_yaml"],
    ["hook"],
    ["modules"],
    ["registry"],
    ["patches", "runtime", "model_cfgs"],
    ["_name", "_version", "beside", "errors", "files", "log", "pages", "system", "words"],
]
# Rooms that import less than the floors below them offer.
ALONE = {"patches": [], "model_cfgs": [], "runtime": ["errors", "files", "log", "system", "_version", "words"]}
# Names that files of users hold, whatever the layout: they import what they stand for, and nobody imports them.
STABLE = {"plugins", "rows", "trainer"}

# Imports whose name no reader of the file can tell, and why each may stand. File, and what it imports.
UNTOLD = {
    "commands/env.py": "the hosts' parsers",
    "detectors/classic.py": "the modules of a classic host",
    "__init__.py": "files of `modules`, found in that folder",
    "registry/installed.py": "what the user named in an installed package",
    "runtime/engines/network.py": "the package of a runtime",
    "registry/plugins.py": "what the user named: a plug-in",
    "patches/safe_classes.py": "a host's classes",
}


def files() -> dict[str, Path]:
    """Every module of the kit by its dotted name, `patches` where it is imported from."""
    found = {}
    for folder, prefix in ((ROOT / KIT, KIT), *((ROOT / name, f"{KIT}.{name}") for name in ("patches", "model_cfgs"))):
        for path in sorted(folder.rglob("*.py")):
            parts = [prefix, *path.relative_to(folder).with_suffix("").parts]
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


FILES = files()


def room(module: str) -> str:
    """The folder, or the flat file, that a module belongs to; empty for the package itself."""
    return module.split(".")[1] if "." in module else ""


def package_of(module: str) -> str:
    return module if FILES[module].name == "__init__.py" else module.rpartition(".")[0]


def absolute(package: str, level: int, name: str) -> str:
    base = package.split(".")[: len(package.split(".")) - level + 1]
    return ".".join([*base, *filter(None, [name])])


def told(node: ast.expr, module: str) -> str | None:
    """The name that an expression gives, a pattern where parts of it are open, or None."""
    known = {"__name__": module, "__package__": package_of(module)}
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.escape(node.value)
    if isinstance(node, ast.Name):
        return re.escape(known[node.id]) if node.id in known else None
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        sides = [told(side, module) for side in (node.left, node.right)]
        return None if sides[0] is None else sides[0] + (sides[1] or r"[\w.]+")
    if isinstance(node, ast.JoinedStr):
        parts = [told(v.value if isinstance(v, ast.FormattedValue) else v, module) for v in node.values]
        return None if not parts or parts[0] is None else "".join(p or r"[\w.]+" for p in parts)
    return None


def imports(module: str) -> Iterator[tuple[str, int]]:
    """Each module of the kit that a file imports, with the line; ``?`` where the name cannot be told."""
    package = package_of(module)
    for node in ast.walk(ast.parse(FILES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((a.name, node.lineno) for a in node.names if a.name.split(".")[0] == KIT)
        elif isinstance(node, ast.ImportFrom):
            home = absolute(package, node.level, node.module or "") if node.level else node.module or ""
            if home.split(".")[0] == KIT:
                for a in node.names:
                    yield (f"{home}.{a.name}" if f"{home}.{a.name}" in FILES else home), node.lineno
        elif isinstance(node, ast.Call) and called(node) in ("import_module", "__import__") and node.args:
            name = told(node.args[0], module)
            if name is None:
                yield "?", node.lineno
                continue
            if name.startswith(r"\."):
                name = re.escape(package) + name
            yield from ((m, node.lineno) for m in FILES if re.fullmatch(name, m))


def called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


GRAPH = {m: sorted(set(imports(m))) for m in FILES}
LEVEL = {name: level for level, floor in enumerate(FLOORS) for name in floor}


def test_every_file_has_its_room() -> None:
    rooms = {room(m) for m in FILES if m != KIT} - STABLE
    assert rooms <= set(LEVEL), f"no floor for {sorted(rooms - set(LEVEL))}"
    assert {p.name for p in (ROOT / KIT).glob("*.py")} <= {f"{n}.py" for n in {*LEVEL, *STABLE}} | {"__init__.py"}


def test_no_arrow_points_upwards() -> None:
    wrong = []
    for module, found in GRAPH.items():
        here = room(module)
        if module == KIT or here in STABLE:
            continue
        for target, line in found:
            there = room(target)
            if target == "?" or there == here:
                continue
            allowed = ALONE.get(here)
            good = there in allowed if allowed is not None else LEVEL.get(there, -1) >= LEVEL[here]
            if not good:
                wrong.append(f"{FILES[module].relative_to(ROOT)}:{line}: {here} imports {target}")
    assert not wrong, "\n".join(wrong)


def test_no_circle() -> None:
    """Between files, within a room as well; importing a file of a package does not count as importing the package."""
    edges = {m: {t for t, _ in found if t in FILES and t != m} for m, found in GRAPH.items()}
    done: set[str] = set()

    def walk(module: str, path: list[str]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module in done:
            return
        for target in sorted(edges[module]):
            walk(target, [*path, module])
        done.add(module)

    for module in edges:
        walk(module, [])


def test_names_that_cannot_be_told_are_few() -> None:
    untold = {str(FILES[m].relative_to(ROOT)).replace(f"{KIT}/", "", 1) for m, found in GRAPH.items() for t, _ in found if t == "?"}
    assert untold <= set(UNTOLD), f"{sorted(untold - set(UNTOLD))}: write the name out, or say here why it cannot be"


def test_patches_never_import_the_kit() -> None:
    """Nor by a string: the kit is handed in."""
    for path in (ROOT / "patches").glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                assert node.level <= 1 and (node.module or "").split(".")[0] != KIT, f"{path.name}:{node.lineno}"
            if isinstance(node, ast.Import):
                assert all(a.name.split(".")[0] != KIT for a in node.names), f"{path.name}:{node.lineno}"
            if isinstance(node, ast.Call) and called(node) in ("import_module", "__import__"):
                text = ast.unparse(node.args[0])
                assert KIT not in text and "KIT" not in text and "__package__" not in text, f"{path.name}:{node.lineno}"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("from .parser import install", {"yolo_attn.parser"}),
        ("def f():\n    from . import config", {"yolo_attn.config"}),
        ("if TYPE_CHECKING:\n    from .config import read", {"yolo_attn.config"}),
        ("import importlib\nimportlib.import_module('yolo_attn.config')", {"yolo_attn.config"}),
        ("importlib.import_module('.config', __package__)", {"yolo_attn.config"}),
        ("importlib.import_module(f'{__package__}.{name}')", {"yolo_attn.config", "yolo_attn.parser", "yolo_attn.here"}),
        ("importlib.import_module(name)", {"?"}),
    ],
)
def test_the_graph_sees_every_kind_of_import(
    text: str, wanted: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {f"yolo_attn.{n}": tmp_path / f"{n}.py" for n in ("here", "config", "parser")}
    for path in found.values():
        path.write_text("", encoding="utf-8")
    found["yolo_attn.here"].write_text(text, encoding="utf-8")
    monkeypatch.setitem(globals(), "FILES", found)
    assert {m for m, _ in imports("yolo_attn.here")} == wanted
