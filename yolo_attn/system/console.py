"""What every command shares: one parser, one way to print, and a process that is left as it was found."""

from __future__ import annotations

import argparse
import codecs
import contextlib
import io
import logging
import os
import select
import sys
from collections.abc import Iterator
from typing import Any, NoReturn, TextIO

from .._name import PACKAGE
from ..errors import UsageError

__all__ = ["OutputClosed", "Parser", "drop_output", "given_back", "standard_output", "write_out"]


class OutputClosed(Exception):
    """Nobody reads standard output any more, as after ``yolo-attn list | head``."""


class Parser(argparse.ArgumentParser):
    """An argument parser that raises instead of ending the process, so that `main()` can be called from anywhere.

    Options are spelled in full: an abbreviation would change its meaning with the next option that is added.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print.

        Raises:
            UsageError: Always.
        """
        raise UsageError(f"{message}. '{self.prog} --help' shows the options")

    def _print_message(self, message: str, file: Any = None) -> None:
        if file is not None:  # None: no console, as under pythonw
            super()._print_message(message, file)


def write_out(text: str) -> None:
    """Write text to standard output as it stands: the one way for what may be a file's content.

    A terminal, a notebook and a stream held in memory take text. A pipe or file takes the bytes that a file of the
    kit has, UTF-8 and its own line breaks, on every system. A process without a console has nowhere to show it.

    Raises:
        OutputClosed: Nobody reads any more.
    """
    out = sys.stdout
    if out is None:  # pythonw
        return
    buffer = getattr(out, "buffer", None)  # a notebook's stream and StringIO have none
    try:
        if buffer is None or out.isatty():
            out.write(text)
        else:
            out.flush()
            buffer.write(text.encode("utf-8", "surrogateescape"))
        out.flush()
    except BrokenPipeError as exc:
        raise OutputClosed from exc


@contextlib.contextmanager
def standard_output() -> Iterator[None]:
    """Around a command: what it prints arrives, or is known not to.

    A character that the console's encoding lacks is written as its escape instead of ending the command, and what is
    still in the buffer is written before the command counts as done.

    Raises:
        OutputClosed: Nobody reads any more; what a worker's broken pipe says passes through as it is.
    """
    with contextlib.ExitStack() as stack:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
                stack.callback(_reset, stream, stream.errors)
                stream.reconfigure(errors=_ESCAPE)
        try:
            yield
            if sys.stdout is not None:
                sys.stdout.flush()
        except BrokenPipeError as exc:
            if not _is_closed(sys.stdout):
                raise
            raise OutputClosed from exc


def _reset(stream: io.TextIOWrapper, errors: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # closed meanwhile
        stream.reconfigure(errors=errors)


def _escape(exc: UnicodeError) -> tuple[str | bytes, int]:
    """Write the bytes of a file's name as they are, and of any other character the escape."""
    try:
        return codecs.lookup_error("surrogateescape")(exc)
    except UnicodeError:
        return codecs.lookup_error("backslashreplace")(exc)


_ESCAPE = "yolo_attn.escape"
codecs.register_error(_ESCAPE, _escape)


def _is_closed(stream: TextIO | None) -> bool:
    if stream is None:
        return False
    try:
        stream.flush()  # what could not be written is still there, if there is a buffer
    except BrokenPipeError:
        return True
    with contextlib.suppress(AttributeError, OSError, ValueError):  # no poll on Windows; no descriptor in a notebook
        poll = select.poll()
        poll.register(stream.fileno(), select.POLLOUT)
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    return False


def drop_output() -> None:
    """Let the interpreter's own last flush find a place to write to, once nobody reads standard output."""
    with contextlib.suppress(AttributeError, OSError, ValueError):  # no stream, or none with a descriptor
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


@contextlib.contextmanager
def given_back() -> Iterator[None]:
    """Give back what a command changes in its process: environment, `sys.argv`, `sys.path`, the kit's log handlers.

    Processes that it starts meanwhile inherit the changed environment.
    """
    logger = logging.getLogger(PACKAGE)
    environment, argv, words = dict(os.environ), sys.argv, list(sys.argv)
    path, entries = sys.path, list(sys.path)
    handlers, level, propagate = list(logger.handlers), logger.level, logger.propagate
    try:
        yield
    finally:
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update({k: v for k, v in environment.items() if os.environ.get(k) != v})
        argv[:], path[:] = words, entries
        sys.argv, sys.path = argv, path
        logger.handlers[:] = handlers
        logger.setLevel(level)
        logger.propagate = propagate
