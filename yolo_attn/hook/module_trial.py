"""Try a user's module at its row before the next one is built: its input, its output, and what would work.

A copy runs on torch's meta device, which computes shapes only; if an operation is not available there, on a small map
of zeros. The module, its statistics and the random number generators do not change.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import random
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..errors import RowError, first_line
from ..log import announce
from ..registry.forms import Calls, Form, adapt
from ..registry.plugins import PLUGINS

__all__ = ["Row", "try_out"]

ODD = ((13, 11), (9, 15))  # height and width of the maps
# If it runs on neither: sizes that modules are built for, of images, patches and windows.
SQUARES = (8, 16, 32, 64, 20, 40, 80, 7, 14, 28, 56, 10, 12, 24, 48, 4, 5, 96, 112, 128, 160, 224, 256, 320, 640)
SMALL = 32  # largest map on which values are computed


@dataclass(frozen=True)
class Row:
    """The row at which a module stands.

    Args:
        location: File, number and columns.
        name: Its third column.
        channels: Input channels; a list if `from` is a list.
        c2: Output channels that the next row expects.
        register: The YAML's ``register:``.
        form: How the module is called, by its entry; None if it does not say.
        index: Number of the row.
    """

    location: str
    name: str
    channels: int | list[int]
    c2: int
    register: Mapping[str, Any]
    form: Form | None = None
    index: int = 0

    @property
    def count(self) -> int:
        """Number of inputs in `from`; 0 if it is not a list."""
        return len(self.channels) if isinstance(self.channels, list) else 0


class _Wrong(Exception):
    """The problem, as the end of a sentence, and the keys of an entry that would work."""

    def __init__(self, problem: str, remedy: Mapping[str, Any] | None = None, advice: str = "") -> None:
        super().__init__(problem)
        self.remedy, self.advice = remedy, advice


def try_out(module: Any, row: Row) -> None:
    """Run a module that was just built, in eval and training mode.

    Args:
        module: The module; not changed.
        row: Its row.

    Raises:
        RowError: It does not work at this row. The message names file, row and class, input and output, and the remedy.
    """
    import torch

    if torch.empty(0).is_meta:  # a model that is only measured
        return
    cls = type(module)
    try:
        with _untouched():
            _try(module, row)
    except _Wrong as exc:
        what = row.name if cls.__name__ == row.name else f"{row.name} ({cls.__name__})"
        remedy = f" {_entry(cls, row, exc.remedy)}" if exc.remedy else ""
        raise RowError(f"{row.location}: {what} {exc}.{exc.advice}{remedy}") from exc.__cause__


def _try(module: Any, row: Row) -> None:
    calls = Calls.of(type(module))
    if not row.count and len(calls.needed) > 1 and (row.form is None or row.form.inputs is None):
        _refuse_inputs(calls, row)
    trial = _Trial(module, row)
    runs = [trial.run(size, batch=2) for size in ODD]
    sizes: list[tuple[int, int]] = list(ODD)
    failed = next((r for r in runs if isinstance(r, Exception)), None)
    if failed is not None:
        _find_layout(module, row, trial, failed)
        sizes = [(s, s) for s in SQUARES if not isinstance(trial.run((s, s), batch=2), Exception)]
        if not sizes:
            _explain(module, row, trial, failed)
        shown = ", ".join(f"{h} x {w}" for h, w in sizes[:4]) + (", ..." if len(sizes) > 4 else "")
        _tell(f"{row.location}: {row.name} runs on maps of {shown} and not on every size, such as 13 x 11: "
              f"{_said(failed)}. Keep to images that give it its size.")  # fmt: skip
        runs = [trial.run(size, batch=2) for size in sizes[:2]]
    for size, run in zip(sizes, runs):
        _judge(run, trial, row, size, 2)
    run = trial.run(sizes[0], batch=1, training=True)
    if isinstance(run, Exception):
        if isinstance(trial.run(sizes[0], batch=2, training=True), Exception):
            raise _Wrong(f"runs in eval mode and not in training on {trial.shown(sizes[0], 1)}: {_said(run)}") from run
        _tell(f"{row.location}: {row.name} cannot be trained on a batch of one, the last of an epoch included: {_said(run)}. "
              f"Batch normalization after global pooling causes this; without it, or with GroupNorm(1, C), it can.")  # fmt: skip
    else:
        _judge(run, trial, row, sizes[0], 1)


def _refuse_inputs(calls: Calls, row: Row) -> None:
    count, names = len(calls.needed), ", ".join(calls.needed)
    before = [*range(max(row.index - 2, 0), -1, -1)]
    froms = [-1, *(before[min(k, len(before) - 1)] for k in range(count - 1))]
    raise _Wrong(
        f"takes {count} inputs ({names}), and the row names one",
        {"inputs": count},
        f" Name them, [{froms}, 1, {row.name}, []]; or to give it the same one {count} times:",
    )


def _judge(run: Any, trial: _Trial, row: Row, size: tuple[int, int], batch: int) -> None:
    """Refuse an output that is not one map with the channels that the next row expects."""
    import torch

    if isinstance(run, Exception):
        raise _Wrong(f"fails on {trial.shown(size, batch)}: {_said(run)}") from run
    out, changed = run
    gave = f"gets {trial.shown(size, batch)} and gives "
    if isinstance(out, (list, tuple, dict)):
        values = list(out.values()) if isinstance(out, dict) else list(out)
        keys = list(out) if isinstance(out, dict) else list(range(len(values)))
        good = next((k for k, v in zip(keys, values) if _is_map(v, batch, row.c2)), None)
        parts = ", ".join(_shape(v) for v in values)
        raise _Wrong(
            f"{gave}{len(values)} outputs ({parts}), where a layer gives one map",
            {"output": good} if isinstance(good, int) else None,
            "" if isinstance(good, int) else " Return the map alone.",
        )
    if not isinstance(out, torch.Tensor) or out.dim() != 4 or out.shape[0] != batch:
        raise _Wrong(f"{gave}{_shape(out)}, where a layer gives a map ({batch}, {row.c2}, H, W)")
    if out.shape[1] != row.c2:
        raise _Wrong(
            f"{gave}{_shape(out)}, where the next row is promised {row.c2} channels",
            {"out_channels": _as_part(int(out.shape[1]), row)},
        )
    if changed:
        raise _Wrong(
            f"changes its input {trial.shown(size, batch)} in place, which other rows may read as well",
            {"copy": True},
            " Let it write to a tensor of its own; or to give it a copy:",
        )


def _find_layout(module: Any, row: Row, trial: _Trial, failed: Exception) -> None:
    """Refuse a module that takes sequences or channels-last maps, with the entry that converts them."""
    given = row.form or Form()
    if given.layout != "map":
        return
    for layout, takes in (("sequence", "(B, H*W, C)"), ("last", "(B, H, W, C)")):
        for output in (given.output, *(() if given.output is not None else (0, 1))):
            form = Form(layout, given.inputs, output, given.copy)
            other = _Trial(module, replace(row, form=form))
            run = other.run(ODD[0], batch=2)
            if isinstance(run, Exception) or getattr(run[0], "ndim", 0) != 4:
                continue
            words: dict[str, Any] = {"layout": layout, **({} if output == given.output else {"output": output})}
            if run[0].shape[1] != row.c2:
                words["out_channels"] = _as_part(int(run[0].shape[1]), row)
            problem = f"fails on {trial.shown(ODD[0], 2)}: {_said(failed)}"
            raise _Wrong(problem, words, f" It takes {takes}.") from failed


def _explain(module: Any, row: Row, trial: _Trial, failed: Exception) -> None:
    """Refuse a module that runs on no input, with the reason."""
    calls, hint = Calls.of(type(module)), ""
    if row.count > 1 and calls.most == 1 and not calls.one_by_one(row.count, row.form):
        hint = f" It is given the {row.count} maps of 'from' as a list; one map: [-1, 1, {row.name}, []]."
    raise _Wrong(f"fails on {trial.shown(ODD[0], 2)}: {_said(failed)}", None, hint) from failed


def _as_part(gives: int, row: Row) -> Any:
    """Output channels as an entry states them: as a fraction or multiple of the input's if possible, for every scale."""
    arrives = sum(row.channels) if isinstance(row.channels, list) else row.channels
    if gives < arrives and arrives % gives == 0:
        return f"c1/{arrives // gives}"
    return f"c1*{gives // arrives}" if gives > arrives and gives % arrives == 0 else gives


