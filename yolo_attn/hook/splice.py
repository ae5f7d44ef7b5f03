"""Rewrite two expressions of a host's ``parse_model``, found in its syntax tree, quoted and never re-implemented.

    m = LOOKUP   ->  m = PACKAGE.find(m, args, i, d, lambda: LOOKUP)
    c2 = ch[f]   ->  m, c2, n, args = PACKAGE.place(m, ch, f, n, args, i, d, lambda c2: WIDTH if GUARD else c2)

LOOKUP, WIDTH and GUARD are the host's own source, so its rules stay in force whatever its version. No line moves, so
tracebacks keep their line numbers.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from types import CodeType
from typing import Callable, TypeVar

from .._name import PACKAGE

__all__ = ["ON_DISK", "SpliceError", "find_code", "splice"]

T = TypeVar("T")

# The global in a file that `yolo-attn patch` has spliced on disk.
ON_DISK = "_" + PACKAGE.replace(".", "_") + "_rows"


class SpliceError(Exception):
    """The parser does not have the expected shape; the message says what was not found."""


def splice(source: str, function: str, kit: str) -> str:
    """Return the source of a module with its parser rewritten to call `find` and `place`.

    Args:
        source: Source of the module.
        function: Name of the parser.
        kit: Expression for the object with these two methods: the name of a global, or a constant to be replaced
            in the compiled code.

    Raises:
        SpliceError: An expected expression is missing or occurs more than once.
    """
    tree = ast.parse(source)
    definition = _one(
        [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == function], f"the definition of {function}"
    )
    if not definition.args.args:
        raise SpliceError(f"a first parameter of {function}, the model dictionary")
    d = definition.args.args[0].arg
    loop, (i, f, n, m, args) = _rows_loop(definition)
    lookup = _one(
        [s for s in loop.body if isinstance(s, ast.Assign) and _is_name(s.targets, m) and not _is_constructed(s)],
        f"the look-up of a row's module, `{m} = ...`",
    )
    default = _one(
        [s for s in _last_elses(loop) if isinstance(s, ast.Assign) and _subscript_of(s.value, f) and _single_name(s)],
        f"the default channel rule, `else: c2 = ch[{f}]`",
    )
    c2 = _single_name(default) or ""
    assert isinstance(default.value, ast.Subscript)
    ch_node = default.value.value
    if not isinstance(ch_node, ast.Name):
        raise SpliceError(f"the list of channels in `{c2} = ...[{f}]`")
    ch = ch_node.id
    _one(
        [s for s in ast.walk(loop) if isinstance(s, ast.If) and _is_restart(s, i, ch)],
        f"the restart of the channel list, `if {i} == 0: {ch} = []`",
    )
    rule = _one(
        [s for s in ast.walk(loop) if isinstance(s, ast.If) and _is_width_rule(s, c2)],
        f"the width rule, `if ...: {c2} = make_divisible(...)`",
    )
    text = _Text(source)
    width_assign = rule.body[0]
    assert isinstance(width_assign, ast.Assign)
    guard, width = text.flat(rule.test), text.flat(width_assign.value)
    text.replace(lookup.value, lambda old: f"{kit}.find({m}, {args}, {i}, {d}, lambda: {old})")
    text.replace(
        default,
        lambda _: (
            f"{m}, {c2}, {n}, {args} = {kit}.place({m}, {ch}, {f}, {n}, {args}, {i}, {d}, "
            f"lambda {c2}: ({width}) if ({guard}) else {c2})"
        ),
    )
    return text.result()


def find_code(code: CodeType, name: str) -> CodeType:
    """Return the code object of a top-level function of a compiled module.

    Raises:
        SpliceError: The function is missing or defined more than once.
    """
    return _one([c for c in code.co_consts if isinstance(c, CodeType) and c.co_name == name], f"compiled {name}")


def _one(found: list[T], what: str) -> T:
    if len(found) != 1:
        raise SpliceError(f"{what} (found {len(found)} times, expected once)")
    return found[0]


def _rows_loop(definition: ast.FunctionDef) -> tuple[ast.For, tuple[str, str, str, str, str]]:
    found = []
    for node in ast.walk(definition):
        if not isinstance(node, ast.For) or not isinstance(node.target, ast.Tuple) or len(node.target.elts) != 2:
            continue
        index, row = node.target.elts
        if isinstance(index, ast.Name) and isinstance(row, ast.Tuple) and len(row.elts) == 4:
            names = [e.id for e in row.elts if isinstance(e, ast.Name)]
            if len(names) == 4:
                found.append((node, (index.id, names[0], names[1], names[2], names[3])))
    return _one(found, "the loop over rows, `for i, (f, n, m, args) in enumerate(...)`")


def _last_elses(loop: ast.For) -> Iterator[ast.stmt]:
    """The statements that are alone in an ``else:``, ``elif`` aside."""
    for node in ast.walk(loop):
        if isinstance(node, ast.If) and len(node.orelse) == 1 and not isinstance(node.orelse[0], ast.If):
            yield node.orelse[0]


def _is_name(targets: list[ast.expr], name: str) -> bool:
    return len(targets) == 1 and isinstance(targets[0], ast.Name) and targets[0].id == name


def _is_constructed(assign: ast.Assign) -> bool:
    return isinstance(assign.value, (ast.Name, ast.Constant))


def _single_name(assign: ast.Assign) -> str | None:
    target = assign.targets[0]
    return target.id if len(assign.targets) == 1 and isinstance(target, ast.Name) else None


def _subscript_of(node: ast.expr, index: str) -> bool:
    return isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Name) and node.slice.id == index


def _is_restart(node: ast.If, i: str, ch: str) -> bool:
    test, body = node.test, node.body
    return (
        isinstance(test, ast.Compare)
        and isinstance(test.left, ast.Name)
        and test.left.id == i
        and len(body) == 1
        and isinstance(body[0], ast.Assign)
        and _is_name(body[0].targets, ch)
        and isinstance(body[0].value, ast.List)
        and not body[0].value.elts
    )


def _is_width_rule(node: ast.If, c2: str) -> bool:
    if len(node.body) != 1 or node.orelse or not isinstance(node.body[0], ast.Assign):
        return False
    assign = node.body[0]
    call = assign.value
    return (
        _is_name(assign.targets, c2)
        and isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id == "make_divisible"
    )


class _Text:
    """Source with replacements by syntax-tree node; offsets of nodes are UTF-8 bytes."""

    def __init__(self, source: str) -> None:
        self.raw = source.encode()
        self.starts = [0]
        for line in self.raw.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))
        self.edits: list[tuple[int, int, bytes]] = []

    def span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        assert node.end_lineno is not None and node.end_col_offset is not None
        return self.starts[node.lineno - 1] + node.col_offset, self.starts[node.end_lineno - 1] + node.end_col_offset

    def flat(self, node: ast.expr) -> str:
        """The node's source on one line."""
        return ast.unparse(node)

    def replace(self, node: ast.expr | ast.stmt, edit: Callable[[str], str]) -> None:
        start, end = self.span(node)
        self.edits.append((start, end, edit(self.raw[start:end].decode()).encode()))

    def result(self) -> str:
        out, at = [], 0
        for start, end, new in sorted(self.edits):
            out += [self.raw[at:start], new]
            at = end
        return b"".join([*out, self.raw[at:]]).decode()
