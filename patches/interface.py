"""What a host's file is made of, and what it is handed: :class:`Host`, :class:`Patch` and :class:`Kit`."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Callable, Protocol

__all__ = ["Host", "Kit", "Patch"]


class Kit(Protocol):
    """What hosts' patches call. Arguments called `original` are the host's own function."""

    name: str
    """The import name of the kit, which a vendored copy has of its own."""

    # -- model files
    def locate(self, name: Any) -> Path | None:
        """The file that a model YAML's name means to the kit; None leaves it to the host."""

    def read_model(self, name: Any, file: Path) -> dict[str, Any]:
        """A model file as the ultralytics host's parser takes it."""

    def classic_file(self, name: str, file: Path) -> Path:
        """A model file as the classic host's parser takes it: the file itself, or its translation."""

    def building(self, cfg: Any, detector: Any) -> AbstractContextManager[Any]:
        """What the classic host builds from for `cfg`, a file's name or a dictionary, checked for the parser of `detector`'s class; errors name the file."""

    def unknown_model(self, name: str) -> Exception | None:
        """The error for a model YAML that nobody has, where its name resembles one of the kit's."""

    # -- weights
    def load_weights(self, original: Callable[..., Any], detector: Any, given: Any, *rest: Any, **more: Any) -> Any:
        """Load a detector, a checkpoint's content or a state dict into a detector, by logical layer."""

    def match_state(self, original: Callable[..., Any], da: Any, db: Any, exclude: Any = ()) -> Any:
        """What of the state dict `da` goes into the model whose state dict is `db`, under the names of `db`."""

    def note(self, detector: Any, state: Any) -> None:
        """Remember which detector a state dict was taken of."""

    def check_filled(self, detector: Any) -> None:
        """Raise where a detector would detect with attention that has no weights."""

    # -- detectors
    def fold(self, detector: Any) -> None:
        """Fold the batch normalization of the kit's blocks."""

    def at_full_size(self, detector: Any, imgsz: Any, *, weights: bool = False) -> Any | None:
        """A copy on which the host counts operations at the real size; None if it has no attention."""

    # -- training
    def before_batch(self, trainer: Any) -> None:
        """Follow a schedule; called before each batch of an ultralytics trainer."""

    def before_loop(self, model: Any) -> None:
        """Follow a schedule; called before the training loop of classic YOLOv5."""

    def worker_lines(self) -> str:
        """Python lines that give a worker process the hooks of this one."""

    # -- reading checkpoints
    def safe_load(self) -> bool:
        """Whether checkpoints are read by declared classes only."""

    def names_declarations(self) -> bool:
        """Whether torch takes declarations of safe classes under a name of choice."""

    def declare(self, classes: Iterable[type], aliases: Iterable[tuple[type, str]] = ()) -> list[Any]:
        """Declare classes safe to fill from a checkpoint; return what `withdraw` takes."""

    def withdraw(self, declared: Iterable[Any]) -> None:
        """Take declarations back."""

    def load_modules(self) -> None:
        """Register the kit's modules and the named plug-ins."""

    # -- words
    def announce(self, message: str, *values: Any) -> None:
        """Tell the user."""


@dataclass(frozen=True)
class Patch:
    """One function of a host that runs the kit's code, and why.

    Args:
        module: Where the host defines it.
        function: Its name; `Class.method` for a method.
        why: One line for the table of patches.
        replacement: ``f(kit, original, *args, **kwargs)`` run in its place; None splices the parser's two seams instead.
        takes: The names of the parameters that the replacement relies on; a function that has others is not patched.
        by_name: Others import the function by its name, and must get it whenever they did: its code is swapped in place.
            Otherwise a wrapper is set on its class or module.
        unless: ``f(root)`` says of a host in that folder, which lacks the function, that its version does without;
            otherwise that is a failure.
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
    """One host: its name, what is patched, how it is recognised.

    Args:
        name: As `yolo-attn env` and the tables print it.
        patches: The functions patched; the first is the parser.
        recognise: Whether a module of that import path is this host's (``models.yolo`` may be anybody's).
        version: The version of the host that a module belongs to.
        supported: Gives the versions it was tested with, in words; asked only where they are printed.
        prefix: What the names of its modules begin with where another host's are the same without it.
        prepare: ``f(kit, module)`` called with its parser's module once patched; what it returns is called at uninstall.
        explain: Says of a parser that cannot be patched how it differs from the released ones, or nothing.
        repairs: Patches of what is out of order in old versions, with attention or without: the kit's launchers apply
            them, importing the kit does not.
        repair: As `prepare`, for each module of `repaired`, where repairs are asked for.
        repaired: Modules that `repair` is called with.
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
        """The same, those of one replacement together: a thing that a host does in more than one function."""
        groups: dict[Any, list[Patch]] = {}
        for patch in patches:
            groups.setdefault(patch.replacement, []).append(patch)
        return list(groups.values())

    @property
    def parser(self) -> str:
        """The module of the parser."""
        return self.patches[0].module

    @property
    def modules(self) -> tuple[str, ...]:
        """Every module that is looked at, each once."""
        return tuple(dict.fromkeys([*(p.module for p in (*self.patches, *self.repairs)), *self.repaired]))