class _Trial:
    """Runs copies of a module: one on the meta device, one with values."""

    def __init__(self, module: Any, row: Row) -> None:
        self.module, self.row = module, row
        self.meta: Any = None
        self.real: Any = None

    def shown(self, size: tuple[int, int], batch: int) -> str:
        channels = self.row.channels if isinstance(self.row.channels, list) else [self.row.channels]
        return " and ".join(f"({batch}, {c}, {size[0]}, {size[1]})" for c in channels)

    def run(self, size: tuple[int, int], *, batch: int, training: bool = False) -> Any:
        """Return the output and whether the input was changed, or the error."""
        if self.meta is None:
            self.meta = self._copy(meta=True)
        found = self._run(self.meta, "meta", size, batch, training)
        if not isinstance(found, Exception):
            return found
        if max(size) > SMALL:
            return found
        if self.real is None:
            self.real = self._copy(meta=False)
        return self._run(self.real, "cpu", size, batch, training)

    def _run(self, module: Any, device: str, size: tuple[int, int], batch: int, training: bool) -> Any:
        import torch

        channels = self.row.channels if isinstance(self.row.channels, list) else [self.row.channels]
        maps = [torch.zeros(batch, c, *size, device=device) for c in channels]
        before = [m._version for m in maps]
        module.train(training)
        try:
            with torch.no_grad():
                out = module(maps if isinstance(self.row.channels, list) else maps[0])
            changed = [m._version for m in maps] != before
        except MemoryError:
            raise
        except Exception as exc:  # a module can raise anything
            return exc
        return out, changed

    def _copy(self, *, meta: bool) -> Any:
        memo: dict[int, Any] = {}
        if meta:
            for part in self.module.modules():
                for store in (part._parameters, part._buffers, vars(part)):
                    for tensor in store.values():
                        _without_memory(tensor, memo)
        try:
            twin = copy.deepcopy(self.module, memo)
        except Exception as exc:  # depends on its attributes
            raise _Wrong(f"cannot be copied, as a training does for its averaged weights: {_said(exc)}") from exc
        return adapt(twin, self.row.form, self.row.count)


