"""Errors of the kit: each message says what was asked, what was found, where, and what to do."""

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
    "shown",
]


class YoloAttnError(Exception):
    """Base of every error that the kit raises for a mistake that a user can mend."""

    def __str__(self) -> str:  # KeyError, a base of UnknownModuleError, would print repr(message)
        return str(self.args[0]) if self.args else ""


class RegistryError(YoloAttnError):
    """A module cannot be registered, or is not registered."""


class ConfigError(YoloAttnError):
    """A model YAML cannot be found or read, or its content is not a model."""


class RowError(ConfigError):
    """One row of a model YAML is wrong; the message names file and row."""


class UnknownModuleError(RowError, KeyError, NameError):
    """A row names a module that neither the host nor the registry knows.

    A `KeyError` and a `NameError` too, because those are what the hosts' own parsers raise here.
    """


class PluginError(YoloAttnError, ImportError):
    """A plug-in file is missing, fails on import, or lacks the class that was asked for.

    An `ImportError` but never a `ModuleNotFoundError`: on the latter the ultralytics host tries to install a
    package by the missing module's name.
    """


class HostError(YoloAttnError):
    """A host is missing, is not the one it should be, or cannot be hooked."""


class CheckpointError(YoloAttnError):
    """A checkpoint cannot be read or does not fit the model."""


class DataError(YoloAttnError):
    """A data set cannot be found or used."""


class ExportError(YoloAttnError):
    """An export failed or is not equal to the model that it came from."""


class FileError(YoloAttnError):
    """A file cannot be read or written, or is not what it is named as."""


class UsageError(YoloAttnError):
    """An option or argument of a command is wrong; the command line ends with 2 and not with 1."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ` Did you mean 'A' or 'B'?` for the nearest of `known`, or an empty string."""
    known = list(known)
    folded: dict[str, str] = {}
    for k in known:
        folded.setdefault(k.lower(), k)
    near = [folded[k] for k in difflib.get_close_matches(name.lower(), folded, n=3, cutoff=0.6)]
    return f" Did you mean {' or '.join(repr(k) for k in near)}?" if near else ""


def first_line(exc: BaseException) -> str:
    """Return the first line of what an error says, or an empty string; others' errors may say pages."""
    return (str(exc).strip().splitlines() or [""])[0]


def shown(value: object, limit: int = 120) -> str:
    """Return `repr(value)`, cut where it is long: what a stranger's file holds may be endless."""
    text = _Short().repr(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 4, 120, 120
        self.maxlist = self.maxtuple = self.maxdict = self.maxset = 8

    def repr_int(self, x: int, level: int) -> str:
        """A number of thousands of digits cannot be printed, and nobody would read it."""
        return repr(x) if x.bit_length() < 200 else f"a number of {x.bit_length()} bits"
