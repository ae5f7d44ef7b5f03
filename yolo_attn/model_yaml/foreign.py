"""Fix the text of a fork's model YAML above its rows: encodings, tabs, headers.

Each fix edits only the text that is wrong and gives the reason. :mod:`.foreign_rows` fixes the rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from ..errors import ConfigError
from ..registry import plain
from .load import WANTED
from .reader import SIZE, mapping_of
from .text import end_of, flow

__all__ = ["Change", "decode", "header", "legible", "with_key"]

# Written instead of ASCII by Chinese keyboards, word processors and web pages; and invisible characters.
_WIDE = str.maketrans({"，": ",", "：": ":", "［": "[", "］": "]", "【": "[", "】": "]", "‘": "'", "’": "'", "“": '"',
                       "”": '"', "－": "-", "（": "(", "）": ")", "\u00a0": " ", "\u3000": " ", "\u200b": None})  # fmt: skip
_COMMENT = re.compile(r"(?:^|[ \t])#")


@dataclass(frozen=True)
class Change:
    """One thing that was changed in a model YAML.

    Args:
        place: ``line 3``, or the row: ``row 10 (backbone)``.
        before: The text that was there; empty for what was added.
        after: The text that is there now; empty for what was taken out.
        reason: Why, in a sentence without its full stop.
    """

    place: str
    before: str
    after: str
    reason: str

    def __str__(self) -> str:
        lines = [f"{self.place}: {self.reason}"]
        lines += [f"- {t}" for t in self.before.splitlines()] + [f"+ {t}" for t in self.after.splitlines()]
        return "\n".join(lines)


def decode(data: bytes, file: str) -> tuple[str, list[Change]]:
    """Return the text of a file in any encoding that an editor may have saved it in.

    Args:
        data: Its bytes.
        file: Its name, for messages.

    Raises:
        ConfigError: No text at all.
    """
    if data[:2] in (b"\xff\xfe", b"\xfe\xff") or data[1:2] == b"\0" or data[:1] == b"\0":
        guess = (
            "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-16-le" if data[1:2] == b"\0" else "utf-16-be"
        )
        return _decoded(data, ["utf-16" if guess == "utf-16" else guess], file)
    try:
        return data.decode("utf-8"), []
    except UnicodeDecodeError:
        return _decoded(data, ["gb18030", "cp1252", "latin-1"], file)


def _decoded(data: bytes, encodings: list[str], file: str) -> tuple[str, list[Change]]:
    for encoding in encodings:
        try:
            text = data.decode(encoding)
        except UnicodeError:
            continue
        if not re.search(r"[\0-\x08\x0e-\x1a\x1c-\x1f]", text):
            name = {"gb18030": "GBK"}.get(encoding, encoding.upper())
            return text.lstrip("\ufeff"), [Change("file", "", "", f"was {name} text, is UTF-8, as every host reads it")]
    raise ConfigError(f"{file}: is not text in UTF-8, UTF-16 or GBK.")


def legible(text: str) -> tuple[str, list[Change]]:
    """Return a text without what YAML cannot read: tabs, wide punctuation, code fences, repeated keys."""
    changes: list[Change] = []
    lines = text.splitlines(keepends=True)
    for k, line in enumerate(lines):
        cut = _comment(line)
        code, rest = line[:cut], line[cut:]
        reasons = []
        new = code.translate(_WIDE)
        if new != code:
            reasons.append("punctuation that YAML does not know")
        if re.fullmatch(r"\s*```\w*\s*", new):
            new, reasons = "", ["a fence around code in Markdown"]
        if "\t" in new.rstrip():
            reasons.append("tabs, for which YAML wants spaces")
        if reasons:
            lines[k] = _spaced(new) + rest
            changes.append(_line(k, line, lines[k], " and ".join(reasons)))
    text = "".join(lines)
    return _once(text, changes)


def _comment(line: str) -> int:
    found = _COMMENT.search(line)
    return len(line) if found is None else found.end() - 1


def _spaced(code: str) -> str:
    """Replace tabs by spaces; a tab at the beginning of a line is one level of two spaces, as in YOLO's files."""
    body = code.lstrip(" \t")
    return code[: len(code) - len(body)].replace("\t", "  ") + body.replace("\t", " ")


