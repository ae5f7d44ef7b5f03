"""Read the tensors of any YOLO checkpoint without running a line of it, and without the package that wrote it.

A `.pt` file is a pickle: loading it the usual way imports and calls whatever it names. Here every name but the few
that rebuild tensors and containers becomes an inert stand-in that only remembers its attributes, so a checkpoint of
ultralytics, of classic YOLOv5 (whose classes live in a checkout) or of a fork with classes that exist nowhere is
read alike, and a hostile one does nothing.
"""

from __future__ import annotations

import io
import os
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from .errors import CheckpointError

__all__ = ["Checkpoint", "detector", "of", "read", "tensors_of"]

_BUILTINS = frozenset(
    [
        "set",
        "frozenset",
        "dict",
        "list",
        "tuple",
        "int",
        "float",
        "bool",
        "complex",
        "str",
        "bytes",
        "bytearray",
        "slice",
        "range",
    ]
)
_REBUILD = re.compile(r"_rebuild_(tensor(_v\d)?|parameter(_with_state)?|device_tensor_from_numpy|from_type_v2)")


class Inert:
    """Stands for an object of the file: keeps its attributes, does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Inert:
        """Accept what the file passes."""
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Forget it."""

    def __setstate__(self, state: Any) -> None:
        """Keep the attributes."""
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, dict):
                self.__dict__.update(part)

    def __setitem__(self, key: Any, value: Any) -> None:
        """A subclass of dict in the file fills itself; nobody reads it."""

    def append(self, value: Any) -> None:
        """Likewise a subclass of list."""

    def extend(self, values: Any) -> None:
        """Likewise."""

    def add(self, value: Any) -> None:
        """Likewise a subclass of set."""

    def __call__(self, *args: Any, **kwargs: Any) -> Inert:
        """A function of the file, called: another inert object."""
        return Inert()


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        import torch

        if module in ("builtins", "__builtin__") and name in _BUILTINS:
            return __builtins__[name] if isinstance(__builtins__, dict) else getattr(__builtins__, name)
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch._utils" and _REBUILD.fullmatch(name) and hasattr(torch._utils, name):
            return getattr(torch._utils, name) if name != "_rebuild_from_type_v2" else _rebuild_plain
        if module in ("torch", "torch.storage") and (name.endswith("Storage") or name in ("Size", "device", "Tensor")):
            return getattr(torch if hasattr(torch, name) else torch.storage, name, Inert)
        if (module, name) == ("torch.nn.parameter", "Parameter"):
            return torch.nn.Parameter
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        return type(name.rpartition(".")[2], (Inert,), {"__module__": module})


def _rebuild_plain(function: Any, kind: Any, args: Any, state: Any) -> Any:
    """A tensor subclass of the file, as the plain tensor that it holds."""
    return function(*args)


# What torch.load asks of a pickle module.
_PICKLE = SimpleNamespace(
    __name__="yolo_attn.checkpoint",
    Unpickler=_Unpickler,
    load=lambda file, **kwargs: _Unpickler(file, **kwargs).load(),
    loads=lambda data, **kwargs: _Unpickler(io.BytesIO(data), **kwargs).load(),
    UnpicklingError=pickle.UnpicklingError,
)


@dataclass
class Checkpoint:
    """What a file holds.

    Args:
        model: The detector with its module tree, live or inert; None if the file has tensors only.
        tensors: State-dict name to tensor.
        names: Class names by index, if the file tells them.
        yaml: The model dictionary, if the file tells it.
        file: Where it came from, for messages.
    """

    model: Any
    tensors: dict[str, Any]
    names: dict[int, str] = field(default_factory=dict)
    yaml: dict[str, Any] = field(default_factory=dict)
    file: str = "checkpoint"


def read(file: str | os.PathLike[str]) -> Checkpoint:
    """Read a `.pt`, `.pth` or `.safetensors` file.

    Raises:
        CheckpointError: Missing, cut short, of no known kind, or without tensors.
    """
    path = Path(os.path.expanduser(file))
    if not path.is_file():
        raise CheckpointError(f"checkpoint not found: {path} (looked in {Path.cwd()})")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    content = _read_torch(path)
    found = of(content, str(path))
    if not found.tensors:
        held = ", ".join(map(str, list(content)[:8])) if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(f"{path} holds no model and no tensors ({held}). A detector's checkpoint is needed.")
    return found


def of(content: Any, file: str = "checkpoint") -> Checkpoint:
    """Return what an object in memory holds: a checkpoint dictionary, a module, or a state dict."""
    if isinstance(content, Checkpoint):
        return content
    if isinstance(content, Mapping):
        inner = next(
            (content[k] for k in ("ema", "model", "state_dict", "model_state_dict") if _filled(content, k)), None
        )
        if inner is not None and not _is_tensor(inner):
            found = of(inner, file)
            found.names = found.names or _names(content.get("names"))
            return found
        tensors = {str(k): v for k, v in content.items() if _is_tensor(v)}
        return Checkpoint(None, _unprefixed(tensors), file=file)
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


def tensors_of(module: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the state dict of a module tree, live or inert, in the order of `torch.nn.Module.state_dict`."""
    transient = getattr(module, "_non_persistent_buffers_set", ())
    for kind in ("_parameters", "_buffers"):
        for name, value in (getattr(module, kind, None) or {}).items():
            if _is_tensor(value) and name not in transient:
                yield prefix + name, value.detach()
    for name, child in (getattr(module, "_modules", None) or {}).items():
        if child is not None:
            yield from tensors_of(child, f"{prefix}{name}.")


def _read_torch(path: Path) -> Any:
    import torch

    if not zipfile.is_zipfile(path):
        with path.open("rb") as stream:
            if stream.read(2) != b"\x80\x02":  # what torch wrote before 1.6
                raise CheckpointError(f"{path} is no checkpoint, or is cut short ({path.stat().st_size} bytes).")
    try:
        return torch.load(path, map_location="cpu", pickle_module=_PICKLE, weights_only=False)
    except (
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        pickle.PickleError,
    ) as exc:
        raise CheckpointError(f"{path} cannot be read: {str(exc).strip().splitlines()[0][:200]}") from exc


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
    except ValueError:
        names = None
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
    children = getattr(module, "_modules", None) or {}
    return children.get(name) or vars(module).get(name) if hasattr(module, "__dict__") else None


def _rows(module: Any) -> bool:
    children = getattr(module, "_modules", None) or {}
    return bool(children) and all(k.isdigit() for k in children) and hasattr(next(iter(children.values())), "f")


def _filled(content: Mapping[Any, Any], key: str) -> bool:
    return content.get(key) is not None


def _is_tensor(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def _names(names: Any) -> dict[int, str]:
    if isinstance(names, Mapping):
        return {int(k): str(v) for k, v in names.items() if str(k).isdigit()}
    return {i: str(n) for i, n in enumerate(names)} if isinstance(names, (list, tuple)) else {}


def _unprefixed(tensors: dict[str, Any]) -> dict[str, Any]:
    """Names as a detector has them, `model.0.conv.weight`, whatever wrappers stood around it."""
    out = {}
    for key, value in tensors.items():
        match = re.match(r"(?:.*?\.)??(?:model\.)*(\d+\..+)", key)
        out[f"model.{match.group(1)}" if match else key] = value
    return out
