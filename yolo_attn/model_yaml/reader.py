"""Read YAML within limits, with errors that name file and line.

All YAML that the kit reads goes through here: models, data sets, hyperparameters, bundles, values on a command line.
Untrusted files may be huge, so there are limits.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import yaml

from ..errors import YoloAttnError, first_line, shown
from ..files import read_text

__all__ = ["DEPTH", "NODES", "SIZE", "mapping_of", "read_mapping", "value_of"]

SIZE = 2_000_000  # bytes in a file
DEPTH = 50  # brackets or indented blocks inside each other
NODES = 200_000  # values in a file; an alias counts each time it is used
DIGITS = 100  # digits in a number

_PLAIN = frozenset(f"tag:yaml.org,2002:{t}" for t in ("str", "int", "float", "bool", "null", "seq", "map", "timestamp"))


class _Loader(yaml.SafeLoader):
    """YAML's safe loader with limits, whose errors all have a line number.

    It refuses a mapping with a key twice, of which the safe loader silently takes the last.
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
            raise _error(f"values of type !!{node.tag[18:60]} are not read", node.start_mark)
        try:
            return super().construct_object(node, deep)
        except yaml.YAMLError:
            raise
        except (
            Exception
        ) as exc:  # PyYAML converts scalars by tag with int(), date() and the like, whose errors pass through
            kind = node.tag.rpartition(":")[2]
            raise _error(f"{shown(node.value)} is not a valid {kind}", node.start_mark) from exc

    def construct_scalar(self, node: Any) -> Any:
        value = super().construct_scalar(node)
        if isinstance(value, str) and any("\ud800" <= c <= "\udfff" for c in value):
            raise _error(f"{shown(value)} contains a surrogate, half a character", node.start_mark)
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
                raise _error(f"'{key.value[:80]}' occurs twice, first in line {lines[name]}", key.start_mark)
            lines[name] = key.start_mark.line + 1
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        return found


def _error(problem: str, mark: Any) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, problem, mark)


def _count(node: Any, known: dict[int, int], above: set[int]) -> int:
    """Return the number of values in a node with its aliases expanded."""
    if id(node) in above:
        raise _error("an alias contains itself", node.start_mark)
    if id(node) in known:
        return known[id(node)]
    above.add(id(node))
    inner = node.value if not isinstance(node, yaml.ScalarNode) else []
    total = 1 + sum(
        _count(part, known, above) for item in inner for part in (item if isinstance(item, tuple) else (item,))
    )
    above.discard(id(node))
    if total > NODES:
        raise _error(f"holds more than {NODES:,} values with its aliases expanded", node.start_mark)
    known[id(node)] = total
    return total


def read_mapping(path: Path, error: type[YoloAttnError], wanted: str) -> dict[str, Any]:
    """Read a YAML file.

    Args:
        path: The file.
        error: Type of the error to raise.
        wanted: What such a file contains, as a sentence to end the message with if the file is something else.

    Raises:
        YoloAttnError: Of type `error`: the file cannot be read, is not UTF-8, not YAML, has a key twice, is empty, is
            not a mapping, or exceeds a limit.
    """
    with contextlib.suppress(OSError, ValueError):  # reading reports it below
        size = path.stat().st_size
        if size > SIZE:
            raise error(f"{path}: has {size:,} bytes; a YAML of more than {SIZE:,} is not read.")
    return mapping_of(read_text(path, error), str(path), error, wanted)


def mapping_of(text: str, name: str, error: type[YoloAttnError], wanted: str) -> dict[str, Any]:
    """Read YAML text as :func:`read_mapping` reads a file.

    Args:
        text: The text.
        name: Its name, for messages.
        error: Type of the error to raise.
        wanted: As for :func:`read_mapping`.

    Raises:
        YoloAttnError: Of type `error`: the text is not YAML, has a key twice, is empty, or is not a mapping.
    """
    d = value_of(text, name, error)
    if d is None:
        raise error(f"{name}: is empty. {wanted}")
    if not isinstance(d, dict):
        raise error(f"{name}: is a {type(d).__name__}, not a mapping. {wanted}")
    return d


def value_of(text: str, name: str, error: type[YoloAttnError]) -> Any:
    """Read any value from YAML text: plain values and dates, within the limits of this module.

    Args:
        text: The text.
        name: Its name, for messages.
        error: Type of the error to raise.

    Raises:
        YoloAttnError: Of type `error`: the text is not YAML, has a key twice, or exceeds a limit; the message names the
            line.
    """
    if len(text) > SIZE:
        raise error(f"{name}: has {len(text):,} characters; a YAML of more than {SIZE:,} is not read.")
    loader = None
    try:
        loader = _Loader(text)
        return loader.get_single_data()
    except yaml.YAMLError as exc:
        raise error(f"{name}: {_problem(exc, text)}") from exc
    except Exception as exc:  # errors of chr() and the like pass through PyYAML's scanner, too
        line = f"line {loader.line + 1}: " if loader is not None else ""
        raise error(f"{name}: {line}is not valid YAML: {first_line(exc)[:200] or type(exc).__name__}") from exc
    finally:
        if loader is not None:
            loader.dispose()


def _problem(exc: yaml.YAMLError, text: str) -> str:
    """The problem as one line, with the line number."""
    mark = getattr(exc, "problem_mark", None)
    problem = (getattr(exc, "problem", None) or str(exc).splitlines()[0])[:300]
    if isinstance(exc, yaml.constructor.ConstructorError):
        return f"line {mark.line + 1}: {problem}" if mark is not None else problem
    tabbed = [n for n, t in enumerate(text.splitlines(), 1) if "\t" in t[: len(t) - len(t.lstrip())]]
    if tabbed:
        return f"line {tabbed[0]} is indented with a tab. YAML needs spaces."
    if mark is None:
        return f"is not valid YAML: {problem}"
    if text[mark.index : mark.index + 1] == "\t":
        return f"line {mark.line + 1}: has a tab where YAML needs a space."
    return f"line {mark.line + 1}: is not valid YAML: {problem}"
