"""Shared parts of the attention modules: argument checks, reductions, gates, norms and the identity start.

Rules that every module keeps, so that it trains under AMP, deterministically, and exports with dynamic shapes:
reduce with ``mean``/``amax`` over dimensions, never with adaptive pooling objects (global ones in a traced graph); build nothing in ``forward``;
keep sums in fp32; return the dtype of the input. A bare parameter is called ``weight`` or ``bias``: the optimizers
of older hosts collect parameters by these two names and would never train another.

**Identity start.** A fresh gate is about 0.5, and four of them in series shrink the features of a pretrained
network to a sixteenth. Every module therefore takes ``start``: ``"paper"`` (the default: the paper's own
initialisation and formula) or ``"identity"``: the fresh module returns its input exactly, and gradients reach it
from the first step. Three means, each named in the class attribute ``identity``:

* the layer that computes the score starts at zero and the gate is ``2 * sigmoid``, which is exactly 1 there;
* the formula has a residual whose weight starts at zero;
* where neither exists, :class:`Blend` adds one learned number, ``x + w (y - x)`` with w = 0.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

__all__ = [
    "Affine",
    "BatchNorm",
    "Blend",
    "Gate",
    "GroupNorm",
    "LayerNorm",
    "Residual",
    "attend",
    "channel_norm",
    "check_channels",
    "check_flag",
    "check_integer",
    "check_kernel",
    "check_kernels",
    "check_number",
    "fit_groups",
    "full_precision",
    "hidden_channels",
    "identity_start",
    "leave_out",
    "match",
    "mean",
    "product",
    "softmax_mean",
    "softmax_over",
    "spatial_max",
    "spatial_mean",
    "traced",
    "wide",
    "zero_",
]

HALF = (torch.float16, torch.bfloat16)
FUSED_ATTENTION = tuple(int(v) for v in torch.__version__.split(".")[:2]) >= (2, 1)  # its argument `scale` is new there


def check_channels(channels: object, module: str) -> int:
    """Return `channels` if it is a positive integer.

    Raises:
        TypeError: It is a list, since the row's `from` names several inputs, or not an integer.
        ValueError: It is not positive.
    """
    if isinstance(channels, (list, tuple)):
        raise TypeError(f"{module} takes one input, but its row's 'from' names {len(channels)}")
    if isinstance(channels, bool) or not isinstance(channels, int):
        raise TypeError(f"{module} needs an integer number of channels, got {channels!r}")
    if channels < 1:
        raise ValueError(f"{module} needs at least one channel, got {channels}")
    return channels


def check_integer(value: object, name: str, least: int = 1) -> int:
    """Return `value` if it is an integer of at least `least`.

    Raises:
        ValueError: Anything else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
    return value


def check_number(value: object, name: str, least: float = -math.inf, *, above: bool = False) -> float:
    """Return `value` as a number of at least `least`; also strings such as ``1e-5``, which YAML does not read as one.

    Args:
        value: The value.
        name: Name of the option, for the message.
        least: Lower bound.
        above: Whether to refuse the bound itself.

    Raises:
        ValueError: It is not a finite number, or below the bound.
    """
    try:
        number = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number) or number < least or (above and number == least):
        bound = "" if least == -math.inf else f" {'above' if above else 'of at least'} {least:g}"
        raise ValueError(f"{name} must be a number{bound}, got {value!r}")
    return number


