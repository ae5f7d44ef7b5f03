"""The object that the hook hands to the hosts' patches: everything that they call, so that no room imports one above.

It stands above every room and imports them where they are used, so patching a host costs none of these imports.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

if TYPE_CHECKING:
    from .patches import Kit

__all__ = ["KIT", "TheKit"]


class TheKit:
    """Implements :class:`yolo_attn.patches.Kit`, which documents each method."""

    name = __name__.rpartition(".")[0]

    def __reduce__(self) -> str:
        """Pickle by name, so that there is one object in each process: hosts send callbacks to the workers of a run."""
        return "KIT"

    # -- rows

    def knows(self, name: Any, d: dict[str, Any], i: int) -> bool:
        """Whether a row's name is registered, or stands under the YAML's `register:`."""
        from .hook import seams

        return isinstance(name, str) and seams.registered(name, d, i)[0] is not None

    def find(self, name: Any, args: list[Any], i: int, d: dict[str, Any], lookup: Callable[[], Any]) -> Any:
        """See :func:`.seams.find`."""
        from .hook import seams

        return seams.find(name, args, i, d, lookup)

    def binds(self, m: Any) -> bool:
        """Whether the kit supplies the arguments of a class."""
        from .registry import registry

        return registry.binding_of(m) is not None

    def place(self, *given: Any) -> tuple[Any, Any, int, list[Any]]:
        """See :func:`.seams.place`."""
        from .hook import seams

        return seams.place(*given)

    # -- model files

    def locate(self, name: Any) -> Path | None:
        from .model_yaml import find

        return find.locate(name)

    def read_model(self, name: Any, file: Path) -> dict[str, Any]:
        from .model_yaml import load

        return load.load_ultralytics(name, file)

    def classic_file(self, name: str, file: Path) -> Path:
        from .model_yaml import load

        return load.classic_file(name, file)

    @contextlib.contextmanager
    def building(self, cfg: Any, detector: Any) -> Iterator[Any]:
        from .hook import memory_need, seams
        from .hook.host_errors import told_by_row
        from .model_yaml import dialect, load
        from .patches.yolov5_shared import is_model

        name, given = "model YAML", cfg
        homes = [sys.modules.get(c.__module__) for c in type(detector).__mro__]
        parsers = [m for m in homes if m is not None and hasattr(m, "parse_model")]
        if isinstance(cfg, dict):
            name = str(cfg.get("yaml_file") or name)
            cfg = dialect.check_expressions(cfg, name, parsers[0] if parsers else None)
            cfg = dialect.to_classic(cfg, str(cfg.get("scale") or ""), name)
        elif isinstance(cfg, (str, os.PathLike)):
            name = str(cfg)
            found = Path(name) if Path(name).is_file() else self.locate(name)
            if found is not None and is_model(found):
                cfg = str(load.classic_file(name, found))
        if os.environ.get(memory_need.TRAINING) and parsers:
            d = cfg if isinstance(cfg, dict) else load.read(Path(cfg))
            with seams.reading(name, layers_only=isinstance(given, dict)):
                memory_need.refuse_too_large(d, name, parsers[0], training=True)
        with seams.reading(name, layers_only=isinstance(given, dict)), told_by_row(name):
            yield cfg

    def unknown_model(self, name: str) -> Exception | None:
        from . import errors
        from .model_yaml import find

        stem = find.split_scale(Path(name).stem)[0]
        hint = errors.did_you_mean(stem, [Path(n).stem for n in find.list_configs()])
        if not hint:
            return None
        return errors.ConfigError(
            f"model YAML not found: {name} (looked in {Path.cwd()}, in YOLOv5 and in the kit).{hint} "
            f"'{self.name.replace('_', '-')} list --configs' shows the kit's."
        )

    # -- weights

    def load_weights(self, original: Callable[..., Any], detector: Any, given: Any, *rest: Any, **more: Any) -> Any:
        from .weights import host_loading

        return host_loading.load(original, detector, given, *rest, **more)

    def match_state(self, original: Callable[..., Any], da: Any, db: Any, exclude: Any = ()) -> Any:
        from .weights import host_loading

        return host_loading.intersect(original, da, db, exclude)

    def note(self, detector: Any, state: Any) -> None:
        from .weights import built

        built.note(detector, state)

    def check_filled(self, detector: Any) -> None:
        from .weights import host_loading

        host_loading.check_filled(detector)

    # -- detectors

    def fold(self, detector: Any) -> None:
        from .modules import _conv

        _conv.fuse(detector)

    def at_full_size(self, detector: Any, imgsz: Any, *, weights: bool = False) -> Any | None:
        from .hook import flops

        return flops.at_full_size(detector, imgsz, weights=weights)

    # -- training

    def before_batch(self, trainer: Any) -> None:
        from .training import gate_log, schedule

        schedule.before_batch(trainer)
        gate_log.before_batch(trainer)

    def before_loop(self, model: Any) -> None:
        from .training import gate_log, schedule

        schedule.before_loop(model)
        gate_log.before_loop(model)
        if "YOLO_ATTN_STUDY" in os.environ:  # a run of a study
            from .study import trackers

            trackers.follow_classic()

    def worker_lines(self) -> str:
        from .hook import install

        lines = f"import {self.name}\n"
        return lines + (f"import {install.__name__}\n{install.__name__}.repair()\n" if install.repairing() else "")

    # -- reading checkpoints

    def safe_load(self) -> bool:
        from .registry import plugins

        return plugins.safe_load()

    def names_declarations(self) -> bool:
        from .registry import safe

        return safe.named()

    def declare(self, classes: Iterable[type], aliases: Iterable[tuple[type, str]] = ()) -> list[Any]:
        from .registry import safe

        return safe.declare(classes, aliases)

    def withdraw(self, declared: Iterable[Any]) -> None:
        from .registry import safe

        safe.withdraw(declared)

    def load_modules(self) -> None:
        from . import errors
        from .registry import sources

        try:
            sources.load_all()
        except errors.YoloAttnError as exc:  # the host must still import
            self.announce("%s", exc)

    # -- words

    def announce(self, message: str, *values: Any) -> None:
        from . import log

        log.announce(message, *values)


KIT = TheKit()
if TYPE_CHECKING:
    _checked: Kit = KIT
