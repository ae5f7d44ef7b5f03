"""A line of the kit is seen once where nobody configured logging, and as often as logging says where somebody did."""

from __future__ import annotations

import io
import logging
from typing import Any, Callable

import pytest
from conftest import Run

from yolo_attn import log

SAY = "yolo_attn.log.announce('%s rows', 3)\n"


@pytest.mark.parametrize(
    ("before", "after", "lines"),
    [
        ("", "", 1),
        ("logging.basicConfig(level=logging.INFO)", "", 1),
        ("logging.basicConfig(level=logging.WARNING)", "", 0),
        ("logging.getLogger().setLevel(logging.ERROR)", "", 0),
        ("logging.disable(logging.INFO)", "", 0),
        ("logging.getLogger('yolo_attn').setLevel(logging.ERROR)", "", 0),
        # said once before logging is configured, once after: neither twice
        ("", "logging.basicConfig(level=logging.INFO)", 2),
        ("", "logging.basicConfig(level=logging.WARNING)", 1),
    ],
)
def test_how_often_a_line_is_seen(python: Callable[..., Run], before: str, after: str, lines: int) -> None:
    code = f"import logging, yolo_attn.log\n{before}\n{SAY}"
    if after:
        code += f"{after}\n{SAY}"
    run = python(code, env={"YOLO_ATTN_HOOK": "0"})
    run.ok()
    assert run.err.count("3 rows") == lines, run.err


@pytest.mark.parametrize(("rank", "lines"), [("", 1), ("-1", 1), ("0", 1), ("1", 0), ("7", 0), ("none", 1)])
def test_only_the_first_worker_speaks(python: Callable[..., Run], rank: str, lines: int) -> None:
    run = python(f"import yolo_attn.log\n{SAY}", env={"RANK": rank, "YOLO_ATTN_HOOK": "0"})
    run.ok()
    assert run.err.count("3 rows") == lines
    configured = f"import logging, yolo_attn.log\nlogging.basicConfig(level=logging.INFO)\n{SAY}"
    run = python(configured, env={"RANK": rank, "YOLO_ATTN_HOOK": "0"})
    assert run.err.count("3 rows") == lines


def test_a_library_adds_nothing_to_the_logger() -> None:
    was = (list(log.LOGGER.handlers), log.LOGGER.level, log.LOGGER.propagate)
    log.announce("a line")
    assert (list(log.LOGGER.handlers), log.LOGGER.level, log.LOGGER.propagate) == was == ([], logging.NOTSET, True)


def test_the_command_line_prints_once_and_gives_back(monkeypatch: pytest.MonkeyPatch) -> None:
    root: Any = logging.getLogger()
    other = io.StringIO()
    handler = logging.StreamHandler(other)
    seen = io.StringIO()
    with log.printing(), log.printing():
        monkeypatch.setattr("sys.stderr", seen)
        root.addHandler(handler)  # as a host does in the middle
        try:
            log.announce("one %s", "line")
        finally:
            root.removeHandler(handler)
    assert seen.getvalue() == "yolo_attn: one line\n" and other.getvalue() == ""
    assert log.LOGGER.handlers == [] and log.LOGGER.propagate
