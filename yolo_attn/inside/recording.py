"""Record the gates of a detector while it runs: ``with yolo_attn.record_gates(model) as gates:``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import YoloAttnError, did_you_mean
from . import ratio
from .hooks import Session
from .layers import DECLARED, RATIO, UNKNOWN, Place, find_gates, network_of
from .moments import Moments

__all__ = ["Gate", "Gates", "record_gates", "recording"]


class Gate:
    """What was recorded of one gate.

    Args:
        place: Where it is.
        keep: Of how many images each is kept.
    """

    def __init__(self, place: Place, keep: int) -> None:
        self.place, self._keep = place, keep
        self.how = RATIO if place.gated is None else DECLARED
        self.axes = "" if place.gated is None else place.gated.axes
        bounds = None if place.gated is None else place.gated.bounds(place.module)
        self.moments = Moments(keep, bounds)

    def __repr__(self) -> str:
        return f"<gate of {self.place.location}: {self.axes or 'not seen yet'}, {self.images} images>"

    @property
    def name(self) -> str:
        """Its key in the mapping: the layer's name, and the gate's own where the layer has several."""
        return self.place.key

    @property
    def layer(self) -> str:
        """Name of the layer in the network, as in the state dict."""
        return self.place.layer

    @property
    def row(self) -> int | None:
        """Index of the row that the layer stands in."""
        return self.place.row

    @property
    def location(self) -> str:
        """Where it stands, for messages."""
        return self.place.location

    @property
    def images(self) -> int:
        """How many images were recorded."""
        return self.moments.images

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Least and greatest number that it can be; None where there is no bound or none is known."""
        return self.moments.bounds

    @property
    def mean(self) -> Any:
        """Mean over images, (C, h, w): h = w = 1 for a gate of the channels, C = 1 for one of the positions.

        A channel whose input was 0 in every image, so that its gate could not be told, has the mean of the others.

        Raises:
            YoloAttnError: No image was recorded.
        """
        m = self._seen()
        return self._filled(m.mean)

    @property
    def spread(self) -> Any:
        """Standard deviation over images, (C, h, w); of a gate of the positions, also within a cell of the grid."""
        m = self._seen()
        return (m.squares / m.count.clamp(min=1)).sqrt()

    @property
    def least(self) -> Any:
        """The least of the images, (C, h, w)."""
        return self._filled(self._seen().least)

    @property
    def most(self) -> Any:
        """The greatest of the images, (C, h, w)."""
        return self._filled(self._seen().most)

    @property
    def number(self) -> float:
        """The mean over everything: one number."""
        m = self._seen()
        return float((m.mean * m.count).sum() / m.count.sum().clamp(min=1))

    @property
    def dead(self) -> Any:
        """Which channels and cells let nothing through in 99 % of what was seen, (C, h, w) bool."""
        m = self._seen()
        return (m.count > 0) & (m.dead >= 0.99 * m.count)

    @property
    def saturated(self) -> Any:
        """Which channels and cells stand at an end of the gate's range other than 0 in 99 % of what was seen."""
        m = self._seen()
        return (m.count > 0) & (m.ended >= 0.99 * m.count)

    @property
    def channels(self) -> Any:
        """Mean gate of each channel in each of the first images, (N, C); NaN where it could not be told."""
        return _stacked(self._seen().channels)

    @property
    def maps(self) -> Any:
        """Mean gate of each cell in each of the first images, (N, h, w)."""
        return _stacked(self._seen().maps)

    @property
    def not_finite(self) -> Any:
        """In how many images the gate of each channel is NaN or infinite somewhere, (C,): there it counts in nothing."""
        self._seen()
        return self.moments.not_finite

    def still(self, tolerance: float = 0.02) -> float:
        """Share of the channels and cells whose spread over images is at most `tolerance`, of those that could be told.

        NaN where none could, since input or gate was not a finite number, or the input was 0.
        """
        return float((self.spread <= tolerance)[self._seen().count > 0].double().mean())

    def _filled(self, values: Any) -> Any:
        import torch

        m = self.moments
        return torch.where(m.count > 0, values, torch.as_tensor(self.number, dtype=values.dtype))

    def _seen(self) -> Moments:
        if self.moments.mean is None:
            raise YoloAttnError(f"{self.location}: no image was recorded; run the detector inside the 'with'")
        return self.moments


def _stacked(rows: list[Any]) -> Any:
    import torch

    return torch.stack(rows)


