"""What a check says: pass, warning or failure, what was seen, the line to change, and the remedy."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["FAILURE", "PASS", "SKIPPED", "WARNING", "Doubt", "Fault", "Finding", "Line", "Skip"]

PASS, WARNING, FAILURE, SKIPPED = "pass", "warning", "failure", "skipped"


@dataclass(frozen=True)
class Line:
    """A line of a source file: path, number from 1, and its text."""

    file: str
    number: int
    text: str = ""


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        check: Name of the check, such as ``odd-sizes``.
        status: ``pass``, ``warning``, ``failure`` or ``skipped``.
        said: What was seen.
        line: The line of the module's file where it can be found; None if it cannot be told.
        remedy: What to change; empty if nothing.
        numbers: What was measured, for ``--json``.
    """

    check: str
    status: str
    said: str
    line: Line | None = None
    remedy: str = ""
    numbers: dict[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return asdict(self)

    @classmethod
    def from_json(cls, d: dict[str, Any]) -> Finding:
        """Return the finding that :meth:`as_json` gave."""
        return cls(**{**d, "line": Line(**d["line"]) if d.get("line") else None})


class Fault(Exception):
    """A check failed.

    Args:
        said: What was seen.
        remedy: What to change.
        line: Where; None for the line that the cause passed through, or the one under watch.
    """

    status = FAILURE

    def __init__(self, said: str, remedy: str = "", line: Line | None = None) -> None:
        super().__init__(said)
        self.said, self.remedy, self.line = said, remedy, line


class Doubt(Fault):
    """Something that works here and may not elsewhere: a warning."""

    status = WARNING


class Skip(Exception):
    """A check that cannot be made here; the message says why."""