def _line(k: int, before: str, after: str, reason: str) -> Change:
    return Change(f"line {k + 1}", before.rstrip("\r\n"), after.rstrip("\r\n"), reason)


def _once(text: str, changes: list[Change]) -> tuple[str, list[Change]]:
    """Remove keys that occur a second time with the same value."""
    if len(text) > SIZE:
        return text, changes
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except Exception:  # PyYAML's scanner lets chr() and the like raise, too; the reader says what is wrong
        return text, changes
    edits = []
    for mapping in _mappings(root):
        seen: dict[str, yaml.Node] = {}
        for key, value in mapping.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            first = seen.setdefault(key.value, value)
            if first is not value and yaml.serialize(first) == yaml.serialize(value):
                edits.append((*_lines_of(text, key, value), f"'{key.value}' stands twice, with one value"))
    for start, stop, reason in sorted(edits, reverse=True):
        changes.append(_line(text[:start].count("\n"), text[start:stop], "", reason))
        text = text[:start] + text[stop:]
    return text, changes


def _mappings(root: Any) -> Iterator[yaml.MappingNode]:
    """The mappings of the file and of `scales`, if each key has lines of its own."""
    if isinstance(root, yaml.MappingNode) and not root.flow_style:
        yield root
        yield from (
            v for k, v in root.value if k.value == "scales" and isinstance(v, yaml.MappingNode) and not v.flow_style
        )


def _lines_of(text: str, key: yaml.Node, value: yaml.Node) -> tuple[int, int]:
    """Positions of the lines of a key and its value."""
    start = text.rfind("\n", 0, key.start_mark.index) + 1
    stop = text.find("\n", end_of(value))
    return start, len(text) if stop < 0 else stop + 1


# -- the header ----------------------------------------------------------------------------------------------------


def header(text: str, file: str) -> tuple[str, list[Change]]:
    """Return a text with only those keys above the rows that the hosts read.

    Raises:
        ConfigError: Not YAML, or no mapping.
    """
    d = mapping_of(text, file, ConfigError, WANTED)
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)  # mapping_of has read it
    keys = {k.value: (k, v) for k, v in root.value}
    edits: list[tuple[int, int, str, str]] = []

    def replace(key: str, value: Any, reason: str) -> None:
        node = keys[key][1]
        edits.append((node.start_mark.index, end_of(node), flow(value), reason))

    def drop(key: str, reason: str) -> None:
        if not root.flow_style:
            edits.append((*_lines_of(text, *keys[key]), "", reason))

    nc = d.get("nc")
    if "nc" not in d and not root.flow_style:
        at = text.rfind("\n", 0, root.start_mark.index) + 1
        line_break = "\r\n" if "\r\n" in text else "\n"
        number, of = _classes(d)
        edits.append((at, at, f"nc: {number}{line_break}", f"'nc' is missing; {number} is {of}"))
    elif type(nc) is not int and str(nc).strip().removesuffix(".0").isdigit():
        replace("nc", int(float(str(nc))), "the number of classes is a whole number")
    edits += _scales(text, d, keys)
    if d.get("scales"):
        for key in ("depth_multiple", "width_multiple"):
            if key in d:
                drop(key, f"'{key}' beside 'scales' is read by no host")
    if "activation" in d and (name := _activation(d["activation"])) != d["activation"]:
        replace("activation", name, "an activation is written as a call")
    if "ch" in d and "channels" not in d:
        if d["ch"] == 3:
            drop("ch", "three input channels are what every host takes")
        else:
            start = keys["ch"][0].start_mark.index
            edits.append((start, start + 2, "channels", "the input channels are called 'channels'"))
    if "anchors" in d and not _asks_for_anchors(d):
        drop("anchors", "the head reads no anchors")
    return _edited(text, edits)


