"""Run a detector with gates that do not look: each replaced by a constant while a ``with`` lasts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import YoloAttnError, did_you_mean
from . import ratio
from .hooks import Session
from .layers import Place, find_gates, network_of
from .recording import Gate

__all__ = ["frozen"]


@contextlib.contextmanager
def frozen(model: Any, means: Mapping[str, Any]) -> Iterator[None]:
    """Replace gates by constants while a detector runs::

        with record_gates(model) as gates:
            model(images)
        with frozen(model, gates):                          # each at its mean
            model(images)
        with frozen(model, {"model.4": gates["model.4"].number}):    # one layer, one number
            model(images)

    Forward hooks do it, in the thread that entered, and are removed at the end, also after an error. The weights and
    the layers stay as they are.

    Args:
        model: As in :func:`yolo_attn.record_gates`.
        means: For each gate to freeze, by its name, a recorded :class:`Gate` (its mean is taken), a number, or a tensor
            (C, h, w) of which C, or h and w, may be 1. A map is resized to the layer's own size.

    Raises:
        YoloAttnError: A name is that of no gate, or a tensor does not fit one.
    """
    import torch

    network = network_of(model)
    places = {p.key: p for p in find_gates(network)[0]}
    chosen: dict[str, list[tuple[Place, Any]]] = {}
    for name, value in means.items():
        place = places.get(name)
        if place is None:
            raise YoloAttnError(f"no gate is called {name!r}.{did_you_mean(str(name), list(places))} Gates: {', '.join(places) or 'none'}")
        constant = torch.as_tensor(value.mean if isinstance(value, Gate) else value).detach().float()
        if constant.dim() not in (0, 3):
            raise YoloAttnError(f"{place.location}: a constant gate is a number or (C, h, w), got {tuple(constant.shape)}")
        chosen.setdefault(place.layer, []).append((place, constant.reshape(1, *(constant.shape or (1, 1, 1)))))
    with Session(traced=True) as session:
        for held in chosen.values():
            _Freezer(held).install(session)
        yield


class _Freezer:
    """The hooks of one layer."""

    def __init__(self, held: list[tuple[Place, Any]]) -> None:
        self.held = held
        self.module = held[0][0].module
        self.calls: dict[str, int] = {}
        self.batch = 1
        self.given: Any = None

    def install(self, session: Session) -> None:
        """Set the hooks before any that records, which then sees the constant."""
        session.before(self.module, self._before)
        for at in {p.gated.at for p, _ in self.held if p.gated is not None and p.gated.at}:
            session.after(self.module.get_submodule(at), self._layer(at), first=True)
        if any(p.alone for p, _ in self.held):
            session.after(self.module, self._whole, first=True)

    def _before(self, module: Any, args: tuple[Any, ...]) -> None:
        if not args:
            return
        self.calls, self.given = {}, None
        x = args[0][0] if isinstance(args[0], (list, tuple)) else args[0]
        self.batch = x.shape[0]
        place = self.held[0][0]
        if place.alone:
            self.given = x.clone() if place.gated is None else x  # a user's module may change it in place

    def _whole(self, module: Any, args: Any, output: Any) -> Any:
        if self.given is None:
            return None
        place, constant = self.held[0]
        x, self.given = self.given, None
        if place.gated is None and ratio.recognise(x, output) is None:
            raise YoloAttnError(f"{place.location}: cannot be frozen, since its output is no product of its input and a gate")
        _check(place, constant, x)
        return (x.float() * _sized(constant, x)).to(output.dtype)

    def _layer(self, at: str) -> Any:
        def hook(module: Any, args: Any, output: Any) -> Any:
            call = self.calls.get(at, 0)
            self.calls[at] = call + 1
            for place, constant in self.held:
                gated = place.gated
                if gated is None or gated.at != at or gated.call not in (None, call):
                    continue
                whole = gated.back(self.module, _sized(constant, output))
                width = output.numel() // (self.batch * output.shape[2] * output.shape[3])  # channels of one image
                if whole.shape[1] == 1:
                    whole = whole.expand(-1, width, -1, -1)
                elif gated.call is None:  # of all calls, joined along the channels
                    whole = whole[:, call * width : (call + 1) * width]
                if whole.shape[1] != width:
                    raise YoloAttnError(f"{place.location}: has {width} channels, and the constant {constant.shape[1]}")
                return whole.expand(self.batch, -1, *output.shape[2:]).reshape(output.shape).to(output.dtype)
            return None

        return hook


def _check(place: Place, constant: Any, x: Any) -> None:
    if constant.shape[1] not in (1, x.shape[1]):
        raise YoloAttnError(f"{place.location}: has {x.shape[1]} channels, and the constant {constant.shape[1]}")


def _sized(constant: Any, x: Any) -> Any:
    """A constant on the device of a map and in its size, where it is a map itself."""
    import torch

    constant = constant.to(x.device)
    if constant.shape[2] * constant.shape[3] == 1 or constant.shape[2:] == x.shape[2:]:
        return constant
    return torch.nn.functional.interpolate(constant, size=tuple(x.shape[2:]), mode="bilinear", align_corners=False)
