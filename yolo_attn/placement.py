"""Insert attention into any YOLO model YAML, and take it out again.

:func:`insert` and :func:`remove` work on a model's name, a file, YAML text or a dictionary; every `from`, Concat
and Detect number is shifted. Text keeps its layout and comments: ``remove(insert(text)) == text``.

Places (``where``), on the example of YOLOv5:

============================  ==========================================================================
``backbone``                  behind every feature block of the backbone (C3, C2f, HGBlock, ...)
``backbone-last2``            behind the last two of them
``P2`` ... ``P7``             behind the last one at stride 4 ... 128
``head``                      behind every feature block of the head
``neck``                      behind the head rows that Detect reads; all that follows reads the attention
``neck-P3`` ... ``neck-P7``   behind the one of them at that stride
``before-detect``             between those rows and Detect; the path to the next level stays as it was
``inside``                    in the blocks themselves: C3 becomes C3Attention; ``inside-neck``, ``inside-P4``, ...
============================  ==========================================================================
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any, Union

from . import config, registry
from .binding import Mismatch
from .errors import ConfigError, UsageError, did_you_mean
from .files import read_text
from .graph import Graph, Node, is_block
from .layout import Change, Layout, Line
from .yaml_file import mapping_of

__all__ = ["MARK", "PLACES", "insert", "outline", "remove", "set_start"]

Config = Union[str, "os.PathLike[str]", dict]

MARK = "+ attention"
_FROZEN = MARK + " (comments keep the numbers of the rows without it)"
PLACES = ("backbone", "backbone-last2", "P3", "P4", "P5", "head", "neck", "neck-P5", "before-detect", "inside")
_MARKED = re.compile(rf"#[ \t]*{re.escape(MARK)}(?: \(.*\))?\s*")
_LEVEL = re.compile(r"(neck-)?P([1-7])", re.IGNORECASE)
# Names that a host's own YAML rows use for a module of its own.
_HOSTS_OWN = frozenset({"PSA", "CBAM"})


def insert(
    cfg: Config,
    module: str,
    *,
    after: str | int | Iterable[str | int] | None = None,
    where: str | Iterable[str] | None = None,
    start: str | None = None,
    args: Mapping[str, Any] | Sequence[Any] | None = None,
) -> Any:
    """Insert attention rows.

    Args:
        cfg: A model's name (``yolov5s``), a YAML file, YAML text (several lines, or in braces), or a model dictionary.
        module: A registered name, or one under the YAML's ``register:``.
        after: Module types (``"C3"``) or row numbers that attention goes behind.
        where: One or more places; see above. With `after`, both must hold.
        start: ``identity`` lets every gate begin at 1, ``paper`` as its authors say; absent, nothing is written.
        args: The module's options, e.g. ``{"reduction": 8}``.

    Returns:
        The new YAML text, or for a dictionary the new dictionary.

    Raises:
        UsageError: Neither `after` nor `where`, or one that matches nothing; the message lists what there is.
        UnknownModuleError: `module` is not registered.
        ConfigError: `cfg` is no valid model.
    """
    text, d, name = _read(cfg)
    options = _options(module, d, start, args)
    graph = Graph.of(d)
    places = [where] if isinstance(where, str) else list(dict.fromkeys(where or ()))
    wanted = [after] if isinstance(after, (str, int)) else list(after or ())
    if not places and not wanted:
        raise UsageError("say where: after= (a module type or row number) or where= (" + ", ".join(PLACES) + ")")
    chosen = [(place, _choose(graph, d, name, place, wanted)) for place in places or [""]]
    done: set[tuple[bool, Node]] = set()
    for place, nodes in chosen:
        for node in nodes:
            if place == "before-detect":
                edges = [e for e in graph.output.edges if e.target is node or e.target in _behind(graph, node)]
                source = edges[0].target
                assert source is not None
                graph.insert(source, _tail(module, options), graph.nodes[-2], edges)
                continue
            inside = place.startswith("inside")
            if (inside, node) in done:  # two places that name one row
                continue
            done.add((inside, node))
            if inside:
                _attend_inside(node, module, options, name)
            else:
                graph.insert(node, _tail(module, options), node, graph.readers(node))
    _check_plain_left(graph, name)
    if text is None:
        return {**deepcopy(d), **deepcopy(graph.parts())}
    return _render(text, name, graph)


def remove(cfg: Config, module: str | None = None) -> Any:
    """Take attention out again: marked rows, rows of registered attention modules, and attention inside blocks.

    Args:
        cfg: As in :func:`insert`.
        module: Only this one.

    Returns:
        The YAML text or dictionary without it; unchanged where there is none.

    Raises:
        ConfigError: `cfg` is no valid model.
    """
    text, d, name = _read(cfg)
    graph = Graph.of(d)
    layout = Layout(text, name) if text is not None else None
    wanted = _spellings(module) if module is not None else None
    for i, node in enumerate(list(graph.nodes)):
        marked = layout is not None and bool(_MARKED.fullmatch(layout.comment(i)))
        if len(node.edges) == 1 and node is not graph.output and _is_attention(node.module, marked, wanted):
            graph.drop(node)
        elif node.module.endswith("Attention") and _inside_of(node) is not None:
            inner = str(_inside_of(node))
            if wanted is None or inner in wanted:
                node.tail[1] = node.module[: -len("Attention")]
                node.tail[2] = node.args[:-1]
    if text is None:
        return {**deepcopy(d), **deepcopy(graph.parts())}
    return _render(text, name, graph, removing=True)


def set_start(cfg: Config, start: str = "identity") -> tuple[Any, list[str]]:
    """Write a start into every row with attention: ``identity`` lets a model begin as the one without it.

    Args:
        cfg: As in :func:`insert`.
        start: ``identity`` or ``paper``.

    Returns:
        The new YAML text or dictionary, and the modules in it that know no start, which stay as they are.

    Raises:
        UsageError: Another word for `start`.
        ConfigError: `cfg` is no valid model.
    """
    check_start(start)
    text, d, name = _read(cfg)
    graph = Graph.of(d)
    without: list[str] = []
    for node in graph.nodes:
        args = node.args
        named = dict(args.pop()) if args and isinstance(args[-1], dict) else {}
        starts = _knows_start(node.module, named, d)
        if starts:
            node.tail[2] = [*args, {**named, "start": start}]
        elif starts is False:
            without.append(node.module)
    if text is None:
        return {**deepcopy(d), **deepcopy(graph.parts())}, without
    return _render(text, name, graph), without


def outline(d: Mapping[str, Any]) -> str:
    """Return what a model dictionary offers to insert behind, in one line: types with row numbers, and stages."""
    graph = Graph.of(dict(d))
    words = []
    for part in ("backbone", "head"):
        rows: dict[str, list[int]] = {}
        for i, node in enumerate(graph.nodes):
            if node.part == part and node is not graph.output:
                rows.setdefault(node.module, []).append(i)
        words.append(part + " has " + ", ".join(f"{m} ({' '.join(map(str, r))})" for m, r in rows.items()))
    stages = ", ".join(f"P{k} is row {graph.nodes.index(n)}" for k, n in sorted(_stages(graph).items()))
    feeds = [graph.nodes.index(e.target) for e in graph.output.edges if e.target is not None]
    words += [stages] if stages else []
    words.append(f"{graph.output.module} is row {len(graph.nodes) - 1} and reads {' '.join(map(str, feeds))}")
    return "; ".join(words)


# -- reading -------------------------------------------------------------------------------------------------------


def _read(cfg: Config) -> tuple[str | None, dict[str, Any], str]:
    if isinstance(cfg, dict):
        name = str(cfg.get("yaml_file") or "model dictionary")
        config.validate(cfg, name)
        return None, cfg, name
    if isinstance(cfg, str) and ("\n" in cfg or cfg.lstrip().startswith("{")):
        text, name = cfg, "YAML text"
        d = mapping_of(text, name, ConfigError, config.WANTED)
    else:
        path = config.require(cfg)
        d, name = config.read(path), str(cfg)
        text = read_text(path, ConfigError, mark=True)
    config.validate(d, name)
    if not d["head"] or len(d["backbone"]) + len(d["head"]) < 2:
        raise ConfigError(f"{name}: 'head' has no rows; its last row is the model's output, such as Detect.")
    return text, d, name


def _options(module: str, d: dict[str, Any], start: str | None, args: Any) -> list[Any]:
    """Check the module and its options; return the row's fourth column."""
    named = dict(args) if isinstance(args, Mapping) else {}
    positional = [] if isinstance(args, Mapping) else list(args or ())
    if positional and isinstance(positional[-1], Mapping):
        named = {**positional.pop(), **named}
    if start is not None:
        check_start(start)
        named["start"] = start
    if module not in (d.get("register") or {}):
        entry = registry.get_entry(module.rpartition("yolo_attn.")[2])
        if entry.kind in ("fusion", "head"):
            raise UsageError(f"{module} is no attention to put behind a row ({entry.kind}); write its row by hand.")
        if entry.binding.is_block:
            raise UsageError(
                f"{module} is a block of its own, not attention to put behind one. "
                f"For attention in the blocks: module='SEAttention', where='inside'."
            )
        try:
            entry.binding.bind([dict(named)] if named else [], 64, 1, lambda c: c)
        except Mismatch as exc:
            raise UsageError(f"{module}: {exc}.") from exc
    return [*positional, named] if named else positional


