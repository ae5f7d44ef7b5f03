"""Edit a model YAML as text, so that nothing else in the file changes.

Loading and dumping with a YAML library reformats flow lists, which YOLO's files consist of. Here the parser's marks give
the position of each row, number and name, and edits replace, add and delete those characters only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import yaml

from ..errors import ConfigError

__all__ = ["Change", "Layout", "Line", "end_of", "flow"]

_INDEX = re.compile(r"#[ \t]*(\d+)(?![\w.])")


@dataclass(frozen=True)
class Line:
    """A row to add: its columns, its comment, and the old number of the row that it follows."""

    row: list[Any]
    comment: str
    after: int


@dataclass(frozen=True)
class Change:
    """A row that stays: its old and new number, its new columns, and a mark to add to or remove from its comment."""

    old: int
    new: int
    row: list[Any]
    mark: str = ""
    unmark: str = ""


def flow(value: Any) -> str:
    """Return a value as YAML on one line, in the style of YOLO's files."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**9, allow_unicode=True).strip()
    return text[:-4].rstrip() if text.endswith("\n...") else text


@dataclass(frozen=True)
class _Row:
    node: yaml.SequenceNode
    section: yaml.SequenceNode
    start: int
    end: int
    first: bool
    last: bool


class Layout:
    """The text of a model YAML, with the positions of its rows.

    Args:
        text: The text.
        file: Name of the file, for messages.

    Raises:
        ConfigError: The text is not YAML, or a row is written through an alias.
    """

    def __init__(self, text: str, file: str) -> None:
        self.text, self.file = text, file
        try:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.YAMLError as exc:
            raise ConfigError(f"{file}: is not valid YAML: {exc}") from exc
        self.keys = {k.value: (k, v) for k, v in root.value} if isinstance(root, yaml.MappingNode) else {}
        self.rows: list[_Row] = []
        for part in ("backbone", "head"):
            section = self.keys[part][1]
            for j, node in enumerate(section.value):
                end = end_of(node)
                row = _Row(node, section, node.start_mark.index, end, j == 0, j == len(section.value) - 1)
                if row.start < section.start_mark.index:  # the mark of an alias is at its anchor
                    self._alias(len(self.rows))
                self.rows.append(row)
        if len({id(r.node) for r in self.rows}) < len(self.rows):
            raise ConfigError(f"{file}: rows are repeated through YAML aliases (*name). Write them out, then insert.")

    def _alias(self, i: int) -> None:
        raise ConfigError(f"{self.file}, row {i}: is written through a YAML alias (*name). Write it out, then insert.")

    # -- comments ------------------------------------------------------------------------------------------------

    def comment(self, i: int) -> str:
        """Return the comment of row `i` with its ``#``, or an empty string."""
        span = self._comment(i)
        return self.text[span[0] : span[1]] if span else ""

    def _comment(self, i: int) -> tuple[int, int] | None:
        end = self.rows[i].end
        stop = self._line_end(end)
        match = re.compile(r"[ \t]*[,\]}]*[ \t]*(#.*)").match(self.text, end, stop)
        return (match.start(1), match.end(1)) if match else None

    def module(self, i: int) -> str:
        """Return the module's name in row `i`, as it is in the text."""
        return str(self.rows[i].node.value[2].value)

    def shown(self, i: int) -> str:
        """Return row `i` as it is in the text, on one line, with its comment."""
        row = self.rows[i]
        comment = self.comment(i)
        return " ".join(self.text[row.start : row.end].split()) + (f"  {comment.rstrip()}" if comment else "")

    def can_mark(self, i: int) -> bool:
        """Whether row `i` can be marked with a comment: it shares its line with no other row."""
        row = self.rows[i]
        begin, stop = self.text.rfind("\n", 0, row.start) + 1, self._line_end(row.end)
        alone = not any(begin < other.end <= row.start for other in self.rows)
        return alone and re.fullmatch(r"[ \t]*[,\]}]*[ \t]*(#.*)?", self.text[row.end : stop]) is not None

    def is_marked(self, i: int, mark: str) -> bool:
        """Whether the comment of row `i` is the mark, possibly with a remark in brackets."""
        return re.fullmatch(rf"#[ \t]*{re.escape(mark)}(?: \(.*\))?\s*", self.comment(i)) is not None

    def ends_with(self, i: int, mark: str) -> bool:
        """Whether the comment of row `i` ends with the mark."""
        return self.comment(i).endswith(f" {mark}")

    def _add_mark(self, i: int, mark: str) -> list[tuple[int, int, str]]:
        """Add a mark to a row, at the end of its comment or as a new one."""
        span = self._comment(i)
        if span is None:
            stop = self._line_end(self.rows[i].end)
            return [(stop, stop, f" # {mark}")]
        bare = (
            self.text[span[0] : span[1]].strip() == "#"
        )  # two spaces distinguish it from a comment that is only the mark
        return [(span[1], span[1], f"{'  ' if bare else ' '}{mark}")]

    def _take_mark(self, i: int, mark: str) -> list[tuple[int, int, str]]:
        """Undo :meth:`_add_mark`."""
        span = self._comment(i)
        comment = self.text[span[0] : span[1]] if span else ""
        if span is None or not comment.endswith(f" {mark}"):
            return []
        if comment == f"# {mark}":
            return [(span[0] - 1, span[1], "")]
        bare = comment[: -len(mark)].endswith("  ") and comment[: -len(mark)].strip() == "#"
        return [(span[1] - len(mark) - (2 if bare else 1), span[1], "")]

    def numbered(self) -> bool:
        """Whether comments begin with row numbers that are all correct."""
        found = [(i, _INDEX.match(self.comment(i))) for i in range(len(self.rows))]
        stated = [(i, int(m.group(1))) for i, m in found if m]
        return bool(stated) and all(i == number for i, number in stated)

    # -- edits ---------------------------------------------------------------------------------------------------

    def apply(self, kept: list[Change], added: list[Line], *, renumber: bool) -> str:
        """Return the text with rows changed and added, and with those that are not in `kept` deleted.

        Args:
            kept: Every row that stays.
            added: The rows to add, in order.
            renumber: Whether to update row numbers at the beginning of comments.
        """
        edits: list[tuple[int, int, str]] = []
        for change in kept:
            edits += self._edit_row(change)
            span = self._comment(change.old)
            match = _INDEX.match(self.text, *span) if span and renumber else None
            if match and int(match.group(1)) == change.old != change.new:
                edits.append((match.start(1), match.end(1), str(change.new)))
            if change.mark:
                edits += self._add_mark(change.old, change.mark)
            if change.unmark:
                edits += self._take_mark(change.old, change.unmark)
        staying = {c.old for c in kept}
        gone = [i for i in range(len(self.rows)) if i not in staying]
        for i in gone:
            edits += self._delete(i, staying)
        for after in dict.fromkeys(line.after for line in added):
            edits += self._insert(after, [line for line in added if line.after == after])
        text = self.text
        order = sorted(range(len(edits)), key=lambda k: (edits[k][0], edits[k][1], k))
        for k in reversed(order):
            start, end, new = edits[k]
            text = text[:start] + new + text[end:]
        return text

    def _edit_row(self, change: Change) -> list[tuple[int, int, str]]:
        node = self.rows[change.old].node
        old = yaml.SafeLoader("").construct_object(node, deep=True)
        if _same(old, change.row):
            return []
        if len(old) != len(change.row):  # of a file that nobody has checked
            return [(self.rows[change.old].start, self.rows[change.old].end, flow(change.row))]
        edits = []
        for piece, was, now in zip(node.value, old, change.row):
            edits += self._edit_value(piece, was, now, change.old)
        return edits

    def _edit_value(self, node: yaml.Node, was: Any, now: Any, i: int) -> list[tuple[int, int, str]]:
        if _same(was, now):
            return []
        row = self.rows[i]
        if not row.start <= node.start_mark.index < row.end:
            self._alias(i)
        if isinstance(was, list) and isinstance(now, list) and isinstance(node, yaml.SequenceNode):
            if len(was) == len(now):
                return [e for n, a, b in zip(node.value, was, now) for e in self._edit_value(n, a, b, i)]
            if len(now) == len(was) + 1 and now[:-1] == was and was:  # one more argument, as `inside` adds
                at, last = end_of(node.value[-1]), flow(now[-1])
                if node.flow_style:
                    return [(at, at, f", {last}")]
                return [(at, at, f"{self._break(at)}{self._column(node.value[-1]) * ' '}- {last}")]
            if len(was) == len(now) + 1 and was[:-1] == now and now:
                return [(end_of(node.value[-2]), end_of(node.value[-1]), "")]
        text = flow(now)
        if isinstance(node, yaml.ScalarNode) and node.style in ("'", '"') and re.fullmatch(r"[\w.]+", text):
            text = f"{node.style}{text}{node.style}"
        return [(node.start_mark.index, end_of(node), text)]

    def _insert(self, after: int, lines: list[Line]) -> list[tuple[int, int, str]]:
        row = self.rows[after]
        rows = [flow(line.row) for line in lines]
        stop = self._line_end(row.end)
        newline = self._break(stop)
        if not row.section.flow_style:
            indent = " " * self._column(row.node)
            text = "".join(f"{newline}{indent}- {r} # {line.comment}" for r, line in zip(rows, lines))
            return [(stop, stop, text)]
        indent = " " * row.node.start_mark.column
        rest = self.text[row.end : stop]
        if row.last and re.fullmatch(r"[ \t]*(#.*)?", rest):  # the last row has no comma and now needs one
            body = "".join(
                f"{newline}{indent}{r}{',' if k < len(rows) - 1 else ''} # {line.comment}"
                for k, (r, line) in enumerate(zip(rows, lines))
            )
            return [(row.end, row.end, ","), (stop, stop, body)]
        if re.fullmatch(r"[ \t]*,[ \t]*(#.*)?", rest):
            body = "".join(f"{newline}{indent}{r}, # {line.comment}" for r, line in zip(rows, lines))
            return [(stop, stop, body)]
        return [(row.end, row.end, "".join(f", {r}" for r in rows))]

    def _delete(self, i: int, staying: set[int]) -> list[tuple[int, int, str]]:
        row = self.rows[i]
        same = [j for j, r in enumerate(self.rows) if r.section is row.section]
        before = [j for j in same if j < i and j in staying]
        start, stop = row.start, self._line_end(row.end)
        if not any(j in staying for j in same):
            raise ConfigError(f"{self.file}, row {i}: is the last row of its section. Delete the section by hand.")
        if not row.section.flow_style:
            start = self.text.rindex("-", 0, start)
            return [self._whole_lines(start, stop)]
        head = self.text[self.text.rfind("\n", 0, start) + 1 : start]
        rest = self.text[row.end : stop]
        alone = not head.strip()
        if alone and re.fullmatch(r"[ \t]*,[ \t]*(#.*)?", rest):
            return [self._whole_lines(start, stop)]
        if alone and row.last and re.fullmatch(r"[ \t]*(#.*)?", rest) and before:
            comma = self.text.index(",", self.rows[before[-1]].end)
            return [(comma, comma + 1, ""), self._whole_lines(start, stop)]
        if before:
            return [(self.rows[i - 1].end, row.end, "")]
        if i - 1 in same:  # deleted with the section's first row
            return []
        return [(start, self.rows[min(j for j in same if j in staying)].start, "")]

    def _whole_lines(self, start: int, stop: int) -> tuple[int, int, str]:
        begin = self.text.rfind("\n", 0, start) + 1
        if stop >= len(self.text) and begin > 0:  # the file does not end with a line break: remove the one before
            begin -= 2 if self.text.endswith("\r\n", 0, begin) else 1
        else:
            stop += len(self._break(stop))
        return begin, min(stop, len(self.text)), ""

    def _break(self, at: int) -> str:
        """The line break after character `at`, or the file's first one on a last line without any."""
        stop = self._line_end(at)
        if stop == len(self.text):
            stop = self._line_end(0)
        return "\r\n" if self.text.startswith("\r\n", stop) else "\n"

    def _column(self, node: yaml.Node) -> int:
        """Column of the dash before an entry of a block sequence."""
        dash = self.text.rindex("-", 0, node.start_mark.index)
        return dash - self.text.rfind("\n", 0, dash) - 1

    def _line_end(self, at: int) -> int:
        """Position of the end of the line of character `at`, before its line break."""
        stop = self.text.find("\n", at)
        stop = len(self.text) if stop < 0 else stop
        return stop - 1 if stop > at and self.text[stop - 1] == "\r" else stop


def _same(was: Any, now: Any) -> bool:
    """Whether two values are equal in value and type: 1, 1.0 and True differ."""
    return repr(was) == repr(now)


def end_of(node: yaml.Node) -> int:
    """Return the position after a node's last character; a block collection's end mark lies after later comments."""
    if not isinstance(node, yaml.CollectionNode) or node.flow_style or not node.value:
        return int(node.end_mark.index)
    last = node.value[-1]
    return end_of(last[1] if isinstance(last, tuple) else last)
