"""The findings as a table for a terminal, and as JSON."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

from ...errors import UsageError, did_you_mean
from ...files import write_text
from ...system.console import write_out
from .order import NAMES
from .verdict import FAILURE, PASS, SKIPPED, WARNING, Finding

__all__ = ["Report", "chosen"]

_SHOWN = {PASS: "pass", WARNING: "warning", FAILURE: "FAILURE", SKIPPED: "skipped"}
_WIDTH = max(map(len, NAMES))


def chosen(only: list[str], skip: list[str]) -> tuple[str, ...]:
    """Return the checks to make, in order.

    Args:
        only: Names, also joined by commas; empty for all.
        skip: Names to leave out.

    Raises:
        UsageError: No check has that name, or none is left.
    """
    wanted, unwanted = ([n for text in texts for n in text.split(",") if n] for texts in (only, skip))
    for name in (*wanted, *unwanted):
        if name not in NAMES:
            raise UsageError(f"no check is called '{name}'.{did_you_mean(name, NAMES)} There are: {', '.join(NAMES)}")
    found = tuple(n for n in NAMES if (not wanted or n in wanted) and n not in unwanted)
    if not found:
        raise UsageError("no check is left")
    return found


class Report:
    """Prints findings as they come.

    Args:
        modules: What is checked.
        quiet: Print no table.
    """

    def __init__(self, modules: list[str], *, quiet: bool = False) -> None:
        self.modules, self.quiet = modules, quiet
        self.found: dict[str, list[Finding]] = {}
        self.of: dict[str, Any] = {}
        self.left: list[Finding] = []  # skipped because of another, to be told in one line
        self.start = time.monotonic()

    def module(self, name: str, findings: Iterable[Finding], *, channels: int, device: str) -> None:
        """Add the findings of a module as they come; nothing is printed of one that cannot be found."""
        for found in findings:
            if name not in self.found:
                self.begin(name, channels, device)
            self.add(found)

    def begin(self, name: str, channels: int, device: str) -> None:
        """Begin a module."""
        self._rest()
        self.found[name] = []
        self.of = {"channels": channels, "device": device}
        if not self.quiet:
            print(f"{name}: {channels} channels, {device}", flush=True)

    def add(self, found: Finding) -> None:
        """Add a finding of the module that began last."""
        self.found[next(reversed(list(self.found)))].append(found)
        if self.quiet:
            return
        if found.status == SKIPPED and found.said.startswith("not made"):
            self.left.append(found)
            return
        self._rest()
        print(f"  {_SHOWN[found.status]:<7}  {found.check:<{_WIDTH}}  {found.said}", flush=True)
        if found.line is not None and found.status != PASS:
            print(f"{'':<{_WIDTH + 13}}{_near(found.line.file)}:{found.line.number}: {found.line.text}", flush=True)
        if found.remedy and found.status != PASS:
            print(f"{'':<{_WIDTH + 13}}-> {found.remedy}", flush=True)

    def _rest(self) -> None:
        """Print the checks that were left out for one reason on one line."""
        for said in dict.fromkeys(f.said for f in self.left):
            names = [f.check for f in self.left if f.said == said]
            print(f"  {'skipped':<7}  {names[0]:<{_WIDTH}}  {said}" if len(names) == 1 else f"  {'skipped':<7}  {len(names)} checks: {said}", flush=True)
        self.left.clear()

    def end(self, file: str | None) -> None:
        """Print the count, and write the JSON file.

        Args:
            file: Its path, ``-`` for standard output, or None.
        """
        if not self.quiet:
            self._rest()
            counted = Counter(f.status for found in self.found.values() for f in found)
            words = [f"{counted[PASS]} passed"]
            words += [f"{counted[k]} {w}{'s' if counted[k] != 1 else ''}" for k, w in ((WARNING, "warning"), (FAILURE, "failure")) if counted[k]]
            words += [f"{counted[SKIPPED]} skipped"] if counted[SKIPPED] else []
            print(f"{', '.join(words)} in {time.monotonic() - self.start:.0f} s")
        if file is not None:
            text = json.dumps(self.as_json(), indent=2) + "\n"
            if file == "-":
                write_out(text)
            else:
                write_text(file, text)

    def as_json(self) -> dict[str, Any]:
        """Return all findings."""
        return {
            "modules": [
                {"module": n, **self.of, "passed": not self._failed(n), "checks": [f.as_json() for f in found]}
                for n, found in self.found.items()
            ]
        }

    def _failed(self, name: str) -> bool:
        return any(f.status == FAILURE for f in self.found[name])

    def exit_code(self, *, strict: bool = False) -> int:
        """Return 1 if a check failed, or, if `strict`, gave a warning; else 0."""
        bad = (FAILURE, WARNING) if strict else (FAILURE,)
        return int(any(f.status in bad for found in self.found.values() for f in found))


def _near(path: str) -> str:
    """A path as seen from the working folder, where that is shorter."""
    try:
        near = os.path.relpath(path)
    except ValueError:  # another drive
        return path
    return near if len(near) < len(path) else path