def check_start(start: str) -> None:
    """Refuse any word for `start` but the two that there are.

    Raises:
        UsageError: It is another one.
    """
    if start not in ("identity", "paper"):
        raise UsageError(f"start is 'identity' or 'paper', got {start!r}.{did_you_mean(start, ('identity', 'paper'))}")


def _knows_start(module: str, named: Mapping[str, Any], d: Mapping[str, Any]) -> bool | None:
    """Whether a row's attention knows `start`; None if the row has no attention of the kit."""
    if module in (d.get("register") or {}):
        return False
    entry = registry.find(module.rpartition("yolo_attn.")[2])
    if entry is None or module in _HOSTS_OWN or entry.kind in ("fusion", "head"):
        return None
    parameters = entry.binding.signature.parameters
    if "start" in parameters:
        return True
    if entry.kind != "block":
        return False
    if "options" not in parameters:
        return None
    inner = registry.find(str(named.get("module", "SEAttention")))
    return inner is not None and "start" in inner.binding.signature.parameters


def _tail(module: str, options: list[Any]) -> list[Any]:
    return [1, module, deepcopy(options)]


# -- choosing ------------------------------------------------------------------------------------------------------


def _choose(graph: Graph, d: dict[str, Any], name: str, place: str, after: list[str | int]) -> list[Node]:
    nodes = _placed(graph, place, any(not _is_number(a) for a in after))
    if place == "inside" and after:
        nodes = graph.nodes[:-1]
    if after:
        asked = [n for a in after for n in _matching(graph, d, name, a)]
        nodes = [n for n in nodes if n in asked]
    if not nodes:
        what = " and ".join(
            ([f"where={place!r}"] if place else []) + ([f"after={', '.join(map(str, after))}"] if after else [])
        )
        raise UsageError(f"{name}: no row matches {what}. The {outline(d)}.")
    return nodes


