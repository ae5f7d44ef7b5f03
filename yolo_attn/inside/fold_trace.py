"""Follow a constant gate through a detector at work, and find the weights that can take it.

The gate stands behind an activation, so it goes forward: the detector is run without it, its output is given a factor for
each channel, and every operation that meets the factor either carries it on (:mod:`.fold_rules`), takes it into its weights,
or refuses. Zero padding keeps this exact. Where forward refuses, the gate goes backward, if a convolution or a batch norm
stands before it with at most a ReLU between.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from .fold_constant import Constant, leaves, runs
from .fold_rules import CARRIES, FRESH, HOMOGENEOUS, IN_PLACE, Call, Unfoldable, over_positions

__all__ = ["Refused", "backward", "forward"]

_NORMS = ("native_batch_norm", "_native_batch_norm_legit_no_training", "_native_batch_norm_legit", "cudnn_batch_norm")
_LEAST = 0.01  # a batch norm's own mean is divided by factors above this


class Refused(Exception):
    """A gate cannot be folded; the text names the layer and what it does."""


# -- following -----------------------------------------------------------------------------------------------------


def forward(network: nn.Module, gate: Constant, image: Tensor) -> None:
    """Multiply the gate into the weights of every layer that reads it, in place.

    Args:
        network: The detector, in inference.
        gate: The gate, a layer of it.
        image: (B, 3, H, W) an image to run.

    Raises:
        Refused: A layer cannot take it; the network is unchanged.
    """
    trace = _run(network, gate, image)
    for name, roles in trace.roles.items():
        if any(role is not None for role in roles) and not all(_equal(role, roles[0]) for role in roles):
            raise Refused(f"{name} is used more than once, and not always behind the gate")
    taken = {name: roles[0] for name, roles in trace.roles.items() if roles[0] is not None}
    with torch.no_grad():
        for name, (kind, factor, extra) in taken.items():  # type: ignore[misc] # None is left out above
            _take(kind, network, name, factor, extra)
    gate.gone = True


def backward(network: nn.Module, gate: Constant, image: Tensor) -> None:
    """Multiply the gate into the output channels of the convolution or batch norm before it, in place.

    Args:
        network: As for :func:`forward`; so are the others.
        gate: See there.
        image: See there.

    Raises:
        Refused: There is none; the network is unchanged.
    """
    trace = _run(network, gate, image, follow=False)
    (names, positive), other = (trace.producer(run) for run in range(2))
    if other != (names, positive):
        raise Refused("what stands before it differs between training and inference")
    if positive and bool((gate.gate < 0).any()):
        raise Refused("the activation before it keeps no negative factor")
    for name in names:
        if len(trace.roles.get(name, ())) != 2:  # once in training, once in inference
            raise Refused(f"{name} is used more than once")
    with torch.no_grad():
        for name in names:
            parameter = network.get_parameter(name)
            parameter.mul_(gate.gate.reshape(-1, *[1] * (parameter.dim() - 1)))
    gate.gone = True


def _run(network: nn.Module, gate: Constant, image: Tensor, follow: bool = True) -> _Trace:
    trace = _Trace(network, follow)
    hooks = [
        hook
        for path, m in network.named_modules()
        for hook in (m.register_forward_pre_hook(trace.enter(path)), m.register_forward_hook(trace.leave))
    ]
    gate.trace = trace
    try:
        for training in (True, False):
            trace.begin()
            with runs(network, training):
                with trace:
                    y = network(image)
                trace.check_free(y)
    finally:
        gate.trace = None
        for hook in hooks:
            hook.remove()
    return trace


class _Event(NamedTuple):
    """One operation: the tensors that it reads and makes, by id, and its weight and bias, by name."""

    name: str
    reads: list[int]
    makes: list[int]
    weights: list[str]
    args: Any


Role = Any  # None, or (kind, factor, what else is needed)


class _Trace(TorchDispatchMode):
    """Watches every operation of a network at work.

    Args:
        network: The network.
        follow: Whether to follow the factor forward; otherwise only what stands before the gate is kept.
    """

    def __init__(self, network: nn.Module, follow: bool) -> None:
        super().__init__()
        self.follow = follow
        self.names = {id(t): name for name, t in (*network.named_buffers(), *network.named_parameters())}
        self.roles: dict[str, list[Role]] = {}
        self.where: list[str] = []
        self.runs: list[list[_Event]] = []
        self.ends: list[int] = []  # of each run, the input of the gate
        self.factors: dict[int, Tensor] = {}  # by the id of the tensor
        self.turned: dict[int, str] = {}  # transposed weights of linear layers, likewise
        self.alive: list[Any] = []  # no id is used again during a run

    def begin(self) -> None:
        """Forget the tensors of the run before."""
        self.factors, self.turned, self.alive = {}, {}, []
        self.runs.append([])
        self.ends.append(0)

    # -- where it is --------------------------------------------------------------------------------------------

    def enter(self, path: str) -> Any:
        """Return a hook that notes that a layer begins."""
        return lambda *_: self.where.append(path)

    def leave(self, *_: Any) -> None:
        """Note that a layer has ended."""
        self.where.pop()

    def passing(self, x: Tensor, gate: Tensor) -> Tensor:
        """Give the input of the gate a factor."""
        y = torch.ops.aten.alias(x)
        self.ends[-1] = id(x)
        self.alive.append((x, y))
        if self.follow and not bool((gate == 1).all()):
            before = self.factors.get(id(y))
            factor = gate.reshape(1, -1, *[1] * (x.dim() - 2)).expand(x.shape)
            self.factors[id(y)] = factor if before is None else before * factor
        return y

    def check_free(self, y: Any) -> None:
        """Refuse a factor on what the network returns."""
        for t in leaves(y):
            if id(t) in self.factors:
                raise Refused("it is an output of the detector")

    # -- each operation -----------------------------------------------------------------------------------------

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.partition("::")[2]
        out = func(*args, **kwargs)
        given, made = list(_tensors((args, kwargs))), list(_tensors(out))
        self.alive.append((given, made))
        weights = [self.names.get(id(t), "?") for t in args[1:3] if t is not None] if name in (*_NORMS, "convolution") else []
        self.runs[-1].append(_Event(name, [id(t) for t in given], [id(t) for t in made], weights, args))
        if name == "t" and id(args[0]) in self.names:
            self.turned[id(out)] = self.names[id(args[0])]
        try:
            scaled = sum(id(t) in self.factors for t in given)
            taken = self._takes(name, args)
            if taken and scaled > 1:
                raise Unfoldable("computes its weights from it")
            if scaled and not taken:
                self._carry(Call(func, args, kwargs, out, self._factor))
        except Unfoldable as exc:
            raise Refused(f"{self._layer()}: {exc} ({name})") from exc
        return out

    def _factor(self, value: Any) -> Tensor | None:
        return self.factors.get(id(value)) if isinstance(value, Tensor) else None

    def _carry(self, call: Call) -> None:
        if call.name in FRESH:
            return
        if call.name in IN_PLACE:
            if bool((call.factor(0) < 0).any()):
                raise Unfoldable("keeps no negative factor")
            return
        rule = CARRIES.get(call.name)
        if rule is None:
            raise Unfoldable("is not linear in it")
        factors = rule(call)
        outs = call.out if isinstance(call.out, (tuple, list)) else [call.out]
        for out, factor in zip(outs, factors if isinstance(factors, (tuple, list)) else [factors]):
            if factor is not None and not bool((factor == 1).all()):
                self.factors[id(out)] = factor
            elif id(out) in self.factors and out is not call.args[0]:
                del self.factors[id(out)]

    def _takes(self, name: str, args: Any) -> bool:
        """Whether the operation is a layer with weights; notes what they take."""
        if name == "convolution":
            x, weight, bias, *_, groups = args
            if bias is not None:
                self._note(bias, None)
            factor = self._factor(x)
            if factor is None:
                self._note(weight, None)
                return False
            kind = "transposed convolution" if args[6] else "convolution"
            self._note(weight, (kind, over_positions(factor), groups))
            return True
        if name in _NORMS:
            x, weight, bias, mean, variance = args[:5]
            factor = self._factor(x)
            role: Role = None
            if factor is not None:
                known = [self.names.get(id(t)) for t in (bias, mean, variance)]
                if weight is None or None in known:
                    raise Unfoldable("has no weights that could take it")
                role = ("norm", over_positions(factor), (args[-1], *known))
            for t in (weight, bias):
                if t is not None:
                    self._note(t, role if t is weight else None)
            return role is not None
        if name in ("addmm", "mm"):
            x, weight = args[-2:]
            factor = self._factor(x)
            turned = self.turned.get(id(weight))
            if turned is not None:
                role = None if factor is None else ("linear", over_positions(factor), None)
                self.roles.setdefault(turned, []).append(role)
            return turned is not None and factor is not None
        return False

    def _note(self, weight: Tensor, role: Role) -> None:
        name = self.names.get(id(weight))
        if name is not None:
            self.roles.setdefault(name, []).append(role)
        elif role is not None:
            raise Unfoldable("computes its weights")

    def _layer(self) -> str:
        return (self.where[-1] if self.where else "") or "the detector"

    # -- backward -----------------------------------------------------------------------------------------------

    def producer(self, run: int) -> tuple[list[str], bool]:
        """Return the weight and bias that multiply the input of the gate, and whether a ReLU stands between.

        Raises:
            Refused: There are none.
        """
        events, at, positive = self.runs[run], self.ends[run], False
        while True:
            changes = [e for e in events if at in e.reads and at in e.makes]
            other = next((e.name for e in changes if e.name not in IN_PLACE), None)
            if other is not None:
                raise Refused(f"{other} stands before it")
            maker = next((e for e in events if at in e.makes and at not in e.reads), None)
            readers = [e for e in events if at in e.reads and at not in e.makes]
            if maker is None or len(readers) != 1:
                raise Refused("others read what stands before it")
            positive = positive or bool(changes)
            if maker.name not in HOMOGENEOUS:
                break
            positive, at = True, maker.reads[0]
        if not maker.weights or "?" in maker.weights or (maker.name == "convolution" and maker.args[6]):
            raise Refused(f"{maker.name} stands before it")
        return maker.weights, positive


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for v in value:
            yield from _tensors(v)
    elif isinstance(value, dict):
        for v in value.values():
            yield from _tensors(v)


def _equal(a: Role, b: Role) -> bool:
    if a is None or b is None:
        return a is b
    return a[0] == b[0] and a[2] == b[2] and torch.equal(a[1], b[1])


def _take(kind: str, network: nn.Module, name: str, factor: Tensor, extra: Any) -> None:
    weight = network.get_parameter(name)
    if kind == "convolution":  # (out, in / groups, ...)
        groups = extra
        each = factor.reshape(groups, 1, -1).expand(groups, weight.shape[0] // groups, -1)
        weight.mul_(each.reshape(*weight.shape[:2], *[1] * (weight.dim() - 2)))
    elif kind == "transposed convolution":  # (in, out / groups, ...)
        weight.mul_(factor.reshape(-1, *[1] * (weight.dim() - 1)))
    elif kind == "linear":
        weight.mul_(factor)
    else:
        _take_norm(network, weight, factor, *extra)


def _take_norm(network: nn.Module, weight: Tensor, s: Tensor, eps: float, bias: str, mean: str, variance: str) -> None:
    """Let a batch norm of x compute what it did of s x, in training too where s is not close to zero."""
    b, m, v = network.get_parameter(bias), network.get_buffer(mean), network.get_buffer(variance)
    far = s.abs() >= _LEAST
    safe = torch.where(far, s, torch.ones_like(s))
    old = (v + eps).sqrt()
    new_v = v / safe**2
    new_m = torch.where(far, m / safe, m)
    new_w = weight * s * (new_v + eps).sqrt() / old
    b.add_(new_w * new_m / (new_v + eps).sqrt() - weight * m / old)
    weight.copy_(new_w)
    m.copy_(new_m)
    v.copy_(new_v)
