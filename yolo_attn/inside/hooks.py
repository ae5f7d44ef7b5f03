"""Hooks of one thread for the time of a ``with``, on a network and on the copies that a host makes of it meanwhile."""

from __future__ import annotations

import threading
from typing import Any, Callable

__all__ = ["Session"]


class Session:
    """The hooks that were set together.

    A host predicts and validates with a copy of the network that it is given, and a copy has the hooks as well: they do
    there what they do in the original, and are removed from both.

    Args:
        traced: Whether they act while a graph is traced, too.
    """

    def __init__(self, *, traced: bool) -> None:
        self.thread, self.open, self.traced = threading.get_ident(), True, traced
        self._handles: list[Any] = []
        self._copies: list[Any] = []  # modules, out of copies of the network

    def before(self, module: Any, function: Callable[..., Any]) -> None:
        """Call ``function(module, args)`` before each forward pass of a module."""
        self._handles.append(module.register_forward_pre_hook(Hook(self, module, function)))

    def after(self, module: Any, function: Callable[..., Any], *, first: bool = False) -> None:
        """Call ``function(module, args, output)`` after each forward pass, `first` before hooks that were there."""
        handle = module.register_forward_hook(Hook(self, module, function))
        if first:
            module._forward_hooks.move_to_end(handle.id, last=False)  # `prepend=True` of torch 2.0
        self._handles.append(handle)

    def close(self) -> None:
        """Remove all of them."""
        self.open = False
        for handle in self._handles:
            handle.remove()
        for module in self._copies:
            for held in (module._forward_hooks, module._forward_pre_hooks):
                for key in [k for k, h in held.items() if isinstance(h, Hook) and h.session is self]:
                    del held[key]
        self._handles, self._copies = [], []

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Hook:
    """A hook that a copy of its module shares, and that is nothing in a pickle."""

    def __init__(self, session: Session, module: Any, function: Callable[..., Any]) -> None:
        self.session, self.function = session, function
        self._modules = [module]

    def __call__(self, module: Any, *given: Any) -> Any:
        import torch

        s = self.session
        if not s.open or threading.get_ident() != s.thread or (torch.jit.is_tracing() and not s.traced):
            return None
        if not any(module is m for m in self._modules):
            self._modules.append(module)
            self.session._copies.append(module)
        return self.function(module, *given)

    def __deepcopy__(self, memo: Any) -> Hook:
        return self

    def __reduce__(self) -> Any:
        return _nothing, ()


def _nothing() -> Callable[..., None]:
    return _silent


def _silent(*_: Any) -> None:
    """What is left of a hook in a pickle."""