def check_flag(value: object, name: str) -> bool:
    """Return `value` if it is True or False.

    Raises:
        ValueError: It is anything else; the string ``no`` would count as true.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, got {value!r}")
    return value


def check_kernel(kernel_size: int, name: str = "kernel_size") -> int:
    """Return `kernel_size` if it is odd and positive, which keeps the size of the map.

    Raises:
        ValueError: It is even, below 1 or not an integer.
    """
    if isinstance(kernel_size, bool) or not isinstance(kernel_size, int) or kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"{name} must be odd and positive, got {kernel_size!r}")
    return kernel_size


def check_kernels(kernel_sizes: object, name: str = "kernel_sizes") -> tuple[int, ...]:
    """Return `kernel_sizes` if it lists at least two odd, positive numbers.

    Raises:
        ValueError: Anything else.
    """
    if not isinstance(kernel_sizes, (list, tuple)) or len(kernel_sizes) < 2:
        raise ValueError(f"{name} must list at least two kernels, got {kernel_sizes!r}")
    return tuple(check_kernel(k, name) for k in kernel_sizes)


def hidden_channels(channels: int, reduction: float, minimum: int = 1) -> int:
    """Return the width of a bottleneck, channels / reduction rounded down, never below `minimum`.

    Raises:
        ValueError: `reduction` or `minimum` is below 1 or not a number.
    """
    least = check_integer(minimum, "min_channels")
    return max(int(channels // check_number(reduction, "reduction", 1)), least)


def fit_groups(channels: int, groups: int, name: str = "groups") -> int:
    """Return the greatest number of groups that divides both `channels` and `groups`.

    Raises:
        ValueError: `groups` is below 1 or not an integer.
    """
    return math.gcd(channels, check_integer(groups, name))


def identity_start(start: str) -> bool:
    """Return whether the module begins as the identity.

    Raises:
        ValueError: `start` is neither ``paper`` nor ``identity``.
    """
    if start not in ("paper", "identity"):
        raise ValueError(f"start must be 'paper' or 'identity', got {start!r}")
    return start == "identity"


@torch.no_grad()
def zero_(*layers: nn.Module) -> None:
    """Set weight and bias of each layer to zero."""
    for layer in layers:
        for parameter in layer.parameters(recurse=False):
            parameter.zero_()


def match(y: Tensor, x: Tensor) -> Tensor:
    """Return `y` in the dtype of `x`; adds no node to an exported graph if they agree."""
    return y if y.dtype == x.dtype else y.to(x.dtype)


def wide(x: Tensor) -> Tensor:
    """Return `x` in fp32 if it is of half precision, else unchanged; adds no node to an exported graph of fp32."""
    return x.float() if x.dtype in HALF else x


def product(x: Tensor, y: Tensor) -> Tensor:
    """Return ``x * y`` in the type of `x`; in fp16, too large a product is clamped to 65504, the largest number.

    For formulas whose `y` is not a gate between 0 and 1.
    """
    if x.dtype != torch.float16:
        return x * match(y, x)
    end = torch.finfo(torch.float16).max
    return (x.float() * y.float()).clamp(-end, end).to(torch.float16)


def mean(x: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """Mean over `dim`, which stays with length 1, summed in fp32 so that half precision cannot overflow."""
    if x.dtype in HALF:
        return x.mean(dim, keepdim=True, dtype=torch.float32).to(x.dtype)
    return x.mean(dim, keepdim=True)


def spatial_mean(x: Tensor) -> Tensor:
    """Mean over height and width, (B, C, H, W) -> (B, C, 1, 1), summed in fp32: half precision cannot overflow.

    In a traced graph it is a global pooling, which runtimes and NPUs have a kernel for and keep their layout in.
    """
    return nn.functional.adaptive_avg_pool2d(x, 1) if torch.jit.is_tracing() else mean(x, (2, 3))


def spatial_max(x: Tensor) -> Tensor:
    """Maximum over height and width, (B, C, H, W) -> (B, C, 1, 1); deterministic on CUDA, unlike adaptive pooling.

    In a traced graph it is a global pooling, as in :func:`spatial_mean`: NPUs leave a general maximum to the CPU.
    """
    return nn.functional.adaptive_max_pool2d(x, 1) if torch.jit.is_tracing() else x.amax((2, 3), keepdim=True)


def softmax_mean(x: Tensor, score: Tensor) -> Tensor:
    """Sum over the positions, weighted by a softmax of `score` over them: (B, C, H, W), (B, 1, H, W) -> (B, C, 1, 1).

    In a graph for export it is a quotient of two means of ``exp(score - max)``, which needs neither a flattened map
    nor a matrix product of rank 3 that leaves one: LiteRT refuses that, and what asks for H and W is not needed.
    """
    if traced():
        share = (score - score.amax((2, 3), keepdim=True)).exp()  # OpenCV 5.0 does not pool a map of one channel
        return spatial_mean(x * share) / mean(share, (2, 3))
    weight = match(score.flatten(2).softmax(-1), x)  # (B, 1, HW)
    return (x.flatten(2) @ weight.transpose(1, 2)).unsqueeze(-1)


def softmax_over(x: Tensor, dim: int) -> Tensor:
    """Softmax over `dim`; in a graph for export it is the last one for a moment: over others MNN 3.6 overflows."""
    return x.transpose(dim, -1).softmax(-1).transpose(dim, -1) if traced() else x.softmax(dim)


def leave_out(score: Tensor, keep: Tensor, dim: int) -> Tensor:
    """Return `score` so that a softmax over `dim` gives nothing to what `keep`, ones and zeros, has zeros for.

    In a graph for export these are 1000 below the least, without a comparison, which NCNN has not, and without a
    number that fp16 has not.
    """
    if not traced():
        return score.masked_fill(keep == 0, -torch.inf)
    return score * keep + (score.amin(dim, keepdim=True) - 1000) * (1 - keep)


def channel_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Group norm of one channel a group, (B, C, H, W) -> (B, C, H, W), as the one operator that every runtime has."""
    return torch.instance_norm(x, weight, bias, None, None, True, 0.0, eps, False)


def traced() -> bool:
    """Return whether a graph for export is being recorded, by ``torch.jit.trace``, ``torch.onnx`` or ``torch.export``.

    A few modules are then written with other operators for the same numbers: converters and runtimes take no groups
    in the batch and no tensors of rank 5, and for training the shorter way is the quicker one.
    """
    exporting = getattr(getattr(torch, "compiler", None), "is_exporting", None)  # since torch 2.7
    return torch.jit.is_tracing() or torch.onnx.is_in_onnx_export() or bool(exporting and exporting())


