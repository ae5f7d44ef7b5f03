"""Estimate the memory that a model needs before it is built, from its parameters on torch's meta device."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import ConfigError, YoloAttnError
from ..files import read_source

__all__ = ["TRAINING", "available", "parameters", "quiet", "refuse_count", "refuse_too_large"]

BUILT, TRAINED = 4, 16  # bytes a parameter: the number; with its gradient and an optimizer's two further numbers
TRAINING = "YOLO_ATTN_MEMORY"  # set for a classic host that trains: its models are checked before they are built
FORCE = "--force (in Python, force=True) continues anyway."


def refuse_too_large(
    d: dict[str, Any], file: str, parser: ModuleType, *, training: bool = False, force: bool = False
) -> None:
    """Refuse a model that needs more memory than there is.

    Args:
        d: The model, as the parser takes it.
        file: Named in the message.
        parser: The host's module with `parse_model`, hooked.
        training: Whether it is to be trained, which takes four times as much; activations come on top.
        force: Build it all the same.

    Raises:
        ConfigError: With both numbers.
    """
    if not force:
        refuse_count(parameters(d, parser), file, training=training)


def refuse_count(count: int | None, file: str, *, training: bool = False, remedy: str = FORCE) -> None:
    """Refuse a number of parameters that needs more memory than there is; None is not refused.

    Args:
        count: The number of parameters.
        file: Named in the message.
        training: Whether they are to be trained.
        remedy: The message's last sentence.

    Raises:
        ConfigError: With both numbers.
    """
    need, there = (count or 0) * (TRAINED if training else BUILT), available()
    if count is not None and there is not None and need > there:
        what = "train" if training else "build"
        raise ConfigError(
            f"{file}: its {count:,} parameters need {need / 1e9:,.1f} GB to {what}, and {there / 1e9:,.1f} GB of memory "
            f"are available. {remedy}"
        )


def parameters(d: dict[str, Any], parser: ModuleType) -> int | None:
    """Return the number of parameters of a model; None if its layers cannot be counted without building them."""
    import torch

    if not hasattr(torch.device, "__enter__"):  # before torch 2.0
        return None
    ultralytics = parser.__name__.startswith("ultralytics.")
    channels = d.get("channels", d.get("ch", 3))
    given: list[Any] = [d, channels if ultralytics else [channels], *([False] if ultralytics else [])]
    for quick in (True, False):
        try:
            with torch.random.fork_rng(devices=[]), torch.device("meta"), _small() if quick else nullcontext(), quiet():
                layers, _ = parser.parse_model(*deepcopy(given))
        except (YoloAttnError, MemoryError):
            raise
        except Exception:  # the error is reported when it is built, with its row
            continue
        return sum(p.numel() for p in layers.parameters())
    return None


def _small() -> Any:
    """Let the hosts' heads count upwards on the CPU while they are built on the meta device.

    There, `torch.arange` is a decomposition that imports torch._dynamo and sympy: two seconds of every command.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    class Small(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            named = dict(kwargs or {})
            if func is torch.arange:
                named.setdefault("device", "cpu")
            return func(*args, **named)

    return Small()


def available() -> int | None:
    """Return the memory available to this process in bytes, within a container's limit; None if unknown."""
    found = []
    with contextlib.suppress(ImportError, OSError):
        import psutil

        found.append(int(psutil.virtual_memory().available))
    if not found:
        with contextlib.suppress(AttributeError, ValueError, OSError):  # no such call on Windows
            found.append(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with contextlib.suppress(OSError, ValueError):  # no limit reads 'max'
        folder = Path("/sys/fs/cgroup")
        found.append(int(read_source(folder / "memory.max")) - int(read_source(folder / "memory.current")))
    return min(found) if found else None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress the table that hosts print; it is printed when the model is built."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
