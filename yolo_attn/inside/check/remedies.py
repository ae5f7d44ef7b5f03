"""What to change, by what torch says: the errors that modules of attention meet again and again."""

from __future__ import annotations

import re

__all__ = ["remedy_for"]

_KNOWN: tuple[tuple[str, str], ...] = (
    (
        r"more than 1 value per channel",
        "batch normalization behind global pooling sees one value a channel: leave it out, or use nn.GroupNorm(1, C)",
    ),
    (r"view size is not compatible", "write reshape or flatten in place of view: a channels-last map is not contiguous in this order"),
    (r"[Cc]an't pickle|[Cc]an't get local|cannot pickle|not the same object", "use a function of the file or a method: a lambda or a local class cannot be pickled"),
    (r"inplace operation|in-place operation", "write to a new tensor: y = x * g and not x *= g or x.mul_(g)"),
    (
        r"not compiled with CUDA|No CUDA GPUs|NVIDIA driver|two different devices|same device|different device",
        "take the device from the input (device=x.device), or make the tensor in __init__ with self.register_buffer",
    ),
    (
        r"scalar type|same dtype|should be the same|must have the same dtype|Input type|mat1 and mat2 must have|but found \w*(Half|Float|Double)",
        "take the dtype from the input (dtype=x.dtype), or y.to(x.dtype) before they meet",
    ),
    (r"Only Tensors created explicitly|deepcopy protocol", "keep no result of forward in self; if it is for a look only, self.seen = y.detach()"),
    (r"adaptive", "x.mean((2, 3), keepdim=True) for one value; nn.AdaptiveAvgPool2d to more cells needs a size that is known"),
    (
        r"Sizes of tensors must match|size of tensor a|must match the size",
        "bring the map back to the input's size: pad by kernel // 2, or F.interpolate(y, size=x.shape[-2:])",
    ),
    (r"mat1 and mat2 shapes|shapes cannot be multiplied|normalized_shape", "build no layer for one H x W: pool to 1 x 1 first, or use a 1 x 1 convolution"),
    (r"is invalid for input of size|shape '\[", "compute with any H x W: pad to a multiple, or pool, before the map is cut into windows"),
    (r"Kernel size can't be greater|[Oo]utput size is too small|should be less than|[Pp]adding size", "pad, or clamp the kernel to the map: P5 of a small image is a few pixels"),
    (r"does not require grad|no graph", "let the gradient pass: no .detach(), .data, torch.no_grad() or rounding between input and output"),
    (r"divide by zero|division by zero|modulo by zero", "bound the divisor: max(1, channels // reduction)"),
    (r"expected input\[.*channels|number of channels", "build the layer for the channels that arrive: the first parameter of the constructor"),
)  # fmt: skip


def remedy_for(said: str, default: str = "") -> str:
    """Return the remedy for an error's text; `default` if none is known."""
    return next((remedy for pattern, remedy in _KNOWN if re.search(pattern, said)), default)
