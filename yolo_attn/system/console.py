"""Shared by every command: the argument parser, printing, and restoring the process afterwards."""

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

__all__ = ["OutputClosed", "Parser", "drop_output", "given_back", "standard_output", "talk_aside", "write_out"]


class OutputClosed(Exception):
    """The reader of standard output has gone, as in ``yolo-attn list | head``."""


class Parser(argparse.ArgumentParser):
    """An argument parser that raises instead of exiting, so that `main()` can be called from anywhere.

    Options must be spelled in full: an abbreviation could change its meaning when an option is added.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Raise the message that argparse would print.

        Raises:
            UsageError: Always.
        """
        raise UsageError(f"{message}. '{self.prog} --help' shows the options")

    def _print_message(self, message: str, file: Any = None) -> None:
        if file is not None:  # None: no console, as under pythonw
            super()._print_message(message, file)


def write_out(text: str) -> None:
    """Write text that may be the content of a file to standard output, unchanged.

    A terminal, a notebook and an in-memory stream receive text. A pipe or file receives UTF-8 bytes with the text's own
    line ends, on every system. Without a console, as under pythonw, nothing is written.

    Raises:
        OutputClosed: The reader has gone.
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


def talk_aside(json: bool = True) -> contextlib.AbstractContextManager[Any]:
    """Return a context in which what is printed goes to standard error, a host's greetings among it.

    For commands with ``--json``: standard output then holds the JSON and nothing else.

    Args:
        json: Whether JSON was asked for; without, the context does nothing.
    """
    return contextlib.redirect_stdout(sys.stderr) if json else contextlib.nullcontext()


@contextlib.contextmanager
def standard_output() -> Iterator[None]:
    """Make sure that a command's output arrives, or that its loss is noticed.

    A character that the console's encoding lacks is written as an escape instead of raising, and buffers are flushed
    before the command returns.

    Raises:
        OutputClosed: The reader has gone. A `BrokenPipeError` of another pipe, such as a worker's, passes through.
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
    """Write undecodable bytes of file names as they are, and any other character as an escape."""
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
        stream.flush()  # what could not be written is still in the buffer
    except BrokenPipeError:
        return True
    with contextlib.suppress(AttributeError, OSError, ValueError):  # no poll on Windows; no descriptor in a notebook
        poll = select.poll()
        poll.register(stream.fileno(), select.POLLOUT)
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    return False


def drop_output() -> None:
    """Redirect a closed standard output to the null device, so that the interpreter's last flush does not fail."""
    with contextlib.suppress(AttributeError, OSError, ValueError):  # no stream, or none with a descriptor
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


@contextlib.contextmanager
def given_back() -> Iterator[None]:
    """Restore what a command changes in its process: environment, `sys.argv`, `sys.path`, the kit's log handlers.

    Processes that it launches meanwhile inherit the changed environment.
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
