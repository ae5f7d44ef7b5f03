"""Errors of the kit: each message says what was asked for, what was found, where, and how to fix it."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "ExportError",
    "FileError",
    "HostError",
    "PluginError",
    "RegistryError",
    "RowError",
    "UnknownModuleError",
    "UsageError",
    "YoloAttnError",
    "did_you_mean",
    "first_line",
    "one_line",
    "shown",
]


class YoloAttnError(Exception):
    """Base class of every error that the user can fix."""

    def __str__(self) -> str:  # KeyError, a base class of UnknownModuleError, would print repr(message)
        return one_line(str(self.args[0])) if self.args else ""


class RegistryError(YoloAttnError):
    """A module cannot be registered, or is not registered."""


class ConfigError(YoloAttnError):
    """A model YAML cannot be found or read, or does not describe a model."""


class RowError(ConfigError):
    """A row of a model YAML is wrong; the message names file and row."""


class UnknownModuleError(RowError, KeyError, NameError):
    """A row names a module that neither the host nor the registry has.

    Also a `KeyError` and a `NameError`, which the hosts' own parsers raise in this case.
    """


class PluginError(YoloAttnError, ImportError):
    """A plug-in file is missing, fails on import, or lacks the requested class.

    An `ImportError`, but never a `ModuleNotFoundError`: on the latter, ultralytics tries to install a package of the
    missing module's name.
    """


class HostError(YoloAttnError):
    """A host is missing, is not the expected one, or cannot be patched."""


class CheckpointError(YoloAttnError):
    """A checkpoint cannot be read or does not fit the model."""


class DataError(YoloAttnError):
    """A data set cannot be found or used."""


class ExportError(YoloAttnError):
    """An export failed, or the exported file does not match its model."""


class FileError(YoloAttnError):
    """A file cannot be read or written, or is not of the kind that its name says."""


class UsageError(YoloAttnError):
    """An option or argument is wrong; the command line exits with 2 instead of 1."""


# What moves a terminal's cursor, colours it, or turns text around: names out of a stranger's file may hold any of it.
_MOVING = {
    c: repr(chr(c))[1:-1]
    for c in (*range(32), *range(127, 160), 0x2028, 0x2029, *range(0x200E, 0x2010), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
    if chr(c) != "\t"
}  # fmt: skip


def one_line(text: str) -> str:
    """Return text with its control characters, line ends among them, written as escapes: what is printed is what is there."""
    return text.translate(_MOVING)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ` Did you mean 'A' or 'B'?` for the closest matches among `known`, or an empty string."""
    known = list(known)
    folded: dict[str, str] = {}
    for k in known:
        folded.setdefault(k.lower(), k)
    near = [folded[k] for k in difflib.get_close_matches(name.lower(), folded, n=3, cutoff=0.6)]
    return f" Did you mean {' or '.join(repr(k) for k in near)}?" if near else ""


def first_line(exc: BaseException) -> str:
    """Return the first line of an error's message, or an empty string: hosts' messages may be pages long."""
    return (str(exc).strip().splitlines() or [""])[0]


def shown(value: object, limit: int = 120) -> str:
    """Return `repr(value)`, shortened: a value from an untrusted file may be huge."""
    text = _Short().repr(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 4, 120, 120
        self.maxlist = self.maxtuple = self.maxdict = self.maxset = 8

    def repr_int(self, x: int, level: int) -> str:
        """Describe numbers of thousands of digits, which Python refuses to print, by their size."""
        return repr(x) if x.bit_length() < 200 else f"a number of {x.bit_length()} bits"
