"""What each of PyTorch's operations does to a factor on its input: carries it on, takes it into its weights, or neither.

The factor of a tensor is a tensor of the same shape: ``x`` stands for ``factor * x`` in the detector with the gate. An
operation that only moves values moves the factor likewise, and so is simply run on it. Operations are ATen's, into which
torch breaks up every layer, so that one table serves the blocks of every host and of users.
"""

from __future__ import annotations

from typing import Any, Callable

import torch
from torch import Tensor

__all__ = ["CARRIES", "FRESH", "HOMOGENEOUS", "IN_PLACE", "Unfoldable", "over_positions"]


class Unfoldable(Exception):
    """An operation cannot carry a factor on; the text says why, to follow the operation's name."""


# Results that do not depend on the values of their input, only on its shape.
FRESH = frozenset(
    "zeros_like ones_like empty_like full_like rand_like randn_like new_zeros new_ones new_empty new_full "
    "new_empty_strided".split()
)
# f(s x) = s f(x) for s >= 0, element by element.
HOMOGENEOUS = frozenset(["relu", "leaky_relu", "abs"])
IN_PLACE = {"relu_": "relu", "leaky_relu_": "leaky_relu"}

_MOVING = frozenset(
    "permute transpose t expand slice select split split_with_sizes unbind clone alias detach squeeze unsqueeze flip roll "
    "index_select index gather repeat unsafe_split unsafe_chunk upsample_nearest2d _upsample_nearest_exact2d unfold "
    "pixel_shuffle pixel_unshuffle reflection_pad2d replication_pad2d channel_shuffle native_channel_shuffle".split()
)
_SHAPING = frozenset(["view", "_unsafe_view", "_reshape_alias", "reshape"])
_AVERAGING = frozenset(
    ["avg_pool2d", "_adaptive_avg_pool2d", "adaptive_avg_pool2d", "upsample_bilinear2d", "upsample_bicubic2d"]
)
_LARGEST = frozenset(["max_pool2d_with_indices", "adaptive_max_pool2d", "max_pool2d"])


def over_positions(factor: Tensor) -> Tensor:
    """Return the factor of each channel, (C,), of a factor of shape (B, C, *).

    Raises:
        Unfoldable: It differs between images or positions.
    """
    one = factor[:1]
    if one.dim() > 2:
        one = one.flatten(2)[:, :, :1]
    channels = one.reshape(factor.shape[1])
    if not bool((factor == _spread(channels, factor.shape)).all()):
        raise Unfoldable("mixes positions that would have different factors")
    return channels


def _spread(channels: Tensor, shape: Any) -> Tensor:
    return channels.reshape(1, -1, *[1] * (len(shape) - 2)).expand(shape)


def _same_type(factor: Tensor, like: Tensor) -> Tensor:
    return factor if factor.shape == like.shape else factor.expand(like.shape)


def _moves(call: Call) -> Any:
    return call.again()


def _shapes(call: Call) -> Any:
    if call.out.dtype != call.args[0].dtype:
        raise Unfoldable("reads its bits")
    return call.factor(0).reshape(call.out.shape)


def _casts(call: Call) -> Any:
    return call.factor(0)


def _joins(call: Call) -> Any:
    parts = [call.factor_of(t) for t in call.args[0]]
    return call.func([p if p is not None else torch.ones_like(t) for p, t in zip(parts, call.args[0])], *call.args[1:], **call.kwargs)


def _multiplies(call: Call) -> Any:
    factors = [call.factor_of(a) for a in call.args[:2]]
    product = None
    for f in factors:
        if f is not None:
            product = f if product is None else product * f
    return _same_type(product, call.out)  # type: ignore[arg-type] # one of them has a factor


def _divides(call: Call) -> Any:
    if call.factor_of(call.args[1]) is not None:
        raise Unfoldable("divides by it")
    return _same_type(call.factor(0), call.out)


def _adds(call: Call) -> Any:
    a, b = (call.factor_of(v) for v in call.args[:2])
    if a is None or b is None:
        raise Unfoldable("adds it to features that the gate does not multiply")
    if not bool((a.expand(call.out.shape) == b.expand(call.out.shape)).all()):
        raise Unfoldable("adds it to features with another gate")
    return _same_type(a, call.out)


def _positive(call: Call) -> Tensor:
    factor = call.factor(0)
    if bool((factor < 0).any()):
        raise Unfoldable("keeps no negative factor")
    return factor


def _averages(call: Call) -> Any:
    return _spread(over_positions(call.factor(0)), call.out.shape)


def _takes_largest(call: Call) -> Any:
    out = call.out[0] if isinstance(call.out, (tuple, list)) else call.out
    factor = _spread(over_positions(_positive(call)), out.shape)
    return [factor, None] if isinstance(call.out, (tuple, list)) else factor


def _reduces(call: Call) -> Any:
    """Mean, sum or extremum over dimensions along which the factor does not change."""
    name = call.name
    factor = _positive(call) if name in ("amax", "amin", "max") else call.factor(0)
    dims = call.args[1] if len(call.args) > 1 else None
    dims = [dims] if isinstance(dims, int) else dims
    if not dims:
        raise Unfoldable("mixes channels that have different factors")
    keep = bool(call.args[2]) if len(call.args) > 2 else bool(call.kwargs.get("keepdim", False))
    first = factor.amax(dims, keepdim=True)
    if not bool((factor == first).all()):
        raise Unfoldable("mixes channels that have different factors")
    return first if keep else factor.amax(dims)


def _pads(call: Call) -> Any:
    value = call.args[2] if len(call.args) > 2 else 0
    x, out = call.args[0], call.out
    if value or len(call.args[1]) > 2 * (x.dim() - 2):
        raise Unfoldable("pads it with a number other than zero" if value else "pads channels")
    return _spread(over_positions(call.factor(0)), out.shape)  # zero times any factor is zero


class Call:
    """One operation at work.

    Args:
        func: The operation.
        args: Its arguments.
        kwargs: Its arguments by name.
        out: Its result.
        factor_of: Gives the factor of an argument, None for one without.
    """

    def __init__(self, func: Any, args: Any, kwargs: Any, out: Any, factor_of: Callable[[Any], Tensor | None]) -> None:
        self.func, self.args, self.kwargs, self.out, self.factor_of = func, args, kwargs, out, factor_of
        self.name = func._schema.name.partition("::")[2]

    def factor(self, position: int) -> Tensor:
        """Return the factor of an argument that has one.

        Raises:
            Unfoldable: It has none; another argument has.
        """
        factor = self.factor_of(self.args[position])
        if factor is None:
            raise Unfoldable("uses it in another role than its input")
        return factor

    def again(self) -> Any:
        """Run the operation on the factor of its first argument."""
        return self.func(self.factor(0), *self.args[1:], **self.kwargs)


CARRIES: dict[str, Callable[[Call], Any]] = {
    **dict.fromkeys(_MOVING, _moves),
    **dict.fromkeys(_SHAPING, _shapes),
    **dict.fromkeys(_AVERAGING, _averages),
    **dict.fromkeys(_LARGEST, _takes_largest),
    **dict.fromkeys(HOMOGENEOUS, _positive),
    **dict.fromkeys(("mean", "sum", "amax", "amin"), _reduces),
    **dict.fromkeys(("cat", "stack"), _joins),
    **dict.fromkeys(("add", "sub"), _adds),
    "_to_copy": _casts,
    "constant_pad_nd": _pads,
    "mul": _multiplies,
    "div": _divides,
    "neg": _casts,
}
