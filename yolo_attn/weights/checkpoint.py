"""Read the tensors of any YOLO checkpoint without running its code and without the package that wrote it.

A ``.pt`` file is a pickle: loading it the usual way imports and calls whatever it names, and torch also runs TorchScript
files of the same suffix. Here every name except the few that rebuild tensors and containers becomes an inert stand-in
that only keeps its attributes (:mod:`.pickles`). So checkpoints of ultralytics, of classic YOLOv5 (whose classes are in
a checkout) and of forks with unknown classes are all read alike, and a hostile one can do nothing.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, first_line, one_line, shown
from . import pickles
from .pickles import Inert

__all__ = ["Checkpoint", "Inert", "detector", "of", "read", "tensors_of"]

DEPTH, MODULES, TENSORS = 100, 100_000, 1_000_000  # nesting, modules and tensors of one module tree
NAME = 1_000  # characters in the name of a tensor
CLASSES = 100_000


@dataclass
class Checkpoint:
    """The content of a checkpoint.

    Args:
        model: The detector as a module tree, live or inert; None if the file has tensors only.
        tensors: Tensors by their names in the state dict.
        names: Class names by index; empty if unknown.
        yaml: The model dictionary; empty if unknown.
        file: Name of the file, for messages.
    """

    model: Any
    tensors: dict[str, Any]
    names: dict[int, str] = field(default_factory=dict)
    yaml: dict[str, Any] = field(default_factory=dict)
    file: str = "checkpoint"


def read(file: str | os.PathLike[str]) -> Checkpoint:
    """Read a ``.pt``, ``.pth`` or ``.safetensors`` file.

    Raises:
        CheckpointError: The file is missing, cut short, of an unknown format, or has no tensors.
    """
    path = Path(os.path.expanduser(file))
    if not path.is_file():
        raise CheckpointError(f"checkpoint not found: {path} (looked in {Path.cwd()})")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    content = pickles.load(path)
    try:
        found = of(content, str(path))
    except CheckpointError as exc:
        raise CheckpointError(f"{path}: {exc}") from exc
    except (AttributeError, TypeError, ValueError, KeyError, RecursionError) as exc:  # parts of another type
        raise CheckpointError(f"{path} is not a checkpoint of a detector: {first_line(exc)[:200]}") from exc
    if not found.tensors:
        held = ", ".join(shown(k, 40) for k in list(content)[:8]) if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(f"{path} contains neither a model nor tensors ({held}). A checkpoint of a detector is needed.")
    return found


def of(content: Any, file: str = "checkpoint", depth: int = 0) -> Checkpoint:
    """Return the checkpoint of an object in memory.

    Args:
        content: A checkpoint dictionary, a module, or a state dict.
        file: Name of the file, for messages.
        depth: Nesting of dictionaries so far.

    Raises:
        CheckpointError: The object exceeds the limits of this module.
    """
    if isinstance(content, Checkpoint):
        return content
    if isinstance(content, Mapping):
        inner = next(
            (content[k] for k in ("ema", "model", "state_dict", "model_state_dict") if _filled(content, k)), None
        )
        if inner is not None and not _is_tensor(inner):
            if depth > DEPTH:
                raise CheckpointError("its dictionaries are nested without end")
            found = of(inner, file, depth + 1)
            found.names = found.names or _names(content.get("names"))
            return found
        return _of_tensors(content, file)
    model = detector(content)
    if model is None:
        return Checkpoint(None, {}, file=file)
    yaml = getattr(model, "yaml", None)
    return Checkpoint(
        model,
        dict(tensors_of(model)),
        _names(getattr(model, "names", None)),
        yaml if isinstance(yaml, dict) else {},
        file,
    )


def _of_tensors(content: Mapping[Any, Any], file: str) -> Checkpoint:
    tensors = {k: v for k, v in content.items() if isinstance(k, str) and _is_tensor(v)}
    for name in tensors:
        _check_name(name)
    return Checkpoint(None, _unprefixed(tensors), file=file)


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or len(name) > NAME or not name.isprintable():
        raise CheckpointError(f"{shown(name, 60)} is not a valid name of a module or tensor")


def tensors_of(module: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the state dict of a module tree, live or inert, in the order of `torch.nn.Module.state_dict`.

    Raises:
        CheckpointError: The tree contains itself, or is larger than any detector's.
    """
    return _walk(module, prefix, [], {"modules": 0, "tensors": 0})


