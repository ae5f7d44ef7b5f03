"""The types of a host module: :class:`Host`, :class:`Patch`, and the :class:`Kit` that patches call."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Callable, Protocol

__all__ = ["Host", "Kit", "Patch"]


class Kit(Protocol):
    """What patches call. An argument `original` is the host's own function."""

    name: str
    """Import name of the kit; a vendored copy has its own."""

    # -- model files
    def locate(self, name: Any) -> Path | None:
        """Return the file that the name of a model YAML means; None leaves the name to the host."""

    def read_model(self, name: Any, file: Path) -> dict[str, Any]:
        """Read a model file as the ultralytics parser expects it.

        Args:
            name: The name as the user gave it; its scale letter counts.
            file: The file that it means.
        """

    def classic_file(self, name: str, file: Path) -> Path:
        """Return a file that the classic parser can read: the model file itself, or its translation."""

    def building(self, cfg: Any, detector: Any) -> AbstractContextManager[Any]:
        """Return a context that gives what the classic host builds from, and in which errors name the file.

        Args:
            cfg: Name of a model file, or a model dictionary.
            detector: The detector under construction; a dictionary is checked for the parser of its class.
        """

    def unknown_model(self, name: str) -> Exception | None:
        """Return the error for an unknown model YAML whose name resembles one of the kit's, or None."""

    # -- weights
    def load_weights(self, original: Callable[..., Any], detector: Any, given: Any, *rest: Any, **more: Any) -> Any:
        """Load a detector, the content of a checkpoint, or a state dict into a detector, by logical layer."""

    def match_state(self, original: Callable[..., Any], da: Any, db: Any, exclude: Any = ()) -> Any:
        """Return the tensors of state dict `da` that fit the model with state dict `db`, under the names of `db`."""

    def note(self, detector: Any, state: Any) -> None:
        """Remember which detector a state dict belongs to."""

    def check_filled(self, detector: Any) -> None:
        """Raise an error if a detector has attention without weights."""

    # -- detectors
    def fold(self, detector: Any) -> None:
        """Fold the batch normalization of the kit's blocks."""

    def at_full_size(self, detector: Any, imgsz: Any, *, weights: bool = False) -> Any | None:
        """Return a copy on which the host counts operations at the real image size; None without attention."""

    # -- training
    def before_batch(self, trainer: Any) -> None:
        """Apply the schedule before a batch of an ultralytics trainer."""

    def before_loop(self, model: Any) -> None:
        """Apply the schedule from before the training loop of classic YOLOv5 on."""

    def worker_lines(self) -> str:
        """Return Python lines that install the kit in a worker process as in this one."""

    # -- reading checkpoints
    def safe_load(self) -> bool:
        """Whether checkpoints may only use declared classes."""

    def names_declarations(self) -> bool:
        """Whether torch accepts declarations of safe classes under a chosen name."""

    def declare(self, classes: Iterable[type], aliases: Iterable[tuple[type, str]] = ()) -> list[Any]:
        """Declare classes safe to fill from a checkpoint; return the declarations, to pass to :meth:`withdraw`."""

    def withdraw(self, declared: Iterable[Any]) -> None:
        """Remove declarations."""

    def load_modules(self) -> None:
        """Register the kit's modules and the plug-ins that the user named."""

    # -- words
    def announce(self, message: str, *values: Any) -> None:
        """Print a line for the user."""


@dataclass(frozen=True)
class Patch:
    """A patch on one function of a host.

    Args:
        module: Full name of the module that defines the function.
        function: Name of the function; ``Class.method`` for a method.
        why: Its purpose, one line for the table of patches.
        replacement: ``f(kit, original, *args, **kwargs)`` to run in its place; None for the parser, which is spliced.
        takes: Parameters that the replacement relies on, separated by spaces; a function without them is not patched.
        by_name: Whether others import the function by name and must get the patched one whenever they did. Its code is
            then replaced in place; otherwise a wrapper is set on its class or module.
        unless: ``f(root)``, whether a host in this folder may lack the function because its version does not need it.
            Otherwise a missing function is an error.
    """

    module: str
    function: str
    why: str
    replacement: Callable[..., Any] | None = None
    takes: str = ""
    by_name: bool = False
    unless: Callable[[Path], bool] | None = None

    @property
    def splice(self) -> bool:
        """Whether this is the parser."""
        return self.replacement is None


@dataclass(frozen=True)
class Host:
    """A host: how it is recognised and what is patched.

    Args:
        name: Its name in `yolo-attn env` and in tables.
        patches: The patches; the first is the parser's.
        recognise: ``f(module)``, whether a module of a patched name is this host's; others may have a ``models.yolo``.
        version: ``f(module)`` that returns the version of the host that a module belongs to.
        supported: ``f()`` that returns the tested versions, in words; called only to print them.
        prefix: Prefix of its modules' names, where another host has the same names without it.
        prepare: ``f(kit, module)``, called with the parser's module once it is patched; its result is called on
            uninstall.
        explain: ``f(module)`` that says how a parser differs from the released ones; empty if it does not.
        repairs: Patches that fix old versions and have nothing to do with attention. The kit's launchers apply them;
            importing the kit does not.
        repair: Like `prepare`, called with each module of `repaired` when repairs are applied.
        repaired: Full names of modules to call `repair` with.
    """

    name: str
    patches: tuple[Patch, ...]
    recognise: Callable[[ModuleType], bool]
    version: Callable[[ModuleType], str]
    supported: Callable[[], str]
    prefix: str = ""
    prepare: Callable[[Kit, ModuleType], Callable[[], None] | None] | None = None
    explain: Callable[[ModuleType], str] | None = None
    repairs: tuple[Patch, ...] = ()
    repair: Callable[[Kit, ModuleType], Callable[[], None] | None] | None = None
    repaired: tuple[str, ...] = ()

    def grouped(self, patches: Iterable[Patch]) -> list[list[Patch]]:
        """Group patches by replacement: a host may do one thing in several functions."""
        groups: dict[Any, list[Patch]] = {}
        for patch in patches:
            groups.setdefault(patch.replacement, []).append(patch)
        return list(groups.values())

    @property
    def parser(self) -> str:
        """Full name of the parser's module."""
        return self.patches[0].module

    @property
    def modules(self) -> tuple[str, ...]:
        """Full names of all modules that are patched or repaired, each once."""
        return tuple(dict.fromkeys([*(p.module for p in (*self.patches, *self.repairs)), *self.repaired]))