def full_precision(x: Tensor) -> Any:
    """Return a context without autocast on the device of `x`."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


def attend(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None, keep: Tensor | None = None
) -> Tensor:
    """``softmax(query @ key^T + bias) @ value``, (B, L, D), (B, M, D), (B, M, E) -> (B, L, E), the scores in fp32.

    With heads, all of them and the result have the shape (B, heads, L, D). Keys for which `keep` has a zero are left out.

    On a CPU, and in half precision on a GPU, torch's fused kernel does not keep the L x M scores, which at 160 x 160
    positions are 2.6 GB. In fp32 a GPU is quicker without it; of deterministic algorithms the fused kernels warn; and
    a graph for export is smaller without it.
    """
    fused = not query.is_cuda or (query.dtype in HALF and not torch.are_deterministic_algorithms_enabled())
    if fused and FUSED_ATTENTION and bias is None and keep is None and not torch.jit.is_tracing():
        one = query.dim() == 3
        q, k, v = (t.unsqueeze(1) if one else t for t in (query, key, value))
        q, k, v = (t.contiguous() for t in (q, k, v))  # the kernels need contiguous rows
        y = nn.functional.scaled_dot_product_attention(q, k, v, scale=1.0)
        return y.squeeze(1) if one else y
    with full_precision(query):
        score = wide(query) @ wide(key).transpose(-2, -1)
        score = score if bias is None else score + wide(bias)
        weight = (score if keep is None else leave_out(score, wide(keep), -1)).softmax(-1)
        return match(weight, value) @ value


class Gate(nn.Module):
    """The function that turns a score into a weight between 0 and `scale`: ``sigmoid`` or ``hard_sigmoid``.

    The hard sigmoid is ``relu6(x + 3) / 6`` (1905.02244, section 5.2), as in torch and ONNX.

    Args:
        gate: ``sigmoid`` or ``hard_sigmoid``.
        start: ``identity`` doubles the weight, so that the score 0 gives exactly 1.
    """

    def __init__(self, gate: str = "sigmoid", start: str = "paper") -> None:
        super().__init__()
        if gate not in ("sigmoid", "hard_sigmoid"):
            raise ValueError(f"gate must be 'sigmoid' or 'hard_sigmoid', got {gate!r}")
        self.gate = gate
        self.scale = 2.0 if identity_start(start) else 1.0

    def forward(self, score: Tensor) -> Tensor:
        """Return the gate of `score`, same shape."""
        weight = score.sigmoid() if self.gate == "sigmoid" else nn.functional.hardsigmoid(score)
        return weight if self.scale == 1.0 else weight * self.scale

    def of_map(self, score: Tensor) -> Tensor:
        """Return the gate of a spatial map that comes from a convolution.

        In a traced graph it is written 1 - gate(-score), the same number: OpenCV 5.0 fuses convolution, gate and
        product, and loses the shape where the map has fewer channels than what it multiplies.
        """
        return self.scale - self(-score) if torch.jit.is_tracing() else self(score)

    def extra_repr(self) -> str:
        """Show the function."""
        return self.gate if self.scale == 1.0 else f"{self.scale:g} * {self.gate}"


class Blend(nn.Module):
    """``x + w (y - x)`` with one learned w that starts at 0: the identity start of formulas that have no other."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))  # without a dimension, it leaves half precision half

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the blend of input `x` and attended `y`, same shape."""
        return x + self.weight * (y - x)

    @staticmethod
    def when(start: str) -> Blend | None:
        """Return a blend for ``identity``, None for ``paper``."""
        return Blend() if identity_start(start) else None


class Residual(nn.Module):
    """``x + w y`` with one learned w that starts at 0, the gamma of several papers."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the sum, same shape as input `x` and branch `y`."""
        return x + self.weight * y


class Affine(nn.Module):
    """``w * x + b`` with one w and one b for each channel, (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C.
        weight: Initial w.
        bias: Initial b; None for no b.
    """

    def __init__(self, channels: int, weight: float = 1.0, bias: float | None = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((1, channels, 1, 1), weight))
        self.bias = None if bias is None else nn.Parameter(torch.full((1, channels, 1, 1), bias))

    def forward(self, x: Tensor) -> Tensor:
        """Scale and shift `x`."""
        y = self.weight * x
        return y if self.bias is None else y + self.bias


class BatchNorm(nn.BatchNorm2d):
    """Batch norm that also trains on a single value for each channel.

    Hosts run one image through a fresh model in training mode to learn its strides. The variance of one value does
    not exist and torch raises; the running statistics are used instead and not changed.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise `input`, (B, C, H, W) -> (B, C, H, W)."""
        if self.training and input.shape[0] * input.shape[2] * input.shape[3] == 1:
            return nn.functional.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        return super().forward(input)


class GroupNorm(nn.GroupNorm):
    """Group norm that accepts groups of a single value, such as one channel a group on a map of 1 x 1."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise `input`, (B, C, *) -> (B, C, *), in its own dtype."""
        return match(torch.group_norm(input, self.num_groups, self.weight, self.bias, self.eps), input)


class LayerNorm(nn.LayerNorm):
    """Layer norm over the channels of each position, (B, C, H, W) -> (B, C, H, W)."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise `input`, in its own dtype."""
        return match(super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), input)
