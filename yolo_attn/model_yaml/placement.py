"""Insert attention into any YOLO model YAML, and remove it.

:func:`insert` and :func:`remove` take a model's name, a file, YAML text or a dictionary, and shift every row number in
`from`, Concat and Detect. Text keeps its layout and comments: ``remove(insert(text)) == text``, because :func:`insert`
marks every row that it writes, and a plain :func:`remove` removes the marked rows.

Placements (``where``), with YOLOv5 as the example:

============================  ==========================================================================
``backbone``                  after every feature block of the backbone (C3, C2f, HGBlock, ...)
``backbone-last2``            after the last two of them
``P2`` ... ``P7``             after the last one at stride 4 ... 128
``head``                      after every feature block of the head
``neck``                      after the head rows that Detect reads; all later rows read the attention
``neck-P3`` ... ``neck-P7``   after the one of them at that stride
``before-detect``             between those rows and Detect; the path to the next level is unchanged
``inside``                    in the blocks themselves: C3 becomes C3Attention; ``inside-neck``, ``inside-P4``, ...
============================  ==========================================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any

from ..errors import UsageError
from ..hook.resolve import Named, named
from ..log import announce
from ..registry import plugins, registry
from ..registry.registry import PREFIX, plain_name
from ..words import option
from .given import Config, module_options, read_model, several
from .graph import Graph, Node
from .places import PLACEMENTS, choose, outline
from .recognise import inner, keeps_width
from .start import check_start, set_in
from .text import Change, Layout, Line
from .trial import check_options
from .widths import Scale, widths

__all__ = ["MARK", "PLACEMENTS", "insert", "outline", "remove", "set_start"]

MARK = "+ attention"
_FROZEN = MARK + " (comments keep the numbers of the rows without it)"
_INSIDE = "+ attention inside"


def insert(
    cfg: Config,
    module: str,
    *,
    after: str | int | Iterable[str | int] | None = None,
    where: str | Iterable[str] | None = None,
    start: str | None = None,
    args: Mapping[str, Any] | Sequence[Any] | None = None,
) -> Any:
    """Insert attention into a model YAML.

    Args:
        cfg: A model's name (``yolov5s``), a YAML file, YAML text (several lines, or in braces), or a model dictionary.
        module: A registered name, a name under the YAML's ``register:``, or ``FILE.py:Class``.
        after: Module types (``"C3"``) or row numbers to insert attention after.
        where: One or more placements; see above. With `after`, a row must satisfy both.
        start: How attention begins: ``identity`` with every gate at 1, ``paper`` as its authors describe. Default: not
            written.
        args: Options of the module, such as ``{"reduction": 8}``.

    Returns:
        The new YAML text, or for a dictionary the new dictionary.

    Raises:
        UsageError: Neither `after` nor `where` is given, or nothing matches them; the message lists what would. Or the
            module cannot be built with `args` at a row.
        UnknownModuleError: `module` is not registered.
        ConfigError: `cfg` is not a valid model.
    """
    places, wanted = several("where", where, (str,)), several("after", after, (str, int))
    text, d, name, letter = read_model(cfg)
    module = plugins.resolve(module) if isinstance(module, str) else module
    what, options = module_options(module, d, start, args)
    graph = Graph.of(d)
    if not places and not wanted:
        raise UsageError(
            f"give a placement: {option('after')} (a module type or row number) or "
            f"{option('where')} ({', '.join(PLACEMENTS)})"
        )
    chosen = [(place, choose(graph, d, name, place, wanted)) for place in places or [""]]
    given = options[-1] if options and isinstance(options[-1], dict) else {}
    scale = Scale.of(d, letter)
    channels = widths(graph, d, scale)
    tried: set[tuple[str, int | None]] = set()
    done: set[tuple[bool, Node]] = set()
    for place, nodes in chosen:
        for node in nodes:
            inside = place.startswith("inside")
            if place != "before-detect" and (inside, node) in done:  # two placements that name one row
                continue
            row = f"{name}, row {node.old} ({node.module})"
            if inside:
                source = node.edges[0].target
                block, arrives = _attend_inside(node, module, options, name), channels[source] if source else 3
                if what.cls is not None:  # the hook passes the class for a name under `register:`
                    held = [*node.args[:-1], {**node.args[-1], "module": what.cls}]
                    check_options(block, held, given, arrives, scale, row)
            elif (module, channels[node]) not in tried:
                tried.add((module, channels[node]))
                check_options(what, options, given, channels[node], scale, row)
            if place == "before-detect":
                edges = [e for e in graph.output.edges if e.target is node or e.target in _behind(graph, node)]
                reads = edges[0].target
                assert reads is not None
                graph.insert(reads, _tail(module, options), graph.nodes[-2], edges)
                continue
            done.add((inside, node))
            if not inside:
                graph.insert(node, _tail(module, options), node, graph.readers(node))
    _check_plain_left(graph, name)
    if text is None:
        return {**deepcopy(d), **deepcopy(graph.parts())}
    return _render(text, name, graph)


def remove(cfg: Config, module: str | None = None, *, all: bool = False) -> Any:
    """Remove attention from a model YAML: what :func:`insert` marked, or one module, or all attention.

    Dictionaries, and rows that share a line of the text with others, have no marks; all their attention is removed.

    Args:
        cfg: As for :func:`insert`.
        module: Remove all rows of this module and no others, whether marked or written by hand.
        all: Also remove attention written by hand, both rows and attention inside blocks.

    Returns:
        The new YAML text or dictionary, unchanged if there is no attention. A line of the log names the rows with
        attention that stay because they are not marked.

    Raises:
        UsageError: Both `module` and `all` are given.
        ConfigError: `cfg` is not a valid model.
    """
    if module is not None and all:
        raise UsageError(f"{option('module', module)} removes one module, {option('all', True)} removes every one")
    text, d, name, _ = read_model(cfg)
    graph = Graph.of(d)
    layout = Layout(text, name) if text is not None else None
    wanted = _spellings(module) if module is not None else None
    unmarked: set[int] = set()
    stay: list[str] = []
    for i, node in enumerate(list(graph.nodes)):
        what, within = named(node.module, d), inner(node, d)
        behind = len(node.edges) == 1 and node is not graph.output
        marked = layout is None or not layout.can_mark(i)
        if behind and layout is not None and layout.is_marked(i, MARK):
            if wanted is None or node.module in wanted:
                graph.drop(node)
        elif behind and what is not None and what.is_attention and keeps_width(node, what):
            if all or marked or wanted is not None:
                if wanted is None or node.module in wanted:
                    graph.drop(node)
            else:
                stay.append(f"{i} ({node.module})")
        elif what is not None and what.plain and within is not None:
            ours = layout is not None and layout.ends_with(i, _INSIDE)
            if all or marked or ours or wanted is not None:
                if wanted is None or node.module in wanted or _given(node, within) in wanted:
                    node.tail[1:3] = [what.plain, node.args[:-1] if isinstance(node.args[-1], dict) else node.args]
                    unmarked |= {i} if ours else set()
            else:
                stay.append(f"{i} ({node.module})")
    if stay:
        announce(
            "%s: attention written by hand stays, %s %s; %s removes it as well",
            name, "rows" if len(stay) > 1 else "row", ", ".join(stay), option("all", True),
        )  # fmt: skip
    if text is None:
        return {**deepcopy(d), **deepcopy(graph.parts())}
    return _render(text, name, graph, removing=True, unmarked=unmarked)


def set_start(cfg: Config, start: str = "identity") -> tuple[Any, list[str]]:
    """Set how attention begins in every row that has attention.

    Args:
        cfg: As for :func:`insert`.
        start: ``identity``: the model begins as the one without attention. ``paper``: as the authors describe.

    Returns:
        The new YAML text or dictionary, and the modules that have no option ``start`` and stay as they are.

    Raises:
        UsageError: `start` is neither.
        ConfigError: `cfg` is not a valid model.
    """
    check_start(start)
    text, d, name, _ = read_model(cfg)
    graph = Graph.of(d)
    without = set_in(graph, d, start)
    if text is None:
        return {**deepcopy(d), **deepcopy(graph.parts())}, without
    return _render(text, name, graph), without


def _tail(module: str, options: list[Any]) -> list[Any]:
    return [1, module, deepcopy(options)]


# -- attending ---------------------------------------------------------------------------------------------------


def _behind(graph: Graph, node: Node) -> set[Node]:
    """The rows that this call inserted after `node`, one after another."""
    found: set[Node] = set()
    for n in graph.nodes:
        if n.old is None and n.edges[0].target in ({node} | found):
            found.add(n)
    return found


def _attend_inside(node: Node, module: str, options: list[Any], name: str) -> Named:
    """Change a block's row to the form of the block with attention inside; return that form."""
    twin = named(node.module + "Attention")
    if twin is None or twin.plain != node.module:
        blocks = [named(n) for n in registry.list_modules(kind="block") if n.endswith("Attention")]
        known = [b.plain for b in blocks if b is not None and b.plain]
        raise UsageError(
            f"{name}, row {node.old}: {node.module} has no form with attention inside; {', '.join(known)} have. "
            f"Name the type with {option('after')}, or choose a placement after the block."
        )
    positional, given = options, {}
    if options and isinstance(options[-1], dict):
        positional, given = options[:-1], options[-1]
    if positional:
        raise UsageError(f"{name}, row {node.old}: inside a block, give the options of {module} by name.")
    node.tail = [node.tail[0], node.module + "Attention", [*node.args, {"module": module, **deepcopy(given)}]]
    return twin