class Gates(Mapping[str, Gate]):
    """The gates of a network, by the name of their layer.

    A layer with several gates has one entry for each: ``gates["model.4/channel"]``, ``gates["model.4/spatial"]``.
    """

    def __init__(self, network: Any, keep: int) -> None:
        places, self.without = find_gates(network)
        self._all = {p.key: Gate(p, keep) for p in places}

    def __getitem__(self, name: str) -> Gate:
        if name in self._all:
            return self._all[name]
        parts = [k for k in self._all if k.rpartition("/")[0] == name]
        if parts:
            raise KeyError(f"{name} has several gates: {', '.join(parts)}")
        if name in self.without:
            raise KeyError(f"{name} has no gate: {self.without[name]}")
        raise KeyError(f"no gate is called {name!r}.{did_you_mean(str(name), list(self._all))}")

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def __repr__(self) -> str:
        return f"<{len(self)} gates: {', '.join(self)}>"

    def drop(self, name: str, why: str) -> None:
        """Take out a layer that turned out to have no gate, with the reason."""
        self.without[self._all.pop(name).layer] = why


@contextlib.contextmanager
def record_gates(model: Any, *, keep: int = 1000) -> Iterator[Gates]:
    """Record the gates of a detector while it runs::

        with yolo_attn.record_gates(model) as gates:
            model(images)
        gates["model.4"].mean  # (C, 1, 1)

    Forward hooks read each gate, and are removed at the end, also after an error. Only what runs in the thread that
    entered is recorded. The detector computes what it computes without them.

    Args:
        model: An ``ultralytics.YOLO``, an opened detector, a network of either host, or any ``nn.Module``.
        keep: Of how many images the gates of each are kept, beside the statistics over all.

    Returns:
        The gates by the name of their layer, filled as the detector runs. ``gates.without`` has the attention layers
        without a gate, with the reason.

    Raises:
        YoloAttnError: `model` is no network.
    """
    gates = Gates(network_of(model), keep)
    with recording(gates):
        yield gates


@contextlib.contextmanager
def recording(gates: Gates) -> Iterator[None]:
    """Go on recording into gates that are there, of the network that they are of."""
    by_layer: dict[str, list[Gate]] = {}
    for gate in gates.values():
        by_layer.setdefault(gate.layer, []).append(gate)
    with Session(traced=False) as session:
        for held in by_layer.values():
            _Reader(gates, held).install(session)
        yield


class _Reader:
    """The hooks of one layer."""

    def __init__(self, gates: Gates, held: list[Gate]) -> None:
        self.gates, self.held = gates, held
        self.module = held[0].place.module
        self.calls: dict[str, list[Any]] = {}
        self.given: Any = None

    def install(self, session: Session) -> None:
        """Set the hooks."""
        for at in {g.place.gated.at for g in self.held if g.place.gated is not None and g.place.gated.at}:
            session.after(self.module.get_submodule(at), self._layer(at))
        session.before(self.module, self._before)
        session.after(self.module, self._after)

    def _before(self, module: Any, args: tuple[Any, ...]) -> None:
        import torch

        self.calls, self.given = {}, None
        if self.held[0].how == RATIO and args and torch.is_tensor(args[0]):
            self.given = args[0].detach().clone()  # a user's module may change it in place

    def _layer(self, at: str) -> Any:
        def hook(module: Any, args: Any, output: Any) -> None:
            self.calls.setdefault(at, []).append(output.detach())

        return hook

    def _after(self, module: Any, args: tuple[Any, ...], output: Any) -> None:
        if not args:
            return
        first = args[0][0] if isinstance(args[0], (list, tuple)) else args[0]
        for gate in self.held:
            if gate.how == RATIO:
                self._by_ratio(gate, self.given, output)
            else:
                self._as_declared(gate, first, output)
        self.calls, self.given = {}, None

    def _as_declared(self, gate: Gate, x: Any, y: Any) -> None:
        import torch

        gated = gate.place.gated
        assert gated is not None
        if not gated.at:
            gate.moments.add(*ratio.over(x, y, gated.axes))
            return
        calls = self.calls.get(gated.at, [])
        if gated.call is not None:
            if gated.call >= len(calls):
                return
            found = calls[gated.call]
        else:
            found = torch.cat(calls, 1)
        found = gated.read(self.module, found.float())
        gate.moments.add(found.reshape(x.shape[0], -1, *found.shape[2:]))

    def _by_ratio(self, gate: Gate, x: Any, y: Any) -> None:
        if gate.name not in self.gates:
            return
        axes = gate.axes or ratio.recognise(x, y)
        if axes == "":
            return
        if axes is None or (axes != "value" and gate.images and not ratio.fits(x, y, axes)):
            self.gates.drop(gate.name, UNKNOWN)
            return
        gate.axes = axes
        gate.moments.add(*ratio.over(x, y, axes))
