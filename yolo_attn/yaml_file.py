"""Read a YAML file that should hold a mapping, with errors that name file and line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from .errors import YoloAttnError
from .files import read_text

__all__ = ["read_mapping"]


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice in one mapping, of which YAML's own loader silently takes the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            name = (key.tag, key.value)
            if name in lines:
                problem = f"'{key.value}' stands twice, first in line {lines[name]}"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            lines[name] = key.start_mark.line + 1
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        return found


def read_mapping(path: Path, error: type[YoloAttnError], wanted: str) -> dict[str, Any]:
    """Read a YAML file.

    Args:
        path: The file.
        error: What to raise.
        wanted: A sentence that says what such a file holds; it ends the message of a file that holds none of it.

    Raises:
        YoloAttnError: As `error`: not readable, not UTF-8, not YAML, a key twice, empty, or no mapping.
    """
    return mapping_of(read_text(path, error), str(path), error, wanted)


def mapping_of(text: str, name: str, error: type[YoloAttnError], wanted: str) -> dict[str, Any]:
    """Read YAML text as :func:`read_mapping` reads a file; messages call it `name`.

    Raises:
        YoloAttnError: As `error`: not YAML, a key twice, empty, or no mapping.
    """
    try:
        d = yaml.load(text, _Loader)
    except yaml.YAMLError as exc:
        raise error(f"{name}: {_problem(exc, text)}") from exc
    if d is None:
        raise error(f"{name}: is empty. {wanted}")
    if not isinstance(d, dict):
        raise error(f"{name}: is a {type(d).__name__}, not a mapping. {wanted}")
    return d


def _problem(exc: yaml.YAMLError, text: str) -> str:
    """One line: which line of the file, and what is wrong with it."""
    mark = getattr(exc, "problem_mark", None)
    problem = getattr(exc, "problem", None) or str(exc).splitlines()[0]
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