def _check_plain_left(graph: Graph, name: str) -> None:
    """Refuse a model without the rows by which the ultralytics host recognises YOLO11's form of detection head."""
    modules, plain = {n.module for n in graph.nodes}, ("C3k2", "A2C2f", "C2fCIB")
    gone = [p for p in plain if f"{p}Attention" in modules]
    two_forms = graph.output.module.startswith(("Detect", "Segment", "Pose", "OBB", "YOLOE"))
    if gone and two_forms and not modules & {*plain}:
        raise UsageError(
            f"{name}: with attention inside every {' and '.join(gone)}, the host no longer recognises YOLO11's detection "
            f"head. Keep one unchanged, e.g. {option('where', 'inside')} for the backbone only."
        )


def _spellings(module: str) -> set[str]:
    entry = registry.find(plain_name(module))
    names = {module} if entry is None else {entry.name, *entry.aliases}
    return names | {PREFIX + n for n in names}


def _given(node: Node, within: Named) -> str:
    """The attention inside a block, as its row spells it."""
    last = node.args[-1] if node.args else None
    return str(last.get("module", within.name)) if isinstance(last, dict) else within.name


# -- writing -------------------------------------------------------------------------------------------------------


def _render(text: str, name: str, graph: Graph, *, removing: bool = False, unmarked: Iterable[int] = ()) -> str:
    layout = Layout(text, name)
    kept, added, last = [], [], -1
    for i, (node, row) in enumerate(zip(graph.nodes, graph.rows())):
        if node.old is None:
            added.append((row, last))
            continue
        attended = not removing and node.module != str(layout.module(node.old)) and layout.can_mark(node.old)
        kept.append(
            Change(node.old, i, row, _INSIDE if attended else "", _INSIDE if removing and node.old in unmarked else "")
        )
        last = node.old
    if removing:
        frozen = any(_FROZEN in layout.comment(i) for i in range(len(layout.rows)))
        return layout.apply(kept, [], renumber=layout.numbered() and not frozen)

    def write(mark: str, renumber: bool) -> str:
        return layout.apply(kept, [Line(row, mark, after) for row, after in added], renumber=renumber)

    out = write(MARK, layout.numbered())
    if added and Layout(out, name).numbered() != layout.numbered():
        # After the shift, a comment that begins with a number would be taken for a row number, and `remove` would
        # change it.
        out = write(_FROZEN, False)
    return out
