"""Read YAML with errors that name file and line, and within limits: a stranger's file may be endless.

Every YAML that the kit reads is read here: models, data sets, hyperparameters, bundles, and values on a command line.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import yaml

from ..errors import YoloAttnError, first_line, shown
from ..files import read_text

__all__ = ["DEPTH", "NODES", "SIZE", "mapping_of", "read_mapping", "value_of"]

SIZE = 2_000_000  # bytes of a file
DEPTH = 50  # brackets or indented blocks inside each other
NODES = 200_000  # values, those behind an alias counted as often as it is used
DIGITS = 100  # of a number

_PLAIN = frozenset(f"tag:yaml.org,2002:{t}" for t in ("str", "int", "float", "bool", "null", "seq", "map", "timestamp"))


class _Loader(yaml.SafeLoader):
    """YAML's safe loader with limits, whose every refusal knows its line.

    A key that stands twice in one mapping, of which YAML's own loader silently takes the last, is refused.
    """

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.depth += 1
        try:
            if self.depth > DEPTH:
                raise _error(f"is nested more than {DEPTH} deep", self.peek_event().start_mark)
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    def get_single_node(self) -> Any:
        node = super().get_single_node()
        if node is not None:
            _count(node, {}, set())
        return node

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        if node.tag not in _PLAIN and node.tag.startswith("tag:yaml.org,2002:") and node.tag[18:] != "merge":
            raise _error(f"values of the type !!{node.tag[18:60]} are not read", node.start_mark)
        try:
            return super().construct_object(node, deep)
        except yaml.YAMLError:
            raise
        except Exception as exc:  # PyYAML converts a scalar by its tag and lets int(), date() and the like raise
            kind = node.tag.rpartition(":")[2]
            raise _error(f"{shown(node.value)} is no {kind}", node.start_mark) from exc

    def construct_scalar(self, node: Any) -> Any:
        value = super().construct_scalar(node)
        if isinstance(value, str) and any("\ud800" <= c <= "\udfff" for c in value):
            raise _error(f"{shown(value)} holds half a character, a surrogate", node.start_mark)
        if node.tag.endswith((":int", ":float")) and len(value) > DIGITS:
            raise _error(f"is a number of more than {DIGITS} digits", node.start_mark)
        return value

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            name = (key.tag, key.value)
            if name in lines:
                raise _error(f"'{key.value[:80]}' stands twice, first in line {lines[name]}", key.start_mark)
            lines[name] = key.start_mark.line + 1
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        return found


def _error(problem: str, mark: Any) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, problem, mark)


def _count(node: Any, known: dict[int, int], above: set[int]) -> int:
    """Return how many values a node holds when its aliases are written out."""
    if id(node) in above:
        raise _error("an alias stands inside what it stands for", node.start_mark)
    if id(node) in known:
        return known[id(node)]
    above.add(id(node))
    inner = node.value if not isinstance(node, yaml.ScalarNode) else []
    total = 1 + sum(
        _count(part, known, above) for item in inner for part in (item if isinstance(item, tuple) else (item,))
    )
    above.discard(id(node))
    if total > NODES:
        raise _error(f"holds more than {NODES:,} values, its aliases written out", node.start_mark)
    known[id(node)] = total
    return total


def read_mapping(path: Path, error: type[YoloAttnError], wanted: str) -> dict[str, Any]:
    """Read a YAML file.

    Args:
        path: The file.
        error: What to raise.
        wanted: A sentence that says what such a file holds; it ends the message of a file that holds none of it.

    Raises:
        YoloAttnError: As `error`: not readable, not UTF-8, not YAML, a key twice, empty, or no mapping.
    """
    with contextlib.suppress(OSError, ValueError):  # what cannot be read is told below
        size = path.stat().st_size
        if size > SIZE:
            raise error(f"{path}: has {size:,} bytes; a YAML of more than {SIZE:,} is not read.")
    return mapping_of(read_text(path, error), str(path), error, wanted)


def mapping_of(text: str, name: str, error: type[YoloAttnError], wanted: str) -> dict[str, Any]:
    """Read YAML text as :func:`read_mapping` reads a file; messages call it `name`.

    Raises:
        YoloAttnError: As `error`: not YAML, a key twice, empty, or no mapping.
    """
    d = value_of(text, name, error)
    if d is None:
        raise error(f"{name}: is empty. {wanted}")
    if not isinstance(d, dict):
        raise error(f"{name}: is a {type(d).__name__}, not a mapping. {wanted}")
    return d


def value_of(text: str, name: str, error: type[YoloAttnError]) -> Any:
    """Read YAML text, whatever it holds: plain values and dates, within the limits of this module.

    Raises:
        YoloAttnError: As `error`: not YAML, a key twice, or more than the limits; the message names the line.
    """
    if len(text) > SIZE:
        raise error(f"{name}: has {len(text):,} characters; a YAML of more than {SIZE:,} is not read.")
    loader = None
    try:
        loader = _Loader(text)
        return loader.get_single_data()
    except yaml.YAMLError as exc:
        raise error(f"{name}: {_problem(exc, text)}") from exc
    except Exception as exc:  # PyYAML's scanner lets chr() and the like raise, too
        line = f"line {loader.line + 1}: " if loader is not None else ""
        raise error(f"{name}: {line}is not valid YAML: {first_line(exc)[:200] or type(exc).__name__}") from exc
    finally:
        if loader is not None:
            loader.dispose()


def _problem(exc: yaml.YAMLError, text: str) -> str:
    """One line: which line of the file, and what is wrong with it."""
    mark = getattr(exc, "problem_mark", None)
    problem = (getattr(exc, "problem", None) or str(exc).splitlines()[0])[:300]
    if isinstance(exc, yaml.constructor.ConstructorError):
        return f"line {mark.line + 1}: {problem}" if mark is not None else problem
    tabbed = [n for n, t in enumerate(text.splitlines(), 1) if "\t" in t[: len(t) - len(t.lstrip())]]
    if tabbed:
        return f"line {tabbed[0]} is indented with a tab. YAML indents with spaces."
    if mark is None:
        return f"is not valid YAML: {problem}"
    if text[mark.index : mark.index + 1] == "\t":
        return f"line {mark.line + 1}: has a tab where YAML wants a space."
    return f"line {mark.line + 1}: is not valid YAML: {problem}"