def _placed(graph: Graph, place: str, any_type: bool) -> list[Node]:
    """The rows of a place: feature blocks, or rows of any type where `after` names one."""
    inner = graph.nodes[:-1]
    fed = list(dict.fromkeys(e.target for e in graph.output.edges if e.target is not None))
    backbone = [n for n in inner if n.part == "backbone" and (any_type or _is_feature(n))]
    if place in ("", "inside-"):
        return inner
    if place == "inside":
        return backbone
    if place.startswith("inside-"):
        return _placed(graph, place[len("inside-") :], any_type)
    if place == "backbone":
        return backbone
    if place == "backbone-last2":
        return backbone[-2:]
    if place == "head":
        return [n for n in inner if n.part == "head" and (any_type or _is_feature(n))]
    if place in ("neck", "before-detect"):
        return fed
    match = _LEVEL.fullmatch(place)
    if match:
        stride, strides = 2.0 ** int(match.group(2)), graph.strides()
        if match.group(1):
            return [n for n in fed if strides[n] == stride]
        if any_type:
            return [n for n in backbone if strides[n] == stride]
        stage = _stages(graph).get(int(match.group(2)))
        return [stage] if stage is not None else []
    if place.isdigit():
        return [n for n in inner if n.old == int(place)]
    raise UsageError(
        f"no place is called '{place}'.{did_you_mean(place, PLACES)} Places: {', '.join(PLACES)}, and the other levels."
    )


def _stages(graph: Graph) -> dict[int, Node]:
    """The last feature block of the backbone at each stride 2^k, by k."""
    strides = graph.strides()
    return {
        int(strides[n]).bit_length() - 1: n
        for n in graph.nodes[:-1]
        if n.part == "backbone" and _is_feature(n) and n.old != 0 and strides[n] > 1 and strides[n] == int(strides[n])
    }


def _is_feature(node: Node) -> bool:
    return is_block(node) and not _is_attention(node.module, False, None)