def _without_memory(tensor: Any, memo: dict[int, Any]) -> None:
    import torch

    if isinstance(tensor, torch.Tensor) and id(tensor) not in memo:
        empty = torch.empty_like(tensor, device="meta")
        memo[id(tensor)] = torch.nn.Parameter(empty, False) if isinstance(tensor, torch.nn.Parameter) else empty


@contextlib.contextmanager
def _untouched() -> Iterator[None]:
    """Restore the random number generators."""
    import torch

    state, drawn = torch.get_rng_state(), random.getstate()
    numpy = sys.modules.get("numpy")
    third = numpy.random.get_state() if numpy is not None else None
    try:
        yield
    finally:
        torch.set_rng_state(state)
        random.setstate(drawn)
        if numpy is not None:
            numpy.random.set_state(third)


def _is_map(value: Any, batch: int, channels: int) -> bool:
    shape = tuple(getattr(value, "shape", ()))
    return len(shape) == 4 and shape[:2] == (batch, channels)


def _shape(value: Any) -> str:
    shape = getattr(value, "shape", None)
    return str(tuple(shape)) if shape is not None else f"a {type(value).__name__}"


def _said(exc: BaseException) -> str:
    said = first_line(exc)[:300].rstrip(".")
    kind = type(exc).__name__
    return f"{kind}: {said}" if said else kind


def _entry(cls: type, row: Row, words: Mapping[str, Any]) -> str:
    """The entry to write under ``register:``, or the decorator of a class that registers itself."""
    given = row.register.get(row.name)
    old = dict(given) if isinstance(given, Mapping) else {"from": given} if given else {}
    if not old and cls.__module__.startswith(f"{PLUGINS}."):
        file = getattr(sys.modules.get(cls.__module__), "__file__", None) or f"{cls.__module__.rpartition('.')[2]}.py"
        old = {"from": f"{os.path.basename(file)}:{cls.__qualname__}"}
    if old:
        said = ", ".join(f"{k}: {v}" for k, v in {**old, **words}.items())
        return f"Write under 'register:'  {row.name}: {{{said.replace('True', 'true')}}}"
    said = ", ".join(f"{k}={v!r}" for k, v in words.items())
    return f"Register it so: @yolo_attn.register({row.name!r}, {said})"


_told: set[str] = set()


def _tell(line: str) -> None:
    """Announce a line once, however often the model is built."""
    if line not in _told and not logging.root.manager.disable:  # not while a model is only measured
        _told.add(line)
        announce("%s", line)
