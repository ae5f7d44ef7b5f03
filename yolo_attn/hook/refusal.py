"""The one line that says why a host cannot be hooked: host, version, file, what is missing, what is supported."""

from __future__ import annotations

import types
from typing import Any

__all__ = ["refusal"]


def refusal(host: Any, module: types.ModuleType, why: str) -> str:
    told = host.explain(module) if host.explain is not None and module.__name__ == host.parser else ""
    why = f"{why}. {told}" if told else why
    return (
        f"cannot hook {host.name} {host.version(module)} ({getattr(module, '__file__', module.__name__)}): {why}. "
        f"Supported: {host.supported()}. {_lost(host, module)}"
    )


def _lost(host: Any, module: types.ModuleType) -> str:
    if module.__name__ == host.parser:
        return "Rows naming registered modules will not build with this host."
    return "What the README's table says of this function does not work with this host."
