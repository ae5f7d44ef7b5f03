"""What a module keeps besides its parameters and buffers."""

from __future__ import annotations

from typing import Any, Callable

__all__ = ["bare_tensors", "changed_attributes", "hidden_state", "unpicklable"]

_OWN = frozenset({"training", "_parameters", "_buffers", "_modules", "_non_persistent_buffers_set", "forward"})


def bare_tensors(m: Any) -> list[tuple[Any, str, str]]:
    """Return attributes that hold tensors or layers which torch does not know: part, name, and what it is."""
    import torch
    from torch import nn

    found = []
    for part in m.modules():
        for name, value in vars(part).items():
            if name in _OWN or type(part).__module__.startswith("torch."):
                continue
            items = list(value.values()) if isinstance(value, dict) else list(value) if isinstance(value, (list, tuple)) else []
            if isinstance(value, torch.Tensor):
                found.append((part, name, "a plain tensor"))
            elif any(isinstance(v, nn.Module) and any(True for _ in v.parameters()) and v not in list(m.modules()) for v in items):
                found.append((part, name, "a list of layers"))
            elif any(isinstance(v, torch.Tensor) for v in items):
                found.append((part, name, "a list of tensors"))
    return found


def hidden_state(m: Any, twin: Any) -> list[tuple[Any, str, str]]:
    """Return what differs between two modules of one state: part, name, and what it is."""
    found = []
    kept = m.state_dict(keep_vars=True).keys()
    for (path, part), other in zip(m.named_modules(), twin.modules()):
        for name, buffer in part.named_buffers(recurse=False):
            full = f"{path}.{name}" if path else name
            if full not in kept and not _same(buffer, other._buffers.get(name)):
                found.append((part, name, "a buffer with persistent=False"))
        for name, value in vars(part).items():
            if name not in _OWN and not _same(value, vars(other).get(name)):
                found.append((part, name, f"a plain {type(value).__name__}".replace("Tensor", "tensor")))
    return found


def changed_attributes(m: Any, before: list[dict[str, Any]]) -> list[tuple[Any, str]]:
    """Return the attributes that differ from those of each part before: part and name."""
    found = []
    for part, old in zip(m.modules(), before):
        for name, value in vars(part).items():
            if name not in _OWN and (name not in old or (value is not old[name] and not _same(value, old[name]))):
                found.append((part, name))
    return found


def unpicklable(m: Any, pack: Callable[[Any], Any]) -> tuple[str, Any]:
    """Return the attribute that cannot be packed, and its part; an empty name if it is none alone."""
    for part in m.modules():
        for name, value in vars(part).items():
            if name in ("_modules", "_parameters", "_buffers"):
                continue
            try:
                pack(value)
            except Exception:  # an attribute can raise anything
                return name, part
    return "", m


def _same(a: Any, b: Any) -> bool:
    import torch

    if isinstance(a, torch.Tensor) or isinstance(b, torch.Tensor):
        return isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) and a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, (bool, int, float, str, type(None))):
        return bool(a == b)
    return type(a) is type(b)  # functions, hooks: what they hold cannot be told
