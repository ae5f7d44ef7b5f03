"""Find the detector that a state dict belongs to: hosts load from two state dicts, matching layers needs two models.

Both hosts' detectors are recorded when their ``state_dict`` is called, whether they were built, unpickled or copied.
Only weak references are kept, and beside the dictionary, since users save it as it is.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Mapping
from typing import Any

from .._name import PACKAGE
from ..errors import CheckpointError

__all__ = ["note", "owner"]

# Whether a detector has attention, by detector.
_noted: weakref.WeakKeyDictionary[Any, bool] = weakref.WeakKeyDictionary()
# By the id of a state dict: itself, its detector, and whether that has attention.
_states: dict[int, tuple[weakref.ref[Any], weakref.ref[Any], bool]] = {}


def note(detector: Any, state: Any) -> None:
    """Record that a state dict belongs to a detector."""
    if detector not in _noted:
        from .attention import attention_in

        _noted[detector] = bool(attention_in(detector))
    if hasattr(state, "_metadata"):  # torch's own dictionary, not one of the caller's
        key = id(state)
        itself = weakref.ref(state, functools.partial(_forget, key))
        _states[key] = itself, weakref.ref(detector), _noted[detector]


def _forget(key: int, itself: weakref.ref[Any]) -> None:
    if _states.get(key, (None,))[0] is itself:  # not another dictionary with the same id
        del _states[key]


def owner(state: Any, role: str) -> Any | None:
    """Return the detector that a state dict belongs to, or None if no detector with attention is involved.

    Args:
        state: A state dict or a part of one, any mapping that holds a detector's own tensors.
        role: Its role for the message, such as ``target's``.

    Raises:
        CheckpointError: It belongs to a detector with attention, but which one is unknown.
    """
    if not isinstance(state, Mapping) or not state:
        return None
    itself, reference, attention = _states.get(id(state), (None, None, False))
    if itself is None or itself() is not state:
        reference, attention = None, False
    detector = reference() if reference is not None else None
    if detector is not None:
        return detector
    candidates = list(_noted.items())
    found = next((d for d, _ in candidates if _owns(d, state)), None)
    if found is not None:
        return found
    if attention or any(has and _resembles(d, state) for d, has in candidates):
        raise CheckpointError(
            f"cannot tell which detector the {role} state dict belongs to, and copying by name would put most tensors into "
            f"wrong layers. Keep the detector and pass its state_dict() itself, not a copy; or call "
            f"{PACKAGE}.transfer(source, detector), which takes the detectors"
        )
    return None


def _owns(detector: Any, state: Mapping[Any, Any]) -> bool:
    """Whether the tensors of a state dict share the memory of the detector's."""
    import torch

    own = {**dict(detector.named_parameters()), **dict(detector.named_buffers())}
    for key, tensor in state.items():
        mine = own.get(_plain(key))
        if mine is not None and isinstance(tensor, torch.Tensor) and tensor.numel() and tensor.device == mine.device:
            return bool(tensor.device.type != "meta" and mine.data_ptr() == tensor.data_ptr())
    return False


def _resembles(detector: Any, state: Mapping[Any, Any]) -> bool:
    """Whether all names and shapes in a state dict are the detector's."""
    own = {k: tuple(v.shape) for k, v in (*detector.named_parameters(), *detector.named_buffers())}
    have = {_plain(k): tuple(getattr(v, "shape", ())) for k, v in state.items()}
    return all(own.get(k) == shape for k, shape in have.items())


def _plain(key: Any) -> str:
    """A name without the prefixes of DDP and ``torch.compile``."""
    text = str(key)
    for prefix in ("module.", "_orig_mod."):
        text = text[len(prefix) :] if text.startswith(prefix) else text
    return text
