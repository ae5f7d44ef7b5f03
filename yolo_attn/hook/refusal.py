"""The message for a host that cannot be patched: its version and file, the reason, and the supported versions."""

from __future__ import annotations

import types
from typing import Any

__all__ = ["refusal"]


def refusal(host: Any, module: types.ModuleType, why: str) -> str:
    """Return the message.

    Args:
        host: The :class:`yolo_attn.patches.Host`.
        module: The module that cannot be patched.
        why: The reason.
    """
    told = host.explain(module) if host.explain is not None and module.__name__ == host.parser else ""
    why = f"{why}. {told}" if told else why
    return (
        f"cannot patch {host.name} {host.version(module)} ({getattr(module, '__file__', module.__name__)}): {why}. "
        f"Supported: {host.supported()}. {_lost(host, module)}"
    )


def _lost(host: Any, module: types.ModuleType) -> str:
    if module.__name__ == host.parser:
        return "Rows that name registered modules cannot be built with this host."
    return "What the README's table of patches lists for this function does not work with this host."