def _walk(module: Any, prefix: str, above: list[int], count: dict[str, int]) -> Iterator[tuple[str, Any]]:
    if id(module) in above:
        raise CheckpointError(f"the module {prefix[:100] or 'at the top'} contains itself")
    count["modules"] += 1
    if len(above) >= DEPTH or count["modules"] > MODULES or count["tensors"] > TENSORS:
        raise CheckpointError(
            f"the module tree is deeper than {DEPTH}, or holds more than {MODULES:,} modules or {TENSORS:,} tensors: no "
            f"detector does"
        )
    transient = getattr(module, "_non_persistent_buffers_set", ())
    transient = transient if isinstance(transient, (set, frozenset, list, tuple)) else ()
    for kind in ("_parameters", "_buffers"):
        for name, value in _items(module, kind):
            if _is_tensor(value) and name not in transient:
                count["tensors"] += 1
                _check_name(name)
                yield f"{prefix}{name}", value.detach()
    above.append(id(module))
    for name, child in _items(module, "_modules"):
        if child is not None:
            _check_name(name)
            yield from _walk(child, f"{prefix}{name}.", above, count)
    above.pop()


def _items(module: Any, kind: str) -> Iterable[tuple[Any, Any]]:
    """One of the dictionaries of a module, live or inert."""
    held = getattr(module, kind, None)
    return held.items() if isinstance(held, Mapping) else ()


def _read_safetensors(path: Path) -> Checkpoint:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as exc:
        raise CheckpointError(f"{path}: reading .safetensors needs a package: pip install safetensors") from exc
    import json

    try:
        with safe_open(str(path), framework="pt") as file:
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 # it is no mapping
            about = file.metadata() or {}
    except (SafetensorError, OSError) as exc:
        raise CheckpointError(f"{path} cannot be read: {exc}") from exc
    names: Any = about.get("names")
    try:
        names = json.loads(names) if names else None
    except (ValueError, RecursionError):
        names = None
    if not tensors:
        raise CheckpointError(f"{path} contains no tensors. A checkpoint of a detector is needed.")
    for name in tensors:
        _check_name(name)
    return Checkpoint(None, _unprefixed(tensors), _names(names), file=str(path))


def detector(module: Any) -> Any:
    """The module whose `model` is the sequence of rows, below wrappers such as `YOLO`, DDP and AutoShape."""
    for _ in range(4):
        if module is None:
            return None
        inner = _child(module, "model")
        if inner is None:
            inner = _child(module, "module")
        elif _rows(inner):
            return module
        module = inner
    return None


def _child(module: Any, name: str) -> Any:
    children = dict(_items(module, "_modules"))
    return children.get(name) or vars(module).get(name) if hasattr(module, "__dict__") else None


def _rows(module: Any) -> bool:
    children = dict(_items(module, "_modules"))
    return bool(children) and all(str(k).isdigit() for k in children) and hasattr(next(iter(children.values())), "f")


def _filled(content: Mapping[Any, Any], key: str) -> bool:
    return content.get(key) is not None


def _is_tensor(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def _names(names: Any) -> dict[int, str]:
    """Class names by index. Values that are not strings are shortened, since nested ones may be endless."""
    pairs = names.items() if isinstance(names, Mapping) else enumerate(names) if isinstance(names, (list, tuple)) else ()
    found = {}
    for key, value in itertools.islice(pairs, CLASSES):
        if isinstance(key, str) and len(key) < 8 and key.isdecimal():
            key = int(key)
        if type(key) is int and key >= 0:
            found[key] = one_line(value[:NAME]) if isinstance(value, str) else shown(value)
    return found


def _unprefixed(tensors: dict[str, Any]) -> dict[str, Any]:
    """Tensors under a detector's own names, such as ``model.0.conv.weight``, without the prefixes of wrappers."""
    out = {}
    for key, value in tensors.items():
        match = re.match(r"(?:.*?\.)??(?:model\.)*(\d+\..+)", key)
        out[f"model.{match.group(1)}" if match else key] = value
    return out