def with_key(text: str, key: str, value: str, reason: str) -> tuple[str, list[Change]]:
    """Return a text with one more key before all others, and the change; unchanged if its keys share a line."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode) or root.flow_style:
        return text, []
    at = text.rfind("\n", 0, root.start_mark.index) + 1
    line = f"{key}: {value}"
    change = _line(text[:at].count("\n"), "", line, reason)
    return text[:at] + line + ("\r\n" if "\r\n" in text else "\n") + text[at:], [change]


def _classes(d: dict[str, Any]) -> tuple[int, str]:
    rows = d.get("head") or [[]]
    args = rows[-1][3] if isinstance(rows[-1], list) and len(rows[-1]) == 4 else None
    first = args[0] if isinstance(args, list) and args else None
    return (first, "what the head says") if type(first) is int and first > 0 else (80, "COCO's, as everywhere")


def _scales(text: str, d: dict[str, Any], keys: dict[str, Any]) -> Iterator[tuple[int, int, str, str]]:
    """Remove the fourth number of each scale, and keys that are not scales."""
    if not isinstance(d.get("scales"), dict):
        return
    for key, value in keys["scales"][1].value:
        if not isinstance(value, yaml.SequenceNode) and not keys["scales"][1].flow_style:
            yield (
                *_lines_of(text, key, value),
                "",
                f"'{key.value}' is not a scale, and no host reads it inside 'scales'",
            )
        elif isinstance(value, yaml.SequenceNode) and len(value.value) == 4:
            third, fourth = value.value[2:]
            yield end_of(third), end_of(fourth), "", "hosts read three numbers: depth, width, max_channels"


def _activation(value: Any) -> Any:
    """The spelling of an activation of torch that both hosts evaluate; other values unchanged."""
    from torch import nn

    match = (
        re.fullmatch(r"(?:torch\.)?(?:nn\.)?([A-Za-z0-9_]+)(\(.*\))?", value.strip())
        if isinstance(value, str)
        else None
    )
    if match is None:
        return value
    known = {
        n.lower(): n
        for n, c in vars(nn).items()
        if isinstance(c, type) and c.__module__ == "torch.nn.modules.activation"
    }
    name = known.get(match.group(1).lower().replace("_", ""))
    spelled = f"nn.{name}{match.group(2) or '()'}"
    try:
        plain.activation(value, "")
    except ConfigError:
        return spelled if name else value
    return value


def _asks_for_anchors(d: dict[str, Any]) -> bool:
    rows = d.get("head") if isinstance(d.get("head"), list) else None
    last = rows[-1] if rows else None
    if not isinstance(last, list) or len(last) != 4 or not isinstance(last[3], list):
        return True
    return "anchors" in last[3] or str(last[2]) not in ("Detect", "Segment", "Pose", "OBB", "Classify", "v10Detect")


def _edited(text: str, edits: list[tuple[int, int, str, str]]) -> tuple[str, list[Change]]:
    """Apply edits that do not overlap; edits on the same lines become one change."""
    groups: dict[tuple[int, int], list[tuple[int, int, str, str]]] = {}
    for edit in sorted(edits):
        begin, stop = text.rfind("\n", 0, edit[0]) + 1, text.find("\n", max(edit[0], edit[1] - 1))
        stop = len(text) if stop < 0 or edit[2].endswith("\n") else stop + 1
        groups.setdefault((begin, edit[0] if edit[2].endswith("\n") else stop), []).append(edit)
    changes, new = [], text
    for (begin, stop), group in groups.items():
        after, shift = text[begin:stop], -begin
        for start, end, put, _ in group:
            after = after[: start + shift] + put + after[end + shift :]
            shift += len(put) - (end - start)
        reasons = "; ".join(dict.fromkeys(reason for *_, reason in group))
        changes.append(_line(text[:begin].count("\n"), text[begin:stop], after, reasons))
    for start, end, put, _ in sorted(edits, reverse=True):
        new = new[:start] + put + new[end:]
    return new, changes