def _matching(graph: Graph, d: dict[str, Any], name: str, after: str | int) -> list[Node]:
    if _is_number(after):
        i, last = int(after), len(graph.nodes) - 1
        if i == last:
            raise UsageError(
                f"{name}: row {i} is {graph.output.module}, the model's output, and nothing can stand behind it. "
                f"where='before-detect' puts attention in front of it."
            )
        if not 0 <= i < last:
            raise UsageError(f"{name}: there is no row {i}; the rows are 0 to {last}. The {outline(d)}.")
        return [graph.nodes[i]]
    if str(after) == graph.output.module:
        raise UsageError(
            f"{name}: {after} is the model's output, and nothing can stand behind it. "
            f"where='before-detect' puts attention in front of it."
        )
    found = [n for n in graph.nodes[:-1] if n.module == after]
    if not found:
        hint = did_you_mean(str(after), {n.module for n in graph.nodes[:-1]})
        raise UsageError(f"{name}: no row is a {after}.{hint} The {outline(d)}.")
    return found


def _is_number(value: str | int) -> bool:
    return isinstance(value, int) or bool(re.fullmatch(r"-?\d+", value))


def _behind(graph: Graph, node: Node) -> set[Node]:
    """The rows inserted in this call that stand, one after another, behind `node`."""
    found: set[Node] = set()
    for n in graph.nodes:
        if n.old is None and n.edges[0].target in ({node} | found):
            found.add(n)
    return found


def _attend_inside(node: Node, module: str, options: list[Any], name: str) -> None:
    twin = registry.find(node.module + "Attention")
    if twin is None or twin.kind != "block":
        known = [n[: -len("Attention")] for n in registry.list_modules(kind="block") if n.endswith("Attention")]
        raise UsageError(
            f"{name}, row {node.old}: {node.module} has no form with attention inside; "
            f"{', '.join(known) or 'no block'} has. Name the type with after=, or choose a place behind the block."
        )
    positional, named = options, {}
    if options and isinstance(options[-1], dict):
        positional, named = options[:-1], options[-1]
    if positional:
        raise UsageError(f"{name}, row {node.old}: inside a block the options of {module} go by name.")
    node.tail = [node.tail[0], node.module + "Attention", [*node.args, {"module": module, **deepcopy(named)}]]


def _check_plain_left(graph: Graph, name: str) -> None:
    """The ultralytics host gives a model YOLO11's form of detection head because it meets one of these rows."""
    modules = {n.module for n in graph.nodes}
    if "C3k2Attention" in modules and not modules & {"C3k2", "A2C2f", "C2fCIB"}:
        raise UsageError(
            f"{name}: with attention inside every C3k2 none is left by which the host knows YOLO11's detection head; "
            f"leave one as it is, e.g. where='inside' for the backbone alone."
        )


# -- recognising ---------------------------------------------------------------------------------------------------


def _spellings(module: str) -> set[str]:
    entry = registry.find(module.rpartition("yolo_attn.")[2])
    names = {module} if entry is None else {entry.name, *entry.aliases}
    return names | {"yolo_attn." + n for n in names}


def _is_attention(name: str, marked: bool, wanted: set[str] | None) -> bool:
    if wanted is not None:
        return name in wanted
    if marked:
        return True
    if name in _HOSTS_OWN:
        return False
    entry = registry.find(name.rpartition("yolo_attn.")[2])
    return entry is not None and entry.kind not in ("block", "fusion", "head") and not entry.binding.is_block


def _inside_of(node: Node) -> str | None:
    """The attention inside a block row that :func:`insert` made, or None."""
    last = node.args[-1] if node.args else None
    if not isinstance(last, dict) or not isinstance(last.get("module"), str):
        return None
    entry = registry.find(node.module)
    return last["module"] if entry is not None and entry.kind == "block" else None


# -- writing -------------------------------------------------------------------------------------------------------


def _render(text: str, name: str, graph: Graph, *, removing: bool = False) -> str:
    layout = Layout(text, name)
    kept, added, last = [], [], -1
    for i, (node, row) in enumerate(zip(graph.nodes, graph.rows())):
        if node.old is None:
            added.append((row, last))
        else:
            kept.append(Change(node.old, i, row))
            last = node.old
    if removing:
        frozen = any(_FROZEN in layout.comment(i) for i in range(len(layout.rows)))
        return layout.apply(kept, [], renumber=layout.numbered() and not frozen)

    def write(mark: str, renumber: bool) -> str:
        return layout.apply(kept, [Line(row, mark, after) for row, after in added], renumber=renumber)

    out = write(MARK, layout.numbered())
    if added and Layout(out, name).numbered() != layout.numbered():
        # A comment that began with some number would become a row's number by the shift, and `remove` would undo
        # what was never done.
        out = write(_FROZEN, False)
    return out
